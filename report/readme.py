"""Writes the README's results from the committed runs and its tables of speed from the benchmarks' CSV files, between their
markers, and the figure beside it.

python -m report.readme
"""

import re
import subprocess
import sys

import numpy as np
import pandas as pd

from benchmarks import precision
from lib import plots, runs, tables
from lib.runs import Result
from lib.study import AIMS, LABELS, PRECISION_SEEDS, VARIANTS, Study

README, FIGURE = runs.ROOT / "README.md", runs.ROOT / "report" / "results.svg"
BENCHMARKS = runs.ROOT / "benchmarks"
SEEDS = tuple(range(10))  # as many as there may be


def committed() -> set[str]:
    """The ids of the runs that git tracks: what else lies in outputs/ is not the README's."""
    command = ["git", "-C", str(runs.ROOT), "ls-files", f"outputs/runs/*/{runs.SUMS}"]
    return {line.split("/")[2] for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()}


def finished(outputs=runs.ROOT / "outputs") -> dict[str, list[Result]]:
    """variant -> the committed runs of the paper profile."""
    known = committed()
    study = Study("paper", "cifar10", seeds=SEEDS)
    found = {v: [Result(run, outputs) for run in study.runs(v) if run.id in known] for v in VARIANTS}
    return {variant: results for variant, results in found.items() if results}


def results_table(found: dict[str, list[Result]]) -> str:
    rows = [
        "| norm | test accuracy | aim | validation accuracy | seeds | best epoch | minutes a run | hardware |",
        "|:--|--:|--:|--:|--:|--:|--:|:--|",
    ]
    for variant, all_results in found.items():
        results = [result for result in all_results if not result.diverged]
        cells = [LABELS[variant] + f" ({len(all_results) - len(results)} diverged)" * (len(results) < len(all_results))]
        if not results:
            rows.append(f"| {cells[0]} | – | – | – | 0 | – | – | – |")
            continue
        for split in ("test", "val"):
            values = np.array([result.score(split=split) for result in results])
            cells.append(f"{values.mean():.4f}" + (f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""))
        cells.insert(2, f"{AIMS[variant]:.3f}" if variant in AIMS else "–")
        minutes = np.mean([result.metrics["train_seconds"] for result in results]) / 60
        devices = {f"{r.env['device']}, {r.env['threads']} thread{'s' * (r.env['threads'] > 1)}" for r in results}
        best = ", ".join(str(result.best_epoch) for result in results)
        cells += [str(len(results)), best, f"{minutes:.0f}", "; ".join(sorted(devices))]
        rows.append("| " + " | ".join(cells) + " |")
    converged = {v: results for v, results in found.items() if not any(result.diverged for result in results)}
    if "bn" in converged:
        rows += ["", tables.against_aims(converged, AIMS)]
    missing = [LABELS[v] for v in VARIANTS if v not in found]
    if missing:
        rows += ["", f"Not trained at this setting yet: {', '.join(missing)}."]
    return "\n".join(rows)


def recipe_table(outputs=runs.ROOT / "outputs") -> str:
    study, text = Study("paper", "cifar10", outputs=outputs), []
    for table, note in ((tables.recipe, tables.RECIPE_NOTE), (tables.borders, tables.BORDERS_NOTE)):
        frame, missing = table(study, committed())
        text += [f"| {' | '.join(frame.columns)} |", "|:--" + "|--:" * (len(frame.columns) - 1) + "|"]
        text += [f"| {' | '.join(row)} |" for row in frame.itertuples(index=False)]
        text += ["", note] + [f"Not trained yet: {'; '.join(missing)}."] * bool(missing) + [""]
    return "\n".join(text[:-1])


#: name of a ratio in benchmarks/engine.csv -> what it says, and what was aimed at
RATIOS = {
    "bs128": ("images per second, batch 128: engine with our BN, against a tutorial's loop", "≥ 4"),
    "bs8": ("the same, batch 8", "≥ 2.5"),
    "bn": ("seconds of the engine's step: our BN, against PyTorch's BN", "≤ 1.10"),
    "in": ("IN, against PyTorch's BN", "≤ 1.10"),
    "ln": ("LN, against PyTorch's BN", "≤ 1.10"),
    "gn": ("GN, against PyTorch's BN", "≤ 1.10"),
    "bin": ("BIN, against our BN", "≤ 1.35"),
    "conv_fraction": ("images per second with our BN, against PyTorch's convolutions of the step alone", "0.5"),
}


def engine_table(folder=BENCHMARKS) -> str:
    table = pd.read_csv(folder / "engine.csv")
    machines = list(dict.fromkeys(zip(table["device"], table["precision"], table["threads"], strict=True)))
    titles = " | ".join(f"{name}, {kind}, {threads} threads" for name, kind, threads in machines)
    rows = [f"| ratio | {titles} | aim |", "|:--" + "|--:" * len(machines) + "|--:|"]
    same = ["device", "precision", "threads"]
    parts = [table[(table[same] == list(machine)).all(axis=1)] for machine in machines]
    by_machine = [part.dropna(subset="ratio").set_index("what")["ratio"] for part in parts]
    for ratio, (words, aim) in RATIOS.items():
        rows.append(f"| {words} | " + " | ".join(f"{found[ratio]:.2f}" for found in by_machine) + f" | {aim} |")
    for part, (name, kind, _) in zip(parts, machines, strict=True):
        found = part.dropna(subset="images_per_second").set_index(["what", "batch"])["images_per_second"]
        listed = "; ".join(
            f"{words} {found[what, 128]:,.0f}"
            for words, what in (
                ("tutorial's loop", "tutorial"), ("engine with PyTorch's BN", "engine, torch_bn"),
                ("with our BN", "engine, our BN"), ("PyTorch's convolutions alone", "convolutions alone"),
            )
        )  # fmt: skip
        rows += ["", f"{name}, images per second at batch 128 ({kind}; the tutorial's loop in float32): {listed}."]
    return "\n".join(rows)


#: What grows in benchmarks/growth.csv -> in words, and its columns with their units.
EPOCH = {"seconds": "s an epoch", "MiB": "MiB"}
GROWS = {
    "n": ("n (6n+2 layers; batch 128, 32×32)", EPOCH),
    "batch_size": ("batch size (n = 2, 32×32)", EPOCH),
    "image_size": ("image side (n = 2, batch 16)", EPOCH),
    "gradcam": ("image side, Grad-CAM (n = 2, 100 images)", {"seconds": "s for the maps", "MiB": "MiB"}),
    "jobs": ("runs side by side (n = 2, batch 128)", {"images_per_second": "images/s together"}),
    "report": ("runs in the report", {"seconds": "s to build it"}),
}


def growth_table(folder=BENCHMARKS) -> str:
    table, rows = pd.read_csv(folder / "growth.csv"), []
    for (device, kind), found in table.groupby(["device", "precision"], sort=False):
        rows += [f"{device}, {kind}:", "", "| what grows | values | cost |", "|:--|:--|:--|"]
        for what, (words, units) in GROWS.items():
            part = found[found["what"] == what]
            costs = [
                " / ".join(f"{value:,.0f}" if value >= 10 else f"{value:.2g}" for value in part[column]) + f" {unit}"
                for column, unit in units.items()
            ]
            if len(part):
                rows.append(f"| {words} | {' / '.join(str(value) for value in part['value'])} | {'; '.join(costs)} |")
        rows.append("")
    return "\n".join(rows).strip()


def precision_lines(outputs=runs.ROOT / "outputs") -> str:
    """What benchmarks.precision says of its committed runs."""
    plan = Study("paper", "cifar10", seeds=PRECISION_SEEDS).precisions()
    missing = [run.id for runs_of_one in plan.values() for run in runs_of_one if run.id not in committed()]
    if missing:
        return f"Not trained yet: {', '.join(missing)}."
    lines = precision.report({name: [Result(run, outputs) for run in found] for name, found in plan.items()})
    return "\n".join(f"- {line}" for line in lines)


def filled(text: str) -> str:
    """The README's text with every generated block made anew."""
    blocks = {
        "results": results_table(finished()),
        "recipe": recipe_table(),
        "engine": engine_table(),
        "growth": growth_table(),
        "precision": precision_lines(),
    }
    for name, block in blocks.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text, count = re.subn(pattern, lambda match, block=block: f"{match[1]}{block}\n{match[2]}", text, flags=re.S)
        if count != 1:
            raise ValueError(f"README.md has {count} blocks <!-- {name} -->; it must have one")
    return text


def main() -> int:
    README.write_text(filled(README.read_text()))
    plots.setup()
    frames = {variant: [result.history for result in results] for variant, results in finished().items()}
    plots.learning_curves(frames, LABELS).savefig(FIGURE, metadata={"Date": None})
    return 0


if __name__ == "__main__":
    sys.exit(main())
