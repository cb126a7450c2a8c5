"""Differences of accuracies and how sure they are: two sources of chance, each counted once.

Another seed would have given another training, another draw of test images another score. For a weighted sum of accuracies,

    variance = S² · Σ w²/n   +   (V − F · Σ w²/n) / N

with n runs in an arm, N images, S² the variance between runs of one arm (pooled over arms), V the variance over images of the
weighted mean over seeds, and F the variance between runs of the answer to one image (pooled likewise). S² already holds what
single images flip from run to run; so V, which holds it too, gives it back, and no chance is counted twice.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import optimize
from scipy import stats as scipy_stats

Answers = dict[str, list[np.ndarray]]  # name -> right or wrong, bool (N,), of each of its runs on the same N images


class Contrast(NamedTuple):
    """A difference of accuracies, how sure it is, and how likely by chance."""

    value: float  # fraction, as are low and high, the 95 % interval
    low: float
    high: float
    p: float  # two-sided, of a true value of 0


class Variances(NamedTuple):
    """The two spreads between the runs of one arm."""

    between_runs: float  # variance of accuracy between runs of one arm: S²
    within_image: float  # variance of the answer to one image: F
    freedom: int  # degrees of freedom of both


def variances(arms: Answers) -> Variances:
    """Pooled over the arms as in an analysis of variance; zeros where no arm has two runs."""
    freedom = sum(len(runs) - 1 for runs in arms.values())
    squares = [[len(runs) * np.var(np.mean(runs, 1)), len(runs) * np.var(runs, 0).mean()] for runs in arms.values()]
    return Variances(*(np.sum([[0, 0], *squares], 0) / max(freedom, 1)), freedom)


def contrast(weights: dict[str, float], arms: Answers) -> Contrast:
    """A weighted sum of the arms' accuracies, as {"gn": 1, "bn": -1}, with its 95 % interval: Student's t for the seeds, normal
    for the images. All `arms` inform the spread between runs. Where each has one run, the interval is of the images only.

    ValueError if a weight names no arm, or the arms were not scored on the same images.
    """
    if not set(weights) <= set(arms):
        raise ValueError(f"weights are given for {', '.join(weights)}; the arms are {', '.join(arms)}")
    if len(sizes := {len(run) for runs in arms.values() for run in runs}) > 1:
        raise ValueError(f"the arms have {sorted(sizes)} images; all must be scored on the same ones")
    between, within, freedom = variances(arms)
    per_image = sum(weight * np.mean(arms[name], axis=0) for name, weight in weights.items())  # (N,)
    share = sum(weight**2 / len(arms[name]) for name, weight in weights.items())
    of_seeds = between * share
    of_images = max(per_image.var(ddof=1) - within * share, 0) / len(per_image)

    def half_width(alpha: float) -> float:
        t = scipy_stats.t.isf(alpha / 2, freedom) if freedom else 0.0
        return float(np.hypot(t * of_seeds**0.5, scipy_stats.norm.isf(alpha / 2) * of_images**0.5))

    value, half = float(per_image.mean()), half_width(0.05)
    least = 1e-12  # p below this is given as this
    inside = abs(value) < half_width(least)
    p = optimize.brentq(lambda alpha: half_width(alpha) - abs(value), least, 1) if inside else least if value else 1.0
    return Contrast(value, value - half, value + half, p)


def holm(p: np.ndarray) -> np.ndarray:
    """p values corrected for their number (Holm 1979), in the order given."""
    p = np.asarray(p, dtype=float)
    order = p.argsort()
    corrected = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return corrected[order.argsort()]


def table(contrasts: dict[str, dict[str, float]], arms: Answers) -> pd.DataFrame:
    """A row for each named contrast: value, low, high, p, and `clear`: Holm's p of the table below 0.05. Where no arm has a
    second run, nothing is clear: another seed is not known."""
    values = [contrast(weights, arms) for weights in contrasts.values()]
    rows = pd.DataFrame(values, index=list(contrasts), columns=Contrast._fields, dtype=float)
    return rows.assign(clear=(holm(rows["p"]) < 0.05) & (variances(arms).freedom > 0))
