"""What README and docs/results.md say of images with texts: benchmarks/results/image-text-*.json and the protocol's."""

from __future__ import annotations

from collections.abc import Sequence

from performance_page import markdown_table

from fewlabel.report.words import count, interval, number
from fewlabel.types import JSON

ENCODERS = {"convirt": "ConVIRT", "simclr": "SimCLR", "random": "random init"}
AT = 10
NOT_MEASURED = "not measured"
FOUND = f"Found by its sentences, Precision@{AT}"
BRACKETS = (
    "Brackets are 95 % intervals from a bootstrap over patients (and label draws, for probes); "
    "one pretraining each."
)
PROTOCOL_AT = ("5", "10", "50")
PROTOCOL_NAMES = {
    "random": "random weights",
    "features": "features",
    "embeddings": "embeddings beside the text's",
}


def image_text_short(contents: Sequence[JSON]) -> str:
    """One line a target: probes at the fewest labels, and what sentences alone tell and find."""
    if not contents:
        return f"{NOT_MEASURED.capitalize()}."
    head = [
        "Images and target",
        "Test images",
        "Labels",
        *ENCODERS.values(),
        "By prompts, no label",
        FOUND,
        "Chance",
    ]
    return "\n\n".join(
        [
            markdown_table(head, [line for content in contents for line in _short_lines(content)]),
            "Test AUROC of a linear probe, of classes told by prompts, and the share of images with the class among "
            f"the first {AT} that its sentences find. {BRACKETS} All budgets and searches: "
            "[docs/results.md](docs/results.md).",
        ]
    )


def _short_lines(content: JSON) -> list[list[str]]:
    cells = {(row["target"], row["budget"], row["encoder"]): row for row in content["rows"]}
    told = {
        one["target"]: next(r for r in one["rows"] if r["name"] == "auroc") for one in content["zero_shot"]
    }
    lines = []
    for target in dict.fromkeys(row["target"] for row in content["rows"]):
        few = min(budget for name, budget, _ in cells if name == target)
        first = cells[target, few, "convirt"]
        lines.append(
            [
                f"{_name(content)}: {target}",
                f"{count(first['n'])} of {count(first['patients'])} patients",
                count(few),
                *(_cell(cells.get((target, few, encoder))) for encoder in ENCODERS),
                _cell(told[target]),
                *_found(content, target),
            ]
        )
    return lines


def _found(content: JSON, target: str) -> list[str]:
    """Precision of the class that is asked for by its sentences, and chance; of each class where there are several."""
    modes = [
        mode for mode in content["retrieval"] if mode["target"] == target and mode["key"] == "text-image"
    ]
    asked = [mode for mode in modes if mode["encoder"].endswith(f"asked for {target}")] or modes
    rows = [next(row for row in mode["rows"] if row["k"] == AT) for mode in asked]
    if len(rows) == 1:
        return [_cell(rows[0]), number(rows[0]["chance"])]
    return [", ".join(number(row["value"]) for row in rows), ", ".join(number(row["chance"]) for row in rows)]


def protocol(content: JSON) -> str:
    """The 8x200 protocol on one collection, for docs/results.md."""
    lines = []
    for kind, words in (("image_to_image", "image to image"), ("text_to_image", "text to image")):
        found = content.get(kind) or {}
        for encoder, rows in found.items():
            if isinstance(rows, list):
                by_k = {row["metric"].partition("@")[2]: row for row in rows}
                values = [_cell(by_k[k]) for k in PROTOCOL_AT]
                lines.append([words, PROTOCOL_NAMES.get(encoder, encoder), *values, number(found["chance"])])
    table = markdown_table(["Search", "By", *(f"Precision@{k}" for k in PROTOCOL_AT), "Chance"], lines)
    classes = ", ".join(f"{name} ({count(images)})" for name, images in content["classes"].items() if images)
    return "\n\n".join(
        [
            f"## The 8x200 protocol on `{content['collection']}`",
            f"`python benchmarks/retrieval_protocol.py COLLECTION MODEL --classes ...`: {classes}. "
            f"{content['protocol_note']}",
            table,
            BRACKETS,
        ]
    )


def image_text(contents: Sequence[JSON]) -> str:
    """Probes, retrieval and classes told by prompts: a table each, for docs/results.md."""
    probes, searches, prompts = [], [], []
    for content in contents:
        name = _name(content)
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
            "## Images with reports",
            markdown_table(measures, probes),
            markdown_table(search, searches),
            markdown_table(told, prompts),
            f"Share of test images whose own text is among the ten nearest of all test texts: {own}.",
            f"{BRACKETS} ConVIRT, SimCLR and random weights stand on the same split.",
        ]
    )


def _name(content: JSON) -> str:
    return f"`{content['pairs']}`{', weak text' if content['weak_text'] else ''}"


def _cell(row: JSON | None) -> str:
    return NOT_MEASURED if row is None else f"{number(row['value'])} ({interval(row['low'], row['high'])})"


def _probes(name: str, content: JSON) -> list[list[str]]:
    cells = {(row["target"], row["budget"], row["encoder"]): row for row in content["rows"]}
    lines = []
    for target, budget in dict.fromkeys((row["target"], row["budget"]) for row in content["rows"]):
        values = [_cell(cells.get((target, budget, encoder))) for encoder in ENCODERS]
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
