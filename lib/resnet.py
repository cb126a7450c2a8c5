"""The CIFAR ResNet of He et al. 2016, section 4.2: 6n+2 layers, widths 16, 32, 64, parameter-free shortcuts."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.norms import make_norm

INITIALIZATIONS = ("he", "fixup")


def conv3x3(inputs: int, outputs: int, stride: int, norm: str) -> nn.Conv2d:
    """A padded 3×3 convolution; its bias is left out where a norm follows, which would only remove or repeat it."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=norm == "nn")


class Block(nn.Module):
    """Two 3×3 convolutions, each followed by the norm, and a shortcut around both."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str, group_size: int):
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride, norm)
        self.norm1 = make_norm(norm, outputs, group_size)
        self.conv2 = conv3x3(outputs, outputs, 1, norm)
        self.norm2 = make_norm(norm, outputs, group_size)
        self.new_channels = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        """He et al.'s option A: every second pixel, with zeros for the new channels, half of them on either side."""
        if not self.new_channels:
            return x
        half = self.new_channels // 2
        x = F.avg_pool2d(x, 1, self.conv1.stride)  # x[:, :, ::2, ::2], but its gradient keeps channels-last memory
        return F.pad(x, (0, 0, 0, 0, half, self.new_channels - half))


class ResNet(nn.Module):
    """ResNet(n, r, norm): 6n+2 layers, r classes, `norm` a key of lib.norms.NORMS after every convolution.

    Images (N, 3, H, W) -> logits (N, r); H and W must be multiples of 4. With BN and r = 10: 172,506 parameters for
    n = 2, 269,722 for n = 3. Convolutions start from He's normal distribution (fan-out), biases from zero; with `fixup`
    (Zhang, Dauphin & Ma 2019, without their scalar multipliers) each block's second convolution and the last layer start from
    zero, and the first ones L^(-1/2) times as large, where L is the number of blocks.
    """

    stride = 4  # of the last feature map to the image

    def __init__(self, n: int, r: int, norm: str = "torch_bn", group_size: int = 4, initialization: str = "he"):
        super().__init__()
        for name, value, least in (("n", n, 1), ("r", r, 2)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} is {value!r}; it must be an integer of at least {least}")
        if initialization not in INITIALIZATIONS:
            raise ValueError(f"unknown initialization {initialization!r}; allowed are {', '.join(INITIALIZATIONS)}")
        self.n, self.norm = n, norm
        self.conv1 = conv3x3(3, 16, 1, norm)
        self.norm1 = make_norm(norm, 16, group_size)
        self.layer1 = self.stage(16, 16, 1, group_size)  # (N, 16, H, W)
        self.layer2 = self.stage(16, 32, 2, group_size)  # (N, 32, H/2, W/2)
        self.layer3 = self.stage(32, 64, 2, group_size)  # (N, 64, H/4, W/4)
        self.linear = nn.Linear(64, r)
        self.reset_parameters()
        if initialization == "fixup":
            self.fixup()

    def stage(self, inputs: int, outputs: int, stride: int, group_size: int) -> nn.Sequential:
        first = Block(inputs, outputs, stride, self.norm, group_size)
        return nn.Sequential(first, *(Block(outputs, outputs, 1, self.norm, group_size) for _ in range(self.n - 1)))

    def reset_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @torch.no_grad()
    def fixup(self) -> None:
        blocks = [module for module in self.modules() if isinstance(module, Block)]
        for block in blocks:
            block.conv1.weight *= len(blocks) ** -0.5
            block.conv2.weight.zero_()
        self.linear.weight.zero_()
        self.linear.bias.zero_()

    def features(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> the penultimate activations (N, 64); `linear` turns them into logits."""
        if x.dim() != 4 or x.shape[1] != 3:
            raise ValueError(f"the ResNet was given shape {tuple(x.shape)}; it takes (N, 3, H, W)")
        if x.shape[2] % self.stride or x.shape[3] % self.stride or 0 in x.shape[2:]:
            raise ValueError(f"the images are {x.shape[2]}×{x.shape[3]}; both sides must be multiples of {self.stride}")
        return self.layer3(self.layer2(self.layer1(self.stem(x)))).mean((2, 3))

    def stem(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> the first 16 maps (N, 16, H, W)."""
        return F.relu(self.norm1(self.conv1(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x))
