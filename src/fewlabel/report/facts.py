"""The sections of the page about the run: pictures, data, how it was measured, settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewlabel.report.contract import picture
from fewlabel.report.results import Results
from fewlabel.report.words import count, duration, is_number
from fewlabel.types import JSON

MISTAKES_AT_ONCE = 12
MISTAKES_AT_MOST = 48


def mistakes(run: Path, results: Results) -> JSON | None:
    """The most confident mistakes with their pictures, in the order in which they are given."""
    given = results.raw.get("mistakes") or []
    if not given:
        return None
    cards = [
        {
            "case": str(row.get("case", "")),
            "truth": _said(results, row.get("truth")),
            "prediction": _said(results, row.get("prediction")),
            "probability": f"{100 * row['probability']:.1f} %" if is_number(row.get("probability")) else "",
            "picture": picture(run, row.get("figure")),
        }
        for row in given[:MISTAKES_AT_MOST]
    ]
    return {
        "first": cards[:MISTAKES_AT_ONCE],
        "more": cards[MISTAKES_AT_ONCE:],
        "left": len(given) - len(cards),
        "graded": results.raw["target"].get("kind") == "ordinal",
        "probability_of": "chance of yes" if results.raw["target"].get("kind") == "binary" else "its chance",
    }


def _said(results: Results, value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else results.class_name(value)


def data(results: Results) -> JSON | None:
    """Facts about the images, the labels' counts, and what was put in quarantine."""
    given = results.raw.get("data")
    if not given:
        return None
    return {
        "facts": [(name, text) for name, text in _facts(given) if text],
        "labels": _label_counts(results, given),
        "quarantine": given.get("quarantine") or [],
        "quarantine_left": max(0, (given.get("quarantine_total") or 0) - len(given.get("quarantine") or [])),
        "quarantine_total": given.get("quarantine_total"),
    }


def _facts(given: JSON) -> list[tuple[str, str]]:
    def shown(key: str) -> str:
        return count(given[key]) if given.get(key) is not None else ""

    def part(key: str) -> str:
        patients = shown(f"{key}_patients")
        return f"{shown(key)} images" + (f" of {patients} patients" if patients else "") if shown(key) else ""

    modalities = given.get("modalities") or {}
    states = [
        f"{shown(key)} {word}"
        for key, word in (("uncertain", "uncertain"), ("not_mentioned", "not mentioned"))
    ]
    return [
        ("Images", shown("images")),
        ("Patients", shown("patients")),
        ("Training", part("train")),
        ("Validation", part("val")),
        ("Test", part("test")),
        ("Split", str(given.get("split") or "")),
        ("Images for pretraining", shown("pretraining_images")),
        ("Validation labels", shown("validation_labels")),
        ("Labels set aside", ", ".join(state for state in states if state[0].isdigit())),
        ("Modalities", ", ".join(f"{name or 'not stated'}: {count(n)}" for name, n in modalities.items())),
        ("Image sizes", str(given.get("image_sizes") or "")),
        ("Pixel spacing", _spacing(given.get("spacing_mm"))),
        ("Groups of exact duplicates", shown("exact_duplicate_groups")),
        ("Groups of near duplicates", shown("near_duplicate_groups")),
        ("Dropped because of leakage", shown("dropped_for_leakage")),
        ("In quarantine", shown("quarantine_total")),
    ]


def _spacing(given: Any) -> str:
    if isinstance(given, list | tuple):
        return " x ".join(f"{value:g}" for value in given) + " mm"
    return f"{given:g} mm" if is_number(given) else str(given or "")


def _label_counts(results: Results, given: JSON) -> JSON | None:
    table = given.get("label_counts") or {}
    table = {part: row for part, row in table.items() if isinstance(row, dict)}
    if not table:
        return None
    names = list(dict.fromkeys(str(name) for row in table.values() for name in row))
    order = [str(c) for c in results.raw["target"].get("classes") or []]
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    words = {"train": "training", "val": "validation"}
    rows = [
        (words.get(part, part), [count(row.get(name, 0)) for name in names]) for part, row in table.items()
    ]
    return {"classes": [results.class_name(name) for name in names], "rows": rows}


def method(results: Results) -> JSON:
    """What the text about measuring needs to know."""
    data_block = results.raw.get("data") or {}
    images = [row["n"] for row in results.raw["metrics"] if is_number(row.get("n"))]
    patients = [row["patients"] for row in results.raw["metrics"] if is_number(row.get("patients"))]
    return {
        "seeds": len(results.raw.get("seeds") or []),
        "budgets": ", ".join(f"{budget:,}" for budget in results.budgets),
        "validation": count(data_block.get("validation_labels"))
        if data_block.get("validation_labels") is not None
        else "",
        "images": f"{max(images):,}" if images else "",
        "patients": f"{max(patients):,}" if patients and max(patients) else "",
        "split": str(data_block.get("split") or ""),
        "controls": [
            str(arm.get("label") or arm["key"]) for arm in results.raw["arms"] if arm.get("role") == "control"
        ],
    }


def settings(results: Results, given: JSON) -> JSON:
    """Every setting as rows of (dotted name, value), grouped by the first name; versions; time spent."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, value in _flat(given):
        group, _, rest = name.partition(".")
        groups.setdefault(group if rest else "", []).append((rest or group, value))
    versions = results.raw.get("versions") or {}
    seconds = results.raw.get("seconds") or {}
    return {
        "groups": list(groups.items()),
        "versions": [(name, str(value)) for name, value in versions.items()],
        "seconds": [(str(name).replace("_", " "), duration(value)) for name, value in seconds.items()],
    }


def _flat(given: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(given, dict) and given:
        return [
            row for key, value in given.items() for row in _flat(value, f"{name}.{key}" if name else str(key))
        ]
    if isinstance(given, list):
        return [(name, ", ".join(str(value) for value in given) or "none")]
    return [(name, _setting(given))]


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not set" if value is None or value == "" else "none" if value == {} else str(value)


def missing(results: Results, shown: JSON) -> list[tuple[str, str]]:
    """What a reader may look for and does not find, with the reason."""
    kind = results.raw["target"].get("kind")
    roc = "" if kind == "number" else "results.json holds no ROC or calibration curves."
    abstaining = "" if kind == "number" else "this run was made before it was measured."
    wanted = {
        "headline": ("Headline", "results.json holds none."),
        "efficiency": ("Label-efficiency curves", "results.json holds no values of the main measure."),
        "savings": ("Labels saved", "it was not worked out in this run."),
        "differences": ("Paired differences", "methods were not compared with each other in this run."),
        "decisions": ("ROC and calibration", roc),
        "abstention": ("Risk and coverage", abstaining),
        "grades": ("Grades", "results.json says nothing of them." if kind == "ordinal" else ""),
        "scatter": (
            "Predicted against true",
            "the predictions are not in results.json." if kind == "number" else "",
        ),
        "embedding": ("Map of the features", "it was not made in this run."),
        "retrieval": ("Retrieval", "it was not measured in this run." if results.has_texts else ""),
        "zero_shot": ("Zero-shot", "no sentences were tried as classes." if results.has_texts else ""),
        "similarity": ("Similarity maps", "none were made in this run." if results.has_texts else ""),
        "views": ("Views", "the picture of the views is not in the run's folder."),
        "mistakes": ("Mistakes", "none are listed for this run."),
        "health": ("Pretraining's health", "nothing was pretrained in this run, or nothing was recorded."),
        "data": ("Data", "results.json says nothing of the data."),
    }
    return [(title, why) for key, (title, why) in wanted.items() if why and not shown.get(key)]
