"""What the README and docs/results.md say of images with texts, from benchmarks/results/image-text-*.json."""

from __future__ import annotations

from collections.abc import Sequence

from performance_page import markdown_table

from fewlabel.report.words import count, interval, number
from fewlabel.types import JSON

ENCODERS = {"convirt": "ConVIRT", "simclr": "SimCLR", "random": "random init"}
AT = 10


def image_text(contents: Sequence[JSON]) -> str:
    """Probes, retrieval and classes told by prompts: a table each."""
    if not contents:
        return "Not measured."
    probes, searches, prompts = [], [], []
    for content in contents:
        name = f"`{content['pairs']}`{', weak text' if content['weak_text'] else ''}"
        probes += _probes(name, content)
        searches += _searches(name, content)
        prompts += _prompts(name, content)
    measures = ["Test AUROC of a linear probe", "Labels", *ENCODERS.values()]
    search = ["Test images found", "Search", "Encoder", f"Precision@{AT}", "Chance", "Queries"]
    told = ["Classes told by prompts", "Test AUROC", "Images (patients)"]
    own = "; ".join(
        f"`{content['pairs']}` {_cell(content['own_text'])}, chance {number(content['own_text']['chance'])}, n = "
        f"{count(content['own_text']['n'])}"
        for content in contents
    )
    return "\n\n".join(
        [
            markdown_table(measures, probes),
            markdown_table(search, searches),
            markdown_table(told, prompts),
            f"Share of test images whose own text is among the ten nearest of all test texts: {own}.",
            "Brackets are 95 % intervals from a bootstrap over patients (and label draws, for probes); one pretraining "
            "each. ConVIRT, SimCLR and random weights stand on the same split.",
        ]
    )


def _cell(row: JSON) -> str:
    return f"{number(row['value'])} ({interval(row['low'], row['high'])})"


def _probes(name: str, content: JSON) -> list[list[str]]:
    cells = {(row["target"], row["budget"], row["encoder"]): row for row in content["rows"]}
    lines = []
    for target, budget in dict.fromkeys((row["target"], row["budget"]) for row in content["rows"]):
        values = [_cell(cells[target, budget, encoder]) for encoder in ENCODERS]
        first = cells[target, budget, "convirt"]
        tested = f"n = {count(first['n'])} of {count(first['patients'])} patients"
        lines.append([f"{name}: {target}, {tested}", count(budget), *values])
    return lines


def _searches(name: str, content: JSON) -> list[list[str]]:
    lines = []
    for mode in content["retrieval"]:
        row = next((row for row in mode["rows"] if row["k"] == AT), None)
        if row:
            who = f"{name}: {mode['target']}"
            chance = number(row["chance"])
            lines.append([who, mode["label"], mode["encoder"], _cell(row), chance, count(row["n"])])
    return lines


def _prompts(name: str, content: JSON) -> list[list[str]]:
    lines = []
    for told in content["zero_shot"]:
        row = next(row for row in told["rows"] if row["name"] == "auroc")
        lines.append(
            [f"{name}: {told['target']}", _cell(row), f"{count(row['n'])} ({count(row['patients'])})"]
        )
    return lines
