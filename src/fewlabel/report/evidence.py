"""The sections about single images: nearest labelled cases, a few examples a class, what is worth a second look."""

from __future__ import annotations

from pathlib import Path

from fewlabel.report.contract import picture
from fewlabel.report.results import Results
from fewlabel.report.words import NOT_KNOWN, count, interval, is_number, number, percent, percent_interval
from fewlabel.types import JSON

CASES_AT_MOST = 12
CASES_AT_ONCE = 4
HITS_AT_MOST = 10
HIT_PX = 192
MATCH_PX = 448
FINDINGS_AT_MOST = 12
"""Of each kind."""

MEANINGS = {
    "copy with another label": "The same picture, or nearly, and labels that contradict each other. Where it is the "
    "same, one label is wrong.",
    "copy in another part": "The same picture, or nearly, in two parts of the split: what is tested was trained on.",
    "suspected label": "The labels of other patients speak for another class, told by a probe and by neighbours. Where "
    "classes look alike, right labels are suspected too.",
    "outlier": "Images unlike all others: another projection, another organ, a failed exposure, or a rare finding.",
}


def nearest_cases(run: Path, results: Results) -> JSON | None:
    """Right and wrong test images with their nearest labelled cases, and how often neighbours and classifier differ."""
    given = results.raw.get("evidence") or {}
    cases = given.get("cases") or []
    if not cases:
        return None
    cards = [_case(run, results, case) for case in cases[:CASES_AT_MOST]]
    return {
        "first": cards[:CASES_AT_ONCE],
        "more": cards[CASES_AT_ONCE:],
        "k": given.get("k"),
        "labels": given.get("labels"),
        "arm": results.arm(given.get("arm")),
        "maps": any(card["match"] for card in cards),
        "note": given.get("note") or "",
        "wrong_where": [
            {
                "name": str(row["name"]),
                "n": count(row.get("n")),
                "value": percent(row.get("value")),
                "interval": percent_interval(row),
            }
            for row in given.get("wrong_where") or []
        ],
    }


def _case(run: Path, results: Results, given: JSON) -> JSON:
    query, hits = given["query"], (given.get("hits") or [])[:HITS_AT_MOST]
    match = given.get("match") or {}
    return {
        "case": str(query.get("case") or ""),
        "picture": picture(run, query.get("figure"), HIT_PX),
        "truth": results.class_name(query.get("truth")),
        "prediction": results.class_name(query.get("prediction")),
        "probability": percent(query.get("probability")).replace(" ", "\u00a0"),
        "right": bool(query["right"]),
        "agreeing": sum(bool(hit["agrees"]) for hit in hits),
        "disagrees": bool(given.get("disagrees")),
        "match": picture(run, match.get("figure"), MATCH_PX),
        "range": interval(match.get("low"), match.get("high")),
        "hits": [
            {
                "case": str(hit.get("case") or ""),
                "picture": picture(run, hit.get("figure"), HIT_PX),
                "truth": results.class_name(hit.get("truth")),
                "agrees": bool(hit["agrees"]),
                "similarity": number(hit.get("similarity")),
            }
            for hit in hits
        ],
    }


def few_shot(results: Results) -> JSON | None:
    """Balanced accuracy from a few examples a class: one line an encoder, one column a number of examples."""
    given = results.raw.get("few_shot") or {}
    rows, shots = given.get("rows") or [], given.get("shots") or []
    if not rows and not given.get("note"):
        return None
    cells = {(str(row["arm"]), row["shots"]): row for row in rows}
    labels = {str(row["arm"]): str(row.get("label") or row["arm"]) for row in rows}
    return {
        "shots": shots,
        "lines": [
            {
                "label": label,
                "colour": results.look(arm).colour,
                "cells": [_cell(cells.get((arm, shot), {})) for shot in shots],
            }
            for arm, label in labels.items()
        ],
        "episodes": count(given.get("episodes")),
        "chance": number(given.get("chance")),
        "images": count(rows[0].get("n")) if rows else "",
        "patients": count(rows[0].get("patients")) if rows else "",
        "note": given.get("note") or "",
    }


def _cell(row: JSON) -> JSON:
    return {
        "value": number(row.get("value")),
        "interval": interval(row.get("low"), row.get("high")),
        "draws": interval(row.get("draw_low"), row.get("draw_high")),
    }


def worth_a_look(run: Path, results: Results) -> JSON | None:
    """Suspected labels, contradicting copies and outliers by kind, with pictures."""
    given = results.raw.get("worth_a_look")
    if not given:
        return None
    counts, by_kind = given.get("counts") or {}, dict[str, list[JSON]]()
    for finding in given.get("findings") or []:
        by_kind.setdefault(str(finding["what"]), []).append(finding)
    kinds = [
        {
            "name": name,
            "title": name[:1].upper() + name[1:],
            "meaning": MEANINGS.get(name, ""),
            "count": counts.get(name),
            "cards": [_finding(run, results, one) for one in found[:FINDINGS_AT_MOST]],
        }
        for name, found in by_kind.items()
    ]
    return {
        "kinds": kinds,
        "images": count(given.get("images")),
        "labelled": count(given.get("labelled")),
        "notes": given.get("notes") or [],
        "file": str(given.get("file") or ""),
    }


_PARTS = {"train": "training", "val": "validation", "test": "test"}


def _finding(run: Path, results: Results, given: JSON) -> JSON:
    part = str(given.get("part") or "")
    return {
        "case": str(given.get("case") or ""),
        "other_case": str(given.get("other_case") or ""),
        "picture": picture(run, given.get("figure"), HIT_PX),
        "other": picture(run, given.get("other_figure"), HIT_PX),
        "part": _PARTS.get(part, part),
        "label": results.class_name(given["label"]) if given.get("label") else NOT_KNOWN,
        "suggested": results.class_name(given["suggested"]) if given.get("suggested") else "",
        "why": str(given.get("why") or ""),
        "score": f"{given['score']:.2f}" if is_number(given.get("score")) else NOT_KNOWN,
    }
