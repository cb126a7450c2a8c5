"""The network of a run; beside the study's own an earlier study's six-convolution CNN, and torchvision's ResNet-50."""

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from lib.engine.compiled import compiled
from lib.engine.resnet50 import ResNet50
from lib.resnet import ResNet

if TYPE_CHECKING:
    from lib.run import Run

ACTIVATIONS = {"relu": nn.ReLU, "identity": nn.Identity, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
#: What stands after the fifth convolution and after the second linear layer: batch norm, dropout or nothing.
REGULARIZERS = ("torch_bn", "dropout", "nn")


def network(run: "Run") -> nn.Module:
    """The network that a run trains, with new weights, in its fast form."""
    if run.model == "cnn":
        return compiled(CNN(run.classes, run.norm, run.activation))
    if run.model == "resnet50":
        return ResNet50(run.classes)
    return compiled(ResNet(run.n, run.classes, run.norm, run.group_size, run.initialization))


class CNN(nn.Module):
    """CNN(r, norm, activation): six convolutions and four linear layers, r classes; with batch norm and r = 10, 3,430,922
    parameters.

    Images (N, 3, H, W) -> logits (N, r). The images are 32×32, as it was printed, or of another size from 8×8, whose last
    maps are then averaged to 13×13. `norm` is one of REGULARIZERS (dropout with PyTorch's rate of a half), `activation` one of
    ACTIVATIONS, after every layer but the last, and after the norm where there is one.
    """

    least = 8  # side of the images
    maps = 13  # side of the last maps

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
        """Images (N, 3, H, W) -> the penultimate activations (N, 256); `linear` turns them into logits."""
        if x.dim() != 4 or x.shape[1] != 3 or min(x.shape[2:]) < self.least:
            raise ValueError(
                f"the CNN was given shape {tuple(x.shape)}; it takes (N, 3, H, W), both sides at least {self.least}"
            )
        maps = self.convolutions(x)
        if maps.shape[2:] != (self.maps, self.maps):
            maps = F.adaptive_avg_pool2d(maps, self.maps)
        return self.hidden(maps)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x))
