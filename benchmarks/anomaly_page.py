"""The tables of docs/anomalies.md, from benchmarks/results/anomaly-*.json."""

from __future__ import annotations

from collections.abc import Sequence

from performance_page import markdown_table

from fewlabel.report.words import count, interval, number, p_value, percent, percent_interval, signed
from fewlabel.types import JSON


def anomaly(contents: Sequence[JSON]) -> str:
    """How well what is not normal was told and found, a part for each collection."""
    if not contents:
        return "Not measured yet."
    return "\n\n".join(part for content in contents for part in _parts(content))


def _parts(content: JSON) -> list[str]:
    images, scores = content["images"], content["scores"]
    test = images["test"]
    parts = [
        f"### `{content['data']}`",
        f"{content['about'][0].upper()}{content['about'][1:]}; normal: {content['normal']}. Learned from "
        f"{count(images['train']['normal'])} normal images of {count(images['train']['patients'])} patients, "
        f"thresholds of {percent(content['specificity'])} specificity from {count(images['val']['normal'])} normal "
        f"validation images, tested on {count(test['normal'])} normal and {count(test['not_normal'])} other images of "
        f"{count(test['patients'])} patients ({content['split']}). {content['encoder']}, {content['size_px']} px, "
        f"{count(content['steps'])} steps of {count(content['batch_size'])} images each. Made by "
        f"`python benchmarks/anomaly.py {content['data']}`.",
        markdown_table(
            ["Score", "AUROC", "minus 16 × 16 pixels", "Sensitivity", "Specificity"],
            [_score(row) for row in scores],
        ),
    ]
    if content["localisation"]:
        parts += [
            "The maps, over test images in which the place is known:",
            markdown_table(
                ["Map", "Pixel AUROC", "Highest value inside"],
                [_place(row) for row in content["localisation"]],
            ),
            f"A pixel drawn by chance lies inside in {percent(content['chance'])}.",
        ]
    return parts


def _score(row: JSON) -> list[str]:
    gap = row["from_pixels"]
    told = (
        f"{signed(gap['value'])} ({signed(gap['low'])} to {signed(gap['high'])}), p {p_value(gap['p'])}"
        if gap
        else "–"
    )
    return [row["label"], _value(row["auroc"]), told, _share(row["sensitivity"]), _share(row["specificity"])]


def _place(row: JSON) -> list[str]:
    return [row["label"], _value(row["pixel_auroc"]), _share(row["hits"])]


def _value(given: JSON) -> str:
    return f"{number(given['value'])} ({interval(given['low'], given['high'])})"


def _share(given: JSON) -> str:
    return f"{percent(given['value'])} ({percent_interval(given)})"
