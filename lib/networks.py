"""The network of a run; beside the study's own an earlier study's six-convolution CNN, and torchvision's ResNet-50."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.engine.compiled import compiled
from lib.norms import gates
from lib.resnet import ResNet

ACTIVATIONS = {"relu": nn.ReLU, "identity": nn.Identity, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
#: What stands after the fifth convolution and after the second linear layer: batch norm, dropout or nothing.
REGULARIZERS = ("torch_bn", "dropout", "nn")


def network(run) -> nn.Module:
    """The network that a run trains, with new weights, in its fast form."""
    if run.model == "cnn":
        return compiled(CNN(run.classes, run.norm, run.activation))
    if run.model == "resnet50":
        return ResNet50(run.classes)
    resnet = compiled(ResNet(run.n, run.classes, run.norm, run.group_size, run.initialization))
    for rho in gates(resnet).values():
        nn.init.constant_(rho, run.gate)
    return resnet


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


class ResNet50(nn.Module):
    """torchvision's ResNet-50 with a new last layer of r classes, for images of any size, which are enlarged to 224×224.

    Images (N, 3, H, W) -> logits (N, r). `pixels` lets images that are normalized by their own mean and standard deviation
    reach the network as those of ImageNet would.
    """

    side = 224  # of the images that ImageNet's weights were trained and are scored on
    at_once = 50  # images in eval mode, for memory

    def __init__(self, r: int):
        super().__init__()
        from torchvision import models  # slow to import, and seldom needed

        self.body = models.resnet50()
        self.body.fc = nn.Identity()
        self.linear = nn.Linear(2048, r)
        self.register_buffer("scale", torch.ones(3, 1, 1))
        self.register_buffer("shift", torch.zeros(3, 1, 1))

    def pixels(self, mean: Tensor, std: Tensor) -> None:
        """`mean`, `std` (3,): those with which the images are normalized, in [0, 1]."""
        imagenet_mean, imagenet_std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).to(mean)
        self.scale.copy_((std / imagenet_std)[:, None, None])
        self.shift.copy_(((mean - imagenet_mean) / imagenet_std)[:, None, None])

    def features(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> the penultimate activations (N, 2048); `linear` turns them into logits."""
        if x.dim() != 4 or x.shape[1] != 3:
            raise ValueError(f"ResNet-50 was given shape {tuple(x.shape)}; it takes (N, 3, H, W)")
        return torch.cat([self.enlarged(part) for part in x.split(len(x) if self.training else self.at_once)])

    def enlarged(self, x: Tensor) -> Tensor:
        return self.body(F.interpolate(x * self.scale + self.shift, (self.side, self.side), mode="bilinear"))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x))
