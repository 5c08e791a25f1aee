"""The sections that compare methods: headline, label-efficiency curves, labels saved, differences."""

from __future__ import annotations

from typing import Any

from fewlabel.report import curves
from fewlabel.report.canvas import Plot, one_width, two_widths
from fewlabel.report.results import Results
from fewlabel.report.words import (
    CHANCE,
    CHANCE_WORDS,
    MEANINGS,
    higher_is_better,
    interval,
    is_number,
    label_count,
    number,
    p_value,
    signed,
)
from fewlabel.types import JSON

PANELS_AT_ONCE = 4


def headline(results: Results) -> JSON | None:
    """The one big sentence, the picture of it, and the numbers that it stands on."""
    given = results.raw.get("headline")
    if not given:
        return None
    return {
        "status": given.get("status") or "",
        "sentence": given.get("sentence") or "",
        "factor": _with_interval(given.get("factor"), "×"),
        "equivalent": _with_interval(given.get("equivalent"), ""),
        "arm": results.arm(given.get("arm")),
        "reference": results.arm(given.get("reference")),
        "budget": given.get("budget"),
        "metric": results.title(results.metric),
        "plot": _headline_plot(results, given),
        "facts": _headline_facts(results, given),
    }


def _with_interval(given: JSON | None, sign: str) -> JSON | None:
    if not given or not given.get("text"):
        return None
    low, high = given.get("low_text"), given.get("high_text")
    return {"text": f"{given['text']}{sign}", "interval": f"{low} to {high}" if low and high else ""}


def _saving(given: JSON) -> curves.Saving | None:
    equivalent = given.get("equivalent") or {}
    needed = label_count(equivalent.get("text"))
    if needed is None or not is_number(given.get("budget")):
        return None
    factor = _with_interval(given.get("factor"), "×")
    note = factor["text"] + (f"  ({factor['interval']})" if factor["interval"] else "") if factor else ""
    low, high = label_count(equivalent.get("low_text")), label_count(equivalent.get("high_text"))
    return curves.Saving(given["budget"], needed, low, high, note)


def _headline_plot(results: Results, given: JSON) -> Plot | None:
    saving = _saving(given)
    if saving is None or not results.budgets:
        return None
    names = results.arm(given.get("arm")), results.arm(given.get("reference"))
    looks = results.look(given.get("arm")), results.look(given.get("reference"))
    needed = _with_interval(given["equivalent"], "") or {}
    alt = (
        f"Labels needed for the same result: {names[0]} {saving.budget:,g}; "
        f"{names[1]} {needed.get('text')} ({needed.get('interval')})."
    )
    return two_widths(
        lambda width, height, _: curves.headline(saving, names, looks, results.budgets, width, height),
        "headline",
        alt,
        (660, 200),
        (336, 190),
    )


def _headline_facts(results: Results, given: JSON) -> list[JSON]:
    facts = []
    for key in (given.get("arm"), given.get("reference")):
        row = results.cells.get((results.metric, str(key), given.get("budget") or 0))
        if row is not None:
            facts.append({"name": results.arm(key), "colour": results.look(key).colour, **_cell(row, None)})
    for row in results.raw.get("differences") or []:
        wanted = (given.get("arm"), given.get("reference"), given.get("budget"), results.metric)
        if (row["arm"], row["reference"], row["budget"], row["name"]) == wanted:
            text = {"value": signed(row["value"]), "interval": interval(row["low"], row["high"])}
            facts.append({"name": f"difference, p {_p_sentence(row.get('p'))}", "colour": "", **text})
    return facts


def _p_sentence(p: Any) -> str:
    text = p_value(p)
    return text if text[0] in "<–" else f"= {text}"


def efficiency(results: Results) -> JSON | None:
    """Label-efficiency curves of the main metric, small ones of the others, and a table of every number."""
    if not results.budgets or not results.metric_names:
        return None
    main = _curves(results, results.metric)
    if not main:
        return None
    return {
        "plot": _efficiency_plot(results, main),
        "legend": results.legend(key for _, key in main),
        "others": [plot for name in results.metric_names[1:] if (plot := _small_plot(results, name))],
        "tables": [_metric_table(results, name) for name in results.metric_names],
        "meanings": [
            (results.title(name), MEANINGS[name]) for name in results.metric_names if name in MEANINGS
        ],
        "chance": CHANCE_WORDS.get(results.metric),
        "seeds": any(row.get("per_seed") for row in results.raw["metrics"]),
    }


def _curves(results: Results, name: str) -> list[tuple[curves.Curve, str]]:
    found = []
    for key, label in results.labels.items():
        rows = results.measured(name, key)
        if rows:
            values, lows, highs = ([_bound(row, side) for row in rows] for side in ("value", "low", "high"))
            seeds = [[s for s in row.get("per_seed") or [] if is_number(s)] for row in rows]
            curve = curves.Curve(
                label, results.look(key), [row["budget"] for row in rows], values, lows, highs, seeds
            )
            found.append((curve, key))
    return found


def _bound(row: JSON, side: str) -> float:
    return float(row[side]) if is_number(row.get(side)) else float(row["value"])


def _efficiency_plot(results: Results, main: list[tuple[curves.Curve, str]]) -> Plot:
    lines = [curve for curve, _ in main]
    return two_widths(
        lambda width, height, narrow: curves.efficiency(
            lines,
            width,
            height,
            title=results.title(results.metric),
            everything=results.everything,
            chance=CHANCE.get(results.metric),
            direct_labels=not narrow,
        ),
        "curves",
        f"{results.title(results.metric)} against the number of labelled training images, one curve for each "
        f"of {len(lines)} methods; the table below holds the same numbers.",
        (980, 470),
        (340, 330),
    )


def _small_plot(results: Results, name: str) -> Plot | None:
    lines = [curve for curve, _ in _curves(results, name)]
    if not lines:
        return None
    better = "" if higher_is_better(results.raw, name) else ", lower is better"
    figure = curves.efficiency(lines, 340, 270, title=results.title(name) + better, chance=CHANCE.get(name))
    return one_width(figure, f"curves-{name}", f"{results.title(name)} against the number of labels.")


def _metric_table(results: Results, name: str) -> JSON:
    rows = []
    for arm, label in results.labels.items():
        cells = [results.cells.get((name, arm, budget)) for budget in results.budgets]
        if any(cells):
            cells_shown = [
                _cell(cell, results.best(name, budget))
                for cell, budget in zip(cells, results.budgets, strict=True)
            ]
            rows.append({"label": label, "colour": results.look(arm).colour, "cells": cells_shown})
    images = sorted(
        {row["n"] for row in results.raw["metrics"] if row["name"] == name and is_number(row.get("n"))}
    )
    patients = sorted(
        {
            row["patients"]
            for row in results.raw["metrics"]
            if row["name"] == name and is_number(row.get("patients"))
        }
    )
    return {
        "title": results.title(name),
        "better": "higher" if higher_is_better(results.raw, name) else "lower",
        "budgets": results.budgets,
        "rows": rows,
        "images": " or ".join(f"{n:,}" for n in images),
        "patients": " or ".join(f"{n:,}" for n in patients),
    }


def _cell(row: JSON | None, best: float | None) -> JSON:
    if row is None or not is_number(row.get("value")):
        return {"value": "–", "interval": "", "best": False}
    scale = float(row["value"])
    low, high = row.get("low"), row.get("high")
    shown = f"{number(low, scale)} to {number(high, scale)}" if is_number(low) and is_number(high) else "–"
    return {"value": number(scale), "interval": shown, "best": best is not None and scale == best}


def savings(results: Results) -> JSON | None:
    """Labels saved at each budget; where it cannot be told, the row says so."""
    given = [row for row in results.raw.get("labels_saved") or [] if row]
    if not given:
        return None
    drawn = [row for row in map(_saving, given) if row is not None]
    arm, reference = given[0].get("arm"), given[0].get("reference")
    plot = None
    if drawn and results.budgets:
        alt = (
            "For each budget, the labels with which the reference does as well; the table holds the numbers."
        )
        plot = two_widths(
            lambda width, height, _: curves.savings(
                drawn, results.look(arm), results.look(reference), results.budgets, width, height
            ),
            "savings",
            alt,
            (980, 80 + 38 * len(drawn)),
            (340, 80 + 36 * len(drawn)),
        )
    rows = [
        {
            "budget": row.get("budget"),
            "status": row.get("status") or "",
            "equivalent": _with_interval(row.get("equivalent"), ""),
            "factor": _with_interval(row.get("factor"), "×"),
            "sentence": row.get("sentence") or "",
        }
        for row in given
    ]
    keys = [key for key in (arm, reference) if key in results.labels]
    return {
        "plot": plot,
        "rows": rows,
        "legend": results.legend(keys),
        "arm": results.arm(arm),
        "reference": results.arm(reference),
    }


def differences(results: Results) -> JSON | None:
    """A forest plot for each pair of methods on the main metric, and a table of all differences."""
    given = results.raw.get("differences") or []
    if not given:
        return None
    main = [row for row in given if row["name"] == results.metric and is_number(row.get("value"))]
    pairs: dict[tuple[str, str], list[curves.Difference]] = {}
    for row in sorted(main, key=lambda row: row["budget"]):
        pairs.setdefault((row["arm"], row["reference"]), []).append(_difference(results, row))
    limits = curves.forest_limits([row for rows in pairs.values() for row in rows])
    panels = [_panel(results, pair, rows, limits, place) for place, (pair, rows) in enumerate(pairs.items())]
    up = higher_is_better(results.raw, results.metric)
    return {
        "metric": results.title(results.metric),
        "better": "right" if up else "left",
        "panels": panels[:PANELS_AT_ONCE],
        "more": panels[PANELS_AT_ONCE:],
        "rows": [_difference_row(results, row) for row in given],
    }


def _difference(results: Results, row: JSON) -> curves.Difference:
    low, high = _bound(row, "low"), _bound(row, "high")
    verdict = 0 if low <= 0 <= high else 1 if (low > 0) == higher_is_better(results.raw, row["name"]) else -1
    size = max(abs(low), abs(high))
    note = f"{signed(row['value'], size)}  ({number(low, size)} to {number(high, size)})"
    return curves.Difference(row["budget"], float(row["value"]), low, high, verdict, note)


def _panel(
    results: Results,
    pair: tuple[str, str],
    rows: list[curves.Difference],
    limits: tuple[float, float],
    place: int,
) -> JSON:
    arm, reference = results.arm(pair[0]), results.arm(pair[1])
    spoken = "; ".join(f"{row.budget:,g} labels {row.note}" for row in rows)
    plot = two_widths(
        lambda width, height, _: curves.forest(rows, limits, width, height),
        f"forest-{place}",
        f"{arm} minus {reference}: {spoken}.",
        (480, 40 + 27 * len(rows)),
        (326, 40 + 27 * len(rows)),
    )
    return {"arm": arm, "reference": reference, "plot": plot}


def _difference_row(results: Results, row: JSON) -> JSON:
    return {
        "pair": f"{results.arm(row['arm'])} − {results.arm(row['reference'])}",
        "metric": results.title(row["name"]),
        "budget": row["budget"],
        "value": signed(row.get("value")),
        "interval": interval(row.get("low"), row.get("high")),
        "p": p_value(row.get("p")),
    }
