"""The sections that look into single models: ROC, calibration, abstaining, predicted and true, map, health."""

from __future__ import annotations

from collections import Counter

import numpy as np

from fewlabel.report import diagnostics
from fewlabel.report.canvas import Plot, one_width, two_widths
from fewlabel.report.results import Results
from fewlabel.report.words import LABELS, is_number, percent, percent_interval, value_with_interval
from fewlabel.types import JSON

SENTENCE_COVERAGE = 0.8
"""The sentence of the risk-coverage curve is about this coverage, whatever the curve looks like."""


def decisions(results: Results) -> JSON | None:
    """ROC curves and calibration before and after, a row of plots a budget; the headline's and the largest first."""
    rocs, reliability = results.raw.get("roc") or [], results.raw.get("calibration") or []
    found = sorted({row["budget"] for row in [*rocs, *reliability]})
    if not found:
        return None
    wanted = (results.raw.get("headline") or {}).get("budget")
    first = wanted if wanted in found else found[0]
    ordered = list(dict.fromkeys([first, found[-1], *found]))
    groups = [_decision_plots(results, budget, rocs, reliability) for budget in ordered]
    arms = {str(row["arm"]) for row in [*rocs, *reliability]}
    return {
        "first": groups[:1],
        "more": groups[1:],
        "legend": results.legend(arms),
        "bands": any(r.get("tpr_low") for r in rocs),
        "title": "ROC and calibration" if rocs else "Calibration",
        "roc": bool(rocs),
        "before": any(row.get("before") for row in reliability),
        "referable": results.raw["target"].get("referable"),
    }


def _decision_plots(results: Results, budget: int, rocs: list[JSON], reliability: list[JSON]) -> JSON:
    lines = [
        diagnostics.Roc(
            results.arm(r["arm"]),
            results.look(r["arm"]),
            r["fpr"],
            r["tpr"],
            r.get("tpr_low"),
            r.get("tpr_high"),
        )
        for r in rocs
        if r["budget"] == budget
    ]
    rows = [row for row in reliability if row["budget"] == budget]
    plots: JSON = {
        "budget": budget,
        "roc": None,
        "before": _reliability_plot(results, budget, [row for row in rows if row.get("before")], "before"),
        "after": _reliability_plot(results, budget, rows, "after"),
        "scores": _scores(results, rows),
    }
    if lines:
        names = ", ".join(line.label for line in lines)
        alt = f"ROC curves with {budget:,} labels: {names}."
        plots["roc"] = one_width(diagnostics.roc(lines), f"roc-{budget}", alt)
    return plots


def _reliability_plot(results: Results, budget: int, rows: list[JSON], side: str) -> Plot | None:
    """The reliability diagram of one side of calibration; runs of earlier versions have only the one after."""
    if not rows:
        return None
    curves = []
    for row in rows:
        bins = row["before"] if side == "before" else row
        curves.append(
            diagnostics.Calibration(
                results.arm(row["arm"]),
                results.look(row["arm"]),
                bins["predicted"],
                bins["observed"],
                bins["count"],
            )
        )
    names = ", ".join(curve.label for curve in curves)
    alt = f"Observed share against predicted probability {side} calibration with {budget:,} labels: {names}."
    binary = results.raw["target"].get("kind") == "binary"
    title = "share that has the finding" if binary else "share that is called right"
    xlabel = "predicted probability" if binary else "probability of the class called"
    return one_width(diagnostics.calibration(curves, title, xlabel), f"calibration-{side}-{budget}", alt)


def _scores(results: Results, rows: list[JSON]) -> JSON | None:
    """A table: one line a method and side of calibration, one column a measure."""
    rows = [row for row in rows if row.get("scores")]
    if not rows:
        return None
    lines = [
        {
            "label": results.arm(row["arm"]),
            "colour": results.look(row["arm"]).colour,
            "side": side,
            "cells": [value_with_interval(score[side]) for score in row["scores"]],
        }
        for row in rows
        for side in ("before", "after")
    ]
    names = [LABELS.get(score["name"], score["name"]) for score in rows[0]["scores"]]
    return {"measures": names, "lines": lines}


def abstention(results: Results) -> JSON | None:
    """Risk against coverage of the final classifier, and what thresholds chosen on validation achieve on test."""
    given = results.raw.get("abstention")
    if not given:
        return None
    curve, asked = given["curve"], given["asked"]
    marks = [(row["coverage"]["value"], row["achieved"]["value"]) for row in asked if _answers(row)]
    drawn = diagnostics.RiskCoverage(curve["coverage"], curve["risk"], curve["low"], curve["high"], marks)
    sentence = _risk_sentence(given)
    look = results.look(given.get("arm"))
    plot = two_widths(
        lambda width, height, _: diagnostics.risk_coverage(drawn, look, width, height),
        "risk-coverage",
        f"Share of wrong answers against the share of test images answered. {sentence}",
        (980, 380),
        (340, 300),
    )
    return {
        "plot": plot,
        "sentence": sentence,
        "marks": bool(marks),
        "aurc": value_with_interval(given["aurc"]),
        "arm": results.arm(given.get("arm")),
        "budget": given.get("budget"),
        "n": given.get("n"),
        "patients": given.get("patients"),
        "validation": given.get("validation_patients"),
        "chosen_among": given.get("chosen_among") or 1,
        "certain": percent(1 - given["delta"]) if is_number(given.get("delta")) else "",
        "rows": [_asked_row(row) for row in asked],
    }


def _answers(row: JSON) -> bool:
    """Whether a threshold was found and leaves a test image to answer."""
    return is_number(row.get("threshold")) and is_number(row["achieved"].get("value"))


def _asked_row(row: JSON) -> JSON:
    risk = f"{100 * row['risk']:g} %"
    if not is_number(row.get("threshold")):
        return {"risk": risk, "threshold": ""}
    return {
        "risk": risk,
        "threshold": f"{row['threshold']:.4f}" if row["threshold"] else "everything is answered",
        "bound": percent(row["bound"]),
        "coverage": percent(row["coverage"]["value"]),
        "coverage_interval": percent_interval(row["coverage"]),
        "achieved": percent(row["achieved"].get("value")),
        "achieved_interval": percent_interval(row["achieved"]),
    }


def _risk_sentence(given: JSON) -> str:
    """What is gained at 80 % coverage, in words."""
    curve = given["curve"]
    at = int(np.argmin(np.abs(np.asarray(curve["coverage"], float) - SENTENCE_COVERAGE)))
    kept, all_of_them = curve["risk"][at], given["error"]["value"]
    here = f"{percent(kept)} ({percent_interval({'low': curve['low'][at], 'high': curve['high'][at]})})"
    share = f"Keeping the most confident {percent(curve['coverage'][at])}"
    if percent(kept) == percent(all_of_them):
        return f"{share} leaves the error at {here}."
    return f"{share}, the error {'falls' if kept < all_of_them else 'rises'} from {percent(all_of_them)} to {here}."


def scatter(results: Results) -> JSON | None:
    """Predicted against true values of a number."""
    given = results.raw.get("scatter")
    if not given or not given.get("truth"):
        return None
    truth = [value if is_number(value) else np.nan for value in given["truth"]]
    prediction = [value if is_number(value) else np.nan for value in given["prediction"]]
    figure = diagnostics.predicted_against_true(truth, prediction)
    alt = (
        f"Predicted against true {results.raw['target'].get('name')}, {len(truth):,} images of the test set."
    )
    who = results.arm(given["arm"]) if given.get("arm") else ""
    return {
        "plot": one_width(figure, "scatter", alt),
        "n": len(truth),
        "arm": who,
        "budget": given.get("budget"),
    }


def embedding(results: Results) -> JSON | None:
    """The map of the features, coloured by the target."""
    given = results.raw.get("embedding")
    if not given or not given.get("x"):
        return None
    x, y = np.asarray(given["x"], float), np.asarray(given["y"], float)
    name = str(results.raw["target"].get("name", ""))
    alt = f"Map of the features of {len(x):,} images, coloured by {name}."
    context: JSON = {"method": given.get("method") or "", "n": len(x), "classes": [], "name": name}
    if given.get("kind") == "number":
        value = np.array([v if is_number(v) else np.nan for v in given["label"]], float)
        figure = diagnostics.embedding_numbers(x, y, value, name)
    else:
        label = [str(v) for v in given["label"]]
        declared = [str(c) for c in results.raw["target"].get("classes") or []]
        classes = [c for c in declared if c in set(label)] + sorted(set(label) - set(declared))
        figure = diagnostics.embedding_classes(x, y, label, classes)
        counts = Counter(label)
        context["classes"] = [
            (results.class_name(c), counts[c], diagnostics.class_colour(i)) for i, c in enumerate(classes)
        ]
    return context | {"plot": one_width(figure, "embedding", alt)}
