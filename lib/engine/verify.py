"""Reload the best model of every finished run, score it again and hold that against what the run wrote down.

    python -m lib.engine.verify --outputs outputs --data-dir data

A line for each run; the exit code is 1 if any run is damaged or its model does not give its accuracy.
"""

import sys

import numpy as np

from lib import data
from lib.engine import files, store
from lib.engine.commands import Parser, command
from lib.engine.machine import check_device, full_float32
from lib.engine.store import Result
from lib.train import evaluate, load_data

#: Share of a split's predictions that may differ, one image at least: another machine rounds differently, and some image may
#: lie on the border.
TOLERANCE = 0.001


def check(result: Result, loaded: data.Data, device) -> dict[str, tuple[float, int]]:
    """split -> accuracy of the reloaded model, and how many of its predictions are not those that were stored."""
    model, found = result.model().to(device), {}
    for split in result.run.splits[1:]:  # not the training images, of which there are most
        with full_float32():
            scored = evaluate(model, loaded, getattr(loaded, split))
        found[split] = scored["accuracy"], int(np.sum(scored["predictions"] != result.predictions[f"{split}_predictions"]))
    return found


def agrees(result: Result, split: str, accuracy: float, changed: int) -> bool:
    """Whether a model scored again gives the predictions and the accuracy that its run wrote, but for rounding."""
    images = len(result.correct(split))
    return changed <= max(1, TOLERANCE * images) and abs(accuracy - result.score(split=split)) * images <= changed + 1e-6


@command
def main(argv=None) -> int:
    args = Parser("lib.engine.verify", __doc__, "outputs", "data-dir").parse_args(argv)
    always = "runs checked", "accuracies do not agree", "damaged"
    counts = dict.fromkeys((*always, "diverged", "without their model", "without their data"), 0)

    def leave_out(result: Result, kind: str, why: object) -> None:
        counts[kind] += 1
        print(f"{result.run.id}: {why}")

    def score_again(result: Result, loaded: data.Data, device) -> None:
        counts["runs checked"] += 1
        for split, (accuracy, changed) in check(result, loaded, device).items():
            good = agrees(result, split, accuracy, changed)
            counts["accuracies do not agree"] += not good
            found = f"{split} accuracy {accuracy:.4f}, written {result.score(split=split):.4f}, {changed} predictions differ"
            print(f"{result.run.id}: {found}: {'agrees' if good else 'DOES NOT AGREE'}", flush=True)

    damaged, loaded, device = [], {}, check_device(None)
    found = store.stored(files.check_folder("outputs", args.outputs), say=damaged.append)
    if not found and not damaged:
        raise ValueError(f"outputs is {args.outputs}, which has no finished run")
    print(*damaged, sep="\n", end="\n" * bool(damaged))
    counts["damaged"] = len(damaged)
    for result in found:
        key = result.run.data_key
        if result.diverged:
            leave_out(result, "diverged", "diverged, so there is no accuracy to compare")
        elif not result.has_model:
            leave_out(result, "without their model", "its model is not kept, so only its files were checked")
        else:
            try:
                loaded[key] = loaded.get(key) or load_data(result.run, args.data_dir).to(device)
            except ValueError as error:
                leave_out(result, "without their data", f"cannot be checked: {error}")
                continue
            score_again(result, loaded[key], device)
    print(", ".join(f"{count} {kind}" for kind, count in counts.items() if count or kind in always))
    return 1 if counts["accuracies do not agree"] or damaged or counts["without their data"] else 0


if __name__ == "__main__":
    sys.exit(main())
