"""The CIFAR ResNet of He et al. 2016, section 4.2: 6n+2 layers, widths 16, 32, 64, parameter-free shortcuts."""

import functools
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import winograd
from lib.norms import Norm2d, make_norm

INITIALIZATIONS = ("he", "fixup")


class Conv2d(nn.Conv2d):
    """PyTorch's convolution, but on a CPU lib.winograd's where that fits, and another way to bf16 under autocast where the CPU
    has no instructions for it.

    bf16 convolutions multiply bf16 values, add in float32 and round the sum. A float32 convolution of rounded values does the
    same, faster than PyTorch's bf16 on such a CPU, and so do its gradients.
    """

    def forward(self, x: Tensor, shortcut: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """With `shortcut` also x at every stride-th pixel, which is where the shortcut around a block starts."""
        on_cpu = x.device.type == "cpu"
        bf16 = on_cpu and torch.is_autocast_enabled("cpu")
        if not on_cpu or (bf16 and not bf16_is_slow()):
            y = super().forward(x)
            return (y, pixels_at(x, self.stride)) if shortcut else y
        with torch.autocast("cpu", enabled=False):
            weight, bias = self.weight, self.bias
            if bf16:
                x, weight, bias = (t if t is None else t.bfloat16() for t in (x, weight, bias))
                weight, bias = (t if t is None else t.float() for t in (weight, bias))
            if winograd.fits(x, weight, self.stride):
                form = winograd.conv3x3_and_shortcut if shortcut else winograd.conv3x3
                return form(x, weight, bias, self.stride[0])
            y = F.conv2d(x.to(weight.dtype), weight, bias, self.stride, self.padding).to(x.dtype)
            return (y, pixels_at(x, self.stride)) if shortcut else y


def pixels_at(x: Tensor, stride: tuple[int, int]) -> Tensor:
    """x at every stride-th pixel of both directions. The pooling of single pixels is a slice whose gradient keeps channels-last
    memory; that of x[:, :, ::2, ::2] does not, and all that meets it in x is then copied from one layout to the other."""
    return x if max(stride) == 1 else F.avg_pool2d(x, 1, stride)


@functools.cache
def bf16_is_slow() -> bool:
    """Whether a convolution, forward and backward, takes this CPU longer in bf16 than in float32: 0.5 to 0.8 times as long was
    measured with instructions for it, 1.9 to 28 times without, so the limit lies between."""
    seconds = {}
    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        for dtype in (torch.float32, torch.bfloat16):
            shapes = ((8, 16, 32, 32), (16, 16, 3, 3), (8, 16, 32, 32))
            x, weight, g = (torch.ones(s, dtype=dtype).contiguous(memory_format=torch.channels_last) for s in shapes)
            times = []
            for _ in range(4):
                start = time.perf_counter()
                F.conv2d(x.requires_grad_(), weight.requires_grad_(), padding=1).backward(g)
                times.append(time.perf_counter() - start)
            seconds[dtype] = min(times)
    return seconds[torch.bfloat16] > 1.25 * seconds[torch.float32]


def conv3x3(inputs: int, outputs: int, stride: int, norm: str) -> Conv2d:
    """A padded 3×3 convolution; its bias is left out where a norm follows, which would only remove or repeat it."""
    return Conv2d(inputs, outputs, 3, stride, padding=1, bias=norm == "nn")


def norm_relu(norm: nn.Module, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
    """relu(norm(x) + shortcut); our norms do all three at once."""
    if isinstance(norm, Norm2d):
        return norm(x, shortcut, relu=True)
    return F.relu(norm(x) if shortcut is None else norm(x) + shortcut)


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
        y, shortcut = self.conv1(x, shortcut=True)
        y = norm_relu(self.norm1, y)
        return norm_relu(self.norm2, self.conv2(y), self.widen(shortcut))

    def widen(self, shortcut: Tensor) -> Tensor:
        """Option A: to every second pixel's channels zeros for the new ones, half of them on either side."""
        half = self.new_channels // 2
        return F.pad(shortcut, (0, 0, 0, 0, half, self.new_channels - half)) if self.new_channels else shortcut


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
        self.n, self.r, self.norm = n, r, norm
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
        x = norm_relu(self.norm1, self.conv1(x))
        return self.layer3(self.layer2(self.layer1(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x))
