"""What was tried for the recipe before the study, and for each norm after it: the runs, the command that trains them, and their
tables.

    python -m report.probes --data-dir data

All are of the paper profile on CIFAR-10 and were compared by validation accuracy.
"""

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from lib import stats
from lib.engine import store
from lib.engine.commands import Parser, command
from lib.engine.store import Result
from lib.norms import NORMS
from lib.run import Run
from lib.study import NAMES, Study

#: Crops from images with a black border, as the recipe had them before another border was tried.
BLACK = {"augment": "crop+flip"}
SHORT = {"weight_decay": 5e-4, "epochs": 12}
#: name -> what it changes of the recipe with a black border: of PyTorch's BN, or of the norm that is named.
RECIPES = {
    "weight decay 1e-4, 12 epochs": {"weight_decay": 1e-4, "epochs": 12},
    "weight decay 5e-4, 12 epochs": SHORT,
    "weight decay 1e-3, 12 epochs": {"weight_decay": 1e-3, "epochs": 12},
    "weight decay 5e-4, steps instead of a cosine, 12 epochs": SHORT | {"schedule": "step"},
    "weight decay 5e-4, 100 epochs": {"weight_decay": 5e-4},
    "weight decay 1e-3, 100 epochs": {"weight_decay": 1e-3},
    "weight decay 5e-4, cutout of 8×8 pixels, 100 epochs": {"augment": "crop+flip+cutout"},
    "no warm-up, 12 epochs": SHORT | {"warmup_epochs": 0},
    "warm-up of 4 epochs, 12 epochs": SHORT | {"warmup_epochs": 4},
    "GN, groups of 2 channels, 12 epochs": SHORT | {"norm": "gn", "group_size": 2},
    "GN, groups of 4 channels, 12 epochs": SHORT | {"norm": "gn", "group_size": 4},
    "GN, groups of 8 channels, 12 epochs": SHORT | {"norm": "gn", "group_size": 8},
    "GN, groups of 16 channels, 12 epochs": SHORT | {"norm": "gn", "group_size": 16},
    "NN, gradient not clipped, 12 epochs": SHORT | {"norm": "nn", "clip_norm": None},
    "NN, gradient clipped to norm 0.3, 12 epochs": SHORT | {"norm": "nn", "clip_norm": 0.3},
    "NN, gradient clipped to norm 1, 12 epochs": SHORT | {"norm": "nn", "clip_norm": 1.0},
    "NN, gradient clipped to norm 3, 12 epochs": SHORT | {"norm": "nn", "clip_norm": 3.0},
    "NN, Fixup's initialization, gradient not clipped, 12 epochs": SHORT
    | {"norm": "nn", "clip_norm": None, "initialization": "fixup"},
    "NN, Fixup's initialization, gradient clipped to norm 1, 12 epochs": SHORT
    | {"norm": "nn", "clip_norm": 1.0, "initialization": "fixup"},
    "GN, groups of 2 channels, 100 epochs": {"norm": "gn", "group_size": 2},
    "GN, groups of 4 channels, 100 epochs": {"norm": "gn", "group_size": 4},
    "NN, gradient clipped to norm 3, 100 epochs": {"norm": "nn", "clip_norm": 3.0},
}
#: The borders that were tried after RECIPES: epochs, norms, borders. The study's own runs are among those of 100 epochs.
BORDERS = ((12, ("torch_bn", "gn"), ("black", "mean", "reflect")), (100, tuple(NORMS), ("black", "reflect")))

#: For these norms one thing of the study's recipe is changed at a time, over 12 epochs.
TUNED = ("bn", "in", "ln", "gn", "nn")
TUNING = {
    "as it is": {},
    "weight decay 1e-4": {"weight_decay": 1e-4},
    "weight decay 2.5e-4": {"weight_decay": 2.5e-4},
    "weight decay 1e-3": {"weight_decay": 1e-3},
    "no decay of γ, β and biases": {"bias_decay": False},
    "learning rate 0.05": {"lr": 0.05},
    "learning rate 0.2": {"lr": 0.2},
}

#: 12: and over all epochs, twice the learning rate for the norms that it gains something over twelve; two trainings each.
LONGER = ("bn", "in", "ln", "gn")

#: 13: learning rates far from the study's, and for which norms; and ghost batches of BN, 128 being all images of a batch.
RATED, RATES = ("bn", "gn", "nn"), (0.01, 0.032, 0.05, 0.1, 0.2, 0.32, 1.0, 3.2)
GHOSTS = (128, 16, 8)
#: 13: where BIN's gates are held. Held at 1 it is BN, and at 0 IN.
GATES = {
    "1 (BN)": ("bn", {}),
    "½": ("bin", {"gate": 0.5, "gate_lr": 0.0}),
    "0 (IN)": ("in", {}),
    "learned": ("bin", {}),
}


def study_of(outputs: str | Path = "outputs", data_dir: str | Path = "data", seeds=(0,), **changes) -> Study:
    """The paper's study on CIFAR-10 with other fields of Run for all its runs."""
    return Study("paper", "cifar10", data_dir, seeds, outputs, changes=changes)


def recipes(seeds=(0,)) -> dict[str, list[Run]]:
    """Name of a recipe -> its runs, one for each seed."""
    return {name: study_of(seeds=seeds, **BLACK | changes).runs("torch_bn") for name, changes in RECIPES.items()}


def borders(seeds=(0,)) -> dict[tuple[int, str, str], list[Run]]:
    """(epochs, norm, border) -> its runs, one for each seed."""
    found = {}
    for epochs, norms, tried in BORDERS:
        for norm, border in itertools.product(norms, tried):
            augment = "crop+flip" if border == "black" else f"crop+flip+{border}"
            found[epochs, norm, border] = study_of(seeds=seeds, epochs=epochs, augment=augment).runs(norm)
    return found


def short(norm: str, seeds, **changes) -> list[Run]:
    """A norm's runs over 12 epochs, one for each seed, whose test images are never scored."""
    return study_of(seeds=seeds, epochs=12, probe=True, **changes).runs(norm)


def tuning(seeds=(0,)) -> dict[tuple[str, str], list[Run]]:
    """(norm, what is changed) -> its runs."""
    return {(v, name): short(v, seeds, **changes) for name, changes in TUNING.items() for v in TUNED}


def longer(seeds=(0, 1)) -> dict[str, list[Run]]:
    """Norm -> its runs at twice the study's learning rate, whose test images are never scored."""
    return {v: study_of(seeds=seeds, probe=True, lr=0.2).runs(v) for v in LONGER}


def rates(seeds=(0,)) -> dict[tuple[str, float], list[Run]]:
    """(norm, learning rate) -> its runs."""
    return {(v, lr): short(v, seeds, lr=lr) for v in RATED for lr in RATES}


def gates(seeds=(0, 1, 2)) -> dict[str, list[Run]]:
    """Where the gates are held -> its runs."""
    return {name: short(norm, seeds, **changes) for name, (norm, changes) in GATES.items()}


def ghosts(seeds=(0, 1, 2)) -> dict[int, list[Run]]:
    """Images that share BN's statistics, of each batch of 128 -> its runs."""
    return {size: short("bn", seeds, **({"ghost_batch": size} if size < Run.batch_size else {})) for size in GHOSTS}


def tried_later(seeds=(0,)) -> dict[str, list[Run]]:
    """Name -> runs of all that was tried after the study; a run may have two names. Gates, ghost batches and `longer` have
    several seeds whatever `seeds` is."""
    found = {f"{NAMES[norm]}, {change}": planned for (norm, change), planned in tuning(seeds).items()}
    found |= {f"{NAMES[norm]}, learning rate {lr:g}": planned for (norm, lr), planned in rates(seeds).items()}
    found |= {f"gates {place}": planned for place, planned in gates().items()}
    found |= {f"{NAMES[norm]}, learning rate 0.2, all epochs": planned for norm, planned in longer().items()}
    return found | {f"BN, statistics of {size} images": planned for size, planned in ghosts().items()}


def validated(outputs: Path, plan: dict[tuple, list[Run]]) -> pd.DataFrame:
    """A row for each run of a plan, indexed by its name: `val`, the best validation accuracy, NaN where the run is not finished
    yet or failed, and whether it `failed`."""
    found = [(name, store.find(run, outputs)) for name, planned in plan.items() for run in planned]
    rows = [{"val": np.nan if not r or r.failed else r.score(split="val"), "failed": bool(r and r.failed)} for _, r in found]
    return pd.DataFrame(rows, index=pd.Index([name for name, _ in found]))


def versus(outputs: Path, plan: dict, base) -> pd.DataFrame:
    """stats.table of validation accuracy: each name of a plan minus `base`; empty as long as a run is missing or failed."""
    found = {name: [store.find(run, outputs) for run in planned] for name, planned in plan.items()}
    if any(result is None or result.failed for results in found.values() for result in results):
        return pd.DataFrame(columns=[*stats.Contrast._fields, "clear"], dtype=float)
    right = {name: [result.correct("val") for result in results] for name, results in found.items()}
    return stats.table({name: {name: 1, base: -1} for name in plan if name != base}, right)


def plan(seeds=(0,)) -> dict[str, list[Run]]:
    """Name -> runs of all that was tried; a run may be a recipe's and a border's."""
    of_borders = {f"{NAMES[norm]}, border {b}, {n} epochs": planned for (n, norm, b), planned in borders(seeds).items()}
    return recipes(seeds) | of_borders


def on_validation(a: Result, b: Result) -> stats.Contrast:
    """Best validation accuracy of a training minus another's; their interval is of the images only."""
    if a.failed or b.failed:
        return stats.Contrast(*[np.nan] * 4)
    return stats.contrast({"a": 1, "b": -1}, {"a": [a.correct("val")], "b": [b.correct("val")]})


def compared(outputs: Path, pairs: dict[str, tuple[Run, Run]]) -> pd.DataFrame:
    """What was tried, a row for each named pair of a run and the one it is held against, as far as both are finished: the first
    one's best validation accuracy (`val`), and value, low, high of it minus the second's; NaN where the two are one run."""
    rows = {}
    for name, pair in pairs.items():
        a, b = (store.find(run, outputs) for run in pair)
        if a and b:
            difference = on_validation(a, b)._asdict() if a.run != b.run else {}
            rows[name] = {"val": np.nan if a.failed else a.score(split="val")} | difference
    columns = ["val", "value", "low", "high"]
    return pd.DataFrame(rows.values(), index=pd.Index(rows, name="recipe"), columns=columns, dtype=float)


def recipe_table(outputs: Path) -> pd.DataFrame:
    """`compared` of every recipe, with the one in use (but for the border) over as many epochs."""
    tried = {name: run for name, (run,) in recipes().items()}
    used = {name: replace(study_of().runs(run.norm)[0], epochs=run.epochs, **BLACK) for name, run in tried.items()}
    return compared(outputs, {name: (run, used[name]) for name, run in tried.items()})


def border_table(outputs: Path) -> pd.DataFrame:
    """`compared` of a reflected border with a black one, for each norm and number of epochs."""
    tried = {key: run for key, (run,) in borders().items()}
    keys = dict.fromkeys((epochs, norm) for epochs, norm, _ in tried)
    both = {key: (tried[*key, "reflect"], tried[*key, "black"]) for key in keys}
    return compared(outputs, {f"{NAMES[norm]}, {epochs} epochs": pair for (epochs, norm), pair in both.items()})


@command
def main(argv=None) -> int:
    parser = Parser("report.probes", __doc__, "data-dir", "seeds", "outputs")
    args = parser.parse_args(argv)
    study = study_of(args.outputs, args.data_dir, args.seeds)
    for name, results in study.fit_all(plan(study.seeds) | tried_later(study.seeds)).items():
        for result in results:  # they are compared on validation data
            accuracy = "diverged" if result.diverged else f"val accuracy {result.score(split='val'):.4f}"
            print(f"{name}: seed {result.run.seed}  {accuracy}  best epoch {result.best_epoch}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
