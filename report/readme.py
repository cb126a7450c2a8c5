"""Writes what README.md and report/speed.md say in numbers, between their markers, and the headline figure: results from the
facts of the committed report, speed from the benchmarks' CSV files.

python -m report.readme
"""

import re
import sys

import pandas as pd

from benchmarks import precision
from lib.data import ROOT
from lib.engine.store import Result
from lib.plots import NAMES
from lib.study import Study
from report import saved
from report.page import abstract, headline

README, SPEED, FIGURE = ROOT / "README.md", ROOT / "report" / "speed.md", ROOT / "report" / "headline.svg"
BENCHMARKS = ROOT / "benchmarks"


def results_table(known: dict[str, pd.DataFrame]) -> str:
    """Test accuracy by norm, best first: mean ± standard deviation over the trainings, their number, and the means with batches
    of 8 and with a quarter of the contrast."""
    groups = known["trainings"]["test"].groupby(level=0)
    frame = pd.DataFrame({"mean": groups.mean(), "std": groups.std(), "n": groups.size()}).sort_values("mean", ascending=False)
    small = {name.removesuffix("_8"): value for name, value in known["small"]["test"].items() if name.endswith("_8")}
    rows = [
        "| norm | test accuracy (%) | trainings | with batches of 8 (%) | at a quarter of the contrast (%) |",
        "|:--" + "|--:" * 4 + "|",
    ]
    contrast = known["contrast"].loc[0.25]
    for variant, row in frame.iterrows():
        at_8 = f"{100 * small[variant]:.2f}" if variant in small else "–"
        mean, std, pale = 100 * row["mean"], 100 * row["std"], 100 * contrast[variant]
        rows.append(f"| {NAMES[variant]} | {mean:.2f} ± {std:.2f} | {row['n']:.0f} | {at_8} | {pale:.1f} |")
    return "\n".join(rows)


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
    """The ratios of benchmarks/engine.py as a Markdown table, a column for each machine."""
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
    """What benchmarks/growth.py measured as Markdown tables, one for each machine."""
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


def precision_lines(outputs=ROOT / "outputs") -> str:
    """What benchmarks.precision says of its committed runs."""
    plan = precision.plan(Study("paper", "cifar10", seeds=precision.SEEDS))
    lines = precision.report({kind: [Result(run, outputs) for run in planned] for kind, planned in plan.items()})
    return "\n".join(f"- {line}" for line in lines)


def filled(text: str, blocks: dict[str, str]) -> str:
    """A text with each of these blocks between its markers. ValueError if one does not stand there once."""
    for name, block in blocks.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text, count = re.subn(pattern, lambda match, block=block: f"{match[1]}{block}\n{match[2]}", text, flags=re.S)
        if count != 1:
            raise ValueError(f"there are {count} blocks <!-- {name} -->; there must be one")
    return text


def pages() -> dict:
    """File -> its text made anew."""
    known = saved.load(Study("paper", "cifar10", outputs=ROOT / "outputs"))
    speed = {"engine": engine_table(), "growth": growth_table(), "precision": precision_lines()}
    return {README: filled(README.read_text(), {"results": results_table(known)}), SPEED: filled(SPEED.read_text(), speed)}


def main() -> int:
    for file, text in pages().items():
        file.write_text(text)
    study = Study("paper", "cifar10", outputs=ROOT / "outputs")
    known = saved.load(study)
    headline(known, abstract(study, known)[1]).savefig(FIGURE, metadata={"Date": None})
    return 0


if __name__ == "__main__":
    sys.exit(main())
