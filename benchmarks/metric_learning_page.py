"""What docs/results.md says of metric learning, from benchmarks/results/metric-learning-*.json."""

from __future__ import annotations

from performance_page import markdown_table

from fewlabel.report.words import count, interval, number
from fewlabel.types import JSON

MEASURES = {
    "map_at_r": "MAP@R",
    "r_precision": "R-precision",
    "recall@1": "Recall@1",
    "precision@10": "Precision@10",
}


def metric_learning(content: JSON) -> str:
    """Rankings by each encoder on one collection."""
    cells = {(row["encoder"], row["name"]): row for row in content["rows"]}
    encoders = dict.fromkeys(row["encoder"] for row in content["rows"])
    lines = [[encoder, *(_cell(cells[encoder, name]) for name in MEASURES)] for encoder in encoders]
    chance = [number(cells[next(iter(encoders)), name]["chance"]) for name in MEASURES]
    first = next(iter(cells.values()))
    return "\n\n".join(
        [
            f"## Which images are alike: `{content['data']}`",
            f"{content['about']}; made by `python benchmarks/metric_learning.py {content['data']}`. "
            f"{count(content['asking'])} test images ask; Siamese and triplet learned on "
            f"{count(content['labels'])} labels.",
            markdown_table(["Encoder", *MEASURES.values()], [*lines, ["a random order", *chance]]),
            f"Brackets are 95 % intervals from a bootstrap over {count(first['patients'])} patients, or what stands "
            f"for them ({content['patients']}); one seed.",
        ]
    )


def _cell(row: JSON) -> str:
    return f"{number(row['value'])} ({interval(row['low'], row['high'])})"
