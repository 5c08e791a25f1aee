"""What docs/results.md says of semi-supervised learning, from benchmarks/results/semi-supervised-*.json."""

from __future__ import annotations

from performance_page import markdown_table, side_of_zero, sides_with

from fewlabel.report.words import count, interval, number, signed
from fewlabel.types import JSON

MEASURES = {"auroc": "Test AUROC", "accuracy": "Test accuracy"}
REFERENCE = "supervised"
SIDES = ("helps", "harms", "not told from 0")


def semi_supervised(content: JSON) -> str:
    """Every method at every budget: AUROC and accuracy, and what each gains over supervised training."""
    labels = {row["arm"]: row["label"] for row in content["rows"]}
    cells = {(row["name"], row["arm"], row["budget"]): row for row in content["rows"]}
    budgets, parts = content["budgets"], []
    header = ["Method", *(f"{count(budget)} labels" for budget in budgets)]
    for name, title in MEASURES.items():
        lines = [[label, *(_cell(cells[name, arm, b]) for b in budgets)] for arm, label in labels.items()]
        gains = [
            [label, *(_gain(cells[name, arm, b]) for b in budgets)]
            for arm, label in labels.items()
            if arm != REFERENCE
        ]
        parts += [f"{title}:", markdown_table(header, lines)]
        parts += [f"{title}, minus {labels[REFERENCE]}:", markdown_table(header, gains)]
    title = f"## Semi-supervised: `{content['data']}`"
    return "\n\n".join([title, _facts(content), _verdicts(labels, cells, budgets), *parts, _steps(content)])


def _verdicts(labels: dict[str, str], cells: dict[tuple[str, str, int], JSON], budgets: list[int]) -> str:
    """Of each method, with how many labels it helps: where the interval of its gain in AUROC leaves 0 out."""
    lines = []
    for arm, label in labels.items():
        if arm == REFERENCE:
            continue
        rows = {budget: cells["auroc", arm, budget] for budget in budgets}
        sides = sides_with(
            {
                budget: side_of_zero(row["difference_low"], row["difference_high"], *SIDES)
                for budget, row in rows.items()
            }
        )
        told = "; ".join(sides[side] for side in SIDES if side in sides)
        lines.append(f"- {label}: {told} labels")
    about = (
        f"Which help, beside {labels[REFERENCE]} (where the 95 % interval of the gain in AUROC leaves out 0):"
    )
    return "\n".join([about, "", *lines])


def _cell(row: JSON) -> str:
    return f"{number(row['value'])} ({interval(row['low'], row['high'])})"


def _gain(row: JSON) -> str:
    return (
        f"{signed(row['difference'])} ({signed(row['difference_low'])} to {signed(row['difference_high'])})"
    )


def _facts(content: JSON) -> str:
    images, first, settings = content["images"], content["rows"][0], content["settings"]
    groups = content["groups"]
    tested = f"{count(first['patients'])} {groups}" if groups else "patients not known"
    return (
        f"{content['about'][0].upper()}{content['about'][1:]}; made by "
        f"`python benchmarks/semi_supervised.py {content['data']}`. {settings['encoder']}, "
        f"{settings['size_px']} px. {count(images['train'])} training images, of which "
        f"few have a label that is used; tested on {count(first['n'])} images ({tested}); {content['seeds']} draws of "
        f"labels; {count(images['val'])} validation labels choose the weights that are kept. Brackets are 95 % "
        "intervals over images or patients and draws of labels; differences are paired. One pretraining of each kind."
    )


def _steps(content: JSON) -> str:
    told = ", ".join(f"{name} {count(steps)}" for name, steps in content["steps"].items())
    return (
        f"Equal compute: {content['pretraining_seconds']:g} s of the processor for each pretraining and "
        f"{content['seconds']:g} s for each training on labels, which came to these steps: {told} (twice, once in each "
        "of two stages). Supervised training stops early by validation."
    )
