"""Numbers and measures in words."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from fewlabel.types import JSON

LOWER_IS_BETTER = frozenset({"mae", "rmse", "brier", "calibration_error", "log_loss", "two_grades_off"})

LABELS = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "balanced_accuracy": "Balanced accuracy",
    "sensitivity_at_90_specificity": "Sensitivity at 90 % specificity",
    "brier": "Brier score",
    "calibration_error": "Calibration error",
    "log_loss": "Log loss",
    "mae": "Mean absolute error",
    "r2": "R²",
    "kappa": "Quadratic weighted kappa",
    "two_grades_off": "Off by two grades or more",
    "auroc_referable": "AUROC, referable",
}

MEANINGS = {
    "auroc": "The chance that an image with the finding is scored above one without it: 0.5 is a coin toss, "
    "1 is perfect. With more than two classes, the mean over the classes, each against the rest.",
    "average_precision": "Precision averaged over all thresholds; chance gives the share of positive images.",
    "balanced_accuracy": "The mean over the classes of the share of images that are given their true class.",
    "sensitivity_at_90_specificity": "The share of positive images found when one in ten negative images "
    "raises a false alarm.",
    "brier": "The mean squared gap between the predicted probability and what was true: 0 is perfect, lower "
    "is better.",
    "calibration_error": "How far predicted probabilities lie from observed shares, on average: 0 is "
    "perfect, lower is better.",
    "mae": "The mean distance between prediction and truth, in the target's own unit: lower is better.",
    "r2": "The share of the target's variance that is explained: 1 is perfect, 0 is no better than always "
    "saying the mean.",
    "kappa": "Agreement with the true grades beyond chance, where a mistake counts by its square: 1 is perfect, 0 is "
    "chance. Grades are called by cut points that validation patients chose.",
    "two_grades_off": "The share of images whose grade is missed by two or more: lower is better.",
    "auroc_referable": "The chance that a referable image is given a higher probability of being referable than one "
    "that is not.",
}

CHANCE = {"auroc": 0.5, "r2": 0.0, "kappa": 0.0, "auroc_referable": 0.5}
CHANCE_WORDS = {"auroc": "a coin toss", "r2": "always saying the mean", "kappa": "agreement by chance"}

NOT_KNOWN = "–"


@dataclass(frozen=True)
class LabelCount:
    """A number of labels that may only be bounded: "more than 4,708" is (4708, "above")."""

    value: float
    bound: Literal["", "above", "below"] = ""


def is_number(value: object) -> bool:
    """Whether value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def label_count(text: object) -> LabelCount | None:
    """What "230", "more than 4,708" or "fewer than 10" says; None where it says no number."""
    found = re.search(r"\d[\d,]*(?:\.\d+)?", str(text or ""))
    if not found:
        return None
    value = float(found[0].replace(",", ""))
    lower = str(text).lower()
    if value <= 0:
        return None
    if re.search(r"more|at least|above|over|>|≥", lower):
        return LabelCount(value, "above")
    if re.search(r"fewer|less|at most|below|under|<|≤", lower):
        return LabelCount(value, "below")
    return LabelCount(value)


def number(value: Any, scale: float = 0.0) -> str:
    """A result to three decimals, fewer where it or the numbers beside it (`scale`) are large."""
    if not is_number(value):
        return NOT_KNOWN
    size = max(abs(float(value)), abs(scale))
    decimals = 3 if size < 2 else 2 if size < 100 else 1
    rounded = round(float(value), decimals) + 0.0  # which is never -0
    return f"{rounded:.{decimals}f}".replace("-", "−")


def signed(value: Any, scale: float = 0.0) -> str:
    """A difference with its sign."""
    text = number(value, scale)
    return text if text[0] in "−–" else f"+{text}"


def interval(low: Any, high: Any) -> str:
    """ "0.880 to 0.940", or a dash where it is not known."""
    return f"{number(low)} to {number(high)}" if is_number(low) and is_number(high) else NOT_KNOWN


def value_with_interval(given: JSON) -> JSON:
    """The value and the interval of {"value", "low", "high"} as text; no interval where there is no value."""
    shown = interval(given.get("low"), given.get("high")) if is_number(given.get("value")) else ""
    return {"value": number(given.get("value")), "interval": shown}


def percent(value: Any) -> str:
    """A share as percent: "80 %", with one decimal below 10 %, a dash where it is not known."""
    if not is_number(value):
        return NOT_KNOWN
    return f"{_in_percent(value)} %"


def percent_interval(given: JSON) -> str:
    """ "4.2 to 10 %" of {"low": 0.042, "high": 0.1}, or a dash."""
    if not is_number(given.get("low")) or not is_number(given.get("high")):
        return NOT_KNOWN
    return f"{_in_percent(given['low'])} to {_in_percent(given['high'])} %"


def _in_percent(share: float) -> str:
    size = 100 * share
    return f"{size:.0f}" if round(size, 1) >= 10 or size == 0 else f"{size:.1f}"


def p_value(value: Any) -> str:
    """A p-value to two digits, never as zero."""
    if not is_number(value):
        return NOT_KNOWN
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def count(value: Any) -> str:
    """A whole number with thousands marked, any other value as it is, a dash for nothing."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return NOT_KNOWN if value is None or value == "" else str(value)


def duration(seconds: Any) -> str:
    """Seconds as a person says them."""
    if not is_number(seconds):
        return NOT_KNOWN
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def metric_label(results: JSON, name: str) -> str:
    """How a metric is called on the page."""
    return str((results.get("metric_labels") or {}).get(name) or LABELS.get(name, name.replace("_", " ")))


def higher_is_better(results: JSON, name: str) -> bool:
    """Which way is better: results.json says it of the main metric, the name of the others."""
    if name == results["metric"] and isinstance(results.get("higher_is_better"), bool):
        return bool(results["higher_is_better"])
    return name not in LOWER_IS_BETTER
