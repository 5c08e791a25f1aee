"""What is to be learned: a target such as "Pneumonia", "View Position=PA" or "Patient Age>55", or a column's grades."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fewlabel.collection.matching import checked_name
from fewlabel.types import FewlabelError, LabelState, TargetKind

_SPLIT = re.compile(r"(<=|>=|!=|=|<|>)")
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}
_OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "=": "!=", "!=": "="}
_MOST_CLASSES = 1000


@dataclass(frozen=True)
class Target:
    """One thing to learn, for every image of a collection.

    kind: "binary" (class 1 is the one in the name), "category", "number", or "ordinal": classes from least to most.
    classes: class names by code; () for a number.
    values: shape (N,); int64 codes with -1 = no usable label, or float64 with NaN for a number.
    uncertain, not_mentioned: how many images have no usable label because it is uncertain, or missing.
    referable: of an ordinal target, the code of the grade from which on an image is referable; else 0.
    """

    name: str
    kind: TargetKind
    classes: tuple[str, ...]
    values: np.ndarray = field(repr=False)
    uncertain: int = 0
    not_mentioned: int = 0
    referable: int = 0

    @property
    def usable(self) -> np.ndarray:
        """(N,) bool: where there is a label."""
        return ~np.isnan(self.values) if self.kind == "number" else self.values >= 0

    @property
    def counts(self) -> dict[str, int]:
        """How many images of each class."""
        return {c: int((self.values == code).sum()) for code, c in enumerate(self.classes)}


@dataclass(frozen=True)
class NamedColumn:
    """A column as a target sees it. kind "text" stands for any column of strings that is no label column."""

    name: str
    kind: str
    classes: tuple[str, ...]
    values: np.ndarray


def make_target(spec: str, names: Iterable[str], load: Callable[[str], NamedColumn]) -> Target:
    """The target that `spec` asks for. Raises FewlabelError for an unknown column or class, with close
    matches.
    """
    names = list(names)
    if spec in names:
        return _whole(spec, load(spec))
    for cut in _SPLIT.finditer(spec):
        name, sign, wanted = spec[: cut.start()].strip(), cut[1], spec[cut.end() :].strip()
        if name in names:
            return _compared(f"{name}{sign}{wanted}", load(name), sign, wanted)
    first = _SPLIT.split(spec, maxsplit=1)[0].strip()
    checked_name(first, names, "this collection")
    raise FewlabelError(f'"{spec}" is no target: write a column, column=class, or column>number')


def graded_target(
    name: str,
    names: Iterable[str],
    load: Callable[[str], NamedColumn],
    grades: Sequence[str],
    referable: str | None = None,
) -> Target:
    """The column `name` as an ordinal target.

    grades: every value that the column holds, from least to most; numbers are written as whole numbers ("0", not
    "0.0"). referable: the grade from which on an image is referable; None = the middle one, the upper of two.
    Raises FewlabelError for fewer than three grades, one named twice, a value of the column that is not among them.
    """
    names = list(names)
    checked_name(name, names, "this collection")
    if len(grades) < 3 or len({*grades}) < len(grades) or not all(grades):
        raise FewlabelError(
            f"The grades of {name!r} are {', '.join(map(repr, grades)) or 'none'}: name three or more, each once, from "
            "least to most (two would be a yes/no target, which needs no grades)."
        )
    at = grades[len(grades) // 2] if referable is None else referable
    if at not in grades[1:]:
        raise FewlabelError(
            f"An image was to be referable from {at!r} on: use one of the grades above the least, "
            f"{', '.join(grades[1:])}."
        )
    cells = _as_words(load(name))
    strange = Counter(cell for cell in cells if cell and cell not in grades)
    if strange:
        value, count = strange.most_common(1)[0]
        raise FewlabelError(
            f"{name!r} holds {value!r} in {count} images, and the grades are {', '.join(grades)}: name every value "
            "from least to most, or empty those cells in the label file."
        )
    code = {grade: i for i, grade in enumerate(grades)}
    values = np.array([code.get(cell or "", -1) for cell in cells], dtype=np.int64)
    unknown = sum(cell is None for cell in cells)
    missing = int((values < 0).sum()) - unknown
    return Target(name, "ordinal", tuple(grades), values, unknown, missing, code[at])


def _as_words(column: NamedColumn) -> list[str | None]:
    """Cells as text: "" where nothing is said, None where a yes/no cell is uncertain."""
    if column.kind == "binary":
        words = {LabelState.NEGATIVE: "0", LabelState.POSITIVE: "1", LabelState.UNCERTAIN: None}
        return [words.get(LabelState(int(v)), "") for v in column.values]
    if column.kind == "number":
        return ["" if np.isnan(v) else f"{v:g}" for v in column.values.astype(np.float64)]
    return [v or "" for v in column.values]


def _whole(name: str, column: NamedColumn) -> Target:
    if column.kind == "binary":
        states = column.values
        values = np.where(states >= 0, states, -1).astype(np.int64)
        uncertain, missing = (
            int((states == s).sum()) for s in (LabelState.UNCERTAIN, LabelState.NOT_MENTIONED)
        )
        return Target(name, "binary", (f"not {name}", name), values, uncertain, missing)
    if column.kind == "number":
        numbers = column.values.astype(np.float64)
        return Target(name, "number", (), numbers, 0, int(np.isnan(numbers).sum()))
    classes = _classes(column)
    if len(classes) > _MOST_CLASSES or (
        column.kind == "text" and len(classes) > max(2, 0.5 * len(column.values))
    ):
        raise FewlabelError(
            f'"{name}" has {len(classes)} different values in {len(column.values)} images: it is no class'
        )
    code = {c: i for i, c in enumerate(classes)}
    values = np.array([code.get(v, -1) for v in column.values], dtype=np.int64)
    kind: TargetKind = "binary" if len(classes) == 2 else "category"
    return Target(name, kind, classes, values, 0, int((values < 0).sum()))


def _compared(name: str, column: NamedColumn, sign: str, wanted: str) -> Target:
    """Binary: 1 where the comparison holds."""
    if column.kind in ("category", "text") and sign in ("=", "!="):
        checked_name(wanted, _classes(column), f'the column "{column.name}"')
        known = np.array([v not in (None, "") for v in column.values], dtype=bool)
        holds = np.array([(v == wanted) == (sign == "=") for v in column.values], dtype=bool)
        return _binary(name, f"{column.name}{_OPPOSITE[sign]}{wanted}", holds, known)
    numbers = _as_numbers(column)
    try:
        limit = float(wanted)
    except ValueError:
        raise FewlabelError(
            f'"{wanted}" in the target "{name}" is no number, and "{column.name}" holds numbers'
        ) from None
    if column.kind == "binary":
        target = _binary(
            name, f"{column.name}{_OPPOSITE[sign]}{wanted}", _COMPARE[sign](numbers, limit), numbers >= 0
        )
        uncertain = int((numbers == LabelState.UNCERTAIN).sum())
        return Target(
            target.name, "binary", target.classes, target.values, uncertain, target.not_mentioned - uncertain
        )
    holds = _COMPARE[sign](numbers, limit)
    return _binary(name, f"{column.name}{_OPPOSITE[sign]}{wanted}", holds, ~np.isnan(numbers))


def _binary(name: str, opposite: str, holds: np.ndarray, known: np.ndarray) -> Target:
    values = np.where(known, holds.astype(np.int64), -1)
    return Target(name, "binary", (opposite, name), values, 0, int((~known).sum()))


def _as_numbers(column: NamedColumn) -> np.ndarray:
    if column.kind in ("number", "binary"):
        return column.values.astype(np.float64)
    try:
        return np.array([np.nan if v in (None, "") else float(v) for v in column.values])
    except ValueError:
        raise FewlabelError(
            f'"{column.name}" holds names, not numbers, so it can only be compared with = or !='
        ) from None


def _classes(column: NamedColumn) -> tuple[str, ...]:
    return column.classes or tuple(sorted({v for v in column.values if v not in (None, "")}))
