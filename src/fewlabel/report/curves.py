"""Plots over label budgets: label-efficiency curves, labels saved, paired differences."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fewlabel.report.canvas import INK, LINE, QUIET, Margins, house_style, log_budget_axis, sheet, shortened
from fewlabel.report.style import LIGHT, Look
from fewlabel.report.words import LabelCount


@dataclass(frozen=True)
class Curve:
    """One method over the budgets: values with their intervals, and the value of each seed where known."""

    label: str
    look: Look
    budgets: list[float]
    values: list[float]
    lows: list[float]
    highs: list[float]
    seeds: list[list[float]]


@dataclass(frozen=True)
class Saving:
    """One row of labels saved: with `budget` labels the method is as good as the reference with `needed`."""

    budget: float
    needed: LabelCount
    low: LabelCount | None
    high: LabelCount | None
    note: str


@dataclass(frozen=True)
class Difference:
    """Method minus reference at one budget; verdict is +1 for better, -1 for worse, 0 for open."""

    budget: float
    value: float
    low: float
    high: float
    verdict: int
    note: str


@house_style
def efficiency(
    curves: Sequence[Curve],
    width: int,
    height: int,
    *,
    title: str,
    everything: float | None = None,
    chance: float | None = None,
    direct_labels: bool = False,
) -> Figure:
    """Label-efficiency curves with their bands; `direct_labels` writes each method's name at its end."""
    figure, axes = sheet(
        width, height, Margins(right=225 if direct_labels else 16, left=44, bottom=60 if everything else 46)
    )
    for curve in sorted(curves, key=lambda c: c.look.role == "method"):
        _draw_curve(axes, curve, strong=direct_labels)
    budgets = sorted({b for curve in curves for b in curve.budgets})
    log_budget_axis(axes, budgets, everything)
    axes.set_title(shortened(title, width // 9), loc="left", pad=10)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid(visible=False, axis="x")
    _limit(axes, curves)
    low, high = axes.get_ylim()
    if chance is not None and low < chance < high:
        axes.axhline(chance, color=QUIET, linewidth=1, linestyle=(0, (1, 3)), zorder=1)
    if direct_labels:
        _label_ends(axes, curves, height)
    return figure


def _draw_curve(axes: Axes, curve: Curve, strong: bool) -> None:
    look, order = curve.look, 4 if curve.look.role == "method" else 3
    faint = 0.14 if look.role in ("method", "reference") else 0.07
    axes.fill_between(
        curve.budgets, curve.lows, curve.highs, color=look.ink, alpha=faint, linewidth=0, zorder=order - 2
    )
    for budget, values in zip(curve.budgets, curve.seeds, strict=True):
        if strong and look.role in ("method", "reference"):
            axes.plot(
                [budget] * len(values),
                values,
                ".",
                color=look.ink,
                alpha=0.45,
                markersize=6,
                markeredgewidth=0,
                zorder=order,
            )
    axes.plot(
        curve.budgets,
        curve.values,
        color=look.ink,
        linestyle=look.linestyle,
        linewidth=2.4 if look.role in ("method", "reference") and strong else 1.7,
        marker=look.marker,
        markersize=6.5 if strong else 5,
        markeredgewidth=0,
        zorder=order,
    )


def _limit(axes: Axes, curves: Sequence[Curve]) -> None:
    """The y range of the values and, as far as they do not flatten everything else, of their intervals."""
    values = [v for curve in curves for v in curve.values]
    lows = [v for curve in curves for v in curve.lows]
    highs = [v for curve in curves for v in curve.highs]
    spread = max(max(values) - min(values), 0.02 * max(abs(v) for v in values), 1e-6)
    bottom = max(min(lows), min(values) - spread)
    top = min(max(highs), max(values) + spread)
    axes.set_ylim(bottom - 0.04 * (top - bottom), top + 0.04 * (top - bottom))


def _label_ends(axes: Axes, curves: Sequence[Curve], height: int) -> None:
    """Names at the right of the axes, pushed apart until none touches another."""
    low, high = axes.get_ylim()
    room = axes.get_position().height * height
    ranked = sorted(curves, key=lambda c: -c.values[-1])
    texts = ["\n".join(textwrap.wrap(curve.label, 28, max_lines=2, placeholder=" …")) for curve in ranked]
    tall = [(16 + 14 * text.count("\n")) / room for text in texts]
    places: list[float] = []
    for curve, size in zip(ranked, tall, strict=True):
        wanted = (curve.values[-1] - low) / (high - low)
        ceiling = places[-1] - (size + tall[len(places) - 1]) / 2 if places else 1.05
        places.append(min(wanted, ceiling))
    shift = max(0.0, tall[-1] / 2 - places[-1]) if places else 0.0
    for curve, text, place in zip(ranked, texts, places, strict=True):
        axes.annotate(
            text,
            (curve.budgets[-1], curve.values[-1]),
            xytext=(1.04, place + shift),
            textcoords="axes fraction",
            color=curve.look.ink,
            va="center",
            fontweight="bold" if curve.look.role == "method" else "normal",
            arrowprops={
                "arrowstyle": "-",
                "color": curve.look.ink,
                "linewidth": 0.7,
                "alpha": 0.6,
                "shrinkB": 5,
            },
        )


@house_style
def savings(
    rows: Sequence[Saving], method: Look, reference: Look, budgets: Sequence[float], width: int, height: int
) -> Figure:
    """One dumbbell a row: the method's budget, and the labels with which the reference does as well."""
    narrow = width < 600
    figure, axes = sheet(width, height, Margins(left=80, right=14 if narrow else 250, top=10, bottom=46))
    lowest, highest = min(budgets), max(budgets)
    left, right = lowest / 1.5, highest * 1.7
    for place, row in enumerate(rows):
        needed = _within(row.needed.value, (left, right))
        axes.plot([row.budget, needed], [place] * 2, color=QUIET, linewidth=1, zorder=2)
        _draw_needed(axes, place, row, reference, (left, right))
        axes.plot(
            [row.budget], [place], method.marker, color=method.ink, markersize=10, markeredgewidth=0, zorder=4
        )
        if not narrow:
            axes.text(1.03, place, row.note, transform=axes.get_yaxis_transform(), va="center", color=INK)
    log_budget_axis(axes, budgets)
    axes.set_xlim(left, right)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [f"{row.budget:,g} labels" for row in rows])
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    return figure


def _draw_needed(axes: Axes, place: float, row: Saving, look: Look, room: tuple[float, float]) -> None:
    """The labels that the reference needs: a bar for the interval, an arrow where it is open, a marker."""
    low, high = row.low or row.needed, row.high or row.needed
    ends = [_within(count.value, room) for count in (low, high)]
    axes.plot(ends, [place] * 2, color=look.ink, linewidth=7, alpha=0.3, solid_capstyle="butt", zorder=3)
    for count, end, bound, letter, factor in (
        (low, ends[0], "below", "<", 1 / 1.18),
        (high, ends[1], "above", ">", 1.18),
    ):
        if count.bound == bound:
            axes.plot([end, end * factor], [place] * 2, color=look.ink, linewidth=1.5, zorder=3)
            axes.plot(
                [end * factor], [place], letter, color=look.ink, markersize=7, markeredgewidth=0, zorder=4
            )
    if not row.needed.bound:
        needed = _within(row.needed.value, room)
        axes.plot([needed], [place], look.marker, color=look.ink, markersize=9, markeredgewidth=0, zorder=5)


def _within(value: float, room: tuple[float, float]) -> float:
    return min(max(value, room[0] * 1.15), room[1] / 1.3)


@house_style
def headline(
    saving: Saving,
    names: tuple[str, str],
    looks: tuple[Look, Look],
    budgets: Sequence[float],
    width: int,
    height: int,
) -> Figure:
    """The headline as a picture: labels needed by the method and by the reference, on one axis."""
    figure, axes = sheet(width, height, Margins(left=2, right=2, top=8, bottom=44))
    left, right = min(budgets) / 1.6, max(budgets) * 1.9
    method, letters = looks[0], 30 if width < 600 else 60
    axes.plot(
        [saving.budget], [0], method.marker, color=method.ink, markersize=12, markeredgewidth=0, zorder=5
    )
    _draw_needed(axes, 1, saving, looks[1], (left, right))
    needed = _within(saving.needed.value, (left, right))
    axes.axvspan(
        min(saving.budget, needed), max(saving.budget, needed), color=LIGHT["wash"], zorder=0, linewidth=0
    )
    for row, name, look in ((0, names[0], looks[0]), (1, names[1], looks[1])):
        text = shortened(name, letters)
        axes.text(
            0,
            row - 0.34,
            text,
            transform=axes.get_yaxis_transform(),
            color=look.ink,
            fontweight="bold",
            va="center",
        )
        axes.axhline(row, color=LINE, linewidth=1, zorder=1)
    log_budget_axis(axes, budgets)
    axes.set_xlim(left, right)
    axes.set_ylim(1.45, -0.62)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    return figure


@house_style
def forest(rows: Sequence[Difference], limits: tuple[float, float], width: int, height: int) -> Figure:
    """Paired differences with their intervals, one row a budget; filled where the interval leaves 0 out."""
    narrow = width < 400
    figure, axes = sheet(width, height, Margins(left=46, right=150 if narrow else 190, top=4, bottom=28))
    axes.axvline(0, color=QUIET, linewidth=1, zorder=1)
    for place, row in enumerate(rows):
        ink = {1: LIGHT["m0"], -1: LIGHT["r0"], 0: LIGHT["c1"]}[row.verdict]
        low, high = max(row.low, limits[0]), min(row.high, limits[1])
        axes.plot([low, high], [place] * 2, color=ink, linewidth=2, solid_capstyle="round", zorder=2)
        face = ink if row.verdict else LIGHT["card"]
        axes.plot(
            [row.value],
            [place],
            "o",
            markersize=7,
            color=ink,
            markerfacecolor=face,
            markeredgewidth=1.6,
            zorder=3,
        )
        axes.text(
            1.05,
            place,
            row.note,
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=11 if narrow else 13,
            color=INK,
        )
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(*limits)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_yticks(range(len(rows)), [f"{row.budget:,g}" for row in rows])
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    return figure


def forest_limits(rows: Sequence[Difference]) -> tuple[float, float]:
    """One x range for all forest panels, with 0 in it."""
    low = min([0.0, *(row.low for row in rows)])
    high = max([0.0, *(row.high for row in rows)])
    room = max(high - low, 1e-6) * 0.06
    return math.floor((low - room) * 1e4) / 1e4, math.ceil((high + room) * 1e4) / 1e4
