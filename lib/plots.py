"""The figures and tables of the report. Everything here takes DataFrames and arrays, never models.

One colour, line style and marker per variant throughout (Okabe & Ito's colour-blind safe palette).
"""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML, Markdown, display, update_display
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter, SymmetricalLogLocator

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
    return STYLES.get(name) or USED.setdefault(name, OTHERS[len(USED) % len(OTHERS)])


def setup() -> None:
    """Vector figures with text of the report's size. Called once at the top of a notebook."""
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("svg")
    sns.set_theme(context="paper", style="ticks")
    mpl.rcParams.update(
        {
            "font.size": 9, "axes.labelsize": 9, "axes.titlesize": 9, "legend.fontsize": 8, "xtick.labelsize": 8,
            "ytick.labelsize": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
            "grid.color": "#e6e6e6", "lines.linewidth": 1.3, "legend.frameon": False, "figure.constrained_layout.use": True,
            "svg.hashsalt": "report", "axes.formatter.min_exponent": 3, "savefig.bbox": None,
        }
    )  # fmt: skip


def show(fig: Figure, caption: str) -> None:
    """A figure and its caption; the report numbers it."""
    display(fig)
    plt.close(fig)
    USED.clear()
    display(Markdown(f"*{caption}*"), metadata={"caption": "figure"})


def text_table(rows: list[tuple], caption: str) -> None:
    """A table of Markdown texts, the first row its head, which may hold $mathematics$."""
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    display(Markdown("\n".join([head, "|" + ":--|" * len(rows[0]), *body])))
    display(Markdown(f"*{caption}*"), metadata={"caption": "table"})


def table(frame: pd.DataFrame, caption: str, digits: int = 3, name: str = "") -> None:
    """A table without its index and its caption; the report numbers it, and knows it by its name, as "table of recipes", where
    another section speaks of it. Floats get `digits` decimals."""
    display(HTML(table_html(frame, digits)))
    display(Markdown(f"*{caption}*"), metadata={"caption": "table"} | ({"name": name} if name else {}))


def table_html(frame: pd.DataFrame, digits: int = 3) -> str:
    def number(value) -> str:
        return "–" if pd.isna(value) else f"{value:.{digits}f}".replace("-", "−")

    return frame.to_html(index=False, border=0, float_format=number, na_rep="–", classes="report", justify="left")


class Answer:
    """The place at the top of a notebook where its answer appears once it is computed further down."""

    def __init__(self):
        self.text = display(Markdown("*The answer appears here when the notebook has run to its end.*"), display_id=True)
        self.figure = display(Markdown(""), display_id=True)
        self.caption = display(Markdown(""), display_id=True)

    def update(self, sentences: list[str], fig: Figure, caption: str, shows: int = 0) -> None:
        """The sentences (the first is what the abstract quotes), one figure and its caption; `shows`: the sentence's number."""
        said = [sentence + " See the figure below." * (i == shows) for i, sentence in enumerate(sentences)]
        text = Markdown("\n\n".join(said))
        update_display(text, display_id=self.text.display_id, metadata={"headline": sentences[0]})
        self.figure.update(fig)
        plt.close(fig)
        USED.clear()
        update_display(Markdown(f"*{caption}*"), display_id=self.caption.display_id, metadata={"caption": "figure"})


def mean_band(frames: list[pd.DataFrame], column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Epochs, and mean, minimum and maximum over the seeds that still ran in that epoch."""
    by_epoch = pd.concat(frames).groupby("epoch")[column]
    mean = by_epoch.mean()
    return mean.index.to_numpy(), mean.to_numpy(), by_epoch.min().to_numpy(), by_epoch.max().to_numpy()


PARTS = {"train": ("training", "#0072B2"), "val": ("validation", "#D55E00")}
SMOOTHED = 5  # epochs whose median a learning curve shows where there are at least ten times as many


def draw(ax, variant: str, label: str, frames: list[pd.DataFrame], column: str, as_error=False, smooth=False) -> None:
    """One variant's curve: the mean over seeds, their range as a band. With `smooth`, long ones pale, and over them their
    running median."""
    color, style = style_of(variant)
    epochs, mean, low, high = mean_band(frames, column)
    if as_error:
        mean, low, high = 100 * (1 - mean), 100 * (1 - high), 100 * (1 - low)
    if smooth and is_long(frames):
        ax.plot(epochs, mean, color=color, linewidth=0.6, alpha=0.25)
        mean = pd.Series(mean).rolling(SMOOTHED, center=True, min_periods=1).median()
    ax.plot(epochs, mean, color=color, linestyle=style, label=label)
    if len(frames) > 1:
        ax.fill_between(epochs, low, high, color=color, alpha=0.2, linewidth=0)


def is_long(frames: list[pd.DataFrame]) -> bool:
    return max(map(len, frames)) >= 10 * SMOOTHED


def curves_note(histories: dict[str, list[pd.DataFrame]]) -> str:
    """What the caption of their `learning_curves` must say of the axes, and of the smoothing where there is one."""
    errors = [frame[f"{part}_accuracy"].max() for frames in histories.values() for frame in frames for part in PARTS]
    return (
        "; each panel has a logarithmic axis of its own"
        + ", linear below an error of 1 %" * bool(max(errors) > 0.99)
        + f"; the median of {SMOOTHED} epochs over each epoch's value (pale)" * any(map(is_long, histories.values()))
    )


def log_axis(ax, linear_below: float = 0) -> None:
    """Makes the y axis of a finished panel logarithmic, or logarithmic above `linear_below` and linear from there to 0. Its
    numbers are plain, and more than the powers of ten where what is drawn spans less than a factor of 5."""
    if linear_below:
        ax.set_yscale("symlog", linthresh=linear_below)
        ax.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=linear_below, subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(ScalarFormatter())
    else:
        ax.set_yscale("log")
    low, high = ax.get_ylim()
    if high < 5 * max(low, linear_below):
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        ax.yaxis.set_major_formatter(ScalarFormatter())
        ax.yaxis.set_minor_formatter(NullFormatter())


def epoch_axis(ax) -> None:
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def learning_curves(histories: dict[str, list[pd.DataFrame]], labels: dict[str, str], loss: str = "loss (nats)") -> Figure:
    """Training and validation error (%) and loss, one line per variant and a scale of its own for each panel, smoothed as
    `curves_note` says; `loss` is the axis' label."""
    fig, axes = plt.subplots(2, 2, figsize=(WIDTH, 4.9), sharex=True)
    for row, (kind, unit) in enumerate((("accuracy", "error (%)"), ("loss", loss))):
        for column, part in enumerate(("train", "val")):
            ax = axes[row, column]
            for variant, frames in histories.items():
                draw(ax, variant, labels[variant], frames, f"{part}_{kind}", as_error=kind == "accuracy", smooth=True)
            ax.set_title({"train": "training", "val": "validation"}[part] + " " + unit.split(" ")[0])
            ax.set_ylabel(unit)
            epoch_axis(ax)
            log_axis(ax, linear_below=1 if kind == "accuracy" else 0)
            if row == 0:
                ax.set_xlabel("")
    handles, names = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside upper center", ncols=min(len(names), 7), handlelength=2.6)
    return fig


def training_curves(history: pd.DataFrame, best_epoch: int) -> Figure:
    """Error (%) and loss of one run, training and validation, with the best validation epoch marked."""
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.7))
    best = history[history["epoch"] == best_epoch]
    for ax, kind in zip(axes, ("accuracy", "loss"), strict=True):
        for part, color, style in (("train", "#0072B2", "--"), ("val", "#D55E00", "-")):
            values = history[f"{part}_{kind}"]
            values = 100 * (1 - values) if kind == "accuracy" else values
            ax.plot(
                history["epoch"], values, color=color, linestyle=style, label={"train": "training", "val": "validation"}[part]
            )
        if len(best):
            chosen = best[f"val_{kind}"].item()
            chosen = 100 * (1 - chosen) if kind == "accuracy" else chosen
            ax.plot(best_epoch, chosen, "o", color="#D55E00", markeredgecolor="black", label=f"best epoch ({best_epoch})")
        ax.set_ylabel("error (%)" if kind == "accuracy" else "loss (nats)")
        epoch_axis(ax)
    axes[1].set_yscale("log")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig


def accuracy_intervals(rows: pd.DataFrame, title: str = "test accuracy (%)") -> Figure:
    """Accuracy and interval per variant. Columns: variant, label, accuracy, low, high (fractions)."""
    rows = rows.sort_values("accuracy", ignore_index=True)
    fig, ax = plt.subplots(figsize=(WIDTH, 0.5 + 0.3 * len(rows)))
    for y, row in rows.iterrows():
        color = STYLES.get(row["variant"], OTHERS[0])[0]
        ax.plot([100 * row["low"], 100 * row["high"]], [y, y], color=color, linewidth=2)
        ax.plot(100 * row["accuracy"], y, "o", color=color, markeredgecolor="black", markersize=5)
    ax.set_yticks(range(len(rows)), rows["label"])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.set_xlabel(title)
    return fig


def batch_sizes(rows: pd.DataFrame, labels: dict[str, str], rules: tuple[str, ...]) -> Figure:
    """Test accuracy (%) by batch size, a panel for each rule of the learning rate and a line with 95 % intervals for each norm;
    a cross at the bottom where every run diverged. Columns: norm, batch_size, rule, accuracy, low, high (fractions)."""
    fig, axes = plt.subplots(1, len(rules), figsize=(WIDTH, 3), sharey=True)
    sizes = sorted(rows["batch_size"].unique())
    floor = 100 * np.nanmin([*rows["low"], 0.0 if rows["accuracy"].isna().all() else 1.0]) - 3
    for ax, rule in zip(axes, rules, strict=True):
        for shift, (norm, part) in zip((-1, 0, 1), rows[rows["rule"] == rule].groupby("norm", sort=False), strict=False):
            color, style = style_of(norm)
            x = part["batch_size"] * 1.06**shift  # side by side, so that no interval hides another
            y, low, high = (100 * part[name] for name in ("accuracy", "low", "high"))
            ax.errorbar(
                x,
                y,
                [y - low, high - y],
                color=color,
                linestyle=style,
                marker="o",
                markersize=4,
                elinewidth=1,
                label=labels[norm],
            )
            lost = part["accuracy"].isna()
            if lost.any():
                ax.plot(x[lost], [floor] * lost.sum(), "x", color=color, markersize=7, markeredgewidth=2, clip_on=False)
        ax.set_xscale("log", base=2)
        ax.set_xticks(sizes, [str(size) for size in sizes])
        ax.set_xlabel("batch size")
        ax.set_title(f"learning rate {rule}")
    axes[0].set_ylabel("test accuracy (%)")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, handlelength=2.6)
    return fig


def confusion_matrix(counts: pd.DataFrame) -> Figure:
    """Share of each true class (%) by predicted class, the counts as DataFrame (true × predicted)."""
    share = 100 * counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    fig, ax = plt.subplots(figsize=(WIDTH, 0.9 + 0.27 * len(counts)))
    small = len(counts) <= 12
    sns.heatmap(
        share, ax=ax, annot=small, fmt=".0f", cmap="Blues", vmin=0, vmax=100, linewidths=0.5,
        cbar_kws={"label": "share of the true class (%)"}, annot_kws={"size": 8},
    )  # fmt: skip
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    ax.tick_params(axis="x", rotation=45 if max(map(len, map(str, counts))) > 2 else 0)
    ax.tick_params(axis="y", rotation=0)
    return fig


def image_grid(images: np.ndarray, titles: list[str], columns: int = 10) -> Figure:
    """Images uint8 (N, H, W, 3) with a title each."""
    rows = -(-len(images) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(WIDTH, 0.88 * rows), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        ax.imshow(image, interpolation="nearest")
        ax.set_title(title, fontsize=7, pad=2)
    return fig


def overlaid_curves(a: pd.DataFrame, b: pd.DataFrame, labels: tuple[str, str]) -> Figure:
    """Error (%) and loss of two runs over each other: a as a broad pale line, b as a thin black one on top."""
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.8))
    for ax, kind in zip(axes, ("accuracy", "loss"), strict=True):
        for part, (name, color) in PARTS.items():
            for frame, label, look in (
                (a, labels[0], {"color": color, "linewidth": 3, "alpha": 0.5}),
                (b, labels[1], {"color": "black", "linewidth": 0.9, "linestyle": "--" if part == "train" else "-"}),
            ):
                values = frame[f"{part}_{kind}"]
                ax.plot(frame["epoch"], 100 * (1 - values) if kind == "accuracy" else values, label=f"{name}, {label}", **look)
        ax.set_ylabel("error (%)" if kind == "accuracy" else "loss (nats)")
        epoch_axis(ax)
    axes[1].set_yscale("log")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return fig


def difference_curves(differences: dict[str, tuple[pd.DataFrame, pd.DataFrame]]) -> Figure:
    """Title -> two runs: accuracy of the first minus accuracy of the second by epoch, in percentage points, a panel each."""
    fig, axes = plt.subplots(1, len(differences), figsize=(WIDTH, 2.5), sharey=True, squeeze=False)
    for ax, (title, (a, b)) in zip(axes[0], differences.items(), strict=True):
        for part, (name, color) in PARTS.items():
            gap = 100 * (a[f"{part}_accuracy"] - b[f"{part}_accuracy"])
            ax.plot(a["epoch"], gap, color=color, linestyle="--" if part == "train" else "-", label=name)
        ax.axhline(0, color="black", linewidth=0.7)
        ax.set_title(title)
        epoch_axis(ax)
    axes[0, 0].set_ylabel("accuracy difference (points)")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig


def class_scores(scores: pd.DataFrame) -> Figure:
    """Precision, recall and F1 of each class. Columns: class, precision, recall, f1 (fractions)."""
    fig, ax = plt.subplots(figsize=(WIDTH, 0.7 + 0.22 * len(scores)))
    rows = range(len(scores))
    ax.hlines(rows, scores[["precision", "recall"]].min(axis=1), scores[["precision", "recall"]].max(axis=1), color="#b0b0b0")
    looks = {"precision": ("<", "#0072B2"), "recall": (">", "#D55E00"), "f1": ("o", "#000000")}
    for name, (marker, color) in looks.items():
        ax.plot(scores[name], rows, marker, color=color, markersize=5, label=name.replace("f1", "F1"))
    ax.set_yticks(rows, scores["class"])
    ax.invert_yaxis()
    ax.set_xlabel("score on the test split")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig


def spread_curves(histories: dict[str, list[pd.DataFrame]], labels: dict[str, str]) -> Figure:
    """Distance from the 1st to the 99th percentile of the features by epoch, one line per variant."""
    fig, ax = plt.subplots(figsize=(WIDTH, 3))
    for variant, frames in histories.items():
        draw(ax, variant, labels[variant], [frame.assign(spread=frame["q99"] - frame["q01"]) for frame in frames], "spread")
    ax.set_yscale("log")
    ax.set_ylabel("99th minus 1st percentile")
    epoch_axis(ax)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), handlelength=2.6)
    return fig


def quantile_lines(ax, history: pd.DataFrame, variant: str) -> None:
    color = style_of(variant)[0]
    names = {"q99": "99th", "q80": "80th", "q20": "20th", "q01": "1st"}
    for (column, name), style in zip(names.items(), ("-", "--", "-.", ":"), strict=True):
        ax.plot(history["epoch"], history[column], color=color, linestyle=style, label=f"{name} percentile")
    ax.fill_between(history["epoch"], history["q20"], history["q80"], color=color, alpha=0.15, linewidth=0)
    epoch_axis(ax)


def quantile_grid(histories: dict[str, pd.DataFrame], labels: dict[str, str], same_axis: bool = True) -> Figure:
    """The quantiles of every variant by epoch, a panel each: with one scale for all, linear up to 1 and logarithmic above, or
    each with a linear one of its own."""
    columns = 4 if same_axis else 2
    rows = -(-len(histories) // columns)
    size = (WIDTH, (1.9 if same_axis else 1.75) * rows + 0.3)
    fig, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=same_axis, squeeze=False)
    for ax, (variant, history) in zip(axes.flat, histories.items(), strict=False):
        quantile_lines(ax, history, variant)
        ax.set_title(labels[variant])
        ax.set_xlabel("")
    for ax in axes.flat[len(histories) :]:
        ax.axis("off")
        ax.legend(*axes[0, 0].get_legend_handles_labels(), loc="center", labelcolor="black")
    for ax in axes.flat[: len(histories)][-columns:]:  # the lowest of each column
        ax.set_xlabel("epoch")
        ax.tick_params(labelbottom=True)
    for ax in axes[:, 0]:
        ax.set_ylabel("feature value")
    if same_axis:
        log_axis(axes[0, 0], linear_below=1)
        highest = max((frame["q99"].replace(np.inf, np.nan).max() for frame in histories.values()), default=1)
        axes[0, 0].set_ylim(0, 1.3 * highest if highest > 1 else None)
    return fig


def gate_values(gates: pd.DataFrame) -> Figure:
    """BIN's gates, one dot per channel, in each layer from the first channel to the last. Columns: layer (in forward order),
    channel, rho."""
    fig, ax = plt.subplots(figsize=(WIDTH, 2.8))
    layers = dict(list(gates.groupby("layer", sort=False)))
    for place, layer in enumerate(layers.values()):
        across = place + 0.6 * (layer["channel"] / layer["channel"].max() - 0.5)
        ax.plot(across, layer["rho"], "o", color=STYLES["bin"][0], markersize=3, markeredgewidth=0, alpha=0.6)
    means = [layer["rho"].mean() for layer in layers.values()]
    ax.plot(range(len(layers)), means, "_", color="black", markersize=14, markeredgewidth=2, label="mean of the layer")
    ax.set_xticks(range(len(layers)), layers)
    ax.grid(visible=False, axis="x")
    ax.set_ylim(-0.05, 1.05)
    ax.set_ylabel("gate ρ (1: batch, 0: instance)")
    ax.set_xlabel("layer, from input to output")
    ax.tick_params(axis="x", rotation=40)
    fig.legend(loc="outside upper right")
    return fig


def by_optimizer(rows: pd.DataFrame) -> Figure:
    """Test accuracy (%) of each norm, a marker for each optimizer. Columns: norm, optimizer, accuracy, low, high."""
    norms, optimizers = (list(dict.fromkeys(rows[name])) for name in ("norm", "optimizer"))
    fig, ax = plt.subplots(figsize=(WIDTH, 0.9 + 0.32 * len(norms)))
    markers = dict(zip(optimizers, ("o", "s", "^"), strict=False))
    for shift, (optimizer, part) in enumerate(rows.groupby("optimizer", sort=False)):
        y = [norms.index(norm) + 0.2 * (shift - (len(optimizers) - 1) / 2) for norm in part["norm"]]
        x, low, high = (100 * part[name] for name in ("accuracy", "low", "high"))
        color = style_of(optimizer)[0]
        ax.errorbar(
            x, y, xerr=[x - low, high - x], color=color, marker=markers[optimizer], markersize=4, linestyle="", label=optimizer
        )
    ax.set_yticks(range(len(norms)), norms)
    ax.invert_yaxis()
    ax.set_xlabel("test accuracy (%)")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=len(optimizers))
    return fig


def heat_maps(images: np.ndarray, maps: dict[str, np.ndarray], titles: list[str], words: dict[str, list[str]]) -> Figure:
    """A row for each image uint8 (N, H, W, 3): the image, then each network's map (N, H, W) over it, bright where high.
    `titles`: what stands at the left of each row; `words`: what stands over each map, per network."""
    rows, columns = len(images), 1 + len(maps)
    fig, axes = plt.subplots(rows, columns, figsize=(WIDTH, 0.1 + 0.98 * WIDTH / columns * rows), squeeze=False)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
        ax.spines[:].set_visible(False)
    for i, image in enumerate(images):
        axes[i, 0].imshow(image, interpolation="nearest")
        axes[i, 0].set_ylabel(titles[i], fontsize=7)
        for ax, (name, heat) in zip(axes[i, 1:], maps.items(), strict=True):
            ax.imshow(image.mean(axis=2), cmap="gray", interpolation="nearest", vmin=0, vmax=255)
            ax.imshow(heat[i], cmap="inferno", alpha=0.6, vmin=0, vmax=max(float(heat[i].max()), 1e-12))
            ax.set_xlabel(words[name][i], fontsize=6, labelpad=1)
            if i == 0:
                ax.set_title(name, fontsize=7, pad=3)
    return fig


def matrix(values: pd.DataFrame, label: str, digits: int = 2) -> Figure:
    """A square table of numbers from 0 to 1 as a heat map."""
    fig, ax = plt.subplots(figsize=(0.75 * WIDTH, 0.9 + 0.33 * len(values)))
    sns.heatmap(
        values, ax=ax, annot=True, fmt=f".{digits}f", cmap="viridis", vmin=0, vmax=1, linewidths=0.5, cbar_kws={"label": label},
        annot_kws={"size": 8},
    )  # fmt: skip
    ax.tick_params(axis="x", rotation=45)
    ax.tick_params(axis="y", rotation=0)
    return fig


def binary_curves(curves: dict[str, pd.DataFrame], share: float) -> Figure:
    """ROC (left) and precision over recall (right) of several classifiers. DataFrames with columns curve (roc or pr), x, y;
    `share` of the images are of the class, which is the precision of guessing."""
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.9))
    for name, points in curves.items():
        color, style = style_of(name)
        for ax, curve in zip(axes, ("roc", "pr"), strict=True):
            part = points[points["curve"] == curve]
            ax.plot(part["x"], part["y"], color=color, linestyle=style, label=name)
    axes[0].plot([0, 1], [0, 1], color="#767676", linewidth=0.8, linestyle=":")
    axes[1].axhline(share, color="#767676", linewidth=0.8, linestyle=":")
    axes[0].set(xlabel="false positive rate", ylabel="true positive rate")
    axes[1].set(xlabel="recall", ylabel="precision", ylim=(-0.02, 1.04))
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig


def confusion_pair(left: pd.DataFrame, right: pd.DataFrame, titles: tuple[str, str]) -> Figure:
    """Two confusion matrices side by side, as shares of the true class (%)."""
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 0.9 + 0.26 * len(left) + 0.6), sharey=True)
    for ax, counts, title in zip(axes, (left, right), titles, strict=True):
        share = 100 * counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
        sns.heatmap(
            share, ax=ax, annot=len(counts) <= 12, fmt=".0f", cmap="Blues", vmin=0, vmax=100, linewidths=0.5, cbar=False,
            annot_kws={"size": 7},
        )  # fmt: skip
        ax.set_title(title)
        ax.set_xlabel("predicted class")
        ax.tick_params(axis="x", rotation=45)
        ax.tick_params(axis="y", rotation=0)
    axes[0].set_ylabel("true class")
    return fig


def claims(rows: pd.DataFrame) -> Figure:
    """Differences (points) with their 95 % intervals, thin and as of each alone thick, coloured by verdict; a tick where a
    limit takes the place of zero; a panel of its own scale for each kind of runs. Columns: claim, runs, points, low, high, low
    alone, high alone, limit, verdict."""
    rows = rows.dropna(subset="points")
    colors = {"confirmed": "#009E73", "contradicted": "#D55E00", "open": "#767676"}
    parts = [(runs, part[::-1].reset_index(drop=True)) for runs, part in rows.groupby("runs", sort=False)] or [("", rows)]
    heights = [max(1, len(part)) for _, part in parts]
    size = (WIDTH, 0.6 + 0.6 * len(parts) + 0.32 * sum(heights))
    fig, axes = plt.subplots(len(parts), figsize=size, squeeze=False, height_ratios=heights)
    for ax, (runs, part) in zip(axes[:, 0], parts, strict=True):
        for y, row in part.iterrows():
            color = colors[row["verdict"]]
            ax.plot([row["low"], row["high"]], [y, y], color=color, linewidth=1)
            ax.plot([row["low alone"], row["high alone"]], [y, y], color=color, linewidth=3)
            ax.plot(row["points"], y, "o", color=color, markeredgecolor="black", markersize=5)
            if row["limit"]:
                ax.plot(row["limit"], y, "|", color="black", markersize=14)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_yticks(range(len(part)), [claim.split(":")[0] for claim in part["claim"]])
        ax.set_ylim(-0.6, len(part) - 0.4)
        ax.set_title(runs)
    ax.set_xlabel("difference of test accuracy (points)")
    handles = [plt.Line2D([], [], color=color, marker="o", label=verdict) for verdict, color in colors.items()]
    fig.legend(handles=handles, loc="outside upper center", ncols=3)
    return fig
