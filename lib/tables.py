"""From finished runs to the DataFrames and sentences of the report. `found` is variant -> its runs, one a seed."""

import re
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lib import metrics, runs
from lib.data import Data
from lib.norms import gates
from lib.runs import Result, Run
from lib.study import BLACK, BORDER_PROBES, LABELS, MORE_SEEDS, Study, border_name, seeds_by_count
from lib.train import evaluate

Found = dict[str, list[Result]]

#: What the reader of `recipe`'s table must know.
RECIPE_NOTE = (
    "PyTorch BN, weight decay 5e-4 and a cosine after 2 epochs of warm-up unless said, crops from images with a black border; "
    "one seed, scored at the best validation epoch; intervals cover the choice of the validation images (paired), and are not "
    "corrected for their number. Fixup's initialization is without its scalar biases and multipliers; "
    "cutout's holes are 8×8 and black, the authors' 16×16 and of the mean. Some rows compare runs of two machines, or from "
    "before and after the convolutions by Winograd's products, which differ by rounding."
)
#: The same of `borders`' table.
BORDERS_NOTE = (
    "Validation accuracy by the border that training images get before they are cropped: black, the mean of all, or their own "
    "reflection. One seed; the intervals as above, so neither another seed nor another rounding is covered."
)


def label(name: str) -> str:
    return LABELS.get(name, name)


def labels(found: Found) -> dict[str, str]:
    """variant -> its name in figures and tables, which says if a run diverged."""
    return {v: label(v) + " (diverged)" * any(r.diverged for r in results) for v, results in found.items()}


def converged(found: Found, required: tuple[str, ...] = ()) -> tuple[Found, str]:
    """The runs that can be compared, and a sentence about those that diverged ("" if none): a diverged run has no score.

    A seed with which a variant in `required` diverged is left out for all, and another variant that diverged with one of the
    other seeds is left out altogether, so that no number is of the lucky seeds alone. ValueError if that leaves nothing of a
    variant in `required`.
    """
    own = {v: {r.run.seed for r in results} for v, results in found.items()}
    lost = {v: {r.run.seed for r in results if r.diverged} for v, results in found.items()}
    seeds = set().union(*own.values())
    left = seeds.difference(*(lost.get(v, seeds) for v in required))
    if any(not own.get(v, set()) & left for v in required):
        names = ", ".join(label(v) for v in required if lost.get(v, seeds))
        raise ValueError(
            f"with every seed common to {', '.join(map(label, required))} a run of {names} diverged (its loss is no number); "
            "this section needs a seed with which none did"
        )
    kept = [v for v in found if own[v] & left and not lost[v] & left]
    if not any(lost.values()):
        return found, ""
    counts = ", ".join(f"{label(v)} ({len(lost[v])} of {len(found[v])} runs)" for v in found if lost[v])
    sentence = f"Diverged, with a loss that is no number, and therefore without scores here: {counts}."
    partly = [label(v) for v in found if v not in kept and len(lost[v]) < len(found[v])]
    dropped = [f"all runs of {' and '.join(partly)}"] if partly else []
    if left != seeds:
        numbers = sorted(map(str, seeds - left))
        dropped.append(f"seed{'s' * (len(numbers) > 1)} {', '.join(numbers)} for every variant")
    if dropped:
        sentence += f" Tables and comparisons leave out {', and '.join(dropped)}: no number is of the lucky seeds alone."
    return {v: [r for r in found[v] if r.run.seed in left] for v in kept}, sentence


def best_of(found: Found, start: str) -> str:
    """Of the variants whose name starts so, the one with the highest mean validation accuracy. ValueError if there is none."""
    scores = {v: np.mean([r.score(split="val") for r in results]) for v, results in found.items() if v.startswith(start)}
    if not scores:
        raise ValueError(f"with every learning rate a run of {start} diverged (its loss is no number); give other seeds")
    return max(scores, key=scores.get)


def seeds_used(found: Found) -> int:
    """How many seeds every variant has at least."""
    return min(len(results) for results in found.values())


def with_spread(found: Found) -> Found:
    """The variants with more than one seed of which none diverged: those that are left would be the lucky ones."""
    return {v: results for v, results in found.items() if len(results) > 1 and not any(r.diverged for r in results)}


def spread(found: Found) -> metrics.Spread | None:
    """The spread of test accuracy over seeds, pooled over the variants of `with_spread`; None if there is none."""
    return metrics.spread([[result.correct() for result in results] for results in with_spread(found).values()])


def spread_sentence(found: Found) -> str:
    """What `spread` is made of and what for, for a reader; "" if there is none."""
    seeds = spread(found)
    if not seeds:
        return ""
    kept = with_spread(found)
    several = seeds_by_count({v: len(kept[v]) for v in sorted(kept, key=[*LABELS].index)})
    return (
        f"From seed to seed test accuracy has a standard deviation of {100 * seeds.deviation:.2f} points, pooled over variants "
        f"with more than one ({several}; {seeds.freedom} degrees of freedom) and taken to be the same for all. By it intervals "
        "cover the seed as well as the choice of the test images, also where a variant has one seed."
    )


def histories(found: Found) -> dict[str, list[pd.DataFrame]]:
    return {variant: [result.history for result in results] for variant, results in found.items()}


def scores(found: Found) -> pd.DataFrame:
    """Variant × (split, score): means over the seeds of accuracy, micro F1 and macro F1, as fractions."""
    names = {"accuracy": "acc.", "micro_f1": "micro F1", "macro_f1": "macro F1"}
    titles = {"train": "training", "val": "validation", "test": "test"}
    rows = []
    for variant, results in found.items():
        row = {("", "variant"): labels(found)[variant]}
        for split in runs.SPLITS:
            for name, title in names.items():
                row[titles[split], title] = np.mean([result.score(name, split) for result in results])
        rows.append(row)
    frame = pd.DataFrame(rows)
    frame.columns = pd.MultiIndex.from_tuples(frame.columns)
    return frame


def accuracy_by_split(found: Found, title: str) -> pd.DataFrame:
    """A row for each name, which stands in the column `title`: accuracy on the three splits (means over the seeds, fractions)
    and how far training is above test."""
    rows = []
    for name, results in found.items():
        train, val, test = (np.mean([result.score(split=split) for result in results]) for split in runs.SPLITS)
        rows.append({title: name, "training": train, "validation": val, "test": test, "training minus test": train - test})
    return pd.DataFrame(rows)


def split_scores(result: Result) -> pd.DataFrame:
    """One run: a row per split with loss, accuracy, micro F1, macro F1 and the number of images."""
    return pd.DataFrame(
        {
            "split": split,
            "images": len(result.correct(split)),
            "loss": result.score("loss", split),
            "accuracy": result.score("accuracy", split),
            "micro F1": result.score("micro_f1", split),
            "macro F1": result.score("macro_f1", split),
        }
        for split in runs.SPLITS
    )


def accuracies(found: Found, seeds: metrics.Spread | None = None) -> pd.DataFrame:
    """Variant, label, test accuracy, low, high (95 % interval; `seeds` as of metrics.interval) and seeds, accuracies as
    fractions."""
    rows = []
    for variant, results in found.items():
        accuracy, low, high = metrics.interval([result.correct() for result in results], seeds)
        row = {"variant": variant, "label": labels(found)[variant], "accuracy": accuracy, "low": low, "high": high}
        rows.append(row | {"seeds": len(results)})
    return pd.DataFrame(rows)


def per_class(results: list[Result], classes, split: str = "test") -> pd.DataFrame:
    """Precision, recall, F1 and support of each class, the means over the seeds."""
    arrays = (result.predictions for result in results)
    frames = [metrics.per_class(a[f"{split}_labels"], a[f"{split}_predictions"], classes) for a in arrays]
    return sum(frames) / len(frames)


def per_class_scores(found: Found, classes, score: str, split: str = "test") -> pd.DataFrame:
    """Class × variant of one per-class score."""
    columns = {labels(found)[v]: per_class(results, classes, split)[score] for v, results in found.items()}
    return pd.DataFrame(columns).reset_index(names="class")


def curves(found: Found) -> pd.DataFrame:
    """The error curves in numbers (%; means over the seeds): training and validation error after the last epoch, the second
    minus the first, and by how much validation error changes from one epoch to the next, on average over the first half of the
    epochs (of the longest run)."""
    rows, half = [], max(2, -(-max(len(r.history) for results in found.values() for r in results) // 2))
    for variant, results in found.items():
        last = [result.history.iloc[-1] for result in results]
        training, validation = (100 * (1 - np.mean([row[f"{s}_accuracy"] for row in last])) for s in ("train", "val"))
        halves = [result.history["val_accuracy"].to_numpy()[:half] for result in results]
        change = 100 * np.mean([np.abs(np.diff(values)).mean() if len(values) > 1 else np.nan for values in halves])
        row = {"variant": labels(found)[variant], "training error": training, "validation error": validation}
        rows.append(row | {"validation minus training": validation - training, "change per epoch": change})
    return pd.DataFrame(rows)


def against_aims(found: Found, aims: dict[str, float]) -> str:
    """Which variants reach the mean test accuracy (fraction) that `aims` sets for them, which miss it and by how much, and what
    the runs show of the reason: where the error on new images comes from, and whether each fits its training images as well as
    BN ("bn", which must be there)."""
    gaps = {v: 100 * (np.mean([r.score() for r in found[v]]) - aims[v]) for v in aims if v in found}
    names = labels(found)
    training, validation = (
        {v: np.array([100 * (1 - r.score(split=split)) for r in found[v]]) for v in found} for split in ("train", "val")
    )

    def listed(kept):
        return ", ".join(f"{names[v]} ({signed(gap)})" for v, gap in gaps.items() if kept(gap)) or "none"

    said = f"Against the aims, in points, reached: {listed(lambda gap: gap >= 0)}; missed: {listed(lambda gap: gap < 0)}."
    if all(gap >= 0 for gap in gaps.values()):
        return said
    missed = [v for v, gap in gaps.items() if gap < 0]
    errors = ", ".join(f"{names[v]} {training[v].mean():.1f} and {validation[v].mean():.1f} %" for v in missed)
    on_new = [names[v] for v in missed if training[v].mean() < validation[v].mean() / 2]
    worse = [names[v] for v in missed if training[v].min() > training["bn"].max()]
    reasons = []
    if on_new:
        reasons.append(f"more than half of the error on new images is not there on training images with {', '.join(on_new)}")
    if worse:
        reasons.append(f"every training with {', '.join(worse)} fits the training images less well than any with BN")
    return (
        f"{said} The errors of the kept weights on training and validation images, without augmentation: {errors}"
        + (f"; {'; '.join(reasons)}. More" if reasons else ". Anything")
        + " of a reason these runs do not show."
    )


def ends(values: pd.Series, least: str, most: str, alike=()) -> str:
    """Who has the smallest and the largest of some numbers (name -> number, said with one decimal). `alike`: those of trainings
    of one layer, which differ by chance; who is no further from an end than these lie apart is named with it."""
    values = values.round(1) + 0.0  # no minus before a zero
    chance = np.ptp(np.round(alike, 1)) if len(alike) else 0.0
    near = {end: (values - end).abs() <= chance + 1e-9 for end in (values.min(), values.max())}
    both = np.logical_and.reduce(list(near.values()))

    def span(part):
        return " to ".join(f"{number:.1f}".replace("-", "−") for number in dict.fromkeys((part.min(), part.max())))

    if len(near) == 1:
        return f"the same with all ({span(values)})"
    if both.all():
        return f"no further apart than trainings of BN are ({span(values)})"
    low, high = (values[near[end] & ~both].sort_values() for end in near)
    return f"{least} with {', '.join(low.index)} ({span(low)}) and {most} with {', '.join(high.index)} ({span(high)})"


def curves_sentence(frame: pd.DataFrame, where: str = "above", alike: pd.DataFrame | None = None) -> str:
    """What `curves` says of several curves: who ends where, and whose validation error is unsteady. "" for fewer than two.
    `where` their figure stands, seen from the sentence: above or below; `alike`: what it says of trainings of one layer, as of
    `ends`."""
    frame, alike = frame.dropna().set_index("variant"), frame[:0] if alike is None else alike
    if len(frame) < 2:
        return ""
    training, validation, gap, change = (
        ends(frame[column], least, most, alike[column])
        for column, least, most in (
            ("training error", "lowest", "highest"),
            ("validation error", "lowest", "highest"),
            ("validation minus training", "lowest", "highest"),
            ("change per epoch", "least", "most"),
        )
    )
    together = (
        " Where several are named, they lie no further from the end than trainings of BN from each other."
        if len(alike) > 1
        else ""
    )
    return (
        f"After the last epoch (figure {where}) the training error (%) is {training}, the validation error {validation}, and "
        f"validation minus training error (points) {gap}. From one epoch to the next in the first half of the "
        f"training, validation error changes (points, on average) {change}.{together}"
    )


def epoch_reached(history: pd.DataFrame, target: float, to_stay: bool = False) -> float:
    """First epoch with at least the given validation accuracy (fraction), or `to_stay` that from which on it is no lower again;
    NaN if there is none."""
    short = history["val_accuracy"] < target
    return history.loc[(~short[::-1]).cummin()[::-1] if to_stay else ~short, "epoch"].min()


def epochs_to_reach(found: Found, targets, to_stay: bool = False) -> pd.DataFrame:
    """`epoch_reached` by variant and target: the median over seeds; – if not all got there."""
    rows = []
    for variant, results in found.items():
        row = {"variant": labels(found)[variant]}
        for target in targets:
            reached = [epoch_reached(r.history, target, to_stay) for r in results]
            row[f"{100 * target:.0f} %"] = "–" if np.isnan(reached).any() else f"{np.median(reached):g}"
        rows.append(row)
    return pd.DataFrame(rows)


def differences(found: Found, reference: str, seeds: metrics.Spread | None = None) -> pd.DataFrame:
    """Every variant's number of seeds, mean test accuracy, its standard deviation over the seeds (points), that accuracy minus
    the reference's (points) with its 95 % interval, corrected for the number of variants, and a verdict, which says too what
    would be clear if the variant were the only one. `seeds`: as of metrics.difference."""
    rows = []
    for variant, results in found.items():
        values = np.array([result.score() for result in results])
        row = {"variant": labels(found)[variant], "seeds": len(results), "mean": f"{values.mean():.4f}"}
        row |= {"std (points)": f"{100 * values.std(ddof=1):.2f}" if len(values) > 1 else "–"}
        said = dict.fromkeys((f"minus {label(reference)} (points)", "95 % interval", "verdict"), "–")
        if variant != reference:
            gap, low, high = (100 * value for value in gap_of(found, variant, reference, len(found) - 1, seeds))
            clear = in_these_runs({v: found[v] for v in (variant, reference)}, seeds)
            _, alone_low, alone_high = gap_of(found, variant, reference, seeds=seeds)
            if not low <= 0 <= high:
                verdict = f"{'higher' if low > 0 else 'lower'}{clear}"
            elif not alone_low <= 0 <= alone_high:
                verdict = f"{'higher' if alone_low > 0 else 'lower'}{clear}, without the correction only"
            else:
                verdict = "no clear difference"
            said = dict(zip(said, (signed(gap), f"{signed(low)} to {signed(high)}", verdict), strict=True))
        rows.append(row | said)
    return pd.DataFrame(rows)


def judge(found: Found, names, sign: int, margin=0.0, only_if=(), comparisons: int = 1, seeds=None) -> dict:
    """What runs say of a claim that predicts the `sign` of a difference of test accuracies: of two names, a - b, or of four,
    (a - b) - (c - d). Its points, low, high (the interval as of metrics.difference, as are `comparisons` and `seeds`) and
    verdict.

    `margin`: as of `verdict`. `only_if`: two names whose difference must have that sign too. Where a run is `lost` the points
    are NaN, and it counts as the worst that its accuracy could be.
    """
    signs = (1, -1, -1, 1)[: len(names)]
    diverged = {name for name in (*names, *only_if) if any(map(lost, found[name]))}
    pushed = {-weight for name, weight in zip(names, signs, strict=True) if name in diverged}
    if pushed:
        said = "open" if len(pushed) > 1 else "confirmed" if pushed == {sign} else "contradicted"
        if said == "confirmed" and only_if and only_if[0] not in diverged:
            said = "open"
        return dict.fromkeys(("points", "low", "high"), np.nan) | {"verdict": said}
    points, low, high = (100 * v for v in contrast(found, names, comparisons, seeds))
    own = [100 * v for v in contrast(found, only_if, comparisons, seeds)][1:] if only_if else None
    return {"points": points, "low": low, "high": high, "verdict": verdict(low, high, sign, margin, own)}


def contrast(found: Found, names, comparisons: int = 1, seeds: metrics.Spread | None = None) -> tuple[float, float, float]:
    """Test accuracy a - b of two names, or (a - b) - (c - d) of four, with its 95 % interval, as fractions."""
    groups = ([result.correct() for result in found[name]] for name in names)
    return (metrics.difference if len(names) == 2 else metrics.interaction)(*groups, comparisons=comparisons, seeds=seeds)


def verdict(low, high, sign: int, margin: float = 0.0, own=None) -> str:
    """What the interval of a difference (points) says of a claim that predicts its `sign`: confirmed, contradicted or open.

    `margin`: points that a claim of no loss allows. `own`: the interval of a second difference, whose sign the claim predicts
    too and without which the first does not count.
    """
    side = (low, high) if sign > 0 else (-high, -low)
    held, against = side[0] > -margin, side[1] < -margin
    if own is not None:
        own_side = own if sign > 0 else (-own[1], -own[0])
        held, against = held and own_side[0] > 0, against or own_side[1] < 0
    return "confirmed" if held else "contradicted" if against else "open"


def pairs(found: Found) -> int:
    """How many pairs of variants there are, out of which the best and another are picked."""
    return len(found) * (len(found) - 1) // 2


def not_clearly_below(found: Found, best: str, seeds: metrics.Spread | None = None) -> list[str]:
    """The other variants whose test accuracy is not clearly below that of `best`, which was picked by its test accuracy: by
    intervals corrected for all `pairs`, `seeds` as of metrics.difference."""
    return [labels(found)[v] for v in found if v != best and gap_of(found, v, best, pairs(found), seeds)[2] >= 0]


def not_clearly_above(found: Found, worst: str, seeds: metrics.Spread | None = None) -> list[str]:
    """The same of the variant with the lowest test accuracy, and those that are not clearly above it."""
    return [labels(found)[v] for v in found if v != worst and gap_of(found, v, worst, pairs(found), seeds)[1] <= 0]


def above(found: Found, seeds: metrics.Spread | None = None) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Test accuracy of every variant minus every other's, in points, best first, and for each variant those that it is clearly
    above. Clear, and marked by a star, is a gap of which the interval, corrected for all `pairs` and with `seeds` as of
    metrics.difference, lies beyond zero."""
    order, names = sorted(found, key=lambda v: -np.mean([result.score() for result in found[v]])), labels(found)
    rows, below = [], {}
    for a in order:
        row = {"variant": names[a]}
        for b in order:
            gap, low, high = (100 * value for value in gap_of(found, a, b, pairs(found), seeds)) if a != b else (0, 0, 0)
            clear = low > 0 or high < 0
            row[names[b]] = "–" if a == b else signed(gap) + "*" * bool(clear)
            if clear and gap > 0:
                below.setdefault(names[a], []).append(names[b])
        rows.append(row)
    return pd.DataFrame(rows), below


def above_sentence(below: dict[str, list[str]]) -> str:
    """What `above` found clear, in words: no sentence yet, but what can follow a colon."""
    return "; ".join(f"{name} above {', '.join(others)}" for name, others in below.items() if others) or "none"


@dataclass(frozen=True)
class Rescored:
    """A result by its right answers on other images than its test images, for all that compares test accuracies."""

    run: Run
    right: np.ndarray  # bool (N,)
    diverged = collapsed = False

    def correct(self) -> np.ndarray:
        return self.right

    def score(self) -> float:
        return self.right.mean()


def on_validation(found: Found, data: Data, augmented: bool) -> dict[str, list[Rescored]]:
    """The kept weights' answers on the validation images: as they are, or cropped and mirrored as training shows them."""

    def right(result):
        if not augmented:
            return result.correct("val")
        shown = data.augmented(data.val, result.run.augment, result.run.seed)
        return evaluate(result.model(), data, shown)["predictions"] == data.val.labels.numpy()

    return {v: [Rescored(r.run, right(r)) for r in results] for v, results in found.items()}


def gap_of(
    found: Found, a: str, b: str, comparisons: int = 1, seeds: metrics.Spread | None = None
) -> tuple[float, float, float]:
    """Test accuracy of variant a minus b's with its 95 % interval, as fractions; the rest as of metrics.difference."""
    return contrast(found, (a, b), comparisons, seeds)


def recipe(study: Study, known=None) -> tuple[pd.DataFrame, list[str]]:
    """What was tried for the recipe, as far as it is trained (or `known`, a set of run ids, has it): best validation accuracy
    and that minus the accuracy of the recipe that was kept over as many epochs. And the names of what is not trained."""
    plan = {name: probes[0] for name, probes in study.recipe_probes().items()}

    found, rows = trained(study, plan, known), []
    for name, result in found.items():
        used = replace(study.runs(result.run.norm)[0], epochs=result.run.epochs, **BLACK)
        gap, limits = "used" if used == result.run else "–", "–"
        for against in trained(study, {} if used == result.run else {"": used}, known).values():
            gap, limits = gap_on_validation(result, against)
        row = {"recipe": name, "validation accuracy": said_on_validation(result), "against the one used, points": gap}
        rows.append(row | {"95 % interval": limits})
    return pd.DataFrame(rows), [name for name in plan if name not in found]


def borders(study: Study, known=None) -> tuple[pd.DataFrame, list[str]]:
    """What `study.borders()` gives, as far as it is trained (or known): a row for each norm and number of epochs that has both
    black and reflection, with each border's best validation accuracy and reflection's minus black's. And the names of what is
    not trained."""
    plan = {key: planned[0] for key, planned in study.borders().items()}
    found, rows = trained(study, plan, known), []
    for epochs, norm in dict.fromkeys(key[:2] for key in plan):
        black, mean, reflected = (found.get((epochs, norm, border)) for border in ("black", "mean", "reflect"))
        if black and reflected:
            gap, limits = gap_on_validation(reflected, black)
            row = {"variant": LABELS[norm], "epochs": str(epochs)}
            row |= {"black": said_on_validation(black), "mean": said_on_validation(mean) if mean else "–"}
            row |= {"reflection": said_on_validation(reflected), "reflection minus black, points": gap, "95 % interval": limits}
            rows.append(row)
    return pd.DataFrame(rows), [border_name(*key) for key in plan if key not in found]


def borders_sentence(study: Study) -> str:
    """What `borders` has of the longest runs in words, by what the norm takes its statistics from; "" for nothing."""
    plan = {key: planned[0] for key, planned in study.borders().items()}
    epochs, gains = max(key[0] for key in plan), {}
    found = {key: result for key, result in trained(study, plan).items() if not result.diverged}
    for norm in LABELS:
        if all((epochs, norm, border) in found for border in ("reflect", "black")):
            pair = ([found[epochs, norm, border].correct("val")] for border in ("reflect", "black"))
            gains[norm] = [100 * value for value in metrics.difference(*pair)]
    if not gains:
        return ""
    said = ", ".join(f"{signed(gains[norm][0])} with {LABELS[norm]}" for norm in sorted(gains, key=lambda n: -gains[n][0]))
    text = f"Over {epochs} epochs reflection minus black is, in points, {said}."
    image, batch = ([gains[n][0] for n in group if n in gains] for group in (("in", "ln", "gn"), ("bn", "bin", "torch_bn")))
    if image and batch:
        where = "in every run" if min(image) > max(batch) else "in some of these runs only"
        text += f" Norms with statistics of each image gain more by it than norms with the batch's {where}"
        without = "nn" in gains and gains["nn"][1] > 0
        text += "; without a norm there is a gain too, so a norm's statistics are not all of it." if without else "."
    if {"torch_bn", "bn"} <= gains.keys():
        apart = abs(gains["bn"][0] - gains["torch_bn"][0])
        text += f" BN and PyTorch BN are one layer: the {apart:.2f} points between their gains are what another rounding does, "
        text += "and a gain no larger says little."
    again = []
    for norm in gains:
        for run in study.more_seeds().get(norm, [])[1:]:
            further = trained(study, {b: replace(plan[epochs, norm, b], seed=run.seed) for b in ("reflect", "black")})
            if len(further) == 2 and not any(result.diverged for result in further.values()):
                gap, low, high = (signed(100 * v) for v in metrics.difference(*([r.correct("val")] for r in further.values())))
                again.append(f"{gap} with {LABELS[norm]} (95 % interval {low} to {high})")
    if again:
        text += f" Trained with both borders from another start too: {', '.join(again)}."
    return text


def first_pass(study: Study, aims: dict[str, float]) -> str:
    """What was known of the test images before the border was chosen: the test accuracies of the study's variants with a black
    one, against what was aimed at. "" for nothing."""
    runs_of = {norm: study.borders()[max(BORDER_PROBES)[0], norm, "black"][0] for norm in aims}
    found = {norm: result.score() for norm, result in trained(study, runs_of).items() if not result.diverged}
    if not found:
        return ""
    missed = [norm for norm, accuracy in found.items() if accuracy < aims[norm]]
    said = ", ".join(f"{LABELS[norm]} {accuracy:.4f}" for norm, accuracy in found.items())
    return (
        "When it was chosen, the variants had been trained in full with a black border, and their test accuracies were known "
        f"({said}; {len(missed)} of {len(found)} missed the aims that the discussion names), as were those of the runs with "
        "reflection that were finished by then. So the choice was not blind to the test images, though it was made by "
        "validation accuracies alone."
    )


def precision_sentence(found: dict[str, list[Result]]) -> str:
    """What runs in both precisions, of the same two or more seeds in the same order, say of bf16: in test accuracy, with a 95 %
    interval (Student's, over the seeds), against the spread over the seeds."""
    bf16, float32 = (np.array([result.score() for result in found[kind]]) for kind in ("bf16", "float32"))
    gap, low, high = (signed(100 * value) for value in metrics.paired(bf16, float32))
    spread_over_seeds = max(bf16.std(ddof=1), float32.std(ddof=1))
    word = "less" if abs((bf16 - float32).mean()) < spread_over_seeds else "not less"
    return (
        f"bf16 minus float32: {gap} points, 95 % interval {low} to {high}; "
        f"that is {word} than the spread over {len(bf16)} seeds, {100 * spread_over_seeds:.2f} points"
    )


def trained(study: Study, plan: dict, known=None) -> dict:
    """Those of a plan's runs, by their keys, that are finished in the study's folder, or that `known` (run ids) has of them."""
    there = {k: run for k, run in plan.items() if runs.Folder(run, study.outputs).sound and (known is None or run.id in known)}
    return {key: Result(run, study.outputs) for key, run in there.items()}


def said_on_validation(result: Result) -> str:
    return "diverged" if result.diverged else f"{result.score(split='val'):.4f}"


def gap_on_validation(a: Result, b: Result) -> tuple[str, str]:
    """Validation accuracy of a minus b's in points, and its 95 % interval; – where one diverged."""
    if a.diverged or b.diverged:
        return "–", "–"
    gap, low, high = (signed(100 * value) for value in metrics.difference([a.correct("val")], [b.correct("val")]))
    return gap, f"{low} to {high}"


def setting(study: Study, data: Data) -> str:
    """A section's runs, its images, and what its intervals cover. In the report it stands once, where it is first said."""
    source = "The images are CIFAR-10's (Krizhevsky 2009). " if study.dataset == "cifar10" else ""
    return f"The setting: {study.describe()}. {source}{images(study, data)}"


def images(study: Study, data: Data) -> str:
    """The images in numbers, and what intervals cover."""
    mean, std = (", ".join(f"{v:.3f}" for v in values) for values in (data.mean, data.std))
    height, width = data.train.images.shape[2:]
    return (
        f"There are {len(data.train):,} training, {len(data.val):,} validation and {len(data.test):,} test images of "
        f"{height}×{width} in {len(data.classes)} classes; training pixels have mean ({mean}) and standard deviation ({std}). "
        f"{intervals(study)}"
    )


def intervals(study: Study) -> str:
    """What all intervals cover, in a sentence."""
    images = "the choice of the images that are scored, which are test images unless it is said"
    if len(study.seeds) == 1:
        several = ", ".join(label(v) for v in MORE_SEEDS[study.profile])
        return (
            f"All intervals are 95 % intervals and cover {images}. Where variants trained in full are compared, they cover the "
            f"seed too, by its spread with {several}; elsewhere, with one seed, neither the seed nor, unless it is said, a "
            "machine's rounding."
        )
    return f"All intervals are 95 % intervals and cover the seed and {images}."


def basis(found: Found) -> str:
    """How many seeds a number is made of."""
    least = seeds_used(found)
    more = {v: len(results) for v, results in found.items() if len(results) > least}
    return f"{least} seed" + "s" * (least > 1) + f", {seeds_by_count(more)}" * bool(more)


def in_these_runs(found: Found, seeds: metrics.Spread | None = None) -> str:
    """What a clear difference needs beside it where there is one seed and no spread known: what another would do is not."""
    return " in these runs" if seeds_used(found) == 1 and not seeds else ""


def compared(found: Found, a: str, b: str, comparisons: int = 1, seeds: metrics.Spread | None = None) -> str:
    """A sentence: which of two variants is better on the test split, by how much, and whether that is clear. `comparisons`: as
    of metrics.difference, if the two were picked out of so many pairs; `seeds` too."""
    gap, low, high = (100 * value for value in gap_of(found, a, b, comparisons, seeds))
    names = label(a), label(b)
    words = f"95 % interval {signed(low)} to {signed(high)}" + f", corrected for {comparisons} pairs" * (comparisons > 1)
    if low <= 0 <= high:
        return f"there is no clear difference between {names[0]} and {names[1]} ({signed(gap)} points, {words})"
    clear = in_these_runs({v: found[v] for v in (a, b)}, seeds)
    return f"{names[0]} is {abs(gap):.2f} points {'above' if gap > 0 else 'below'} {names[1]}{clear} ({words})"


def signed(number: float, digits: int = 2) -> str:
    """With its sign, and with more digits than asked for where these would make a zero of it: the end of an interval that does
    not contain zero must not look as if it did."""
    while abs(number) > 1e-6 and round(number, digits) == 0:
        digits += 1
    return f"{round(number, digits) + 0.0:+.{digits}f}".replace("-", "−")  # + 0.0: no minus before a zero


def percent(fraction: float, digits: int = 1) -> str:
    return f"{100 * fraction:.{digits}f} %"


def cost(found: Found) -> pd.DataFrame:
    """Variant, label, median training seconds per epoch (NaN if a run moved to another kind of device), epochs run and best
    epoch (means over the seeds), device."""
    rows = []
    for variant, results in found.items():
        seconds = np.median(np.concatenate([result.history["seconds"] for result in results]))
        if any(";" in result.env["device"] for result in results):
            seconds = np.nan
        rows.append(
            {
                "variant": variant,
                "label": labels(found)[variant],
                "seconds": seconds,
                "epochs": f"{np.mean([result.metrics['epochs_run'] for result in results]).round(1):g}",
                "best epoch": f"{np.mean([result.best_epoch for result in results]).round(1):g}",
                "device": ", ".join(sorted({result.env["device"] for result in results})),
            }
        )
    return pd.DataFrame(rows)


def time_ratio(found: Found, a: str, b: str) -> float:
    """Median seconds per epoch of variant a divided by b's; NaN if not all their epochs ran on one kind of device."""
    rows = cost({v: found[v] for v in dict.fromkeys((a, b))}).set_index("variant")
    return rows.loc[a, "seconds"] / rows.loc[b, "seconds"] if rows["device"].nunique() == 1 else np.nan


#: How the learning rate of the sweep goes with the batch size, as its column `rule` names it.
RULES = ("scaled with the batch", "the same for all")


def lost(result: Result) -> bool:
    """Whether a training of the sweep or of a claim has no accuracy to compare: its loss became no number, or its accuracy
    that of chance."""
    return result.diverged or result.collapsed


def sweep(found: Found, batch_size: int) -> pd.DataFrame:
    """One row per norm, batch size and rule for the learning rate: test and validation accuracy (fractions; the mean over the
    seeds that did not diverge, which is what `lost` says, NaN if all did), low and high (95 % interval on test), the number of
    runs, of those that diverged, and the name of the runs in `found`. At `batch_size`, from which the
    learning rate is scaled, the rules agree."""
    rows, usual = [], {results[0].run.lr for results in found.values() if results[0].run.batch_size == batch_size}
    for name, results in found.items():
        run, kept = results[0].run, [result for result in results if not lost(result)]
        row = {"norm": run.norm, "batch_size": run.batch_size, "runs": len(results), "diverged": len(results) - len(kept)}
        row |= dict.fromkeys(("accuracy", "low", "high", "val_accuracy"), np.nan)
        if kept:
            row |= dict(zip(("accuracy", "low", "high"), metrics.interval([r.correct() for r in kept]), strict=True))
            row["val_accuracy"] = np.mean([r.score(split="val") for r in kept])
        scaled, same = RULES
        rules = RULES if run.batch_size == batch_size else (same,) if run.lr in usual else (scaled,)
        rows += [row | {"rule": rule, "name": name} for rule in rules]
    return pd.DataFrame(rows).sort_values("rule", kind="stable", ignore_index=True)


def sweep_change(
    found: Found, rows: pd.DataFrame, norm: str, rule: str, size: int, comparisons: int = 1
) -> tuple[int, float, float, float] | None:
    """What a norm's test accuracy at a batch size differs (fraction, with its 95 % interval, `comparisons` as of
    metrics.difference) from that at the size which is best on validation data, and that size. None if a run at that batch size
    diverged; others that did are no candidates."""
    rows = rows[(rows["norm"] == norm) & (rows["rule"] == rule) & (rows["diverged"] == 0)].set_index("batch_size")
    if size not in rows.index:
        return None
    best = rows["val_accuracy"].idxmax()
    return int(best), *sweep_gap(found, rows.loc[size, "name"], rows.loc[best, "name"], comparisons)


def sweep_gap(found: Found, a: str, b: str, comparisons: int = 1) -> tuple[float, float, float] | None:
    """Test accuracy of the runs named a minus those named b (fractions, with the 95 % interval); None if some run of either
    diverged: the seeds that are left are the lucky ones."""
    if any(lost(result) for name in (a, b) for result in found[name]):
        return None
    return gap_of(found, a, b, comparisons) if a != b else (0.0, 0.0, 0.0)


def sweep_lead(found: Found, rows: pd.DataFrame, a: str, b: str, rule: str) -> dict[str, list[int]]:
    """Who is clearly ahead at which batch sizes, by intervals corrected for the number of sizes and rules: keys a, b (norms),
    "neither", and, where runs diverged and nothing can be compared, "a diverged", "b diverged" (with the norms' names), "both
    diverged"."""
    part = rows[rows["rule"] == rule].pivot(index="batch_size", columns="norm", values="name")
    lead = {key: [] for key in (a, b, "neither", f"{a} diverged", f"{b} diverged", "both diverged")}
    for size, names in part.iterrows():
        gap = sweep_gap(found, names[a], names[b], len(part) * len(RULES))
        failed = [v for v in (a, b) if any(map(lost, found[names[v]]))]
        who = a if gap and gap[1] > 0 else b if gap and gap[2] < 0 else "neither"
        if failed:
            who = f"{failed[0] if len(failed) == 1 else 'both'} diverged"
        lead[who].append(int(size))
    return lead


def gate_values(results: list[Result]) -> pd.DataFrame:
    """BIN's gates at the best epoch: columns layer (in forward order; the stem, or stage.block.norm, from 1), channel, rho,
    seed."""
    rows = []
    for result in results:
        for layer, rho in gates(result.model()).items():
            short = re.sub(r"layer(\d+)\.(\d+)\.norm", lambda m: f"{m[1]}.{int(m[2]) + 1}.", layer).replace("norm1", "stem")
            rows += [{"layer": short, "channel": c, "rho": v, "seed": result.run.seed} for c, v in enumerate(rho.tolist())]
    return pd.DataFrame(rows)


def spread_growth(history: pd.DataFrame) -> tuple[float, float, float]:
    """How the features' spread (99th minus 1st percentile) ends and how it grew.

    Returns its mean over the last quarter of the epochs, and that mean divided by the second quarter's: about 1 where
    the features have settled, above it where they keep growing; and divided by its lowest epoch's. Fewer than 4 epochs have no
    quarters: the growth is NaN.
    """
    spread = (history["q99"] - history["q01"]).to_numpy()
    quarter = len(spread) // 4
    if not quarter:
        return float(spread[-1]), float("nan"), float("nan")
    early, late, least = spread[quarter : 2 * quarter].mean(), spread[-quarter:].mean(), spread.min()

    def over(start):
        if late == start:  # features that are all zero among them
            return 1.0
        return float(late / start) if start > 0 else float("inf")

    return float(late), over(early), over(least)


#: Validation accuracies at which it is asked how fast a norm learns.
LEVELS = (0.7, 0.8, 0.85)

#: A growth up to the first is called bounded, from the second on growing, and what lies between is left open: a convention.
BOUNDED, GROWING = 1.25, 1.75


def reading(growth: float) -> str:
    """What a variant's growth says: NaN comes from too few epochs or from values that are no numbers."""
    if np.isnan(growth):
        return "not to be said"
    return "bounded" if growth <= BOUNDED else "growing" if growth >= GROWING else "in between"
