"""The section on grades: which are taken for which, and how often a mistake is a large one."""

from __future__ import annotations

from fewlabel.report import diagnostics
from fewlabel.report.canvas import Plot, one_width, shortened
from fewlabel.report.results import Results
from fewlabel.report.words import count, is_number, percent, percent_interval, value_with_interval
from fewlabel.types import JSON

LETTERS = 12
NEIGHBOURS = "-knn"
"""Ends the keys of arms that stand in the table alone: the second probe on what another arm shows already."""
MEASURES = ("kappa", "auroc_referable")


def grades(results: Results) -> JSON | None:
    """Confusion matrices with a table of how far mistakes go, the headline's budget first."""
    given = results.raw.get("grades")
    if not given:
        return None
    budgets = sorted({row["budget"] for row in given["confusion"]})
    groups = [_group(results, given, budget) for budget in budgets]
    return {
        "first": groups[:1],
        "more": groups[1:],
        "referable": given["referable"],
        "validation": count(given.get("validation_labels")),
        "measures": [results.title(name) for name in MEASURES],
        "cuts": ", ".join(f"{cut:.2f}" for cut in given["cuts"]),
    }


def _group(results: Results, given: JSON, budget: int) -> JSON:
    rows = [row for row in given["confusion"] if row["budget"] == budget]
    return {
        "budget": budget,
        "lines": [_line(results, row) for row in rows],
        "panels": [
            {"label": results.arm(row["arm"]), "plot": _plot(results, given["classes"], row)}
            for row in rows
            if results.look(row["arm"]).role in ("method", "reference")
            and not row["arm"].endswith(NEIGHBOURS)
        ],
    }


def _line(results: Results, row: JSON) -> JSON:
    arm, off = row["arm"], row["off_by"]
    measured = [results.cells.get((name, arm, row["budget"]), {}) for name in MEASURES]
    return {
        "label": results.arm(arm),
        "colour": results.look(arm).colour,
        "cells": [
            *(value_with_interval(cell) for cell in measured),
            *(
                {"value": percent(one["value"]), "interval": percent_interval(one)}
                for one in (off["1"], off["2"])
            ),
        ],
    }


def _plot(results: Results, classes: list[str], row: JSON) -> Plot:
    names = [shortened(results.class_name(name), LETTERS) for name in classes]
    shares = [[value if is_number(value) else None for value in line] for line in row["shares"]]
    spoken = "; ".join(
        f"true {name}: {', '.join(percent(share) for share in line)}"
        for name, line in zip(names, shares, strict=True)
    )
    alt = f"Confusion matrix of {results.arm(row['arm'])} with {row['budget']:,} labels. {spoken}."
    figure = diagnostics.confusion(names, row["counts"], shares)
    return one_width(figure, f"confusion-{row['arm']}-{row['budget']}", alt)
