"""Our layers against independent ones: the comparisons that notebook 02 shows and the tests demand."""

import copy

import pandas as pd
import torch
from torch import Tensor, nn

from lib.engine.compiled import compiled
from lib.norms import BatchInstanceNorm2d, BatchNorm2d, GroupNorm2d, InstanceNorm2d, LayerNorm2d


class ComposedBIN(nn.Module):
    """BIN from PyTorch's own BN and IN: weight * (rho * BN + (1 - rho) * IN) + bias (Nam & Kim 2018)."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias, self.rho = (nn.Parameter(torch.ones(channels)) for _ in range(3))
        self.bn, self.inorm = nn.BatchNorm2d(channels, affine=False), nn.InstanceNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        w, b, rho = (p[None, :, None, None] for p in (self.weight, self.bias, self.rho))
        return w * (rho * self.bn(x) + (1 - rho) * self.inorm(x)) + b


def pairs(channels: int, group_size: int = 4) -> dict[str, tuple[nn.Module, nn.Module]]:
    """name -> (our layer, PyTorch's), with the same random weight and bias, gate and running statistics."""
    layers = {
        "BN": (BatchNorm2d(channels), nn.BatchNorm2d(channels)),
        "IN": (InstanceNorm2d(channels), nn.InstanceNorm2d(channels, affine=True)),
        "BIN": (BatchInstanceNorm2d(channels), ComposedBIN(channels)),
        "LN": (LayerNorm2d(channels), nn.GroupNorm(1, channels)),
        "GN": (GroupNorm2d(channels // group_size, channels), nn.GroupNorm(channels // group_size, channels)),
    }
    with torch.no_grad():
        for ours, theirs in layers.values():
            for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
                a.copy_(torch.rand_like(a) if name == "rho" else torch.randn_like(a))
                b.copy_(a)
            for layer in (ours, getattr(theirs, "bn", theirs)):  # eval must use these, not the values of a new layer
                if getattr(layer, "running_mean", None) is not None:
                    layer.running_mean.copy_(torch.linspace(-1, 1, channels))
                    layer.running_var.copy_(torch.linspace(0.5, 2, channels))
    return layers


def largest(a: Tensor, b: Tensor) -> float:
    """Largest difference of two tensors, relative to 1 + the value of b."""
    return ((a.double() - b.double()).abs() / (1 + b.double().abs())).max().item()


def one_step(layer: nn.Module, x: Tensor, training: bool) -> dict[str, Tensor]:
    """Output, gradients and buffers of a copy of the layer, in x's dtype, after one forward and backward of x (N, C, H, W)."""
    layer = copy.deepcopy(layer).to(x.dtype).train(training)
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = layer(x)
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(x.dtype))
    made = {"output": y.detach(), "gradient of x": x.grad}
    made |= {f"gradient of {name}": p.grad for name, p in layer.named_parameters()}
    return made | {name.removeprefix("bn."): buffer for name, buffer in layer.named_buffers()}


def compare(
    ours: nn.Module, theirs: nn.Module, x: Tensor, training: bool = True, own: Tensor | None = None
) -> dict[str, float]:
    """Largest relative difference of output, gradients and buffers of two layers after one step of x; ours sees its `own` form
    of x, if there is one. Theirs sees x contiguous: in float32 and channels-last, PyTorch's own group norm on the CPU loses
    digits (see `group_norm_errors`)."""
    made, exact = one_step(ours, x if own is None else own, training), one_step(theirs, x.contiguous(), training)
    assert made.keys() == exact.keys(), (made.keys(), exact.keys())
    return {name: largest(made[name], exact[name]) for name in made}


def cases(channels: int = 16) -> dict[str, Tensor]:
    """Inputs (N, C, H, W) in float64 that break formulas: several map sizes, one image, and values far from zero."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"32×32 maps": (8, channels, 32, 32), "2×2 maps": (8, channels, 2, 2), "a batch of one": (1, channels, 8, 8)}
    inputs = {name: torch.randn(size, generator=generator, dtype=torch.float64) for name, size in sizes.items()}
    inputs["channels-last"] = inputs["32×32 maps"].contiguous(memory_format=torch.channels_last)
    inputs["mean 1e4, std 0.1"] = 1e4 + 0.1 * torch.randn(4, channels, 4, 4, generator=generator, dtype=torch.float64)
    return inputs


def equality() -> pd.DataFrame:
    """Norm × output, gradients and running statistics: the largest difference of our layer from PyTorch's in float64, relative
    to 1 + the value, over all `cases`, in training and evaluation; NaN for what a norm has not."""
    torch.manual_seed(0)
    rows = {}
    for name, pair in pairs(16).items():
        gaps = [compare(*pair, x, training) for x in cases().values() for training in (True, False)]
        rows[name.lower()] = pd.DataFrame(gaps).max()
    return pd.DataFrame(rows).T.drop(columns="num_batches_tracked").rename_axis("variant")


def float32_table() -> pd.DataFrame:
    """Norm × whose layer: the largest error of a float32 layer in training against PyTorch's in float64, as of `equality`, over
    the `cases` near zero. On a CPU ours are the compiled loops."""
    torch.manual_seed(0)
    rows = {}
    for name, (ours, theirs) in pairs(16).items():
        near = [
            (x, x.float().contiguous(memory_format=torch.channels_last)) for case, x in cases().items() if "1e4" not in case
        ]
        layers = {"ours": compiled(ours), "PyTorch's": theirs}
        errors = {whose: [compare(layer, theirs, x, own=own) for x, own in near] for whose, layer in layers.items()}
        rows[name.lower()] = {whose: pd.DataFrame(values).max().max() for whose, values in errors.items()}
    return pd.DataFrame(rows).T.rename_axis("variant")


def group_norm_errors() -> pd.DataFrame:
    """Largest error of float32 group norms against the same in float64, for values far from zero (1,000 ± 0.1), by memory
    format."""
    torch.manual_seed(0)
    x = 1e3 + 0.1 * torch.randn(8, 16, 8, 8)
    exact = nn.GroupNorm(4, 16).double()(x.double())
    rows = []
    for name, layer in (("PyTorch's", nn.GroupNorm(4, 16)), ("ours", compiled(GroupNorm2d(4, 16)))):
        for form in (torch.contiguous_format, torch.channels_last):
            error = (layer(x.contiguous(memory_format=form)).double() - exact).abs().max().item()
            form_name = "channels-last" if form is torch.channels_last else "contiguous"
            rows.append({"GroupNorm": name, "memory format": form_name, "largest error": error})
    return pd.DataFrame(rows)
