"""Writes the README's results from the committed runs, between its markers, and the figure beside it.

python -m report.readme
"""

import re
import subprocess
import sys

import numpy as np

from lib import plots, runs
from lib.runs import Result
from lib.study import LABELS, PROBE_EPOCHS, VARIANTS, Study

README, FIGURE = runs.ROOT / "README.md", runs.ROOT / "report" / "results.svg"
SEEDS = tuple(range(10))  # as many as there may be


def committed() -> set[str]:
    """The ids of the runs that git tracks: what else lies in outputs/ is not the README's."""
    command = ["git", "-C", str(runs.ROOT), "ls-files", "outputs/runs/*/metrics.json"]
    return {line.split("/")[2] for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()}


def finished(outputs=runs.ROOT / "outputs") -> dict[str, list[Result]]:
    """variant -> the committed runs of the paper profile."""
    known = committed()
    study = Study("paper", "cifar10", seeds=SEEDS)
    found = {v: [Result(run, outputs) for run in study.runs(v) if run.id in known] for v in VARIANTS}
    return {variant: results for variant, results in found.items() if results}


def results_table(found: dict[str, list[Result]]) -> str:
    rows = [
        "| norm | test accuracy | validation accuracy | seeds | best epoch | minutes a run | hardware |",
        "|:--|--:|--:|--:|--:|--:|:--|",
    ]
    for variant, results in found.items():
        cells = [LABELS[variant]]
        for split in ("test", "val"):
            values = np.array([result.score(split=split) for result in results])
            cells.append(f"{values.mean():.4f}" + (f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""))
        minutes = np.mean([result.metrics["train_seconds"] for result in results]) / 60
        devices = {f"{r.env['device']}, {r.env['threads']} thread{'s' * (r.env['threads'] > 1)}" for r in results}
        best = ", ".join(str(result.best_epoch) for result in results)
        cells += [str(len(results)), best, f"{minutes:.0f}", "; ".join(sorted(devices))]
        rows.append("| " + " | ".join(cells) + " |")
    missing = [LABELS[v] for v in VARIANTS if v not in found]
    if missing:
        rows += ["", f"Not trained at this setting yet: {', '.join(missing)}."]
    return "\n".join(rows)


def recipe_table(outputs=runs.ROOT / "outputs") -> str:
    rows = ["| recipe | validation accuracy |", "|:--|--:|"]
    for name, (run,) in Study("paper", "cifar10").recipe_probes().items():
        if run.id in committed():
            rows.append(f"| {name} | {Result(run, outputs).score(split='val'):.4f} |")
    return "\n".join([*rows, "", f"PyTorch BN, {PROBE_EPOCHS} epochs, one seed, at the best validation epoch."])


def filled(text: str) -> str:
    """The README's text with every generated block made anew."""
    for name, block in (("results", results_table(finished())), ("recipe", recipe_table())):
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text, count = re.subn(pattern, lambda match, block=block: f"{match[1]}{block}\n{match[2]}", text, flags=re.S)
        if count != 1:
            raise ValueError(f"README.md has {count} blocks <!-- {name} -->; it must have one")
    return text


def main() -> int:
    README.write_text(filled(README.read_text()))
    found = finished()
    if found:
        plots.setup()
        frames = {variant: [result.history for result in results] for variant, results in found.items()}
        plots.learning_curves(frames, LABELS).savefig(FIGURE, metadata={"Date": None})
    return 0


if __name__ == "__main__":
    sys.exit(main())
