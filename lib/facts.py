"""What the stored trainings say, as tidy DataFrames: one row for each subject, fractions unrounded, and no sentences.

A group of trainings is `arms`: variant -> its finished trainings (lib.engine.store.Result), one for each seed. Frames are
indexed by variant unless said. Where a training failed (it diverged, or fell back to chance), its variant's scores are NaN:
none is of the lucky seeds alone.
"""

import itertools
import re
from collections.abc import Callable

import numpy as np
import pandas as pd

from lib import metrics, norms, stats
from lib.data import Data
from lib.engine.store import Result
from lib.run import SPLITS
from lib.train import evaluate

Arms = dict[str, list[Result]]


def by_norm(arms: Arms) -> Arms:
    """One arm for each norm. Batch norm is one layer, whether PyTorch's or ours: the trainings of both are `bn`."""
    layers = {"bn": [*arms.get("bn", []), *arms["torch_bn"]]} if "torch_bn" in arms else {}
    return {name: results for name, results in (arms | layers).items() if name != "torch_bn"}


def trainings(arms: Arms) -> pd.DataFrame:
    """A row for each training, its variant repeated as the index: seed, accuracy (train, val, test) and macro F1 (train_f1, …)
    at the best validation epoch, val_loss there, and best_epoch and epochs trained."""
    rows = []
    for variant, results in arms.items():
        for result in results:
            row = {"variant": variant, "seed": result.run.seed, "val_loss": result.score("loss", "val")}
            row |= {split: result.score("accuracy", split) for split in SPLITS}
            row |= {f"{split}_f1": result.score("macro_f1", split) for split in SPLITS}
            row = row if not result.failed else dict.fromkeys(row, np.nan) | {"variant": variant, "seed": result.run.seed}
            rows.append(row | {"best_epoch": result.best_epoch, "epochs": result.metrics["epochs_run"]})
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["variant", "seed", *SPLITS])
    return frame.set_index("variant")


def scores(arms: Arms) -> pd.DataFrame:
    """The columns of `trainings`, as means over the seeds, and `n`, the number of trainings."""
    groups = trainings(arms).drop(columns="seed").groupby("variant", sort=False)
    return groups.mean(skipna=False).assign(n=groups.size())


def by_split(results: list[Result]) -> pd.DataFrame:
    """Split × accuracy, micro_f1, macro_f1 and loss of one variant, the means over its trainings."""
    names = ("accuracy", "micro_f1", "macro_f1", "loss")

    def mean(name, split):
        return np.mean([np.nan if result.failed else result.score(name, split) for result in results])

    return pd.DataFrame({split: {name: mean(name, split) for name in names} for split in SPLITS}).T.rename_axis("split")


def confusion(results: list[Result], classes: tuple[str, ...]) -> pd.DataFrame:
    """Test images by true class (rows) and predicted class (columns), the mean over one variant's trainings."""
    arrays = [result.predictions for result in results]
    return sum(metrics.confusion(a["test_labels"], a["test_predictions"], classes) for a in arrays) / len(arrays)


def per_class(arms: Arms, classes: tuple[str, ...], score: str = "f1") -> pd.DataFrame:
    """Class × variant: F1 (or recall, or precision) on the test images, the mean over the seeds."""

    def of_classes(result):
        labels, predictions = (result.predictions[f"test_{name}"] for name in ("labels", "predictions"))
        return metrics.per_class(labels, predictions, classes)[score] * (np.nan if result.failed else 1)

    return pd.DataFrame({v: sum(map(of_classes, results)) / len(results) for v, results in arms.items()}).rename_axis("class")


def answers(arms: Arms) -> stats.Answers:
    """Which test images each training has right, of the variants of which none failed."""
    return {v: [result.correct() for result in results] for v, results in arms.items() if not any(r.failed for r in results)}


def compare(arms: Arms, contrasts: dict[str, dict[str, float]]) -> pd.DataFrame:
    """stats.table of test accuracy: value, low, high, p and clear of each named contrast, and whether it is clearly `ahead` or
    `behind`; one that needs a failed variant is NaN and not clear."""
    right = answers(arms)
    known = {name: weights for name, weights in contrasts.items() if set(weights) <= set(right)}
    rows = stats.table(known, right) if known else pd.DataFrame(columns=[*stats.Contrast._fields, "clear"], dtype=float)
    rows = rows.reindex(list(contrasts))
    rows["clear"] = rows["clear"].eq(True)
    return rows.assign(ahead=rows["clear"] & (rows["value"] > 0), behind=rows["clear"] & (rows["value"] < 0))


def against(arms: Arms, reference: str) -> pd.DataFrame:
    """Every other variant's test accuracy minus the reference's."""
    return compare(arms, {v: {v: 1, reference: -1} for v in arms if v != reference}).rename_axis("variant")


def pairs(arms: Arms) -> pd.DataFrame:
    """Every variant's test accuracy minus that of each later one, indexed by both: "bn - in"."""
    return compare(arms, {f"{a} - {b}": {a: 1, b: -1} for a, b in itertools.combinations(arms, 2)}).rename_axis("pair")


def over_seeds(arms: Arms, number: Callable[[pd.DataFrame], float], middle: Callable = np.mean) -> pd.DataFrame:
    """A number of each training's history: its middle, lowest and highest value over the seeds, and n."""
    values = {v: [np.nan if r.failed else number(r.history) for r in results] for v, results in arms.items()}
    rows = {v: {"value": middle(x), "low": np.min(x), "high": np.max(x), "n": len(x)} for v, x in values.items()}
    return pd.DataFrame(rows.values(), index=pd.Index(rows, name="variant"))


def epochs_to(arms: Arms, levels: tuple[float, ...]) -> pd.DataFrame:
    """The first epoch with at least such a training accuracy (the mean over an epoch, on augmented images): the median
    training's (the later of two), the first one's and the last one's; NaN where one never got there. Columns: value, low, high
    and n, and below each the levels as "80 %"."""

    def reached(level):
        return lambda history: history.loc[history["train_accuracy"] >= level, "epoch"].min()

    def median(values):
        return np.quantile(values, 0.5, method="higher")

    by_level = {f"{100 * level:g} %": over_seeds(arms, reached(level), median) for level in levels}
    return pd.concat(by_level, axis=1).swaplevel(axis=1)


def jitter(arms: Arms) -> pd.DataFrame:
    """By how much validation accuracy changes from one epoch to the next, up or down, on average over the first half."""
    return over_seeds(arms, lambda history: history["val_accuracy"][: len(history) // 2].diff().abs().mean())


def histories(arms: Arms) -> dict[str, list[pd.DataFrame]]:
    """Variant -> the history of each of its trainings."""
    return {variant: [result.history for result in results] for variant, results in arms.items()}


def place(layer: str) -> str:
    """The name of a norm's layer for readers: stem, or stage.block.norm from 1, as in 3.2.1 for layer3.1.norm1."""
    return re.sub(r"layer(\d+)\.(\d+)\.norm", lambda m: f"{m[1]}.{int(m[2]) + 1}.", layer).replace("norm1", "stem")


def gates(results: list[Result]) -> pd.DataFrame:
    """BIN's gates at the best epoch, a row for each: layer (a `place`, in forward order), channel, rho, seed."""
    rows = []
    for result in results:
        for layer, rho in norms.gates(result.model()).items():
            rows += [(place(layer), channel, value, result.run.seed) for channel, value in enumerate(rho.tolist())]
    return pd.DataFrame(rows, columns=["layer", "channel", "rho", "seed"])


def dead_scales(arms: Arms, below: float = 0.01) -> pd.DataFrame:
    """Layer (a `place`, in forward order) × variant: the share of the channels whose scale |γ| is below that at the best epoch,
    the mean over the seeds. Variants without a γ are left out."""

    def shares(result: Result) -> pd.Series:
        scales = {name: p for name, p in result.model().named_parameters() if name.endswith("weight") and p.ndim == 1}
        return pd.Series(
            {place(name.removesuffix(".weight")): (p.abs() < below).double().mean().item() for name, p in scales.items()}
        )

    found = {v: pd.concat([shares(r) for r in results], axis=1).mean(axis=1) for v, results in arms.items()}
    return pd.DataFrame({v: values for v, values in found.items() if len(values)})


def by_batch_size(swept: Arms, usual: int) -> pd.DataFrame:
    """The sweep, a row for each norm, batch size and rule of the learning rate (`scaled` with the batch, or the `same`; at the
    usual size both): test accuracy as value, low, high. NaN where a training failed."""
    right = answers(swept)
    rate = next(results[0].run.lr for results in swept.values() if results[0].run.batch_size == usual)
    rows = []
    for name, results in swept.items():
        run = results[0].run
        value, low, high, _ = stats.contrast({name: 1}, right) if name in right else [np.nan] * 4
        row = {"norm": run.norm, "batch": run.batch_size, "value": value, "low": low, "high": high, "run": name}
        rules = {"scaled": np.isclose(run.lr, rate * run.batch_size / usual), "same": run.lr == rate}
        rows += [row | {"rule": rule} for rule, followed in rules.items() if followed]
    return pd.DataFrame(rows).sort_values(["rule", "norm", "batch"], ignore_index=True)


def growth(history: pd.DataFrame) -> float:
    """By what factor the features' spread (99th minus 1st percentile) grows from the second quarter of the epochs to the last:
    about 1 where they have settled. NaN for fewer than four epochs."""
    spread = (history["q99"] - history["q01"]).to_numpy()
    quarter = len(spread) // 4
    early, late = (spread[part].mean() if quarter else np.nan for part in (slice(quarter, 2 * quarter), slice(-quarter, None)))
    return late / early if early > 0 else np.nan


def features(arms: Arms) -> pd.DataFrame:
    """The penultimate features on validation images: percentiles (q01, q20, q80, q99) after the last epoch, the mean over the
    seeds, and `growth` with its lowest and highest training."""

    def last(name):
        return over_seeds(arms, lambda history: history[name].iloc[-1])["value"]

    percentiles = pd.DataFrame({name: last(name) for name in metrics.QUANTILES})
    return percentiles.join(over_seeds(arms, growth).rename(columns={"value": "growth"}))


def seconds(arms: Arms) -> pd.Series:
    """Median seconds of training an epoch, of the variants that were trained on the kind of device that most have; NaN of the
    others, whose times say nothing."""
    devices = {v: "; ".join(sorted({result.env["device"] for result in results})) for v, results in arms.items()}
    usual = pd.Series(devices).mode()[0]
    return pd.Series(
        {v: np.median(np.concatenate([r.history["seconds"] for r in arms[v]])) if devices[v] == usual else np.nan for v in arms}
    ).rename_axis("variant")


def agreement(a: Result, b: Result) -> float:
    """The share of the test images that two trainings give the same class."""
    return float((a.predictions["test_predictions"] == b.predictions["test_predictions"]).mean())


def as_trained(arms: Arms, data: Data, draws: int = 10) -> pd.DataFrame:
    """Validation accuracy of the kept weights on the images as they are (`plain`) and cropped and mirrored as training shows
    them (`augmented`, the mean over so many draws); means over the seeds."""

    def accuracy(result):
        shown = [data.augmented(data.val, result.run.augment, draw) for draw in range(draws)]
        return np.mean([evaluate(result.model(), data, split)["accuracy"] for split in shown])

    plain = {v: np.mean([result.score(split="val") for result in results]) for v, results in arms.items()}
    augmented = {v: np.mean([accuracy(result) for result in results]) for v, results in arms.items()}
    return pd.DataFrame({"plain": plain, "augmented": augmented}).rename_axis("variant")


def in_training(arms: Arms) -> pd.Series:
    """Training accuracy of the best epoch as it was trained, with dropout at work and batch norm by each batch's statistics,
    where `trainings` has that of the kept weights in evaluation; means over the seeds."""

    def at_best(result):
        return np.nan if result.failed else result.history.set_index("epoch")["train_accuracy"][result.best_epoch]

    return pd.Series({v: np.mean([at_best(result) for result in results]) for v, results in arms.items()}, dtype=float)


def distinct(arms: Arms) -> Arms:
    """The arms without those that have the same runs as one before them."""
    first = {results[0].run.id: name for name, results in reversed(arms.items())}
    return {name: arms[name] for name in arms if name in first.values()}
