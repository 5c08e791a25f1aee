"""Plots of single models: ROC, calibration, predicted and true, map of features, pretraining's health."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from fewlabel.report.canvas import QUIET, Margins, house_style, sheet
from fewlabel.report.style import LIGHT, POINT_COLOURS, Look

MANY_POINTS = 1500
"""Above this many points a cloud is drawn as pixels: as vectors it would make the page heavy."""

LOW_TO_HIGH = LinearSegmentedColormap.from_list("low_to_high", ["#2f8fd8", "#a3a3a3", "#e56b23"])


@dataclass(frozen=True)
class Roc:
    """A ROC curve and, where it is known, its band; all four arrays have one length."""

    label: str
    look: Look
    fpr: Sequence[float]
    tpr: Sequence[float]
    low: Sequence[float] | None
    high: Sequence[float] | None


@dataclass(frozen=True)
class Calibration:
    """Mean prediction and observed share in bins, with how many images each bin holds."""

    label: str
    look: Look
    predicted: Sequence[float]
    observed: Sequence[float]
    count: Sequence[int]


@dataclass(frozen=True)
class RiskCoverage:
    """Share of wrong answers against the share of cases answered, with its band; four arrays of one length.

    marks: (coverage, risk) of the thresholds that were chosen on validation patients.
    """

    coverage: Sequence[float]
    risk: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    marks: Sequence[tuple[float, float]]


@house_style
def roc(curves: Sequence[Roc], width: int = 340, height: int = 340) -> Figure:
    """ROC curves on a square."""
    figure, axes = _unit_square(width, height)
    for curve in sorted(curves, key=lambda c: c.look.role == "method"):
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.fpr, curve.low, curve.high, color=curve.look.ink, alpha=0.13, linewidth=0)
        axes.plot(curve.fpr, curve.tpr, color=curve.look.ink, linestyle=curve.look.linestyle, linewidth=2)
    axes.set_title("sensitivity", loc="left", pad=10)
    axes.set_xlabel("false alarms (1 − specificity)")
    return figure


@house_style
def calibration(
    curves: Sequence[Calibration], title: str, xlabel: str, width: int = 340, height: int = 340
) -> Figure:
    """Observed share against predicted probability, with Wilson's 95 % interval of each bin."""
    figure, axes = _unit_square(width, height)
    for curve in sorted(curves, key=lambda c: c.look.role == "method"):
        low, high = wilson(np.asarray(curve.observed, float), np.asarray(curve.count, float))
        axes.vlines(curve.predicted, low, high, color=curve.look.ink, linewidth=1.2, alpha=0.6)
        axes.plot(
            curve.predicted,
            curve.observed,
            color=curve.look.ink,
            linestyle=curve.look.linestyle,
            marker=curve.look.marker,
            markersize=6,
            markeredgewidth=0,
            linewidth=1.8,
        )
    axes.set_title(title, loc="left", pad=10)
    axes.set_xlabel(xlabel)
    return figure


@house_style
def risk_coverage(curve: RiskCoverage, look: Look, width: int, height: int) -> Figure:
    """The risk-coverage curve in percent; the dotted line is the risk of answering everything."""
    figure, axes = sheet(width, height, Margins(left=50, right=22))
    answered, wrong = 100 * np.asarray(curve.coverage, float), 100 * np.asarray(curve.risk, float)
    low, high = 100 * np.asarray(curve.low, float), 100 * np.asarray(curve.high, float)
    axes.fill_between(answered, low, high, color=look.ink, alpha=0.13, linewidth=0)
    axes.axhline(wrong[-1], color=QUIET, linewidth=1, linestyle=(0, (1, 3)))
    axes.plot(answered, wrong, color=look.ink, linewidth=2)
    for coverage, risk in curve.marks:
        axes.plot(
            [100 * coverage], [100 * risk], look.marker, color=look.ink, markersize=8, markeredgewidth=0
        )
    top = max([*high[answered >= 20], *wrong, 1.0])
    axes.set(xlim=(0, 101), ylim=(0, 1.08 * top))
    axes.annotate(
        "answering everything",
        (answered[0], wrong[-1]),
        xytext=(0, 4),
        textcoords="offset points",
        color=QUIET,
    )
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_title("wrong answers (% of those given)", loc="left", pad=10)
    axes.set_xlabel("answered, the most confident first (%)")
    return figure


def wilson(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % interval of a share (Wilson 1927), for images that are independent of each other."""
    z, n = 1.96, np.maximum(count, 1)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(np.clip(share * (1 - share), 0, None) / n + z**2 / (4 * n**2))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def _unit_square(width: int, height: int) -> tuple[Figure, Axes]:
    figure, axes = sheet(width, height, Margins(left=44, right=16))
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle=(0, (1, 3)))
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_aspect("equal", adjustable="box", anchor="SW")
    return figure, axes


@house_style
def predicted_against_true(truth: Sequence[float], prediction: Sequence[float], width: int = 480) -> Figure:
    """One point an image, with the line on which prediction and truth agree."""
    figure, axes = sheet(width, width, Margins(left=54))
    x, y = np.asarray(truth, float), np.asarray(prediction, float)
    shown = np.isfinite(x) & np.isfinite(y)
    x, y = x[shown], y[shown]
    if not len(x):
        raise ValueError("scatter holds no finite pair of truth and prediction")
    ends = [min(x.min(), y.min()), max(x.max(), y.max())]
    axes.plot(ends, ends, color=QUIET, linewidth=1, linestyle=(0, (1, 3)))
    _cloud(axes, x, y, POINT_COLOURS[0])
    axes.set_title("predicted", loc="left", pad=10)
    axes.set_xlabel("true")
    return figure


@house_style
def embedding_classes(
    x: np.ndarray, y: np.ndarray, label: Sequence[str], classes: Sequence[str], width: int = 560
) -> Figure:
    """The map with one colour a class; classes beyond the number of colours share the last one."""
    figure, axes = _map(width, width)
    known = {name: class_colour(place) for place, name in enumerate(classes)}
    colours = np.array([known.get(name, POINT_COLOURS[-1]) for name in label])
    mixed = np.random.default_rng(0).permutation(len(x))  # no class lies on top of all others
    _cloud(axes, x[mixed], y[mixed], colours[mixed])
    return figure


@house_style
def embedding_numbers(
    x: np.ndarray, y: np.ndarray, value: np.ndarray, title: str, width: int = 560
) -> Figure:
    """The map with a colour scale."""
    figure, axes = _map(width, width - 20)
    points = axes.scatter(
        x, y, c=value, cmap=LOW_TO_HIGH, s=22, alpha=0.8, linewidths=0, rasterized=len(x) > MANY_POINTS
    )
    bar = figure.colorbar(points, ax=axes, fraction=0.04, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.set_title(title, loc="right", pad=8)
    return figure


def class_colour(place: int) -> str:
    """The colour of the class at `place`."""
    return POINT_COLOURS[min(place, len(POINT_COLOURS) - 1)]


def _map(width: int, height: int) -> tuple[Figure, Axes]:
    figure, axes = sheet(width, height, Margins(left=8, right=8, top=24, bottom=8))
    axes.set(xticks=[], yticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    return figure, axes


def _cloud(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str | np.ndarray) -> None:
    raster = len(x) > MANY_POINTS
    size = 10 if raster else 26
    axes.scatter(x, y, s=size, c=colour, alpha=0.65, linewidths=0, rasterized=raster)


@house_style
def confusion(
    names: Sequence[str],
    counts: Sequence[Sequence[float]],
    shares: Sequence[Sequence[float | None]],
    width: int = 320,
) -> Figure:
    """Truth by row, answer by column: the share of the row, and below it how many images; the diagonal is framed."""
    most = max(map(len, names))
    figure, axes = sheet(width, width, Margins(left=24 + 7 * most, right=6, top=30, bottom=46))
    size = min(13.0, 80 / len(names))
    for row, (line, parts) in enumerate(zip(counts, shares, strict=True)):
        for column, (count, share) in enumerate(zip(line, parts, strict=True)):
            _cell(axes, row, column, count, share, size)
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_title("true grade", loc="left", pad=10)
    axes.set_xlabel("grade called")
    return figure


def _cell(axes: Axes, row: int, column: int, count: float, share: float | None, size: float) -> None:
    corner = (column - 0.48, row - 0.48)
    if share:
        shade = Rectangle(corner, 0.96, 0.96, facecolor=LIGHT["m0"], alpha=0.55 * share, linewidth=0)
        axes.add_patch(shade)
    if row == column:
        axes.add_patch(Rectangle(corner, 0.96, 0.96, facecolor="none", edgecolor=LIGHT["ink"], linewidth=1))
    if not share:
        axes.text(
            column, row, "" if share is None else "0", fontsize=size, color=QUIET, ha="center", va="center"
        )
        return
    shown = f"{count:.0f}" if count == round(count) else f"{count:.1f}"
    axes.text(column, row - 0.14, f"{100 * share:.0f} %", fontsize=size, ha="center", va="center")
    axes.text(column, row + 0.24, shown, fontsize=0.8 * size, color=QUIET, ha="center", va="center")


@house_style
def health(
    step: Sequence[float], values: Sequence[float], title: str, width: int = 270, height: int = 190
) -> Figure:
    """One measure of pretraining's health over its steps."""
    figure, axes = sheet(width, height, Margins(left=44, right=14, top=30, bottom=40))
    axes.plot(step, values, color=LIGHT["m0"], linewidth=1.8)
    axes.set_title(title, loc="left", pad=8, color=LIGHT["ink"])
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(visible=False, axis="x")
    return figure
