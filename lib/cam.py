"""Grad-CAM (Selvaraju et al. 2017) by captum, and numbers for what its maps have in common."""

import itertools

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from scipy.stats import rankdata
from torch import Tensor

from lib.data import Data, Split
from lib.engine.machine import check_device, full_float32
from lib.resnet import ResNet


@full_float32()
def maps(model: ResNet, data: Data, split: Split, batch_size: int = 50) -> Tensor:
    """Where the last residual stage speaks for the true class: float32 (N, H/4, W/4), at least 0, each map with sum 1; all zero
    where nothing speaks for that class."""
    device = check_device(None)
    data, split, model = data.to(device), split.to(device), model.to(device).eval()
    cam, parts = LayerGradCam(model, model.layer3), []
    for images, labels in zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True):
        x = data.normalize(images).contiguous(memory_format=torch.channels_last)
        parts.append(cam.attribute(x, target=labels, relu_attributions=True).detach()[:, 0])
    heat = torch.cat(parts).cpu().float()
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
    shares = overlap(a, b)
    return float(shares[~np.isnan(shares)].mean()) if not np.isnan(shares).all() else float("nan")


def chance(a: Tensor, b: Tensor) -> float:
    """The mean overlap of maps of different images, which is what an overlap is to be held against."""
    return float(np.mean([mean_overlap(a, b.roll(shift, 0)) for shift in range(1, min(len(a), 11))]))


def beyond_chance(overlap: float, chance: float) -> float:
    """The share of what is possible beyond chance that an overlap has: 0 at chance, 1 for equal maps, as Cohen's kappa.
    Unlike a difference from chance, it does not favour pairs whose chance is low."""
    return (overlap - chance) / (1 - chance) if chance < 1 else float("nan")


def pairs(maps: dict[tuple[str, int], Tensor]) -> pd.DataFrame:
    """How alike any two trainings' maps of the same images are, a row for each pair. `maps`: (variant, seed) -> (N, h, w).
    Columns: a, seed_a, b, seed_b, overlap, chance, beyond."""
    rows = []
    for (a, p), (b, q) in itertools.combinations(maps.items(), 2):
        both = mean_overlap(p, q), chance(p, q)
        rows.append((*a, *b, *both, beyond_chance(*both)))
    return pd.DataFrame(rows, columns=["a", "seed_a", "b", "seed_b", "overlap", "chance", "beyond"])


def by_norm(pairs: pd.DataFrame, norms: tuple[str, ...]) -> pd.DataFrame:
    """`pairs` for each two norms, as "ln - gn" in the order of `norms`, and for the trainings of one, as "gn - gn"; batch norm
    is one, PyTorch's or ours. Means of overlap and chance; value, low and high: mean, lowest and highest share beyond chance; n
    pairs of trainings; `apart`: each pair is less alike than any two trainings of either norm. NaN where there are no pairs."""
    of_norms = pairs.replace({"a": {"torch_bn": "bn"}, "b": {"torch_bn": "bn"}})
    names = [" - ".join(sorted(both, key=norms.index)) for both in zip(of_norms["a"], of_norms["b"], strict=True)]
    groups = of_norms.groupby(names)
    frame = groups[["overlap", "chance"]].mean()
    frame = frame.join(groups["beyond"].agg(value="mean", low="min", high="max", n="size"))
    names = pd.Index([f"{a} - {b}" for a, b in itertools.combinations_with_replacement(norms, 2)], name="pair")
    frame = frame.reindex(names)
    own = [frame.loc[[f"{v} - {v}" for v in name.split(" - ")], "low"].min(skipna=False) for name in names]
    return frame.assign(n=frame["n"].fillna(0).astype(int), apart=frame["high"] < own)


def equally_wide(heat: Tensor) -> Tensor:
    """Maps with the rank of each place in its map instead of its heat: none is wider than another, only where they are high
    differs. Empty maps stay empty."""
    ranks = rankdata(heat.flatten(1), axis=1).reshape(heat.shape)
    ranks = torch.from_numpy(ranks / ranks.sum((1, 2), keepdims=True)).float()
    return ranks * (heat.sum((1, 2), keepdim=True) > 0.5)


def half_area(heat: Tensor) -> np.ndarray:
    """The smallest share of the image that holds half of a map's heat, (N,): 0.5 for an even map; NaN for an empty one."""
    ordered = heat.flatten(1).sort(dim=1, descending=True).values.cumsum(1)
    count = (ordered < 0.5 * (1 - 1e-6)).sum(1) + 1
    share = count / heat[0].numel()
    return torch.where(ordered[:, -1] > 0.5, share, torch.nan).numpy()


def areas(maps: dict[tuple[str, int], Tensor], right: dict[tuple[str, int], np.ndarray]) -> pd.DataFrame:
    """Mean `half_area` of each training's maps, its norm as the index (batch norm is one, PyTorch's or ours): over the images
    that all trainings have right (`shared`), and over those that it has `right` and `wrong` itself. `mistake`, the same for all
    trainings of a norm: over the `images` that some of them have right and others wrong, wrong minus right.
    `maps`, `right`: (variant, seed) -> maps (N, h, w) and right answers, bool (N,)."""
    half, ok = (pd.DataFrame(values) for values in ({key: half_area(heat) for key, heat in maps.items()}, right))
    parts = {"shared": half[ok.all(axis=1)], "right": half.where(ok), "wrong": half.where(~ok)}
    layers = {name: part.rename(columns={"torch_bn": "bn"}, level=0).T for name, part in parts.items()}  # training × image
    by_norm = {name: layers[name].groupby(level=0).mean() for name in ("wrong", "right")}  # NaN but for images with both
    mistake = by_norm["wrong"] - by_norm["right"]
    frame = pd.DataFrame({name: part.mean(axis=1).droplevel(1) for name, part in layers.items()}).rename_axis("norm")
    return frame.join(mistake.mean(axis=1).rename("mistake")).join(mistake.notna().sum(axis=1).rename("images"))
