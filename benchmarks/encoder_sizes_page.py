"""What README.md says of bigger and smaller networks, from benchmarks/results/encoder-sizes.json."""

from __future__ import annotations

from performance_page import markdown_table, side_of_zero, sides_with

from fewlabel.report.words import count, signed
from fewlabel.types import JSON

SIDES = ("better than it", "worse than it", "not told from it")


def encoder_sizes(content: JSON | None) -> str:
    """Bigger minus smaller networks, and the student minus both; then in words."""
    if content is None:
        return "Not measured."
    small, big, student = (content["networks"][name] for name in ("small", "big", "student"))
    columns = {
        "scratch": f"{big} − {small}, from scratch",
        "tuned": f"{big} − {small}, fine-tuned from the head",
        "student": f"{student} taught by {big} − {big} fine-tuned",
        "same-size": f"{student} taught by {big} − {small} fine-tuned",
    }
    lines, verdicts = [], []
    for one in content["data"]:
        cells = {(row["key"], row["budget"]): row for row in one["rows"]}
        budgets = one["budgets"]
        for budget in [*budgets, None]:
            share = (
                "first − last" if budget is None else f"{count(budget)} ({100 * budget / budgets[-1]:.0f} %)"
            )
            first = f"`{one['data']}`" if budget == budgets[0] else ""
            lines.append([first, share, *(_gap(cells[key, budget]) for key in columns)])
        verdicts.append(f"- `{one['data']}`: {_verdict(cells, budgets, small, big, student)}")
    metrics = ", ".join(sorted({one["metric"] for one in content["data"]}))
    seeds = content["data"][0]["seeds"]
    note = (
        f"Differences in {metrics} on the same test images, paired: {seeds} draws of labels, one pretraining of each "
        "network; brackets are 95 % intervals. Made by `python benchmarks/encoder_sizes.py`."
    )
    return "\n\n".join(
        [markdown_table(["Images", "Labels", *columns.values()], lines), note, "\n".join(verdicts)]
    )


def _gap(row: JSON) -> str:
    return f"{signed(row['value'])} ({signed(row['low'])} to {signed(row['high'])})"


def _verdict(
    cells: dict[tuple[str, int | None], JSON], budgets: list[int], small: str, big: str, student: str
) -> str:
    """Where 0 lies, in words: with few labels, against all labels, and for the student at each budget."""
    few = budgets[0]
    better = side_of_zero(
        *_ends(cells["tuned", few]),
        f"{big} is better than {small}",
        f"{big} is worse than {small}",
        f"which of {big} and {small} is better cannot be told",
    )
    more = side_of_zero(
        *_ends(cells["tuned", None]),
        "more than with all labels",
        "less than with all labels",
        "and whether that is more or less than with all labels cannot be told",
    )
    sides = {budget: side_of_zero(*_ends(cells["student", budget]), *SIDES) for budget in budgets}
    keeps = ", ".join(sides_with(sides).values())
    return f"with {count(few)} labels, {better}, {more}. The {student} that {big} teaches is {keeps} labels."


def _ends(row: JSON) -> tuple[float, float]:
    return row["low"], row["high"]
