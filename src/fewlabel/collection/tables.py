"""`cases.parquet`: its columns, the facts in its footer, and what both mean."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fewlabel.collection.labels import TypedColumn
from fewlabel.collection.store import ABOUT, CASES, FORMAT, QUARANTINE
from fewlabel.files import write_bytes
from fewlabel.types import JSON, FewlabelError, LabelColumn

_TEXT, _REAL, _WHOLE = pa.string(), pa.float64(), pa.int64()
CASE_COLUMNS: dict[str, pa.DataType] = {
    "case_id": _TEXT,
    "source": _TEXT,
    "root": _TEXT,
    "stamp": _TEXT,
    "source_kind": _TEXT,
    "patient_id": _TEXT,
    "study_id": _TEXT,
    "series_id": _TEXT,
    "view": _TEXT,
    "split": _TEXT,
    "modality": _TEXT,
    "spacing_mm": pa.list_(_REAL),
    "shape": pa.list_(pa.int32()),
    "dtype": _TEXT,
    "display_low": _REAL,
    "display_high": _REAL,
    "has_padding": pa.bool_(),
    "affine": pa.list_(_REAL),
    "provenance": _TEXT,
    "warnings": _TEXT,
    "quality": _TEXT,
    "file_hash": _TEXT,
    "pixel_hash": _TEXT,
    "exact_group": _WHOLE,
    "near_group": _WHOLE,
    "part": pa.int32(),
    "slot": pa.int32(),
    "offset": _WHOLE,
    "nbytes": _WHOLE,
    "text": _TEXT,
    "mask": _TEXT,
}
LABEL_PREFIX = "label:"
_LABEL_TYPES = {"binary": pa.int8(), "category": _TEXT, "number": _REAL, "text": _TEXT}
_FACTS, _REFUSED = b"fewlabel", b"fewlabel.quarantine"


@dataclass
class Facts:
    """What is true of the whole collection; kept in the footer of cases.parquet and, to be read, in
    collection.json.

    labels: the label columns in order; texts: further columns of label files, kept as text (name -> origin);
    attributes: columns that the images themselves brought; facts: sentences that a report should repeat;
    label_notes: what was odd about each label file; history: one entry for each import.
    """

    format: int = FORMAT
    images: int = 0
    max_side_px: int = 512
    fingerprint: str = ""
    pixel_fingerprint: str = ""
    labels: list[LabelColumn] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    attributes: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    label_notes: dict[str, list[str]] = field(default_factory=dict)
    history: list[JSON] = field(default_factory=list)

    def to_json(self) -> JSON:
        return asdict(self)

    @staticmethod
    def from_json(found: JSON) -> Facts:
        labels = [
            LabelColumn(c["name"], c["kind"], tuple(c["classes"]), c["origin"]) for c in found["labels"]
        ]
        return Facts(**{**found, "labels": labels})

    def stored_name(self, name: str) -> str:
        """The column of cases.parquet that holds the label or text column `name`."""
        return LABEL_PREFIX + name if name in CASE_COLUMNS or name in self.attributes else name


@dataclass
class State:
    """A whole collection's table in memory while an import works on it: one dict a row, one list a label
    column.
    """

    facts: Facts = field(default_factory=Facts)
    rows: list[JSON] = field(default_factory=list)  # case columns and "attributes"
    columns: dict[str, TypedColumn] = field(default_factory=dict)
    quarantine: list[JSON] = field(default_factory=list)

    def to_table(self) -> pa.Table:
        """The table as it is written, but for its metadata."""
        facts = self.facts
        ordered = sorted(
            self.columns.values(), key=lambda c: c.kind == "text"
        )  # labels first, as they are read
        self.columns = {c.name: c for c in ordered}
        facts.attributes = sorted({k for r in self.rows for k in r["attributes"]} - CASE_COLUMNS.keys())
        facts.labels = [d for c in self.columns.values() if (d := c.described())]
        facts.texts = {c.name: c.origin for c in self.columns.values() if c.kind == "text"}
        facts.images = len(self.rows)
        arrays = {n: pa.array([r.get(n) for r in self.rows], kind) for n, kind in CASE_COLUMNS.items()}
        arrays |= {n: _attribute([r["attributes"].get(n) for r in self.rows]) for n in facts.attributes}
        for name, column in self.columns.items():
            arrays[facts.stored_name(name)] = pa.array(column.values, _LABEL_TYPES[column.kind])
        return pa.table(arrays)


def read_state(root: Path) -> State:
    """The state of the collection at `root`; an empty one where nothing was committed yet."""
    if not (root / CASES).exists():
        return State()
    with open_cases(root) as file:
        facts, quarantine, table = read_facts(file, root), read_quarantine(file), file.read()
    own = table.select(list(CASE_COLUMNS)).to_pylist()
    attributes = table.select(facts.attributes).to_pylist() if facts.attributes else [{} for _ in own]
    for row, found in zip(own, attributes, strict=True):
        row["attributes"] = {k: v for k, v in found.items() if v is not None}
    kinds = {c.name: (c.kind, c.origin) for c in facts.labels} | {
        n: ("text", o) for n, o in facts.texts.items()
    }
    columns = {
        name: TypedColumn(name, kind, table[facts.stored_name(name)].to_pylist(), origin)  # type: ignore[arg-type]
        for name, (kind, origin) in kinds.items()
    }
    return State(facts, own, columns, quarantine)


def commit(root: Path, state: State, table: pa.Table) -> None:
    """Write the table; replacing cases.parquet, the last step, is what makes the import true."""
    facts = json.dumps(state.facts.to_json())
    metadata = {_FACTS: facts.encode(), _REFUSED: json.dumps(state.quarantine).encode()}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd", store_schema=True)
    write_bytes(root / QUARANTINE, _quarantine_csv(state.quarantine))
    write_bytes(
        root / ABOUT, (json.dumps(state.facts.to_json(), indent=2, ensure_ascii=False) + "\n").encode()
    )
    write_bytes(root / CASES, buffer.getvalue())


def open_cases(root: Path) -> pq.ParquetFile:
    """The table by memory map; only its footer is read yet. Raises FewlabelError for no or a broken
    collection.
    """
    path = root / CASES
    if not path.is_file():
        raise FewlabelError(_what_instead(root))
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (OSError, pa.ArrowException) as error:
        raise FewlabelError(
            f"{path} is broken ({error}): import the source again into a new folder"
        ) from None


def read_facts(file: pq.ParquetFile, root: Path) -> Facts:
    """The facts in the footer. Raises FewlabelError where a newer or another program wrote the table."""
    found = json.loads((file.schema_arrow.metadata or {}).get(_FACTS, b"{}"))
    if found.get("format") != FORMAT:
        raise FewlabelError(
            f"{root / CASES} is of format {found.get('format', 'unknown')} and this version reads {FORMAT}: "
            "import the source again, or use the version of fewlabel that wrote it"
        )
    return Facts.from_json(found)


def read_quarantine(file: pq.ParquetFile) -> list[JSON]:
    """What could not be read: dicts of root, name, reason, stamp, again."""
    found: list[JSON] = json.loads(file.schema_arrow.metadata.get(_REFUSED, b"[]"))
    return found


def fingerprints(state: State) -> tuple[str, str]:
    """(of everything that a result may depend on, of the pixels alone): sha256 in row order, no paths."""
    pixels = hashlib.sha256(f"{FORMAT} {state.facts.max_side_px}".encode())
    for row in state.rows:
        pixels.update(f"{row['pixel_hash']} {row['display_low']!r} {row['display_high']!r}\n".encode())
    content = hashlib.sha256(pixels.digest())
    for name in ("case_id", "patient_id", "study_id", "view", "split", "text", "attributes"):
        content.update(json.dumps([name, [r.get(name) for r in state.rows]]).encode())
    for column in state.columns.values():
        values = [None if isinstance(v, float) and math.isnan(v) else v for v in column.values]
        content.update(json.dumps([column.name, column.kind, values]).encode())
    return content.hexdigest(), pixels.hexdigest()


def _attribute(values: Sequence[Any]) -> pa.Array:
    """Numbers as numbers; where some are text, all are text."""
    if all(v is None or not isinstance(v, str) for v in values):
        return pa.array(values, _REAL)
    return pa.array([v if v is None or isinstance(v, str) else f"{v:g}" for v in values], _TEXT)


def _quarantine_csv(quarantine: Sequence[JSON]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "reason"])
    writer.writerows((q["name"], q["reason"]) for q in quarantine)
    return text.getvalue().encode()


def _what_instead(root: Path) -> str:
    if not root.exists():
        return (
            f"there is no collection at {root}: make one with fewlabel import <folder of images> --to {root}"
        )
    if root.is_file():
        return f"{root} is a file: a collection is a folder made by fewlabel import <images> --to <folder>"
    if (root / ".lock").exists():
        return f"the import into {root} was not finished: import again, it goes on where it stopped"
    return f"{root} is no collection: make one with fewlabel import {root} --to <another folder>"
