"""From the results of a cross-validation to its page, in the style and with the parts of the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fewlabel.files import write_text
from fewlabel.report import comparison, facts
from fewlabel.report.contract import read_results
from fewlabel.report.page import built, render
from fewlabel.report.results import Results
from fewlabel.report.unlabelled import MEASURES, small_number
from fewlabel.report.words import count, interval, is_number, number
from fewlabel.types import JSON

RESULTS, PAGE = "cross_validation.json", "cross_validation.html"


def write_cross_validation(run: Path) -> Path:
    """Write run/cross_validation.html from run/cross_validation.json; return its path.

    Raises FewlabelError where that file is missing or not what is expected, or the page cannot be stored.
    """
    results = Results(read_results(run, RESULTS))
    write_text(run / PAGE, render(PAGE, built(run / RESULTS, "cross-validation", lambda: _context(results))))
    return run / PAGE


def _context(results: Results) -> JSON:
    raw = results.raw
    return {
        "title": raw["title"],
        "target": raw["target"],
        "made_images": bool(raw.get("made_images")),
        "warnings": raw.get("warnings") or [],
        "headline": comparison.headline(results),
        "efficiency": comparison.efficiency(results),
        "differences": comparison.differences(results),
        "by_fold": [_by_fold(results, budget) for budget in results.budgets],
        "folds": [_fold(fold) for fold in raw["folds"]],
        "unlabelled": [_unlabelled(row) for row in raw.get("unlabelled") or []],
        "patients": count((raw.get("data") or {}).get("patients")),
        "seeds": len(raw.get("seeds") or []),
        "settings": facts.settings(results, raw.get("settings") or {}),
    }


def _by_fold(results: Results, budget: int) -> JSON:
    """A table at one budget: the main measure in each fold, their mean and spread, and of pooled outputs."""
    pooled = {(row["name"], row["arm"], row["budget"]): row for row in results.raw["pooled"]}
    lines = []
    for arm, label in results.labels.items():
        key = (results.metric, arm, budget)
        if key in results.cells:
            mean, joint = results.cells[key], pooled[key]
            lines.append(
                {
                    "label": label,
                    "colour": results.look(arm).colour,
                    "folds": [number(value) for value in mean["per_seed"]],
                    "mean": number(mean["value"]),
                    "interval": interval(mean["low"], mean["high"]),
                    "spread": number(mean["spread"]),
                    "pooled": number(joint["value"]),
                    "pooled_interval": interval(joint["low"], joint["high"]),
                }
            )
    return {"budget": "all" if budget == results.everything else count(budget), "lines": lines}


def _fold(given: JSON) -> JSON:
    parts = ("train", "val", "test")
    return {
        "number": given["number"],
        "cells": [(count(given[part]), count(given[f"{part}_patients"])) for part in parts],
        "pretraining": count(given["pretraining_images"]),
    }


def _unlabelled(given: JSON) -> JSON:
    label, meaning = MEASURES[given["name"]]
    floors = [row["floor"] for row in given["folds"] if is_number(row.get("floor"))]
    if floors:
        meaning += f" Training images, as many, lie {small_number(float(np.mean(floors)))} from them."
    return {
        "label": label,
        "unit": given.get("unit") or "",
        "meaning": meaning,
        "mean": small_number(given["value"]),
        "spread": small_number(given["spread"]),
        "folds": [
            {
                "value": small_number(row["value"]),
                "interval": f"{small_number(row['low'])} to {small_number(row['high'])}",
            }
            for row in given["folds"]
        ],
    }
