"""Is bf16 a choice of speed, or another result? The same short CIFAR-10 runs in both precisions, seed by seed.

    python -m benchmarks.precision [--norm bn] [--train-size 4000] [--seeds 0,1,2]

The runs are kept in outputs/ like all others and resume. It ends with the mean difference in test accuracy and its 95 %
interval: Student's t, paired, for the seeds share initial weights and batches.
"""

import sys
from dataclasses import replace

import numpy as np
from scipy.stats import ttest_rel

from lib.engine.commands import Parser, command
from lib.engine.store import Result
from lib.run import Run
from lib.study import Study, parse_seeds

SEEDS = (0, 1, 2)
#: What the runs of either precision change, with crops from images with a black border.
CHANGES = {"augment": "crop+flip", "weight_decay": 5e-4, "epochs": 10}


def plan(study: Study, norm: str = "bn") -> dict[str, list[Run]]:
    """precision -> a run for each seed of the study."""
    changes = study.changes | CHANGES
    return {kind: replace(study, changes=changes | {"precision": kind}).runs(norm) for kind in ("float32", "bf16")}


@command
def main(argv=None) -> int:
    parser = Parser("benchmarks.precision", __doc__, "data-dir", "outputs")
    parser.add_argument("--norm", default="bn", help="as in lib.norms (default: bn)")
    parser.add_argument("--train-size", type=int, default=None, help="training images (default: all 40,000)")
    parser.add_argument("--seeds", default="0,1,2", help="at least two (default: 0,1,2)")
    args = parser.parse_args(argv)
    seeds = parse_seeds(args.seeds)
    if len(seeds) < 2:
        raise ValueError(f"seeds is {args.seeds}; a spread needs at least two")
    study = Study("paper", "cifar10", args.data_dir, seeds, args.outputs, changes={"train_size": args.train_size})
    print("\n".join(report(study.fit_all(plan(study, args.norm)))))
    return 0


def report(found: dict[str, list[Result]]) -> list[str]:
    """The test accuracies in both precisions and what follows from them, as lines. ValueError if a run diverged."""
    lost = [result.run.id for results in found.values() for result in results if result.diverged]
    if lost:
        raise ValueError(f"{', '.join(lost)} diverged, so there is nothing to compare; choose another norm or seed")
    scores = {precision: np.array([result.score() for result in results]) for precision, results in found.items()}
    lines = [
        f"{precision}: test accuracy {', '.join(f'{value:.4f}' for value in values)}, mean {values.mean():.4f}, "
        f"standard deviation {values.std(ddof=1):.4f}"
        for precision, values in scores.items()
    ]
    gap = 100 * (scores["bf16"] - scores["float32"]).mean()
    low, high = (100 * end for end in ttest_rel(scores["bf16"], scores["float32"]).confidence_interval())
    return [*lines, f"bf16 minus float32: {gap:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}"]


if __name__ == "__main__":
    sys.exit(main())
