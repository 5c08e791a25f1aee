"""The sections that look into single models: ROC, calibration, predicted and true, map, health."""

from __future__ import annotations

from collections import Counter

import numpy as np

from fewlabel.report import diagnostics
from fewlabel.report.canvas import one_width
from fewlabel.report.results import Results
from fewlabel.report.words import is_number, number
from fewlabel.types import JSON


def decisions(results: Results) -> JSON | None:
    """ROC curves and calibration, a pair of plots a budget: the headline's and the largest come first."""
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
    bins = [
        diagnostics.Calibration(
            results.arm(r["arm"]), results.look(r["arm"]), r["predicted"], r["observed"], r["count"]
        )
        for r in reliability
        if r["budget"] == budget
    ]
    names = ", ".join(line.label for line in lines)
    plots: JSON = {"budget": budget, "roc": None, "calibration": None}
    if lines:
        alt = f"ROC curves with {budget:,} labels: {names}."
        plots["roc"] = one_width(diagnostics.roc(lines), f"roc-{budget}", alt)
    if bins:
        names = ", ".join(line.label for line in bins)
        alt = f"Observed share against predicted probability with {budget:,} labels: {names}."
        plots["calibration"] = one_width(diagnostics.calibration(bins), f"calibration-{budget}", alt)
    return plots


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


def health(results: Results) -> JSON | None:
    """What pretraining without labels said about itself."""
    given = results.raw.get("health")
    if not given or not given.get("step"):
        return None
    panels = []
    for name, title, meaning in _HEALTH:
        values = given.get(name) or []
        if values:
            steps = given["step"][: len(values)]
            drawn = [value if is_number(value) else np.nan for value in values[: len(steps)]]
            last = next((v for v in reversed(drawn) if np.isfinite(v)), None)
            alt = f"{title} over {len(steps)} measurements, last {number(last)}."
            plot = one_width(diagnostics.health(steps, drawn, title), f"health-{name}", alt)
            panels.append({"plot": plot, "meaning": meaning})
    return {"panels": panels, "warnings": given.get("warnings") or []} if panels else None


_HEALTH = (
    ("loss", "Contrastive loss", "Falls while the network learns to tell images apart."),
    ("alignment", "Alignment", "How far two views of one image lie apart: lower is better."),
    ("uniformity", "Uniformity", "How evenly the images fill the space: lower is better."),
    ("effective_rank", "Effective rank", "How many directions are in use: a fall towards 1 is collapse."),
)
