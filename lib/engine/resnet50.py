"""torchvision's ResNet-50 with ImageNet's weights, as a backbone."""

from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from lib.engine.files import sha256, write_file


class ResNet50(nn.Module):
    """torchvision's ResNet-50 with a new last layer of r classes, for images of any size, which are enlarged to 224×224.

    Images (N, 3, H, W) -> logits (N, r). `pixels` lets images that are normalized by their own mean and standard deviation
    reach the network as those of ImageNet would.
    """

    side = 224  # of the images that ImageNet's weights were trained and are scored on
    at_once = 50  # images in eval mode, for memory

    def __init__(self, r: int):
        super().__init__()
        self.body = torchvision.models.resnet50()
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


def weights_entry():
    return torchvision.models.ResNet50_Weights.IMAGENET1K_V2


def weights_file() -> Path:
    """Where torchvision keeps ImageNet's weights for ResNet-50; the folder is PyTorch Hub's, which TORCH_HOME moves."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(weights_entry().url).name


def imagenet_weights(file: str | Path = "") -> dict[str, Tensor]:
    """torchvision's ResNet-50 without its last layer: from `file`, or from PyTorch's cache, or downloaded with a progress bar.
    The file's SHA-256 is held against its name, as torchvision does. ValueError says what could not be had."""
    target = weights_file()
    expected = target.stem.rpartition("-")[2]
    if file:
        source = Path(file).expanduser()
        if not source.is_file():
            raise ValueError(f"weights is {source}, which is no file; give torchvision's {target.name}")
        if not sha256(source.read_bytes()).startswith(expected):
            raise ValueError(f"{source} is not torchvision's {target.name}: its SHA-256 does not begin with {expected}")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file(target, source.read_bytes())
    if target.is_file() and not sha256(target.read_bytes()).startswith(expected):
        raise ValueError(f"{target} is damaged: its SHA-256 does not begin with {expected}; remove it to download it again")
    try:
        state = weights_entry().get_state_dict(progress=True, check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"ImageNet's weights for ResNet-50 are not in {target.parent} and could not be downloaded from "
            f"{weights_entry().url} ({error}); give the file, or another backbone"
        ) from None
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
