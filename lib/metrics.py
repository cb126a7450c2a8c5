"""Scores of a classification (scikit-learn), feature quantiles, and differences with their uncertainty."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

QUANTILES = {"q01": 0.01, "q20": 0.20, "q80": 0.80, "q99": 0.99}


def scores(labels: np.ndarray, predictions: np.ndarray, classes: int) -> dict[str, float]:
    """accuracy, micro_f1 and macro_f1, as fractions. With one label per image the first two are the same number."""
    kwargs = {"labels": range(classes), "zero_division": 0.0}
    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "micro_f1": float(f1_score(labels, predictions, average="micro", **kwargs)),
        "macro_f1": float(f1_score(labels, predictions, average="macro", **kwargs)),
    }


def per_class(labels: np.ndarray, predictions: np.ndarray, classes: tuple[str, ...]) -> pd.DataFrame:
    """One row per class: precision, recall, f1 (fractions) and support (images)."""
    numbers = precision_recall_fscore_support(labels, predictions, labels=range(len(classes)), zero_division=0.0)
    return pd.DataFrame(dict(zip(("precision", "recall", "f1", "support"), numbers, strict=True)), index=list(classes))


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: tuple[str, ...]) -> pd.DataFrame:
    """Images by true class (rows) and predicted class (columns)."""
    counts = confusion_matrix(labels, predictions, labels=range(len(classes)))
    return pd.DataFrame(counts, index=list(classes), columns=list(classes))


def quantiles(features: np.ndarray) -> dict[str, float]:
    """The 1st, 20th, 80th and 99th percentile of all values of the penultimate features (N, 64)."""
    return {name: float(value) for name, value in zip(QUANTILES, np.quantile(features, list(QUANTILES.values())), strict=True)}


@dataclass(frozen=True)
class Spread:
    """How far the accuracies of trainings that differ in the seed alone lie apart: their standard deviation (fraction), and its
    degrees of freedom."""

    deviation: float
    freedom: int

    def half(self, counts, confidence: float = 0.95) -> float:
        """Half the width of the interval (Student's t) of a sum or difference of means over so many seeds each."""
        t = stats.t.ppf((1 + confidence) / 2, self.freedom)
        return float(t * self.deviation * np.sqrt(sum(1 / count for count in counts)))


def spread(groups: list[list[np.ndarray]]) -> Spread | None:
    """The spread over seeds, pooled over variants, of each of which right/wrong per image is given, one array for each seed. As
    in an analysis of variance it is taken to be the same for all. None if no variant has two seeds."""
    means = [[correct.mean() for correct in group] for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in means)
    squares = sum(np.var(group) * len(group) for group in means)
    return Spread(float(np.sqrt(squares / freedom)), freedom) if freedom else None


def interval(correct: list[np.ndarray], seeds: Spread | None = None) -> tuple[float, float, float]:
    """Accuracy and its 95 % interval from right/wrong per image, one array for each seed.

    With `seeds`, a spread over seeds that is known from elsewhere: its half width and that of the normal approximation over the
    images (of the mean over the seeds on each), added in squares. Without, one seed: Wilson's interval, the chance of having
    drawn these test images. More: Student's t over the seeds themselves, added in the same way.
    """
    means = np.array([c.mean() for c in correct])
    if seeds:
        mean, low, high = mean_interval(np.mean(correct, axis=0), 1, seeds, [len(means)])
        return mean, max(low, 0.0), min(high, 1.0)
    if len(means) == 1:
        low, high = stats.binomtest(int(correct[0].sum()), len(correct[0])).proportion_ci(method="wilson")
        return float(means[0]), float(low), float(high)
    half = np.hypot(stats.t.ppf(0.975, len(means) - 1) * stats.sem(means), images_half(np.mean(correct, axis=0)))
    return float(means.mean()), float(max(means.mean() - half, 0)), float(min(means.mean() + half, 1))


def images_half(values: np.ndarray, confidence: float = 0.95) -> float:
    """Half the width of the interval (normal approximation) of the mean of a value per image, over the choice of the images."""
    return float(stats.norm.ppf((1 + confidence) / 2) * values.std(ddof=1) / np.sqrt(len(values)))


def difference(
    a: list[np.ndarray], b: list[np.ndarray], comparisons: int = 1, seeds: Spread | None = None
) -> tuple[float, float, float]:
    """Accuracy of a minus accuracy of b and its 95 % interval, from right/wrong per image, one array for each seed. With
    `comparisons`, all of so many such intervals cover theirs with 95 % (Bonferroni): for a pair picked out of as many.

    With `seeds`, a spread over seeds that is known from elsewhere: its half width and that of the normal approximation over the
    images (of the means over the seeds on each), added in squares; a and b may have one seed or several. Without, one seed
    each: from the images that only one of the two has right, by Agresti & Min's adjusted Wald interval (2005; half an
    image is added to each cell of the paired table, so that few such images still leave some width). It says nothing about
    other seeds. More seeds: Welch's t over the seeds, and the images as above.
    """
    if seeds:
        return mean_interval(np.mean(a, axis=0) - np.mean(b, axis=0), comparisons, seeds, (len(a), len(b)))
    x, y = (np.array([c.mean() for c in group]) for group in (a, b))
    confidence = 1 - 0.05 / comparisons
    if min(len(a), len(b)) == 1:
        only_a, only_b = (a[0] & ~b[0]).sum() + 0.5, (b[0] & ~a[0]).sum() + 0.5
        n, gap = len(a[0]) + 2, a[0].mean() - b[0].mean()
        middle = (only_a - only_b) / n
        half = stats.norm.ppf((1 + confidence) / 2) * np.sqrt(only_a + only_b - (only_a - only_b) ** 2 / n) / n
        return float(gap), float(middle - half), float(middle + half)
    # Not scipy's ttest_ind, which warns of lost precision where the seeds of one side agree.
    gap, (p, q) = x.mean() - y.mean(), (np.var(z, ddof=1) / len(z) for z in (x, y))
    half = images_half(np.mean(a, axis=0) - np.mean(b, axis=0), confidence)
    if p + q > 0:
        freedom = (p + q) ** 2 / (p**2 / (len(x) - 1) + q**2 / (len(y) - 1))
        half = np.hypot(half, stats.t.ppf((1 + confidence) / 2, freedom) * np.sqrt(p + q))
    return float(gap), float(gap - half), float(gap + half)


def mean_interval(
    values: np.ndarray, comparisons: int = 1, seeds: Spread | None = None, counts=(1,)
) -> tuple[float, float, float]:
    """Mean of a value per image, and its 95 % interval (normal approximation) over the choice of the images; `comparisons` as
    of `difference`. With `seeds`, the spread of such means over seeds, its half width for a sum or difference of means over so
    many seeds each (`counts`) is added in squares."""
    confidence = 1 - 0.05 / comparisons
    mean, half = values.mean(), np.hypot(images_half(values, confidence), seeds.half(counts, confidence) if seeds else 0.0)
    return float(mean), float(mean - half), float(mean + half)


def paired(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Mean of a - b and its 95 % interval (Student's t), from values of the same two or more seeds in the same order."""
    gap, half = (a - b).mean(), stats.t.ppf(0.975, len(a) - 1) * stats.sem(a - b)
    return float(gap), float(gap - half), float(gap + half)


def unpaired(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Mean of a minus mean of b and its 95 % interval (normal approximation), from values of different images."""
    gap, half = a.mean() - b.mean(), stats.norm.ppf(0.975) * np.hypot(stats.sem(a), stats.sem(b))
    return float(gap), float(gap - half), float(gap + half)


def interaction(
    a: list[np.ndarray],
    b: list[np.ndarray],
    c: list[np.ndarray],
    d: list[np.ndarray],
    comparisons: int = 1,
    seeds: Spread | None = None,
) -> tuple[float, float, float]:
    """(accuracy of a - of b) - (of c - of d) and its 95 % interval, from right/wrong per image, one array for each seed;
    `comparisons` and `seeds` as of `difference`.

    From the four results on each image (normal approximation; the mean over the seeds on each). Without `seeds`, and with more
    seeds than one, Student's t over the seeds beside it, each of which gives one value; the half widths are added in squares.
    """
    if seeds:
        w, x, y, z = (np.mean(group, axis=0) for group in (a, b, c, d))
        return mean_interval((w - x) - (y - z), comparisons, seeds, [len(group) for group in (a, b, c, d)])
    values = np.array([(w.astype(float) - x) - (y.astype(float) - z) for w, x, y, z in zip(a, b, c, d, strict=True)])
    confidence = 1 - 0.05 / comparisons
    mean, half = values.mean(), images_half(values.mean(axis=0), confidence)
    if len(values) > 1:
        half = np.hypot(half, stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values.mean(axis=1)))
    return float(mean), float(mean - half), float(mean + half)
