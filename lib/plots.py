"""The figures and tables of the report. Everything here takes DataFrames and arrays, never models.

One colour, line style and marker per variant throughout (Okabe & Ito's colour-blind safe palette).
"""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML, Markdown, display
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from scipy.optimize import isotonic_regression

from lib.study import NAMES

WIDTH = 6.7  # inches: the text width of the PDF, so that figure text has the size it says

#: variant -> colour, line style
STYLES = {
    "torch_bn": ("#000000", (0, (1, 1))),
    "bn": ("#0072B2", "-"),
    "in": ("#E69F00", (0, (5, 1.5))),
    "bin": ("#D55E00", "-."),
    "ln": ("#009E73", (0, (3, 1, 1, 1, 1, 1))),
    "gn": ("#CC79A7", "-"),
    "nn": ("#767676", "--"),
    "bn_8": ("#56B4E9", "--"),
    "gn_8": ("#7A3B69", "--"),
}

#: For what is no variant, in the order in which a figure first draws it: the first is what the others are compared with.
OTHERS = [
    ("#000000", "-"),
    ("#D55E00", "--"),
    ("#0072B2", "-."),
    ("#009E73", (0, (1, 1))),
    ("#CC79A7", (0, (3, 1, 1, 1, 1, 1))),
    ("#E69F00", (0, (5, 1.5))),
]
USED: dict[str, tuple] = {}  # in the figure that is being drawn


def style_of(name: str) -> tuple:
    """Colour and line style of a variant, or of what is none: the next of OTHERS."""
    return USED.setdefault(name, STYLES.get(name) or OTHERS[len(USED.keys() - STYLES.keys()) % len(OTHERS)])


def setup() -> None:
    """Figures with text of the report's size, as SVG for the report and as PNG for JupyterLab, which draws no SVG of a notebook
    that it does not trust. Called once at the top of a notebook."""
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("svg", "retina")
    sns.set_theme(context="paper", style="ticks")
    mpl.rcParams.update(
        {
            "font.size": 9, "axes.labelsize": 9, "axes.titlesize": 9, "legend.fontsize": 8, "xtick.labelsize": 8,
            "ytick.labelsize": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
            "grid.color": "#e6e6e6", "lines.linewidth": 1.3, "legend.frameon": False, "figure.constrained_layout.use": True,
            "svg.hashsalt": "report", "axes.formatter.min_exponent": 3, "savefig.bbox": None, "axes.titlelocation": "left",
        }
    )  # fmt: skip


def show(fig: Figure, caption: str, alt: str = "") -> None:
    """A figure and its caption, which the report numbers; `alt` says what to see to those who cannot, else the caption does."""
    display(fig, metadata={"alt": alt or caption})
    plt.close(fig)
    display(Markdown(f"_{caption}_"), metadata={"caption": "figure", "data": csv(points(fig))})
    USED.clear()


def points(fig: Figure) -> pd.DataFrame:
    """What the lines and dots of a figure show, for who wants the numbers. Columns: panel, series (its label, or what
    `style_of` gave its colour to), x, y."""
    names, frames = {color: NAMES.get(name, name) for name, (color, _) in USED.items()}, []
    for number, ax in enumerate(fig.axes, start=1):
        panel = ax.get_title("left") or ax.get_ylabel() or ax.get_xlabel() or str(number)
        artists = [
            (line, line.get_color(), line.get_xydata()) for line in ax.get_lines() if line.get_transform() == ax.transData
        ]
        scattered = [dots for dots in ax.collections if isinstance(dots, PathCollection)]
        artists += [(dots, dots.get_facecolor()[0], dots.get_offsets()) for dots in scattered]
        for artist, color, places in artists:
            name = str(artist.get_label())
            series = names.get(mpl.colors.to_hex(color).upper(), "") if name.startswith("_") else name
            frames.append(pd.DataFrame(np.asarray(places, float), columns=["x", "y"]).assign(panel=panel, series=series))
    found = pd.concat([pd.DataFrame(columns=["panel", "series", "x", "y"]), *frames])
    return found.map(lambda value: f"{value:.6g}" if isinstance(value, float) else value)


def table(frame: pd.DataFrame, caption: str, digits: int = 3) -> None:
    """A table and its caption, which the report numbers. Floats get `digits` decimals. An index that has a name is the first
    column, with variants by their NAMES."""
    if frame.index.name:
        frame = frame.rename(index=NAMES).reset_index()
    display(HTML(table_html(frame, digits)))
    display(Markdown(f"_{caption}_"), metadata={"caption": "table", "data": csv(frame)})


def csv(frame: pd.DataFrame) -> str:
    """What a reader may save beside a figure or a table; empty if there is nothing."""
    return frame.to_csv(index=False) if len(frame) else ""


def table_html(frame: pd.DataFrame, digits: int = 3) -> str:
    def number(value) -> str:
        return "–" if pd.isna(value) else f"{value:.{digits}f}".replace("-", "−")

    return frame.to_html(index=False, border=0, float_format=number, na_rep="–", classes="report", justify="left")


def seed_mean(frames: list[pd.DataFrame], column: str) -> pd.Series:
    """Epoch -> the mean over the trainings that still ran then."""
    return pd.concat(frames).groupby("epoch")[column].mean()


PARTS = {"train": ("training", "#0072B2"), "val": ("validation", "#D55E00")}
SMOOTHED = 5  # epochs, an odd number


def smoothed(values: pd.Series) -> pd.Series:
    """The running median of SMOOTHED epochs, if there are at least ten times as many; else the values themselves."""
    width = SMOOTHED if len(values) >= 10 * SMOOTHED else 1
    return values.rolling(width, center=True, min_periods=1).median()


def log_axis(ax) -> None:
    """Make the y axis of a finished panel logarithmic, with plain numbers at 1, 2, 5, 10, …, or closer on a short axis."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 4, 6, 8)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def epoch_axis(ax, ticks: int = 10) -> None:
    """Whole epochs on the x axis, at most so many of them."""
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(ticks, integer=True, steps=[1, 2, 5, 10]))


def label_ends(ax, ends: dict[str, float] | pd.Series, size: float = 8) -> None:
    """Each line's name beside its end at the right edge of a finished panel, moved apart as little as they must be. `ends`:
    variant -> its last y; one that is no number has no name."""
    ends = {name: end for name, end in ends.items() if np.isfinite(end)}
    if not ends:
        return
    names, edge = sorted(ends, key=ends.get), ax.get_xlim()[1]
    ax.set(xlim=ax.get_xlim(), ylim=ax.get_ylim())  # they stay as they are
    to_axes = ax.transData + ax.transAxes.inverted()
    y = np.array([to_axes.transform((edge, ends[name]))[1] for name in names])
    apart = np.arange(len(y)) * 1.3 * size / 72 / (ax.get_position().height * ax.figure.get_figheight())
    placed = isotonic_regression(y - apart).x.clip(min=0.03) + apart
    for name, end, at in zip(names, y, placed, strict=True):
        color = style_of(name)[0]
        ax.plot([1, 1.03], [end, at], transform=ax.transAxes, color=color, linewidth=0.7, clip_on=False)
        ax.text(1.04, at, NAMES.get(name, name), transform=ax.transAxes, color=color, size=size, va="center")


def named(pairs: pd.DataFrame) -> pd.DataFrame:
    """facts.pairs with the variants' names: "bn - in" as "BN − IN"."""
    return pairs.rename(index=lambda pair: " − ".join(NAMES[variant] for variant in pair.split(" - ")))


def score_table(scores: pd.DataFrame, caption: str) -> None:
    """facts.scores for readers: the number of trainings, accuracy and macro F1 on the three splits in percent."""
    splits = {"train": "training", "val": "validation", "test": "test"}
    columns = {("accuracy (%)", title): scores[split] for split, title in splits.items()}
    columns |= {("macro F1 (%)", title): scores[f"{split}_f1"] for split, title in splits.items()}
    shown = 100 * pd.DataFrame(columns)
    shown.insert(0, ("", "trainings"), scores["n"])
    table(shown, caption, digits=1)


def contrast_table(rows: pd.DataFrame, caption: str) -> None:
    """lib.stats.table for readers: points with a sign, their interval, and whether they are clear, where that is known; before
    them a column `val`, a validation accuracy, if there is one."""
    points = (100 * rows[["value", "low", "high"]]).map(lambda x: f"{x:+.1f}".replace("-", "−")).astype(str)
    limits = (points["low"] + " to " + points["high"]).where(rows["low"].notna(), "–")
    shown = pd.DataFrame({"difference (points)": points["value"].where(rows["value"].notna(), "–"), "interval": limits})
    if "val" in rows:
        shown.insert(0, "validation accuracy (%)", 100 * rows["val"])
    if "clear" in rows:
        shown["clear"] = rows["clear"].map({True: "yes", False: "no"})
    table(shown, caption, digits=1)


CURVES_NOTE = "Error by epoch on logarithmic axes, the mean over the trainings; of many epochs the median of five neighbours."


def error_curves(histories: dict[str, list[pd.DataFrame]]) -> Figure:
    """Training and validation error (%) by epoch, on logarithmic axes: the mean over the seeds, and of many epochs the median
    of SMOOTHED neighbours."""
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.4))
    for ax, part in zip(axes, PARTS, strict=True):
        ends = {}
        for variant, frames in histories.items():
            color, style = style_of(variant)
            error = 100 * (1 - smoothed(seed_mean(frames, f"{part}_accuracy")))
            ax.plot(error, color=color, linestyle=style)
            ends[variant] = error.iloc[-1]
        epoch_axis(ax)
        ax.set_xlim(1, max(len(frame) for frames in histories.values() for frame in frames))
        log_axis(ax)
        label_ends(ax, ends)
        ax.set_title(f"{PARTS[part][0]} error (%)")
    return fig
