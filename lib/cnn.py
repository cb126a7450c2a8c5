"""The six-convolution network of an earlier study of optimizers, norms, activations and losses on CIFAR-10."""

from torch import Tensor, nn

ACTIVATIONS = {"relu": nn.ReLU, "identity": nn.Identity, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
#: What stands after the fifth convolution and after the second linear layer: batch norm, dropout or nothing.
REGULARIZERS = ("torch_bn", "dropout", "nn")


class CNN(nn.Module):
    """CNN(r, norm, activation): six convolutions and four linear layers, r classes; with batch norm and r = 10, 3,430,922
    parameters.

    Images (N, 3, 32, 32) -> logits (N, r). `norm` is one of REGULARIZERS (dropout with PyTorch's rate of a half), `activation`
    one of ACTIVATIONS, after every layer but the last, and after the norm where there is one.
    """

    side = 32  # of the images

    def __init__(self, r: int, norm: str = "torch_bn", activation: str = "relu"):
        super().__init__()
        act = ACTIVATIONS[activation]
        two, one = {
            "torch_bn": (lambda: nn.BatchNorm2d(14), lambda: nn.BatchNorm1d(512)),
            "dropout": (nn.Dropout2d, nn.Dropout),
            "nn": (nn.Identity, nn.Identity),
        }[norm]
        self.convolutions = nn.Sequential(
            *(nn.Conv2d(3, 6, 3), act(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), act(), nn.Conv2d(8, 10, 1), act()),
            *(nn.Conv2d(10, 12, 1), act(), nn.Conv2d(12, 14, 1), two(), act(), nn.Conv2d(14, 16, 1), act()),
        )  # (N, 16, 13, 13)
        self.hidden = nn.Sequential(
            *(nn.Flatten(), nn.Linear(16 * 13 * 13, 1024), act(), nn.Linear(1024, 512), one(), act()),
            *(nn.Linear(512, 256), act()),
        )
        self.linear = nn.Linear(256, r)

    def features(self, x: Tensor) -> Tensor:
        """Images (N, 3, 32, 32) -> the penultimate activations (N, 256); `linear` turns them into logits."""
        if x.shape[1:] != (3, self.side, self.side):
            raise ValueError(f"the CNN was given shape {tuple(x.shape)}; it takes (N, 3, {self.side}, {self.side})")
        return self.hidden(self.convolutions(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x))
