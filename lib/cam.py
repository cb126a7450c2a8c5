"""Grad-CAM (Selvaraju et al. 2017) by captum, and numbers for what its maps have in common."""

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from torch import Tensor

from lib.data import Data, Split
from lib.resnet import ResNet


def maps(model: ResNet, data: Data, split: Split, batch_size: int = 50) -> Tensor:
    """Where the last residual stage speaks for the true class: float32 (N, H/4, W/4), at least 0, each map with sum 1; all zero
    where nothing speaks for that class."""
    cam, found = LayerGradCam(model.eval(), model.layer3), []
    for images, labels in zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True):
        x = data.normalize(images).contiguous(memory_format=torch.channels_last)
        found.append(cam.attribute(x, target=labels, relu_attributions=True).detach()[:, 0])
    heat = torch.cat(found).cpu().float()
    return heat / heat.sum((1, 2), keepdim=True).clamp_min(1e-12)


def enlarged(heat: Tensor, height: int, width: int) -> np.ndarray:
    """Maps (N, h, w) at the size of their images, (N, height, width)."""
    return F.interpolate(heat[:, None], (height, width), mode="bilinear")[:, 0].numpy()


def overlap(a: Tensor, b: Tensor) -> np.ndarray:
    """The share of their heat that the maps of `a` and `b` have in common, (N,): 1 for equal maps, 0 for disjoint ones, NaN
    where either is empty."""
    some = (a.sum((1, 2)) > 0.5) & (b.sum((1, 2)) > 0.5)
    return torch.where(some, torch.minimum(a, b).sum((1, 2)), torch.nan).numpy()


def mean_overlap(a: Tensor, b: Tensor) -> float:
    """The mean over the images for which neither map is empty; NaN if there is none."""
    found = overlap(a, b)
    return float(found[~np.isnan(found)].mean()) if not np.isnan(found).all() else float("nan")


def chance(a: Tensor, b: Tensor) -> float:
    """The mean overlap of maps of different images, which is what an overlap is to be held against."""
    return float(np.mean([mean_overlap(a, b.roll(shift, 0)) for shift in range(1, min(len(a), 11))]))


def beyond_chance(overlap: float, chance: float) -> float:
    """The share of what is possible beyond chance that an overlap has: 0 at chance, 1 for equal maps, as Cohen's kappa.
    Unlike a difference from chance, it does not favour pairs whose chance is low."""
    return (overlap - chance) / (1 - chance) if chance < 1 else float("nan")


def half_area(heat: Tensor) -> np.ndarray:
    """The smallest share of the image that holds half of a map's heat, (N,): 0.5 for an even map; NaN for an empty one."""
    ordered = heat.flatten(1).sort(dim=1, descending=True).values.cumsum(1)
    count = (ordered < 0.5 * (1 - 1e-6)).sum(1) + 1
    share = count / heat[0].numel()
    return torch.where(ordered[:, -1] > 0.5, share, torch.nan).numpy()
