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

SPLITS = ("val", "test")
#: Share of a split's predictions that may differ, one image at least: another machine rounds differently, and some image may
#: lie on the border.
TOLERANCE = 0.001


def check(result: Result, loaded: data.Data, device) -> dict[str, tuple[float, int]]:
    """split -> accuracy of the reloaded model, and how many of its predictions are not those that were stored."""
    model, found = result.model().to(device), {}
    for split in [split for split in SPLITS if split in result.run.splits]:
        with full_float32():
            scored = evaluate(model, loaded, getattr(loaded, split))
        found[split] = scored["accuracy"], int(np.sum(scored["predictions"] != result.predictions[f"{split}_predictions"]))
    return found


def agrees(result: Result, split: str, accuracy: float, changed: int) -> bool:
    images = len(result.correct(split))
    return changed <= max(1, TOLERANCE * images) and abs(accuracy - result.score(split=split)) * images <= changed + 1e-6


def main(argv=None) -> int:
    parser = Parser("lib.engine.verify", __doc__, "outputs", "data-dir")
    args = parser.parse_args(argv)

    def work() -> int:
        damaged, loaded, wrong, unread, no_model, diverged = [], {}, 0, 0, 0, 0
        found = store.stored(files.check_folder("outputs", args.outputs), say=damaged.append)
        if not found and not damaged:
            raise ValueError(f"outputs is {args.outputs}, which has no finished run")
        print(*damaged, sep="\n", end="\n" * bool(damaged))
        device = check_device(None)
        for result in found:
            if result.diverged:
                print(f"{result.run.id}: diverged, so there is no accuracy to compare")
                diverged += 1
                continue
            if not result.has_model:
                print(f"{result.run.id}: its model is not kept, so only its files were checked against each other")
                no_model += 1
                continue
            key = result.run.data_key
            try:
                loaded[key] = loaded.get(key) or load_data(result.run, args.data_dir).to(device)
            except ValueError as error:
                print(f"{result.run.id}: cannot be checked: {error}")
                unread += 1
                continue
            for split, (accuracy, changed) in check(result, loaded[key], device).items():
                good = agrees(result, split, accuracy, changed)
                wrong += not good
                print(
                    f"{result.run.id}: {split} accuracy {accuracy:.4f}, written {result.score(split=split):.4f}, "
                    f"{changed} predictions differ: {'agrees' if good else 'DOES NOT AGREE'}",
                    flush=True,
                )
        print(
            f"{len(found) - unread - no_model - diverged} runs checked, {wrong} accuracies do not agree, {len(damaged)} damaged"
            + f", {diverged} diverged" * (diverged > 0)
            + f", {no_model} without their model" * (no_model > 0)
            + f", {unread} without their data" * (unread > 0)
        )
        return 1 if wrong or damaged or unread else 0

    return command(work)


if __name__ == "__main__":
    sys.exit(main())
