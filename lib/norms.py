"""Five normalizations, one formula, one table.

Every norm here is the same map of a feature map x of shape (N, C, H, W),

    y[n,c,h,w] = scale[n,c] * (x[n,c,h,w] - m[n,c]) + shift[n,c],

and every norm gets its scale and shift from the same small table: the mean m[n,c] and the biased variance
v[n,c] of each channel of each image. What distinguishes the norms is only the set the table is pooled over:

    IN    nothing               every channel of every image has its own mean and variance
    BN    n                     one mean and variance per channel, shared by the batch
    LN    c                     one mean and variance per image
    GN    the channels of a group
    BIN   rho * BN + (1 - rho) * IN, with a learned gate rho[c] in [0, 1]

Sources: BN Ioffe & Szegedy 2015 (algorithm 1), IN Ulyanov et al. 2016 (eq. 3), LN Ba et al. 2016 (eq. 3, over
C, H, W as in Wu & He 2018), GN Wu & He 2018 (section 3), BIN Nam & Kim 2018. None of torch's own
normalization functions is called here; the statistics are float32 even if x is bfloat16.
"""

import torch
from torch import Tensor, nn


def image(t: Tensor) -> Tensor:
    """(N, C) -> (N, C, 1, 1), to be broadcast over H and W."""
    return t[:, :, None, None]


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (N, C, H, W) -> m (N, C), v (N, C): mean and biased variance over H and W.

    The variance is the mean square of the centred values, so a large mean costs no digits (E[x²] - E[x]² would).
    """
    m = x.mean((2, 3))
    return m, (x - image(m)).square().mean((2, 3))


def pool(m: Tensor, v: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of the union of equally large sets, by the law of total variance."""
    mu = m.mean(dim, keepdim=True)
    return mu, (v + (m - mu) ** 2).mean(dim, keepdim=True)


class Norm2d(nn.Module):
    """What the five share: `weight` and `bias` of shape (C,), the check of the input, and the map.

    A subclass gives `statistics(m, v, pixels)`: mean and variance of the set of each channel of each image, (N, C) or broadcast
    to it. ValueError for a number of channels or an eps that cannot be.
    """

    least_pixels = 0  # of a map

    def __init__(self, num_channels: int, eps: float = 1e-5, affine: bool = True):
        super().__init__()
        if not isinstance(num_channels, int) or isinstance(num_channels, bool) or num_channels < 1:
            raise ValueError(f"the number of channels is {num_channels!r}; it must be an integer of at least 1")
        if not isinstance(eps, (int, float)) or not eps > 0:
            raise ValueError(f"eps is {eps!r}; it must be a number above 0")
        self.num_channels, self.eps, self.affine = num_channels, float(eps), affine
        self.register_parameter("weight", nn.Parameter(torch.ones(num_channels)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_channels)) if affine else None)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W) in x's dtype. ValueError if x has another shape or too few values."""
        self.check(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        m, v = moments(wide)
        scale, shift = self.scale_and_shift(m, v, x.shape[2] * x.shape[3])
        return (image(scale) * (wide - image(m)) + image(shift)).to(x.dtype)

    def check(self, x: Tensor) -> None:
        """ValueError if x is not (N, C, H, W) of floating point values, or its maps have too few pixels."""
        name = type(self).__name__
        if x.dim() != 4 or x.shape[1] != self.num_channels:
            raise ValueError(f"{name} was given shape {tuple(x.shape)}; it takes (N, {self.num_channels}, H, W)")
        if not x.is_floating_point():
            raise ValueError(f"{name} was given {x.dtype} values; it takes floating point values")
        if x.shape[2] * x.shape[3] < self.least_pixels:
            raise ValueError(
                f"{name} was given maps of {x.shape[2]}×{x.shape[3]}; with one value per channel and image "
                "there is no variance, so H * W must be at least 2"
            )

    def scale_and_shift(self, m: Tensor, v: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
        """Scale and shift of the map, each (N, C), from the moments of maps of so many pixels."""
        mu, var = self.statistics(m, v, pixels)
        rstd = (var + self.eps).rsqrt().expand_as(m)
        return self.affine_map(rstd, rstd * (m - mu))

    def affine_map(self, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """The learned per-channel weight and bias, applied to a normalization's scale and shift."""
        return (scale, shift) if self.weight is None else (scale * self.weight, shift * self.weight + self.bias)

    def extra_repr(self) -> str:
        return f"{self.num_channels}, eps={self.eps}, affine={self.affine}"


class LayerNorm2d(Norm2d):
    """Layer normalization over (C, H, W) of each image: nn.GroupNorm(1, C)."""

    def statistics(self, m, v, pixels):
        return pool(m, v, dim=1)  # (N, 1)


class GroupNorm2d(Norm2d):
    """Group normalization over (C/G, H, W) of each image. ValueError if the G groups do not divide the C channels."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True):
        super().__init__(num_channels, eps, affine)
        if not isinstance(num_groups, int) or num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"{num_groups!r} groups do not divide {num_channels} channels; give a divisor of it")
        self.num_groups = num_groups

    def statistics(self, m, v, pixels):
        grouped = m.view(len(m), self.num_groups, -1)  # (N, G, C/G)
        mu, var = pool(grouped, v.view(grouped.shape), dim=2)  # (N, G, 1)
        return mu.expand_as(grouped).reshape(m.shape), var.expand_as(grouped).reshape(m.shape)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {super().extra_repr()}"


class InstanceNorm2d(Norm2d):
    """Instance normalization over (H, W) of each channel of each image.

    `momentum` has its place in the signature for PyTorch's sake; there are no running statistics that it could weight.
    """

    least_pixels = 2

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True):
        super().__init__(num_features, eps, affine)

    def statistics(self, m, v, pixels):
        return m, v


class BatchNorm2d(Norm2d):
    """Batch normalization over (N, H, W) of each channel.

    Buffers `running_mean`, `running_var` (unbiased) and `num_batches_tracked` follow nn.BatchNorm2d: updated in
    training only, with `momentum` as the weight of the new batch (None: the average of all batches), used in eval.
    ValueError in training if a channel has a single value.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True):
        super().__init__(num_features, eps, affine)
        if momentum is not None and not (isinstance(momentum, (int, float)) and 0 <= momentum <= 1):
            raise ValueError(f"momentum is {momentum!r}; it must be a number from 0 to 1, or None")
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def check(self, x):
        """ValueError also if a channel has one value only, in training."""
        super().check(x)
        if self.training and x.numel() < 2 * self.num_channels:
            raise ValueError(
                f"{type(self).__name__} in training was given shape {tuple(x.shape)}; with one value per channel "
                "there is no variance, so N * H * W must be at least 2"
            )

    def count_batch(self) -> float | Tensor:
        """Count a training batch, and return its weight in the running statistics."""
        self.num_batches_tracked.add_(1)  # quicker than +=, which assigns the buffer anew
        return self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.to(self.running_mean.dtype)

    def statistics(self, m: Tensor, v: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
        """Mean and biased variance (1, C) of each channel: of the batch in training, else running ones."""
        if not self.training:
            return self.running_mean[None], self.running_var[None]
        mu, var = pool(m, v, dim=0)
        with torch.no_grad():
            weight, values = self.count_batch(), len(m) * pixels
            unbiased = var[0] * (values / (values - 1))
            self.running_mean.lerp_(mu[0].to(self.running_mean.dtype), weight)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), weight)
        return mu, var

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, momentum={self.momentum}"


class BatchInstanceNorm2d(BatchNorm2d):
    """Batch-instance normalization: weight * (rho * BN + (1 - rho) * IN) + bias.

    The gate `rho` (C,) is a parameter that starts at 1 (pure BN). The optimizer must keep it in [0, 1]:
    `keep_gates(model, optimizer)` clips it after every step, as the paper does.
    """

    least_pixels = 2

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True):
        super().__init__(num_features, eps, momentum, affine)
        self.rho = nn.Parameter(torch.ones(num_features))

    def scale_and_shift(self, m, v, pixels):
        mu, var = self.statistics(m, v, pixels)
        batch, instance = self.rho * (var + self.eps).rsqrt(), (1 - self.rho) * (v + self.eps).rsqrt()
        return self.affine_map(batch + instance, batch * (m - mu))


def gates(model: nn.Module) -> dict[str, nn.Parameter]:
    """The BIN gates of a model, by the name of their layer, in forward order."""
    return {name: m.rho for name, m in model.named_modules() if isinstance(m, BatchInstanceNorm2d)}


def keep_gates(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """From now on every `optimizer.step()` ends with the gates of `model` clipped to [0, 1]."""
    rhos = list(gates(model).values())

    @torch.no_grad()
    def clip(*_):
        for rho in rhos:
            rho.clamp_(0, 1)

    if rhos:
        optimizer.register_step_post_hook(clip)


#: key -> its layer, which takes the number of channels; GN's takes the number of groups before it.
NORMS = {
    "torch_bn": nn.BatchNorm2d,
    "bn": BatchNorm2d,
    "in": InstanceNorm2d,
    "bin": BatchInstanceNorm2d,
    "ln": LayerNorm2d,
    "gn": GroupNorm2d,
    "nn": nn.Identity,
}


def make_norm(norm: str, channels: int, group_size: int = 4) -> nn.Module:
    """The norm layer of a key of NORMS; `group_size` channels form one group of GN. ValueError for an unknown key, or if the
    groups do not divide the channels."""
    if norm not in NORMS:
        raise ValueError(f"unknown norm {norm!r}; the norms are {', '.join(NORMS)}")
    if norm != "gn":
        return NORMS[norm](channels)
    if not isinstance(group_size, int) or group_size < 1 or channels % group_size:
        raise ValueError(f"groups of {group_size!r} channels do not divide {channels} channels; give a divisor of it")
    return GroupNorm2d(channels // group_size, channels)
