"""Normalization in deep residual networks: the norms, the ResNet and the machinery of the study."""
