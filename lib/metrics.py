"""Scores of a classification, by scikit-learn, and quantiles of features.

The functions import scikit-learn themselves: it is slow to load, and where runs are only read it is not needed.
"""

import numpy as np
import pandas as pd

QUANTILES = {"q01": 0.01, "q20": 0.20, "q80": 0.80, "q99": 0.99}


def scores(labels: np.ndarray, predictions: np.ndarray, classes: int) -> dict[str, float]:
    """accuracy, micro_f1 and macro_f1, as fractions. With one label per image the first two are the same number."""
    from sklearn.metrics import accuracy_score, f1_score

    kwargs = {"labels": range(classes), "zero_division": 0.0}
    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "micro_f1": float(f1_score(labels, predictions, average="micro", **kwargs)),
        "macro_f1": float(f1_score(labels, predictions, average="macro", **kwargs)),
    }


def per_class(labels: np.ndarray, predictions: np.ndarray, classes: tuple[str, ...]) -> pd.DataFrame:
    """One row per class: precision, recall, f1 (fractions) and support (images)."""
    from sklearn.metrics import precision_recall_fscore_support

    numbers = precision_recall_fscore_support(labels, predictions, labels=range(len(classes)), zero_division=0.0)
    return pd.DataFrame(dict(zip(("precision", "recall", "f1", "support"), numbers, strict=True)), index=list(classes))


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: tuple[str, ...]) -> pd.DataFrame:
    """Images by true class (rows) and predicted class (columns)."""
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(labels, predictions, labels=range(len(classes)))
    return pd.DataFrame(counts, index=list(classes), columns=list(classes))


def quantiles(features: np.ndarray) -> dict[str, float]:
    """The 1st, 20th, 80th and 99th percentile of all values of the penultimate features (N, channels)."""
    return {name: float(value) for name, value in zip(QUANTILES, np.quantile(features, list(QUANTILES.values())), strict=True)}
