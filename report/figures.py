"""The figures that one notebook each draws, from DataFrames and arrays: what they share is in lib.plots."""

import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter, SymmetricalLogLocator

from lib.plots import (
    NAMES,
    OTHERS,
    PARTS,
    STYLES,
    USED,
    WIDTH,
    epoch_axis,
    label_ends,
    log_axis,
    seed_mean,
    style_of,
)


def ranges(ax, rows: pd.DataFrame) -> None:
    """A row for each variant, the lowest at the bottom: its value, and a line over its trainings. Columns: value, low, high."""
    order = rows["value"].sort_values().index
    for y, variant in enumerate(order):
        row, color = rows.loc[variant], style_of(variant)[0]
        ax.plot([row["low"], row["high"]], [y, y], color=color, linewidth=1.6)
        ax.plot(row["value"], y, "o", color=color, markersize=6)
    ax.set_yticks(range(len(order)), [NAMES.get(variant, variant) for variant in order])
    ax.set_ylim(-0.6, len(order) - 0.4)


def dots(ax, values: pd.Series, order) -> None:
    """A row for each variant in `order`, from the bottom up: every training a dot, their mean a bar."""
    for y, variant in enumerate(order):
        own, look = values.loc[[variant]], {"color": style_of(variant)[0], "label": NAMES.get(variant, variant)}
        ax.plot(own, [y] * len(own), "o", markersize=4.5, markeredgewidth=0, alpha=0.55, **look)
        ax.plot(own.mean(), y, "|", markersize=16, markeredgewidth=2, **look)
    ax.set_yticks(range(len(order)), [NAMES.get(variant, variant) for variant in order])
    ax.set_ylim(-0.6, len(order) - 0.4)


def forest(ax, rows: pd.DataFrame, order) -> None:
    """A row for each contrast in `order`, from the bottom up: its value and interval in points, filled where it is clear.
    Columns: value, low, high (fractions), clear."""
    for y, name in enumerate(order):
        if name in rows.index:
            row, look = rows.loc[name], {"color": style_of(name)[0], "label": NAMES.get(name, name)}
            ax.plot([100 * row["low"], 100 * row["high"]], [y, y], linewidth=1.6, **look)
            ax.plot(100 * row["value"], y, "o", markersize=6, markerfacecolor=None if row["clear"] else "white", **look)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(range(len(order)), [NAMES.get(name, name) for name in order])
    ax.set_ylim(-0.6, len(order) - 0.4)


def lines(ax, rows: pd.DataFrame) -> None:
    """A line for each variant over the rows of a frame, row × variant, whose names stand below."""
    for variant, values in rows.items():
        ax.plot(range(len(rows)), values, color=style_of(variant)[0], linestyle=style_of(variant)[1])
    ax.set_xticks(range(len(rows)), [name if isinstance(name, str) else f"{name:g}" for name in rows.index])
    ax.set_xlim(0, max(len(rows) - 1, 1))


def crosses(ax, lost: list[tuple[str, float]]) -> None:
    """Trainings (variant, x) that were lost: crosses at the bottom of a panel, below a dotted line and off its scale, those of
    one x beside each other."""
    if lost:
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.15 * (high - low), high)
        ax.plot([0, 1], [0.12, 0.12], transform=ax.transAxes, color="#888888", linewidth=0.8, linestyle=":")
    for i, (variant, x) in enumerate(lost):
        number = sum(other == x for _, other in lost[:i])
        aside = mpl.transforms.ScaledTranslation(number * 8 / 72, 0, ax.figure.dpi_scale_trans)
        look = {"color": style_of(variant)[0], "markersize": 6, "markeredgewidth": 1.8}
        ax.plot(x, 0.055, "x", transform=ax.get_xaxis_transform() + aside, **look)


def by_batch(ax, rows: pd.DataFrame) -> None:
    """Test accuracy (%) by batch size with 95 % intervals, a line for each norm. Columns: norm, batch, value, low, high."""
    for norm, part in rows.groupby("norm", sort=False):
        color, style = style_of(norm)
        value, low, high = (100 * part[name] for name in ("value", "low", "high"))
        ax.errorbar(
            part["batch"], value, [value - low, high - value], color=color, linestyle=style, marker="o", markersize=3.5,
            elinewidth=1,
        )  # fmt: skip
    ax.set_xscale("log", base=2)
    sizes = sorted(rows["batch"].unique())
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()
    ax.set_xlim(right=sizes[-1] * 1.1)
    ax.set_xlabel("batch size")


def learning_curve(history: pd.DataFrame, best_epoch: int) -> Figure:
    """Error (%) and loss of one training by epoch, on training and validation images, with the best validation epoch marked."""
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.2))
    for ax, kind in zip(axes, ("accuracy", "loss"), strict=True):
        for part, (name, color) in PARTS.items():
            values = history[f"{part}_{kind}"]
            values = 100 * (1 - values) if kind == "accuracy" else values
            ax.plot(history["epoch"], values, color=color)
            ax.annotate(
                name, (len(history), values.iloc[-1]), (4, 0), textcoords="offset points", color=color, size=8, va="center"
            )
        if best_epoch:
            ax.plot(best_epoch, values[history["epoch"] == best_epoch], "o", color=color, markeredgecolor="black", markersize=5)
        ax.set_title("error (%)" if kind == "accuracy" else "loss (nats)")
        ax.set_xlim(1, len(history))
        epoch_axis(ax)
    return fig


def twins(pair: tuple[pd.DataFrame, pd.DataFrame], names: tuple[str, str], gaps: dict[str, pd.Series]) -> Figure:
    """Two trainings over each other: error (%) by epoch, one broad and pale, the other thin and black; and differences of
    validation accuracy (points) by epoch, by what they are differences of."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.2))
    for frame, name, look in zip(pair, names, ({"linewidth": 3.5, "alpha": 0.4}, {"linewidth": 0.8}), strict=True):
        for part, (_, color) in PARTS.items():
            own = color if "alpha" in look else "black"
            left.plot(frame["epoch"], 100 * (1 - frame[f"{part}_accuracy"]), color=own, label=name, **look)
    for part, (title, color) in PARTS.items():
        end = 100 * (1 - pair[0][f"{part}_accuracy"].iloc[-1])
        left.annotate(title, (len(pair[0]), end), (4, 0), textcoords="offset points", color=color, size=8, va="center")
    looks = {"color": "#888888", "linewidth": 3.5, "alpha": 0.4}, {"color": "black", "linewidth": 0.8}
    left.legend(handles=[plt.Line2D([], [], label=name, **look) for name, look in zip(names, looks, strict=True)])
    left.set_title("error (%)")
    for (name, gap), color in zip(gaps.items(), ("#000000", "#E69F00"), strict=False):
        right.plot(range(1, len(gap) + 1), 100 * gap, color=color, linewidth=0.9, label=name)
    right.axhline(0, color="black", linewidth=0.6)
    right.legend(loc="lower right")
    right.set_title("difference of validation accuracy (points)")
    for ax in (left, right):
        ax.set_xlim(1, len(pair[0]))
        epoch_axis(ax)
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
    fig, axes = plt.subplots(rows, columns, figsize=(WIDTH, (WIDTH / columns + 0.18) * rows), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        ax.imshow(image, interpolation="nearest")
        ax.set_title(title, fontsize=7, pad=2)
    return fig


def quantiles(histories: dict[str, pd.DataFrame]) -> Figure:
    """The four percentiles of the features by epoch, a panel for each variant, on one scale, which is linear up to 1."""
    rows, names = -(-len(histories) // 3), {"q01": "1st", "q20": "20th", "q80": "80th", "q99": "99th"}
    fig, axes = plt.subplots(rows, 3, figsize=(WIDTH, 1.5 * rows + 0.2), sharex=True, sharey=True, squeeze=False)
    for ax, (variant, history) in zip(axes.flat, histories.items(), strict=False):
        color = style_of(variant)[0]
        for (column, name), style in zip(names.items(), (":", "-.", "--", "-"), strict=True):
            ax.plot(history["epoch"], history[column], color=color, linestyle=style, label=name)
        ax.fill_between(history["epoch"], history["q20"], history["q80"], color=color, alpha=0.15, linewidth=0)
        ax.set_title(NAMES[variant])
        ax.set_xlim(1, len(history))
    highest = np.nanmax([np.nanmax(history["q99"].replace(np.inf, np.nan), initial=1) for history in histories.values()])
    axes[0, 0].set_ylim(-0.07, 1.3 * highest)  # a line at 0 is seen
    axes[0, 0].set_yscale("symlog", linthresh=1)
    axes[0, 0].yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1, subs=(1, 2, 5)))
    axes[0, 0].yaxis.set_major_formatter(ScalarFormatter())
    for ax in axes[-1]:
        epoch_axis(ax, ticks=5)
    for ax in axes[:, 0]:
        ax.set_ylabel("feature value")
    fig.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=4, labelcolor="black", title="percentile"
    )
    return fig


def growing(histories: dict[str, list[pd.DataFrame]], growth: pd.DataFrame) -> Figure:
    """Spread of the features (99th minus 1st percentile) by epoch, the mean over the trainings, and by what factor it grows
    (columns growth, low, high)."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.2), width_ratios=(3, 2))
    ends = {}
    for variant, frames in histories.items():
        spread = [frame.assign(spread=frame["q99"] - frame["q01"]) for frame in frames]
        mean = seed_mean(spread, "spread")
        left.plot(mean, color=style_of(variant)[0], linestyle=style_of(variant)[1])
        ends[variant] = mean.iloc[-1]
    left.set_xlim(1, max(len(frame) for frames in histories.values() for frame in frames))
    log_axis(left)
    left.set_title("spread of the features")
    epoch_axis(left)
    label_ends(left, ends)
    ranges(right, growth.rename(columns={"growth": "value"}))
    right.axvline(1, color="black", linewidth=0.8)
    right.set(title="growth: last quarter / second", xlabel="factor")
    return fig


def gate_values(gates: pd.DataFrame) -> Figure:
    """BIN's gates, one dot per channel, in each layer from the first channel to the last. Columns: layer (in forward order),
    channel, rho."""
    fig, ax = plt.subplots(figsize=(WIDTH, 1.95))
    layers = dict(list(gates.groupby("layer", sort=False)))
    for place, layer in enumerate(layers.values()):
        across = place + 0.6 * (layer["channel"] / layer["channel"].max() - 0.5)
        ax.plot(across, layer["rho"], "o", color=STYLES["bin"][0], markersize=3, markeredgewidth=0, alpha=0.6)
    means = [layer["rho"].mean() for layer in layers.values()]
    ax.plot(range(len(layers)), means, "_", color="black", markersize=14, markeredgewidth=2)
    ax.set_xticks(range(len(layers)), layers)
    ax.grid(visible=False, axis="x")
    ax.set_ylim(-0.05, 1.05)
    ax.set_ylabel("gate ρ")
    ax.set_xlabel("layer, from input to output")
    return fig


def heat_maps(images: np.ndarray, maps: dict[str, np.ndarray], titles: list[str], words: dict[str, list[str]]) -> Figure:
    """A row for each image uint8 (N, H, W, 3): the image, then each network's map (N, H, W) over it, bright where high.
    `titles`: what stands at the left of each row; `words`: what stands below each map, per network."""
    rows, columns = len(images), 1 + len(maps)
    fig, axes = plt.subplots(rows, columns, figsize=(WIDTH, 0.15 + 0.8 * rows), squeeze=False)
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


def alike(values: pd.Series, areas: pd.Series) -> Figure:
    """How alike the maps of each two norms are (`values` of lib.cam.by_norm, indexed "ln - gn" and "gn - gn"), and how wide
    each training's are (`areas`, fractions of the image, its norm as the index), in rows of one order."""
    pairs = values.set_axis(pd.MultiIndex.from_tuples([tuple(name.split(" - ")) for name in values.index]))
    order = list(dict.fromkeys(pairs.index.get_level_values(0)))
    square = pairs.unstack().reindex(index=order, columns=order)
    square = square.combine_first(square.T).loc[order, order].rename(index=NAMES, columns=NAMES)
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.35), width_ratios=(4, 3))
    sns.heatmap(
        square, ax=left, annot=True, fmt=".2f", cmap="Blues", vmin=0, linewidths=0.8, cbar=False, annot_kws={"size": 8}
    )  # fmt: skip
    left.set(title="overlap beyond chance", xlabel="", ylabel="")
    left.tick_params(rotation=0, length=0)
    left.grid(visible=False)
    lost = pd.Series(np.nan, index=[variant for variant in order if variant not in areas.index], dtype=float)
    dots(right, 100 * pd.concat([areas, lost]), order[::-1])
    right.set(title="area that holds half of the heat (%)", ylim=(-0.5, len(order) - 0.5))
    right.set_xlim(left=0)
    return fig


def transfer(curves: dict[str, pd.DataFrame], share: float, histories: dict[str, list[pd.DataFrame]]) -> Figure:
    """What features of a trained network are worth beside an untrained one's (left: precision over recall, of each "kernel,
    network"; dotted: guessing, right for the `share` of the class), and as a start beside random
    weights (right: validation error by epoch of "scratch" and "fine-tuned", the mean over the seeds)."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.3))
    colors = {network: style_of(start)[0] for start, network in (("scratch", "untrained"), ("fine-tuned", "trained"))}
    for name, points in curves.items():
        kernel, network = name.split(", ")
        style = "--" if kernel == "linear" else "-"
        label = f"{network} network" if kernel == "rbf" else None  # one for each colour
        left.plot(100 * points["recall"], 100 * points["precision"], color=colors[network], linestyle=style, label=label)
    left.legend(loc="best", labelcolor="linecolor", handlelength=0, handletextpad=0)
    left.axhline(100 * share, color="#767676", linewidth=0.8, linestyle=":")
    left.set(title="precision (%)", xlabel="recall (%)", xlim=(0, 100), ylim=(0, 104))
    ends = {}
    for start, frames in histories.items():
        error = 100 * (1 - seed_mean(frames, "val_accuracy"))
        right.plot(error, "o-", color=style_of(start)[0], markersize=3)
        ends[start] = error.iloc[-1]
    longest = max((len(frame) for frames in histories.values() for frame in frames), default=1)
    right.set(title="validation error on the task (%)", xlim=(0.5, longest + 0.5), ylim=(0, None))
    epoch_axis(right)
    label_ends(right, ends)
    return fig


def accuracies(values: pd.Series, versus: pd.DataFrame, label: str, reference: str, like: dict | None = None) -> Figure:
    """The accuracy of every training, indexed by what was trained, and `versus` the reference's, from the lowest mean to the
    highest, or in the order of `like` from the top: name -> the variant whose colour it has. `label`: of which images."""
    order = values.groupby(level=0).mean().sort_values().index if like is None else list(like)[::-1]
    USED.update({name: STYLES[variant] for name, variant in (like or {}).items()})
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 0.7 + 0.2 * len(order)), sharey=True)
    dots(left, 100 * values, order)
    forest(right, versus, order)
    left.set_xlabel(label)
    right.set_xlabel(f"mean minus that of {reference} (points)")
    return fig


def restless(histories: dict[str, list[pd.DataFrame]], jitter: pd.DataFrame, examples: tuple[str, str]) -> Figure:
    """Validation accuracy of one training each of two variants from a tenth to half of the epochs, and `jitter` of all: mean
    and range over the trainings."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 1.75), width_ratios=(3, 2))
    ends = {}
    for variant in examples:
        frame = histories[variant][0]
        frame = frame[max(len(frame) // 10 - 1, 0) : max(len(frame) // 2, 2)]
        left.plot(frame["epoch"], 100 * frame["val_accuracy"], color=style_of(variant)[0], linestyle=style_of(variant)[1])
        ends[variant] = 100 * frame["val_accuracy"].iloc[-1]
    left.set_xlim(frame["epoch"].min(), frame["epoch"].max())
    label_ends(left, ends)
    epoch_axis(left)
    left.set_title("validation accuracy of one training each (%)")
    ranges(right, 100 * jitter[["value", "low", "high"]])
    right.set_xlim(left=0)
    right.set(xlabel="points", title="change from epoch to epoch")
    return fig


def fit_and_loss(trainings: pd.DataFrame) -> Figure:
    """Every training a dot: test by training accuracy, and validation loss by validation accuracy."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.05))
    scatter(left, trainings, "train", "test", names_left={"ln"})
    left.set(xlabel="accuracy on training images (%)", title="test accuracy (%)")
    scatter(right, trainings.assign(val_loss=trainings["val_loss"] / 100), "val", "val_loss", names_left={"in"})
    right.set(xlabel="validation accuracy (%)", title="validation loss (nats)")
    return fig


def scatter(ax, trainings: pd.DataFrame, x: str, y: str, names_left=()) -> None:
    """Every training a dot, in percent, and each variant's name at the right of its dots, or of some at the left."""
    for variant, own in (100 * trainings[[x, y]]).groupby(level=0, sort=False):
        color, at_left = style_of(variant)[0], variant in names_left
        ax.plot(own[x], own[y], "o", color=color, markersize=4.5, markeredgewidth=0, alpha=0.6)
        place = own[x].min() if at_left else own[x].max(), own[y].mean()
        side, align = (-6, "right") if at_left else (6, "left")
        ax.annotate(NAMES[variant], place, (side, 0), textcoords="offset points", color=color, size=8, ha=align, va="center")
    ax.margins(0.14, 0.1)


def index_sets(images: int = 4, channels: int = 6, height: int = 4, group: int = 2) -> Figure:
    """The values that share a mean and a variance with the one at the front edge: a cube of images × channels × places for each
    norm, after Wu & He 2018, figure 2. BIN mixes two sets."""
    last = images - 1
    sets = {
        "BN": lambda n, c: c == 0,
        "IN": lambda n, c: c == 0 and n == last,
        "BIN": lambda n, c: 0.45 * (c == 0) + 0.55 * (c == 0 and n == last),
        "LN": lambda n, c: n == last,
        "GN": lambda n, c: n == last and c < group,
    }
    fig, axes = plt.subplots(1, len(sets), figsize=(WIDTH, 1.45))

    def at(n, c, h):  # oblique projection: channels go back and to the right
        return n + 0.5 * c, h + 0.32 * c

    for ax, (name, share) in zip(axes, sets.items(), strict=True):
        color = np.array(mpl.colors.to_rgb(STYLES[name.lower()][0]))

        def cell(n, c, corners, ax=ax, share=share, color=color):
            strength = share(n, c)
            ax.fill(*zip(*(at(*p) for p in corners), strict=True), fc=1 - strength * (1 - color), ec="#555555", lw=0.4)

        for n in range(images):
            for h in range(height):  # the front, at channel 0
                cell(n, 0, [(n, 0, h), (n + 1, 0, h), (n + 1, 0, h + 1), (n, 0, h + 1)])
            for c in range(channels):  # the top
                cell(n, c, [(n, c, height), (n + 1, c, height), (n + 1, c + 1, height), (n, c + 1, height)])
        for c in range(channels):
            for h in range(height):  # the right side, the last image
                cell(last, c, [(images, c, h), (images, c + 1, h), (images, c + 1, h + 1), (images, c, h + 1)])
        ax.set_title(name, loc="center")
        ax.set_aspect("equal")
        ax.axis("off")
    axes[0].text(images / 2, -0.3, "$N$ images", ha="center", va="top", size=7)
    axes[0].text(-0.3, height / 2, "$H×W$ places", ha="right", va="center", rotation=90, size=7)
    axes[0].text(*at(images + 0.35, 1, -0.5), "$C$ channels", rotation=32, rotation_mode="anchor", va="center", size=7)
    return fig


def sweep(rows: pd.DataFrame) -> Figure:
    """`by_batch` in a panel for each rule of the learning rate (column rule); a cross at the bottom, off the scale, where a
    training lost what it had learned."""
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.3), sharey=True)
    titles = {"scaled": "learning rate scaled with the batch", "same": "the same learning rate for all"}
    parts = [rows[rows["rule"] == rule] for rule in titles]
    for ax, part, title in zip(axes, parts, titles.values(), strict=True):
        by_batch(ax, part)
        ax.set_title(title)
    for ax, part in zip(axes, parts, strict=True):  # now that the axis they share is known
        crosses(ax, part.loc[part["value"].isna(), ["norm", "batch"]].to_numpy().tolist())
    for ax, part in zip(axes, parts, strict=True):
        label_ends(ax, 100 * part.groupby("norm")["value"].last())
    axes[0].set_ylabel("test accuracy (%)")
    return fig


def headline(trainings: pd.DataFrame, sweep: pd.DataFrame, contrast: pd.DataFrame, titles: list[str]) -> Figure:
    """The study in one figure: test accuracy (%) by norm, by batch size and by contrast of the test images, with a title each.
    `trainings` and `sweep` as of lib.facts; `contrast`: contrast (from 1 down) × variant, fractions."""
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(WIDTH, 2.2))
    dots(left, 100 * trainings["test"], trainings["test"].groupby(level=0).mean().sort_values().index)
    left.set(title=titles[0], xlabel="test accuracy (%)")
    scaled = sweep[(sweep["rule"] == "scaled") & (sweep["batch"] <= 32)]  # as many images as Wu & He's largest
    by_batch(middle, scaled)
    middle.set(title=titles[1], ylabel="test accuracy (%)")
    label_ends(middle, 100 * scaled.groupby("norm")["value"].last())
    lines(right, 100 * contrast.rename(index=lambda level: f"{level:g}".removeprefix("0")))
    right.set(title=titles[2], xlabel="contrast", ylabel="test accuracy (%)", ylim=(0, 100))
    label_ends(right, 100 * contrast.iloc[-1])
    return fig


VERDICTS = {"confirmed": "#009E73", "contradicted": "#D55E00", "open": "#767676"}


def verdicts(claims: pd.DataFrame) -> Figure:
    """Differences of test accuracy (points) that decide claims, with their intervals, coloured by verdict. Columns: value, low,
    high (fractions), verdict; the index says the claim."""
    rows = claims.dropna(subset="value")[::-1]
    fig, ax = plt.subplots(figsize=(WIDTH, 0.6 + 0.2 * max(len(rows), 1)))
    for y, (_, row) in enumerate(rows.iterrows()):
        color = VERDICTS[row["verdict"]]
        ax.plot([100 * row["low"], 100 * row["high"]], [y, y], color=color, linewidth=1.6)
        ax.plot(100 * row["value"], y, "o", color=color, markersize=6)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(range(len(rows)), rows.index)
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.set_xlabel("difference of test accuracy (points)")
    used = {word: color for word, color in VERDICTS.items() if word in set(rows["verdict"])}
    handles = [plt.Line2D([], [], color=color, marker="o", linestyle="", label=word) for word, color in used.items()]
    ax.legend(handles=handles, loc="best")
    return fig


def dot_panels(values: dict[str, pd.Series], label: str) -> Figure:
    """A panel for each named series (fractions, indexed by variant), on a scale of its own, with a dot for each training;
    all have the rows in the order of the first one's means. `label`: what is on the axes."""
    fig, axes = plt.subplots(1, len(values), figsize=(WIDTH, 1.9), sharey=True)
    order = next(iter(values.values())).groupby(level=0).mean().sort_values().index
    for ax, (title, series) in zip(axes, values.items(), strict=True):
        for y, variant in enumerate(order):
            own = 100 * series.loc[[variant]]
            ax.plot(own, [y] * len(own), "o", color=style_of(variant)[0], markersize=6, markeredgewidth=0, alpha=0.8)
        ax.set_yticks(range(len(order)), [NAMES.get(variant, variant) for variant in order])
        ax.set(title=title, xlabel=label, ylim=(-0.6, len(order) - 0.4))
        ax.margins(x=0.1)
    return fig


def two_scores(rows: pd.DataFrame, label: str) -> Figure:
    """Each variant's value in the first column and in the second (fractions), a line for each from left to right. `label`: what
    the values are."""
    fig, ax = plt.subplots(figsize=(0.6 * WIDTH, 1.75))
    for variant, row in (100 * rows).iterrows():
        color, style = style_of(variant)
        ax.plot([0, 1], row, color=color, linestyle=style, marker="o", markersize=5)
    ax.set_xticks([0, 1], list(rows.columns))
    ax.grid(visible=False, axis="x")
    ax.set(xlim=(-0.15, 1.08), ylabel=label)
    label_ends(ax, 100 * rows.iloc[:, 1])
    return fig


def by_layer(shares: pd.DataFrame, label: str) -> Figure:
    """Shares (%) by layer, from input to output, a line for each variant: layer × variant, fractions. `label`: of what."""
    fig, ax = plt.subplots(figsize=(WIDTH, 1.6))
    lines(ax, 100 * shares)
    ax.set(xlabel="layer, from input to output", ylabel=label)
    label_ends(ax, 100 * shares.iloc[-1])
    return fig


def ablation(rows: pd.DataFrame, base: str) -> Figure:
    """Test accuracy (filled, with its interval) and validation accuracy (hollow) of configurations that depart from `base`, a
    line, in one choice each; a cross where the training failed. Columns: val, test, low, high (fractions); the index says
    "choice: level", or another name for what belongs to no choice."""
    others = rows.drop(base)[::-1]
    choices = [name.split(": ")[0] for name in others.index]
    steps = [0, *(1.0 + 0.6 * (a != b) for a, b in itertools.pairwise(choices))]  # a gap between two choices
    places = dict(zip(others.index, np.cumsum(steps), strict=True))
    colors = {choice: OTHERS[1 + i % (len(OTHERS) - 1)][0] for i, choice in enumerate(dict.fromkeys(choices[::-1]))}
    fig, ax = plt.subplots(figsize=(WIDTH, 0.6 + 0.16 * places[others.index[-1]]))
    for (name, row), choice in zip((100 * others).iterrows(), choices, strict=True):
        y, color = places[name], colors[choice]
        ax.plot([row["low"], row["high"]], [y, y], color=color, linewidth=1.6)
        ax.plot(row["val"], y, "o", color=color, markersize=6.5, markerfacecolor="none")
        ax.plot(row["test"], y, "o", color=color, markersize=4)
        if np.isnan(row["test"]):
            ax.plot(0.01, y, "x", color=color, transform=ax.get_yaxis_transform(), markersize=6, markeredgewidth=1.8)
    ax.axvline(100 * rows.loc[base, "test"], color="black", linewidth=0.8)
    ax.set_yticks(list(places.values()), list(places))
    ax.set_xlabel("accuracy (%)")
    return fig


def shift_pictures(image: np.ndarray, changed: dict[str, dict[float, np.ndarray]]) -> Figure:
    """An image uint8 (H, W, 3) as it is and, for each named shift, at each of five strengths; two shifts a row."""
    pictures, titles = [], []
    for name, strengths in changed.items():
        pictures += [image, *strengths.values()]
        titles += [name, *(f"{strength:g}" for strength in strengths)]
    return image_grid(pictures, titles, columns=12)


def by_strength(rows: pd.DataFrame, strengths: dict[str, tuple]) -> Figure:
    """Test accuracy (%) by the strength of each shift: the mean of each variant's trainings, and pale every training. Columns:
    variant, run, shift, strength, accuracy (a fraction); shift "none" is the start of every panel."""
    fig, axes = plt.subplots(2, 3, figsize=(WIDTH, 3.7), sharey=True)
    start = rows[rows["shift"] == "none"]
    for ax, (shift, levels) in zip(axes.flat, strengths.items(), strict=True):
        own = pd.concat([start, rows[rows["shift"] == shift]])
        place = own["strength"].map({level: i for i, level in enumerate(levels, 1)}).where(own["shift"] != "none", 0)
        own = (100 * own.assign(place=place / 100)[["accuracy", "place"]]).join(own[["variant", "run"]])
        for variant, part in own.groupby("variant", sort=False):
            color, style = style_of(variant)
            for _, line in part.groupby("run"):
                ax.plot(line["place"], line["accuracy"], color=color, linewidth=0.5, alpha=0.35)
            ax.plot(part.groupby("place")["accuracy"].mean(), color=color, linestyle=style, label=NAMES[variant])
        ax.set_xticks(range(len(levels) + 1), ["as is", *(f"{level:g}" for level in levels)])
        ax.set(title=shift, xlim=(0, len(levels)), ylim=(0, 100))
    for ax in axes[:, 0]:
        ax.set_ylabel("test accuracy (%)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper right", ncols=len(labels))
    return fig


def by_statistics(rows: pd.DataFrame, others: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Test accuracy (%) of batch norm's networks under the shifts of `titles`, by whose statistics they use: those of a batch
    of shifted images, by its size, and the running ones at the right; pale every training. `others`: variant × shift, dotted
    lines. Columns: variant, run, shift, batch (0: the running ones), accuracy (fractions)."""
    fig, axes = plt.subplots(1, len(titles), figsize=(WIDTH, 2.2), sharey=True)
    sizes = sorted(rows.loc[rows["batch"] > 0, "batch"].unique())
    places = {size: i for i, size in enumerate([*sizes, 0])}
    for ax, (shift, title) in zip(axes, titles.items(), strict=True):
        own, ends = rows[rows["shift"] == shift], {}
        own = own.assign(place=own["batch"].map(places), accuracy=100 * own["accuracy"])
        for variant, part in own.sort_values("place").groupby("variant", sort=False):
            color, style = style_of(variant)
            of_batches, running = part[part["batch"] > 0], part.loc[part["batch"] == 0, "accuracy"]
            for _, line in of_batches.groupby("run"):
                ax.plot(line["place"], line["accuracy"], "o-", color=color, linewidth=0.5, markersize=2, alpha=0.35)
            ax.plot(of_batches.groupby("place")["accuracy"].mean(), color=color, linestyle=style)
            ax.plot([places[0]] * len(running), running, "o", color=color, markersize=3, alpha=0.5, clip_on=False)
            ends[variant] = running.mean()
        for variant, value in (100 * others[shift]).items():
            ax.axhline(value, color=style_of(variant)[0], linewidth=0.9, linestyle=":")
            ends[variant] = value
        ax.set_xticks(list(places.values()), [*map(str, sizes), "running"])
        ax.set(title=title, xlabel="images whose statistics BN and BIN take", xlim=(0, len(sizes)), ylim=(0, 100))
        ax.tick_params(axis="x", labelsize=7)
        label_ends(ax, ends)
    axes[0].set_ylabel("test accuracy (%)")
    return fig


def spread_by_contrast(rows: pd.DataFrame) -> Figure:
    """The features' spread by the contrast of the images, relative: contrast (from 1 down) × variant."""
    fig, ax = plt.subplots(figsize=(WIDTH, 1.9))
    lines(ax, rows)
    ax.set(title="relative spread of the features", xlabel="contrast", ylim=(0, None))
    label_ends(ax, rows.iloc[-1])
    return fig


def surer_than_right(gaps: pd.DataFrame) -> Figure:
    """Confidence minus accuracy (points) by confidence (%): above 0 a network is too sure. `gaps`: confidence × variant."""
    fig, ax = plt.subplots(figsize=(WIDTH, 1.85))
    for variant, values in gaps.items():
        color, style = style_of(variant)
        ax.plot(100 * values.index, 100 * values, color=color, linestyle=style, marker="o", markersize=2.5)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set(title="confidence minus accuracy (points)", xlabel="confidence (%)", xlim=(100 * gaps.index[0] - 1, 100))
    label_ends(ax, 100 * gaps.iloc[-1])
    return fig


def sure_and_right(rows: pd.DataFrame) -> Figure:
    """Accuracy (%) by mean confidence (%), a dot for each shifted set and strength and a panel for each variant; on the line
    they are equal. Columns: variant, shift, confidence, accuracy (fractions); shift "none" is drawn as a ring."""
    variants = list(dict.fromkeys(rows["variant"]))
    fig, axes = plt.subplots(1, len(variants), figsize=(WIDTH, 1.7), sharex=True, sharey=True)
    for ax, variant in zip(np.atleast_1d(axes), variants, strict=True):
        own, color = rows[rows["variant"] == variant], style_of(variant)[0]
        for part, face in ((own[own["shift"] != "none"], color), (own[own["shift"] == "none"], "white")):
            ax.plot(
                100 * part["confidence"], 100 * part["accuracy"], "o", color=color, markerfacecolor=face, markersize=3.5,
                markeredgewidth=1 if face == "white" else 0, alpha=1 if face == "white" else 0.6,
            )  # fmt: skip
        ax.plot([0, 100], [0, 100], color="black", linewidth=0.8)
        ax.set(title=NAMES[variant], xlim=(0, 100), ylim=(0, 100), aspect="equal", xticks=(0, 50, 100), yticks=(0, 50, 100))
    np.atleast_1d(axes)[0].set_ylabel("accuracy (%)")
    fig.supxlabel("mean confidence (%)", fontsize=9)
    return fig


def by_rate(rows: pd.DataFrame) -> Figure:
    """Validation accuracy (%) by learning rate, a line for each norm; a cross where the training was lost. Columns: val (a
    fraction), failed; indexed by norm and rate."""
    fig, ax = plt.subplots(figsize=(WIDTH, 1.8))
    rates = sorted(rows.index.unique(1))
    ends, lost = {}, rows.index[rows["failed"]].tolist()
    for norm, part in rows.groupby(level=0, sort=False):
        color, style = style_of(norm)
        reached = 100 * part["val"].droplevel(0).dropna()
        ax.plot(reached.index, reached, color=color, linestyle=style, marker="o", markersize=3.5)
        if rates[-1] in reached.index:
            ends[norm] = reached[rates[-1]]
        elif len(reached):  # its line ends within the panel, and its name stands there
            look = {"textcoords": "offset points", "color": color, "size": 8}
            ax.annotate(NAMES[norm], (reached.index[-1], reached.iloc[-1]), (5, -9), **look)
    ax.set_xscale("log")
    ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
    ax.minorticks_off()
    ax.set(xlim=(rates[0] / 1.1, rates[-1] * 1.1), xlabel="learning rate", ylabel="validation accuracy (%)")
    crosses(ax, lost)
    label_ends(ax, ends)
    return fig


def by_epoch(rows: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """A panel for each column of `rows` that has a title, by epoch, a line for each norm, on a logarithmic axis if all are
    above 0. `rows`: indexed by norm and epoch."""
    fig, axes = plt.subplots(1, len(titles), figsize=(WIDTH, 2.1))
    for ax, (column, title) in zip(axes, titles.items(), strict=True):
        values, ends = rows[column], {}
        for norm, own in values.groupby(level=0, sort=False):
            own = own.droplevel(0)
            ax.plot(own, color=style_of(norm)[0], linestyle=style_of(norm)[1])
            ends[norm] = own.iloc[-1]
        if values.min() > 0:
            log_axis(ax)
        else:
            ax.axhline(0, color="black", linewidth=0.8)
        epoch_axis(ax, 6)
        ax.margins(x=0)
        ax.set_title(title)
        if ax is axes[0]:
            label_ends(ax, ends)
    return fig


def length_and_rate(rows: pd.DataFrame, rates: pd.DataFrame) -> Figure:
    """`length` of the weights by epoch, of rows indexed by norm and epoch; effective learning rates by layer, layer × norm."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.1), width_ratios=(1, 2))
    for norm, own in rows["length"].groupby(level=0, sort=False):
        left.plot(own.droplevel(0), color=style_of(norm)[0], linestyle=style_of(norm)[1])
    left.set_title("length of all weights")
    epoch_axis(left, 6)
    left.margins(x=0)
    label_ends(left, rows["length"].groupby(level=0).last())
    lines(right, rates)
    right.tick_params(axis="x", labelsize=6.5)
    log_axis(right)
    right.set(title="effective learning rate", xlabel="layer, from input to output")
    label_ends(right, rates.iloc[-1] if len(rates) else {})
    return fig
