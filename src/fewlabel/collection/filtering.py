"""Rows that an SQL expression selects; SQLite judges it, in memory and on nothing but the columns it names."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

import numpy as np

from fewlabel.collection.matching import checked_name
from fewlabel.types import FewlabelError


class RowFilter:
    """Rows of one table for which expressions hold. What columns they name is handed to SQLite once and stays there.

    names: of the columns, in any case. load: values of a column, (count,). May be used by several threads, one at a
    time.
    """

    def __init__(self, names: Iterable[str], load: Callable[[str], np.ndarray], count: int) -> None:
        self._names, self._load, self._count = list(names), load, count
        self._held: list[str] = []
        self._base: sqlite3.Connection | None = None
        self._one_at_a_time = Lock()

    def rows(self, expression: str) -> np.ndarray:
        """Row numbers, ascending, for which the expression holds. Raises FewlabelError with what SQLite says."""
        # SQLite does not tell "View" from "view": the first counts
        distinct = {name.lower(): name for name in reversed(self._names)}
        used = [name for lowered, name in distinct.items() if lowered in expression.lower()]
        with self._one_at_a_time:
            try:
                base = self._holding(used)
                found = base.execute(
                    f"SELECT _row FROM cases WHERE (\n{expression}\n) ORDER BY _row"
                ).fetchall()
            except (sqlite3.Error, sqlite3.Warning) as error:
                raise FewlabelError(_mistake(expression, str(error), self._names)) from None
        _check_quoted(expression, self._names)
        return np.array([row[0] for row in found], dtype=np.int64)

    def _holding(self, used: list[str]) -> sqlite3.Connection:
        """A base that holds these columns; those that were asked for before stay in it."""
        if self._base is not None and set(used) <= set(self._held):
            return self._base
        held = [*self._held, *(name for name in used if name not in self._held)]
        base = sqlite3.connect(":memory:", check_same_thread=False)
        quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in held)
        base.execute(f"CREATE TABLE cases (_row INTEGER{', ' if held else ''}{quoted})")
        places = ", ".join("?" * (len(held) + 1))
        columns = [_plain(self._load(name)) for name in held]
        base.executemany(
            f"INSERT INTO cases VALUES ({places})", zip(range(self._count), *columns, strict=True)
        )
        base.execute("PRAGMA query_only = ON")
        self._base, self._held = base, held
        return base


def _check_quoted(expression: str, names: list[str]) -> None:
    """SQLite takes a quoted name that it does not know for text, so a typo would select nothing."""
    lowered = {n.lower() for n in names}
    outside = re.sub(r"'(?:[^']|'')*'", "", expression)
    for name in re.findall(r'"((?:[^"]|"")*)"', outside):
        if name.replace('""', '"').lower() not in lowered:
            checked_name(name.replace('""', '"'), names, "this collection")


def _mistake(expression: str, said: str, names: list[str]) -> str:
    unknown = re.match(r"no such column: (.+)", said)
    if unknown:
        try:
            checked_name(unknown[1].strip('"'), names, "this collection")
        except FewlabelError as error:
            return f"{error} (names with blanks go in double quotes, text in single ones)"
    return f"the expression {expression!r} cannot be used: {said}"


def _plain(values: np.ndarray) -> list[Any]:
    if values.dtype.kind == "f":
        return [None if v != v else v for v in values.tolist()]
    return [", ".join(map(str, v)) if isinstance(v, list) else v for v in values.tolist()]
