"""The sections about what is alike: retrieval, classes told by sentences alone, similarity maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from fewlabel.report.contract import picture
from fewlabel.report.results import Results
from fewlabel.report.style import SIMILARITY_COLOURS
from fewlabel.report.words import count, higher_is_better, is_number, number, value_with_interval
from fewlabel.types import JSON

HITS_AT_MOST = 10
HIT_PX = 192
QUERIES_AT_ONCE = 2
QUERIES_AT_MOST = 6
"""Of each kind of search; a query with its hits is up to eleven pictures."""

MAPS_AT_ONCE = 4
MAPS_AT_MOST = 12
MAP_PX = 384


def retrieval(run: Path, results: Results) -> JSON | None:
    """A table of precision at k, one line a search and encoder, one of the measures that look at whole rankings, and
    examples of queries with their nearest.
    """
    given = results.raw.get("retrieval") or {}
    modes, queries = given.get("modes") or [], given.get("queries") or []
    if not modes and not queries:
        return None
    labels = {str(mode["key"]): str(mode.get("label") or mode["key"]) for mode in modes}
    return {
        "table": _precision_table(modes),
        "ranking": _ranking_table(modes),
        "searches": _searches(run, results, labels, queries),
        "note": given.get("note") or "",
    }


def _precision_table(modes: list[JSON]) -> JSON | None:
    ranks = sorted({row["k"] for mode in modes for row in mode["rows"]})
    if not ranks:
        return None
    return {"ranks": ranks, "lines": [_precision_line(mode, ranks) for mode in modes]}


def _precision_line(mode: JSON, ranks: list[int]) -> JSON:
    rows = {row["k"]: row for row in mode["rows"]}
    return {
        **_named(mode),
        "cells": [value_with_interval(rows.get(k, {})) for k in ranks],
        "chance": _each(rows.values(), "chance", number),
        "queries": _each(rows.values(), "n", count),
        "patients": _each(rows.values(), "patients", count),
        "candidates": _each(rows.values(), "candidates", count),
    }


def _ranking_table(modes: list[JSON]) -> JSON | None:
    """Recall@k, R-precision and MAP@R, where they were measured; below each kind of search what chance gives."""
    measured = [mode for mode in modes if mode.get("ranking")]
    if not measured:
        return None
    labels = {str(row["name"]): str(row["label"]) for mode in measured for row in mode["ranking"]}
    lines = []
    for place, mode in enumerate(measured):
        rows = {str(row["name"]): row for row in mode["ranking"]}
        lines.append(
            {
                **_named(mode),
                "cells": [value_with_interval(rows.get(name, {})) for name in labels],
                "queries": _each(rows.values(), "n", count),
            }
        )
        if mode["key"] not in [later["key"] for later in measured[place + 1 :]]:
            chances = [{"value": number(rows.get(name, {}).get("chance")), "interval": ""} for name in labels]
            lines.append({**_named(mode), "encoder": "a random order", "cells": chances, "queries": ""})
    return {"labels": list(labels.values()), "lines": lines}


def _named(mode: JSON) -> JSON:
    return {
        "label": _capital(str(mode.get("label") or mode["key"])),
        "encoder": str(mode.get("encoder") or ""),
    }


def _each(rows: Iterable[JSON], key: str, words: Callable[[Any], str]) -> str:
    """What the rows say under the key: once where all say the same, else each of the different values."""
    return ", ".join(dict.fromkeys(words(row[key]) for row in rows if row.get(key) is not None))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _searches(run: Path, results: Results, labels: dict[str, str], queries: list[JSON]) -> list[JSON]:
    """The examples by kind of search: kinds in the order of the table, then those that it lacks."""
    by_mode: dict[str, list[JSON]] = {key: [] for key in labels}
    for query in queries:
        by_mode.setdefault(str(query["mode"]), []).append(query)
    found = []
    for key, given in by_mode.items():
        if given:
            label = _capital(labels.get(key, key.replace("-", " to ")))
            strips = [
                _strip(run, results, f"{label}, query {place}", query)
                for place, query in enumerate(given[:QUERIES_AT_MOST], start=1)
            ]
            found.append(
                {
                    "label": label,
                    "first": strips[:QUERIES_AT_ONCE],
                    "more": strips[QUERIES_AT_ONCE:],
                    "left": len(given) - len(strips),
                }
            )
    return found


def _strip(run: Path, results: Results, name: str, given: JSON) -> JSON:
    hits = [_hit(run, results, hit) for hit in (given.get("hits") or [])[:HITS_AT_MOST]]
    return {
        "name": name,
        "query": _item(run, results, given["query"]),
        "hits": hits,
        "right": sum(hit["right"] for hit in hits),
        "sentences": any(hit["text"] for hit in hits) and not any(hit["picture"] for hit in hits),
    }


def _hit(run: Path, results: Results, given: JSON) -> JSON:
    if not isinstance(given["right"], bool):
        raise TypeError(f"a hit is right or wrong, not {given['right']!r}")
    return {
        **_item(run, results, given),
        "right": given["right"],
        "similarity": number(given.get("similarity")),
    }


def _item(run: Path, results: Results, given: JSON) -> JSON:
    truth = given.get("truth")
    return {
        "picture": picture(run, given.get("figure"), HIT_PX),
        "text": str(given.get("text") or ""),
        "truth": "" if truth is None else results.class_name(truth),
    }


def zero_shot(results: Results) -> JSON | None:
    """The measures of classes told by sentences, those of probes to compare with, and the sentences."""
    given = results.raw.get("zero_shot") or {}
    rows, compared = given.get("rows") or [], given.get("compared") or []
    if not rows:
        return None
    names = list(dict.fromkeys(str(row["name"]) for row in [*rows, *compared]))
    others: dict[str, list[JSON]] = {}
    for row in compared:
        others.setdefault(str(row["label"]), []).append(row)
    return {
        "measures": [
            {
                "title": results.title(name),
                "better": "higher" if higher_is_better(results.raw, name) else "lower",
            }
            for name in names
        ],
        "lines": [
            _measure_line("zero-shot, no labels", rows, names),
            *(_measure_line(label, group, names) for label, group in others.items()),
        ],
        "compared": bool(compared),
        "images": _each(rows, "n", count),
        "patients": _each(rows, "patients", count),
        "prompts": [_prompts(results, prompt) for prompt in given.get("prompts") or []],
        "note": given.get("note") or "",
    }


def _measure_line(label: str, rows: list[JSON], names: list[str]) -> JSON:
    by_name = {str(row["name"]): row for row in rows}
    return {"label": label, "cells": [value_with_interval(by_name.get(name, {})) for name in names]}


def _prompts(results: Results, given: JSON) -> JSON:
    return {
        "class": results.class_name(given["class"]),
        "sentences": [str(sentence) for sentence in given.get("sentences") or []],
    }


def similarity(run: Path, results: Results) -> JSON | None:
    """Images beside the maps of where they match a sentence, in the order in which they are given.

    Without cases there may be a note that says why. A case may hold the similarities of the darkest and the brightest
    colour as "low" and "high".
    """
    given = results.raw.get("similarity") or {}
    cases = given.get("cases") or []
    if not cases and not given.get("note"):
        return None
    cards = [_map_card(run, results, case) for case in cases[:MAPS_AT_MOST]]
    return {
        "first": cards[:MAPS_AT_ONCE],
        "more": cards[MAPS_AT_ONCE:],
        "left": len(cases) - len(cards),
        "colours": colour_key(),
        "note": given.get("note") or "",
    }


def _map_card(run: Path, results: Results, case: JSON) -> JSON:
    low, high = case.get("low"), case.get("high")
    truth = case.get("truth")
    return {
        "sentence": str(case.get("sentence") or ""),
        "case": str(case.get("case") or ""),
        "truth": "" if truth is None else results.class_name(truth),
        "picture": picture(run, case.get("figure"), MAP_PX),
        "map": picture(run, case.get("map_figure"), MAP_PX),
        "range": f"{number(low)} to {number(high)}" if is_number(low) and is_number(high) else "",
    }


def colour_key() -> str:
    """The colours of the maps from lowest to highest, as the stops of a CSS gradient."""
    return ", ".join(to_hex(colour) for colour in colormaps[SIMILARITY_COLOURS](np.linspace(0, 1, 9)))
