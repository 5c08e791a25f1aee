"""Label files: from text cells to columns of known kind, with the four label states kept apart."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fewlabel.types import FewlabelError, LabelColumn, LabelState

BLANK = frozenset({"", "nan", "na", "n/a", "null"})
_STATES: dict[str, LabelState] = {
    **dict.fromkeys(("1", "positive", "pos", "yes", "true"), LabelState.POSITIVE),
    **dict.fromkeys(("0", "negative", "neg", "no", "false"), LabelState.NEGATIVE),
    **dict.fromkeys(("-1", "uncertain", "u"), LabelState.UNCERTAIN),
    **dict.fromkeys(("-2", "not mentioned"), LabelState.NOT_MENTIONED),
}
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
_LEADING_ZERO = re.compile(r"-?0\d+")
_MOST_PARTS = 100  # more names than this in "A|B" cells, or longer ones, are text that holds a bar
_LONGEST_NAME = 64

ColumnKind = Literal["binary", "category", "number", "text"]
Unlisted = Literal["negative", "not mentioned"]


@dataclass(frozen=True)
class LabelTable:
    """A label file as text: every column with one stripped cell a row."""

    path: Path
    columns: dict[str, list[str]]
    delimiter: str = ","

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


@dataclass(frozen=True)
class TypedColumn:
    """A column with its kind. values: LabelState codes (binary), str or None (category, text), float
    (number).
    """

    name: str
    kind: ColumnKind
    values: list[Any]
    origin: str = ""

    @property
    def empty(self) -> Any:
        """The cell that says nothing, in this column's kind."""
        return empty_cell(self.kind)

    def described(self) -> LabelColumn | None:
        """The `LabelColumn` of it; None for text, which is no label."""
        if self.kind == "text":
            return None
        classes = class_names(self.values) if self.kind == "category" else ()
        return LabelColumn(self.name, self.kind, classes, self.origin)


def empty_cell(kind: ColumnKind) -> Any:
    """NOT_MENTIONED, NaN or None."""
    return {"binary": int(LabelState.NOT_MENTIONED), "number": math.nan}.get(kind)


def is_empty(kind: ColumnKind, value: Any) -> bool:
    """Whether a typed cell says nothing."""
    if kind == "number":
        return math.isnan(value)
    return bool(value == empty_cell(kind))


def class_names(values: Sequence[str | None]) -> tuple[str, ...]:
    """Distinct names, in numeric order where all are numbers, else in alphabetical order."""
    names = sorted({v for v in values if v is not None})
    if all(_number(n) is not None for n in names):
        names.sort(key=float)
    return tuple(names)


def read_label_file(path: str | Path) -> LabelTable:
    """Read a CSV, TSV or semicolon file with a header line, in UTF-8 (BOM or not), UTF-16 with BOM or
    Latin-1.

    Empty columns without a name are left out; cells are stripped. Raises FewlabelError.
    """
    path = Path(path)
    text = _decoded(path)
    delimiter = _delimiter(text, path)
    csv.field_size_limit(2**30)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header = [name.strip() for name in next(rows, [])]
    if not any(header):
        raise FewlabelError(f"{path} is empty: a label file needs a header line and one row for each image")
    body: list[list[str]] = []
    for row in rows:
        cells = [cell.strip() for cell in row]
        if any(cells[len(header) :]):
            raise FewlabelError(
                f"{path}, line {rows.line_num} has {len(cells)} cells and the header has {len(header)}: "
                f'put quotes around cells that hold "{delimiter}"'
            )
        if any(cells):
            body.append((cells + [""] * len(header))[: len(header)])
    if not body:
        raise FewlabelError(f"{path} has a header and no rows: it needs one row for each image")
    columns: dict[str, list[str]] = {}
    for number, name in enumerate(header):
        values = [row[number] for row in body]
        if name or any(values):
            columns[_free_name(name or f"column {number + 1}", columns)] = values
    return LabelTable(path, columns, delimiter)


def decode_text(data: bytes) -> str | None:
    """Text in UTF-8 (BOM or not), UTF-16 with BOM or Latin-1; None for bytes that are no text."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError:
            return None
    if b"\x00" in data:
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def typed_columns(
    table: LabelTable, *, unlisted: Unlisted = "negative", as_text: Sequence[str] = ()
) -> list[TypedColumn]:
    """Every column of a label file with the kind that its cells show.

    unlisted: what "A|B" says of the names that it does not list. as_text: columns to be left as text.
    Columns without any value are left out.
    """
    found: list[TypedColumn] = []
    for name, cells in table.columns.items():
        origin = f"{table.path.name}: {name}"
        if all(c.lower() in BLANK for c in cells):
            continue
        if name in as_text:
            found.append(TypedColumn(name, "text", [c or None for c in cells], origin))
            continue
        found.append(_typed(name, cells, origin, table.delimiter))
        names = multi_label_names(cells)
        for part in names:
            free = part if part not in table.columns else f"{name}: {part}"
            found.append(TypedColumn(free, "binary", [_listed(c, part, unlisted) for c in cells], origin))
    return found


def multi_label_names(cells: Sequence[str]) -> tuple[str, ...]:
    """The names in cells such as "Edema|Effusion"; () where this is no such column."""
    if not any("|" in c for c in cells):
        return ()
    names = {p.strip() for c in cells if c.lower() not in BLANK for p in c.split("|")} - {""}
    if len(names) > _MOST_PARTS or any(len(n) > _LONGEST_NAME for n in names):
        return ()
    return tuple(sorted(names))


def combined(kind: ColumnKind, values: Sequence[Any]) -> tuple[Any, bool]:
    """One cell from several rows on the same image, and whether they contradict each other.

    Cells that say nothing give way. Contradicting ones become UNCERTAIN (binary) or missing (category,
    number); of text the first is kept.
    """
    said = [v for v in values if not is_empty(kind, v)]
    if not said:
        return empty_cell(kind), False
    if all(v == said[0] for v in said):
        return said[0], False
    if kind == "text":
        return said[0], True
    return (int(LabelState.UNCERTAIN) if kind == "binary" else empty_cell(kind)), True


def promoted(column: TypedColumn, kind: ColumnKind) -> TypedColumn:
    """The column with its cells in a wider kind: binary -> category -> number where all are numbers, any ->
    text.
    """
    if column.kind == kind:
        return column
    if column.kind == "binary":
        known = {int(LabelState.NEGATIVE): "0", int(LabelState.POSITIVE): "1"}
        column = TypedColumn(column.name, "category", [known.get(v) for v in column.values], column.origin)
    if kind == "number" and column.kind == "category":
        return TypedColumn(
            column.name, kind, [math.nan if v is None else float(v) for v in column.values], column.origin
        )
    if kind == "text" and column.kind == "number":
        return TypedColumn(
            column.name, kind, [None if math.isnan(v) else f"{v:g}" for v in column.values], column.origin
        )
    return TypedColumn(column.name, kind, column.values, column.origin)


def common_kind(a: TypedColumn, b: TypedColumn) -> ColumnKind | None:
    """The kind that holds the cells of both columns; None where they do not go together."""
    kinds = {a.kind, b.kind}
    if len(kinds) == 1:
        return a.kind
    if "text" in kinds:
        return "text"
    if kinds == {"binary", "number"}:
        return "number"
    category = a if a.kind == "category" else b
    numeric = all(_number(v) is not None for v in category.values if v is not None)
    if kinds == {"binary", "category"}:
        return "category" if numeric else None
    return "number" if numeric else None


def _typed(name: str, cells: list[str], origin: str, delimiter: str) -> TypedColumn:
    lowered = [_plain_integer(c.lower()) for c in cells]
    said = {c for c in lowered if c not in BLANK}
    decisive = {c for c, s in _STATES.items() if s in (LabelState.POSITIVE, LabelState.NEGATIVE)}
    if said <= _STATES.keys() and said & decisive:
        return TypedColumn(
            name, "binary", [int(_STATES.get(c, LabelState.NOT_MENTIONED)) for c in lowered], origin
        )
    numbers = [None if c.lower() in BLANK else _number(c, delimiter) for c in cells]
    given = [n for n, c in zip(numbers, lowered, strict=True) if c not in BLANK]
    if all(n is not None for n in given):
        if len(set(given)) <= 10 and all(n is not None and n.is_integer() and 0 <= n <= 20 for n in given):
            return TypedColumn(
                name, "category", [None if n is None else str(int(n)) for n in numbers], origin
            )
        return TypedColumn(name, "number", [math.nan if n is None else n for n in numbers], origin)
    texts = [None if c in BLANK else cell for c, cell in zip(lowered, cells, strict=True)]
    return TypedColumn(name, "text" if _is_free_text([t for t in texts if t]) else "category", texts, origin)


def _is_free_text(texts: list[str]) -> bool:
    """Long cells, or nearly all of them different: ids and reports, not classes."""
    distinct = len(set(texts))
    if sum(map(len, texts)) > 100 * len(texts):
        return True
    nearly_all = len(texts) >= 10 and distinct > 0.9 * len(texts)
    return nearly_all or distinct > max(100, 0.5 * len(texts))


def _number(cell: str, delimiter: str = ",") -> float | None:
    """A finite number, or a DICOM age such as 058Y in years; None for anything else (007 is an id)."""
    age = _AGE.fullmatch(cell.upper())
    if age:
        return int(age[1]) * _YEARS[age[2]]
    if _LEADING_ZERO.fullmatch(cell) or "_" in cell:
        return None
    if delimiter == ";":
        cell = re.sub(r"^(-?\d+),(\d+)$", r"\1.\2", cell)
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _plain_integer(cell: str) -> str:
    return cell[:-2] if re.fullmatch(r"-?\d+\.0", cell) else cell


def _listed(cell: str, name: str, unlisted: Unlisted) -> int:
    if cell.lower() in BLANK:
        return int(LabelState.NOT_MENTIONED)
    if name in (p.strip() for p in cell.split("|")):
        return int(LabelState.POSITIVE)
    return int(LabelState.NEGATIVE if unlisted == "negative" else LabelState.NOT_MENTIONED)


def _free_name(name: str, taken: dict[str, list[str]]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free


def _decoded(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FewlabelError(f"the label file {path} cannot be read: {error.strerror}") from None
    if data[:2] == b"PK" or data[:4] == b"\xd0\xcf\x11\xe0":
        raise FewlabelError(f"{path} is a spreadsheet or an archive: save the table as CSV and give that")
    text = decode_text(data)
    if text is None:
        raise FewlabelError(f"{path} is no text file: labels come from a CSV or TSV file with a header line")
    return text


def _delimiter(text: str, path: Path) -> str:
    """The one of comma, semicolon and tab that splits the header into most cells."""
    first = text[: text.find("\n")] if "\n" in text else text
    counts: dict[str, int] = {}
    for candidate in (",", ";", "\t"):
        counts[candidate] = len(next(csv.reader([first], delimiter=candidate), []))
    if path.suffix.lower() == ".tsv" and counts["\t"] > 1:
        return "\t"
    return max(counts, key=lambda d: counts[d])
