"""Is bf16 a choice of speed, or another result? The same short CIFAR-10 runs in both precisions, seed by seed.

    python -m benchmarks.precision [--norm bn] [--train-size 4000] [--seeds 0,1,2]

The runs are kept in outputs/ like all others and resume. It ends with a sentence: the mean difference in test accuracy, its
95 % interval (Student's, over the seeds, which share initial weights and batches), and the spread over the seeds.
"""

import sys
from dataclasses import replace

import numpy as np
from scipy import stats

from lib.runs import Result, Run
from lib.study import BLACK, Study, parse_seeds
from lib.train import Parser, command

EPOCHS = 10
SEEDS = "0,1,2"


def main(argv=None) -> int:
    parser = Parser(prog="python -m benchmarks.precision", description=__doc__.split("\n")[0])
    parser.add_argument("--norm", default="bn", help="as in lib.norms (default: bn)")
    parser.add_argument("--train-size", type=int, default=None, help="training images (default: all 40,000)")
    parser.add_argument("--seeds", default=SEEDS, help=f"at least two (default: {SEEDS})")
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--outputs", default="outputs")
    args = parser.parse_args(argv)

    def work() -> int:
        seeds = parse_seeds(args.seeds)
        if len(seeds) < 2:
            raise ValueError(f"seeds is {args.seeds}; a spread needs at least two")
        study = Study("paper", "cifar10", args.data_dir, seeds, args.outputs, changes={"train_size": args.train_size})
        print("\n".join(report(study.fit_all(plan(study, args.norm)))))
        return 0

    return command(work)


def plan(study: Study, norm: str = "bn") -> dict[str, list[Run]]:
    """precision -> a run for each seed of the study."""
    changes = ({"epochs": EPOCHS, "weight_decay": 5e-4, "precision": precision} for precision in ("float32", "bf16"))
    return {change["precision"]: replace(study, changes=BLACK | study.changes | change).runs(norm) for change in changes}


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
    return [*lines, sentence(scores["bf16"], scores["float32"])]


def sentence(bf16: np.ndarray, float32: np.ndarray) -> str:
    """The comparison in words; both (seeds,), of the same seeds in the same order."""
    gap, spread = (bf16 - float32).mean(), max(bf16.std(ddof=1), float32.std(ddof=1))
    half = stats.t.ppf(0.975, len(bf16) - 1) * (bf16 - float32).std(ddof=1) / np.sqrt(len(bf16))
    word = "less" if abs(gap) < spread else "not less"
    return (
        f"bf16 - float32: {100 * gap:+.2f} points, 95 % interval {100 * (gap - half):+.2f} to {100 * (gap + half):+.2f}; "
        f"that is {word} than the spread over {len(bf16)} seeds, {100 * spread:.2f} points"
    )


if __name__ == "__main__":
    sys.exit(main())
