"""The norms compiled for a CPU, and what else makes the study's networks faster without changing what they compute.

`compiled(network)` is the one switch. On a CPU a chain of PyTorch operations reads and writes the feature map once for each;
here two passes in either direction do it all, and the block's addition and ReLU are done in the same passes. Numba compiles
at the first call and keeps the result in __pycache__; no C++ compiler is needed. The sums of an image are added up by one
thread in one order, so the number of threads does not change a bit of them. What the loops do not take (a GPU, float64, an
empty map) goes the plain way of lib.norms; a second derivative, which they do not have, is an error.

Maps come as (N, H, W, C), which is what channels-last is in memory, cut into (N, tiles, width), where `width` is a multiple
of C that fills the vector registers however few the channels are; bfloat16 as uint16, which NumPy knows.
The table, (N, C), is pooled over sets: `sets`, (N, C), has the number of that of each channel of each image, which is the same
in all images for BN, in neighbouring channels for GN, in all channels for LN. `rho` is BIN's gate, and empty elsewhere.
"""

import functools
import os
import sys
import tempfile

import numba
import numpy as np
import torch
import torch.nn.functional as F
from numba import prange, types
from numba.extending import overload
from torch import Tensor, nn

from lib.norms import BatchInstanceNorm2d, BatchNorm2d, GroupNorm2d, InstanceNorm2d, LayerNorm2d, Norm2d
from lib.resnet import Block, ResNet

TILE = 256  # values that an inner loop runs over


def load(value):
    """A value of a map as float32."""


try:
    numba.njit(cache=True)(load)
except RuntimeError:  # neither this file's __pycache__ nor the user's cache folder can be written
    os.environ["NUMBA_CACHE_DIR"] = numba.config.CACHE_DIR = tempfile.mkdtemp(prefix="numba-")  # of child processes too
    print(f"compiled norms are kept in {numba.config.CACHE_DIR}: no other cache folder can be written", file=sys.stderr)

parallel = numba.njit(parallel=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
serial = numba.njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})


def store(y, value):
    """The float32 value as an element of the map y, rounded to nearest even if that is bfloat16."""


@overload(load, inline="always")
def _(value):
    if isinstance(value, types.Integer):
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value


@overload(store, inline="always")
def _(y, value):
    if not isinstance(y.dtype, types.Integer):
        return lambda y, value: value

    def rounded(y, value):
        bits = np.float32(value).view(np.uint32)
        if value != value:  # adding to a NaN's bits could carry over into its sign
            return np.uint16(0x7FC0)
        return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))

    return rounded


@serial
def repeat(row, width):
    """A row of the table, repeated to the width of a tile."""
    out = np.empty((width // len(row), len(row)), np.float32)
    out[:] = row
    return out.ravel()


@serial
def fold(wide, row):
    """The sums of a tile's columns, added up channel by channel."""
    row[:] = 0
    for part in wide.reshape(-1, len(row)):
        row += part


@serial
def pool(m, v, sets, mu, var):
    """Mean and biased variance of every set: norms.pool."""
    size = m.size // len(mu)
    mu[:], var[:] = 0, 0
    for n, c in np.ndindex(m.shape):
        mu[sets[n, c]] += m[n, c] / size
    for n, c in np.ndindex(m.shape):
        s = sets[n, c]
        var[s] += (v[n, c] + (m[n, c] - mu[s]) ** 2) / size


@parallel
def moments(x, m, v):
    width = x.shape[2]
    pixels = np.float32(x.shape[1] * width // m.shape[1])
    for n in prange(len(x)):
        for c in range(m.shape[1]):
            m[n, c] = load(x[n, 0, c])
        pivot = repeat(m[n], width)  # the first pixel: sums of differences from it keep their digits
        total = np.zeros(width, np.float32)
        for i in range(x.shape[1]):
            for j in range(width):
                total[j] += load(x[n, i, j]) - pivot[j]
        fold(total, m[n])
        m[n] = pivot[: m.shape[1]] + m[n] / pixels
        mean = repeat(m[n], width)
        total[:] = 0
        for i in range(x.shape[1]):
            for j in range(width):
                d = load(x[n, i, j]) - mean[j]
                total[j] += d * d
        fold(total, v[n])
        v[n] /= pixels


@parallel
def transform(x, m, v, mu, var, sets, eps, weight, bias, rho, shortcut, relu, scale, y):
    """From the moments and those of the sets: the table's scale, and y = relu(scale * (x - m) + shift + shortcut)."""
    channels, width = m.shape[1], x.shape[2]
    zero, shift = np.float32(0), np.empty(m.shape, np.float32)
    for n in prange(len(x)):
        for c in range(channels):
            s = sets[n, c]
            rstd, gate = 1 / np.sqrt(var[s] + eps), 1.0
            shift[n, c] = rstd * (m[n, c] - mu[s])
            if len(rho):
                gate = rho[c]
                shift[n, c] *= gate
                rstd = gate * rstd + (1 - gate) / np.sqrt(v[n, c] + eps)
            scale[n, c] = weight[c] * rstd
            shift[n, c] = weight[c] * shift[n, c] + bias[c]
        mean, a, b = repeat(m[n], width), repeat(scale[n], width), repeat(shift[n], width)
        for i in range(x.shape[1]):
            if len(shortcut):
                for j in range(width):
                    value = a[j] * (load(x[n, i, j]) - mean[j]) + b[j] + load(shortcut[n, i, j])
                    y[n, i, j] = store(y, zero if relu and value < zero else value)
            else:
                for j in range(width):
                    value = a[j] * (load(x[n, i, j]) - mean[j]) + b[j]
                    y[n, i, j] = store(y, zero if relu and value < zero else value)


@parallel
def sums(g, y, x, m, masked, sum_g, sum_gd):
    """The gradient behind ReLU (`masked`; without one, y and masked are empty), its sum and that of its product with x - m."""
    width, zero = x.shape[2], np.float32(0)
    for n in prange(len(x)):
        mean = repeat(m[n], width)
        total, product = np.zeros(width, np.float32), np.zeros(width, np.float32)
        for i in range(x.shape[1]):
            for j in range(width):
                value = load(g[n, i, j])  # outside the condition: AVX2 could not make vectors of it inside
                if len(y):
                    value = zero if load(y[n, i, j]) <= zero else value
                    masked[n, i, j] = store(masked, value)
                total[j] += value
                product[j] += value * (load(x[n, i, j]) - mean[j])
        fold(total, sum_g[n])
        fold(product, sum_gd[n])


@serial
def table_gradient(sum_g, sum_gd, m, v, mu, var, sets, fixed, eps, weight, rho, dm, dv, dweight, dbias, drho):
    """The table's backward, from the gradients of shift and scale. `fixed`: mu and var are not functions of x."""
    size = m.size // len(mu)
    drstd, dmu = np.zeros(len(mu)), np.zeros(len(mu))
    for n, c in np.ndindex(m.shape):
        s = sets[n, c]
        rstd, centred, gate = 1 / np.sqrt(var[s] + eps), m[n, c] - mu[s], 1.0
        a, b = sum_gd[n, c] * weight[c], sum_g[n, c] * weight[c]
        dv[n, c] = 0
        if len(rho):
            gate = rho[c]
            own = 1 / np.sqrt(v[n, c] + eps)
            dv[n, c] = -0.5 * a * (1 - gate) * own**3
            drho[c] += a * (rstd - own) + b * rstd * centred
            dweight[c] += sum_gd[n, c] * (1 - gate) * own
        dweight[c] += gate * rstd * (sum_gd[n, c] + sum_g[n, c] * centred)
        dbias[c] += sum_g[n, c]
        dm[n, c] = gate * rstd * b
        drstd[s] += gate * (a + b * centred)
        dmu[s] -= gate * rstd * b
    if not fixed:
        for n, c in np.ndindex(m.shape):
            s = sets[n, c]
            dvar = -0.5 * drstd[s] * (var[s] + eps) ** -1.5
            dm[n, c] += (2 * dvar * (m[n, c] - mu[s]) + dmu[s]) / size
            dv[n, c] += dvar / size


@parallel
def gradient(g, x, m, scale, sum_g, dm, dv, dx):
    """dx = scale * g + p * (x - m) + q."""
    width = x.shape[2]
    pixels = x.shape[1] * width // m.shape[1]
    for n in prange(len(x)):
        p, q = 2 * dv[n] / pixels, (dm[n] - scale[n] * sum_g[n]) / pixels
        mean, a, b, e = repeat(m[n], width), repeat(scale[n], width), repeat(p, width), repeat(q, width)
        for i in range(x.shape[1]):
            for j in range(width):
                value = a[j] * load(g[n, i, j]) + b[j] * (load(x[n, i, j]) - mean[j]) + e[j]
                dx[n, i, j] = store(dx, value)


@serial
def forward(
    x, sets, eps, weight, bias, rho, running_mean, running_var, fixed, momentum, shortcut, relu, m, v, mu, var, scale, y
):
    """From x to the moments, the sets' mean and variance, the table's scale, and y. The running statistics, if there are any,
    are used in place of the sets' own if `fixed`, and updated otherwise, by the unbiased variance."""
    moments(x, m, v)
    if fixed:
        mu[:], var[:] = running_mean, running_var
    else:
        pool(m, v, sets, mu, var)
        values = x.size // m.shape[1]  # of a channel
        for c in range(len(running_mean)):
            running_mean[c] += momentum * (mu[c] - running_mean[c])
            running_var[c] += momentum * (var[c] * values / (values - 1) - running_var[c])
    transform(x, m, v, mu, var, sets, eps, weight, bias, rho, shortcut, relu, scale, y)


@serial
def backward(g, y, masked, x, m, v, mu, var, sets, eps, fixed, weight, rho, scale, dx, slopes):
    """From the gradient of y to those of x and of the parameters, the rows of `slopes`; `masked` is the shortcut's."""
    sum_g, sum_gd = np.empty_like(m), np.empty_like(m)
    sums(g, y, x, m, masked, sum_g, sum_gd)
    dm, dv = np.empty(m.shape), np.empty(m.shape)
    slopes[:] = 0
    table_gradient(sum_g, sum_gd, m, v, mu, var, sets, fixed, eps, weight, rho, dm, dv, slopes[0], slopes[1], slopes[2])
    gradient(masked if len(y) else g, x, m, scale, sum_g, dm, dv, dx)


NONE = np.empty(0, np.float32)


def tiles(x: Tensor) -> np.ndarray:
    """A map (N, C, H, W) as the array (N, tiles, width); a copy only if it is not channels-last."""
    x = x.detach()
    array = (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy().transpose(0, 2, 3, 1)
    images, height, across, width = array.shape
    size = height * across * width
    while size % (2 * width) == 0 and width < TILE:
        width *= 2
    return np.ascontiguousarray(array).reshape(images, -1, width)


def numbers(parameter: Tensor | None) -> np.ndarray:
    """A copy of a parameter (C,); empty if the layer has none."""
    return NONE if parameter is None else parameter.detach().numpy().copy()


@functools.cache
def start_threads() -> None:
    """Numba starts its threads at the first call and then sets OpenMP's number of threads, which is PyTorch's too, to all
    cores; here it is set back."""
    threads = torch.get_num_threads()
    numba.set_num_threads(1)
    torch.set_num_threads(threads)


class Normalize(torch.autograd.Function):
    """A norm, plus a shortcut, through ReLU, and the gradient of all three."""

    @staticmethod
    def forward(ctx, x, shortcut, relu, weight, bias, rho, sets, eps, running_mean, running_var, momentum):
        start_threads()
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # as many as PyTorch
        (images, channels), fixed = x.shape[:2], momentum is None
        array, y = tiles(x), torch.empty_like(x, memory_format=torch.channels_last)
        m, v, scale = np.empty((3, images, channels), np.float32)
        mu, var = np.empty((2, sets[-1, -1] + 1))
        w = numbers(weight) if weight is not None else np.ones(channels, np.float32)
        b = numbers(bias) if bias is not None else np.zeros(channels, np.float32)
        gate, running = numbers(rho), (running_mean, running_var, fixed, momentum or 0.0)
        added = array[:0] if shortcut is None else tiles(shortcut.to(x.dtype))
        forward(array, sets, eps, w, b, gate, *running, added, relu, m, v, mu, var, scale, tiles(y))
        ctx.save_for_backward(x, y if relu else None)
        ctx.table = m, v, mu, var, sets, eps, fixed, w, gate, scale
        return y

    @staticmethod
    def backward(ctx, g):
        if torch.is_grad_enabled():  # with create_graph=True
            raise RuntimeError(
                "the compiled norms have no second derivative; differentiate twice through the plain ones, which "
                "ResNet(n, r, norm) has before compiled(network)"
            )
        x, y = ctx.saved_tensors
        array, g, slopes = tiles(x), g.to(x.dtype), np.empty((3, x.shape[1]), np.float32)
        dx = torch.empty_like(x, memory_format=torch.channels_last)
        masked = g if y is None else torch.empty_like(dx)
        behind = (array[:0], array[:0]) if y is None else (tiles(y), tiles(masked))
        backward(tiles(g), *behind, array, *ctx.table, tiles(dx), slopes)
        gradients = (dx, masked, None, *torch.from_numpy(slopes), *5 * (None,))
        return tuple(d if wanted else None for d, wanted in zip(gradients, ctx.needs_input_grad, strict=True))


@functools.cache
def sets_of(images: int, channels: int, groups: int, pooled: bool) -> np.ndarray:
    """The number of the set that each channel of each image is in, (N, C); `pooled`: the images share their sets."""
    return np.arange(channels) * groups // channels + np.arange(images)[:, None] * (0 if pooled else groups)


def takes(norm: Norm2d, x: Tensor) -> bool:
    """Whether the loops take this: on the CPU, a float32 or bfloat16 map that is not empty, and float32 parameters."""
    own = (t for t in (*norm.parameters(), *norm.buffers()) if t.is_floating_point())
    return (
        x.dtype in (torch.float32, torch.bfloat16)
        and x.device.type == "cpu"
        and x.numel() > 0
        and all(t.dtype == torch.float32 for t in own)
    )


class Compiled:
    """What a compiled norm has before its plain one."""

    def forward(self, x: Tensor, shortcut: Tensor | None = None, relu: bool = False) -> Tensor:
        """The norm of x (N, C, H, W), plus a shortcut of the same shape, through ReLU; rounded once, at the end."""
        self.check(x)
        if shortcut is not None and shortcut.shape != x.shape:
            raise ValueError(f"the shortcut has shape {tuple(shortcut.shape)}; it must be that of x, {tuple(x.shape)}")
        if not takes(self, x):
            y = super().forward(x)
            y = y if shortcut is None else y + shortcut
            return y.relu() if relu else y
        pooled, mean, var, momentum = isinstance(self, BatchNorm2d), NONE, NONE, 0.0
        if pooled:
            mean, var = self.running_mean.numpy(), self.running_var.numpy()
            momentum = float(self.count_batch()) if self.training else None
        groups = self.num_groups if isinstance(self, GroupNorm2d) else 1 if isinstance(self, LayerNorm2d) else self.num_channels
        parameters = self.weight, self.bias, getattr(self, "rho", None)
        sets = sets_of(len(x), self.num_channels, groups, pooled)
        return Normalize.apply(x, shortcut, relu, *parameters, sets, self.eps, mean, var, momentum)


class FusedBlock(Block):
    """A block whose norms do the addition and ReLU too."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv1(x), relu=True)
        return self.norm2(self.conv2(y), self.shortcut(x), relu=True)


class FusedResNet(ResNet):
    """The network whose first norm does ReLU too."""

    def stem(self, x: Tensor) -> Tensor:
        return self.norm1(self.conv1(x), relu=True)


class Bf16InFloat32(nn.Conv2d):
    """bf16 convolutions for CPUs without instructions for them, where PyTorch's are 2 to 28 times as slow as float32: they
    multiply bf16 values, add in float32 and round the sum, and so does a float32 convolution of rounded values."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            x, weight, bias = (t if t is None else t.bfloat16().float() for t in (x, self.weight, self.bias))
            return F.conv2d(x, weight, bias, self.stride, self.padding).bfloat16()


@functools.cache
def bf16_is_emulated() -> bool:
    """Whether this is an x86 CPU without instructions for bf16: neither AVX-512's nor AMX's."""
    flags = torch.cpu.get_capabilities()
    return flags.get("architecture") == "x86_64" and not (flags["avx512_bf16"] or flags["amx_bf16"])


#: class -> its compiled form, which has its name
COMPILED = {
    norm: type(norm.__name__, (Compiled, norm), {"__module__": __name__})
    for norm in (LayerNorm2d, GroupNorm2d, InstanceNorm2d, BatchNorm2d, BatchInstanceNorm2d)
}


def compiled(network: nn.Module) -> nn.Module:
    """The same network in its fast form. Weights and their names stay; results differ by rounding."""
    forms = dict(COMPILED)
    if any(isinstance(module, Norm2d) for module in network.modules()):
        forms |= {Block: FusedBlock, ResNet: FusedResNet}
    if bf16_is_emulated():
        forms[nn.Conv2d] = Bf16InFloat32
    for module in network.modules():
        module.__class__ = forms.get(type(module), type(module))
    return network
