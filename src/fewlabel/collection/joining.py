"""Bringing label cells to the rows of a collection: from a label file, folder names, or the source itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fewlabel.collection.labels import (
    BLANK,
    LabelTable,
    TypedColumn,
    Unlisted,
    combined,
    common_kind,
    empty_cell,
    is_empty,
    multi_label_names,
    promoted,
    typed_columns,
)
from fewlabel.collection.matching import Matching, checked_name, match_rows, path_parts, stem
from fewlabel.collection.tables import State
from fewlabel.types import JSON, FewlabelError

LOOKS_LIKE_PATIENT = re.compile(r"(patient|subject)[ _-]*(id|nr|no|number|name)?|pid", re.IGNORECASE)
_SPLITS = {"training": "train", "validation": "val", "valid": "val", "dev": "val", "testing": "test"}
FOLDER_COLUMN = "folder"
_FOLDERS = "folder names"
_ITSELF = "the source itself"


@dataclass(frozen=True)
class Roles:
    """Which columns of the label file say what of an image, beside being columns; None = none does."""

    file: str | None = None
    patient: str | None = None
    study: str | None = None
    view: str | None = None
    split: str | None = None
    text: str | None = None

    def checked(self, table: LabelTable) -> Roles:
        """Raises FewlabelError, with close matches, where the file lacks a column that was named."""
        for name in (self.file, self.patient, self.study, self.view, self.split, self.text):
            if name is not None:
                checked_name(name, table.columns, table.path.name)
        return self


@dataclass(frozen=True)
class Joined:
    """Images with and without a label row, rows without an image, and sentences for the user."""

    matched: int = 0
    unmatched: int = 0
    rows_unmatched: int = 0
    notes: tuple[str, ...] = ()


def join_file(state: State, at: Sequence[int], table: LabelTable, roles: Roles, unlisted: Unlisted) -> Joined:
    """Bring every column of a label file to the rows `at`. Raises FewlabelError where no row matches."""
    rows = [state.rows[i] for i in at]
    identities = {k: [r[k] for r in rows] for k in ("patient_id", "study_id", "series_id")}
    identities["SOP instance UID"] = [str(r["attributes"].get("sop_instance_uid", "")) for r in rows]
    found = match_rows(table, [r["source"] for r in rows], file_column=roles.file, identities=identities)
    ids = {roles.patient, roles.study, found.column if found.by == "file name" else None} - {None}
    columns = typed_columns(table, unlisted=unlisted, as_text=sorted(map(str, ids)))
    _forget(state, at, table.path.name)
    hit = [n for n, of_image in enumerate(found.rows) if of_image]
    conflicts: dict[str, list[str]] = {}
    for column in columns:
        if column.name == roles.text:
            continue
        values = []
        for n in hit:
            value, contradicted = combined(column.kind, [column.values[r] for r in found.rows[n]])
            values.append(value)
            if contradicted and column.kind != "text":
                conflicts.setdefault(rows[n]["source"], []).append(column.name)
        assign(state, [at[n] for n in hit], TypedColumn(column.name, column.kind, values, column.origin))
    _drop_empty(state)
    disagreeing = _set_roles(rows, table, roles, found)
    notes = _match_notes(table, found, len(rows)) + _conflict_notes(table, conflicts, disagreeing)
    notes += _column_notes(table, roles, unlisted)
    return Joined(len(hit), len(rows) - len(hit), len(found.unmatched), tuple(notes))


def join_folders(state: State, at: Sequence[int]) -> Joined:
    """The column "folder": the name of the folder (inside an archive, too) that an image lies in."""
    names = [_folder(state.rows[i]["source"]) for i in at]
    if not any(names):
        raise FewlabelError(
            'labels="folders" was asked for and no image lies in a folder below the source: '
            "sort the images into one folder for each class, or give a label file"
        )
    assign(state, at, TypedColumn(FOLDER_COLUMN, "category", names, _FOLDERS))
    missing = sum(n is None for n in names)
    notes = [f"{missing} images lie directly in the source and have no folder label"] if missing else []
    return Joined(len(names) - missing, missing, 0, tuple(notes))


def join_own(state: State, at: Sequence[int], labels: Sequence[JSON]) -> None:
    """Labels that the sources bring: binary where all are 0 or 1, a category where whole or text."""
    for name in sorted({k for of_image in labels for k in of_image}):
        hit = [(i, of_image[name]) for i, of_image in zip(at, labels, strict=True) if name in of_image]
        cells = [v for _, v in hit]
        numbers = [float(v) for v in cells if not isinstance(v, str)]
        if len(numbers) < len(cells):
            column = TypedColumn(name, "category", [str(v) for v in cells], _ITSELF)
        elif set(numbers) <= {0.0, 1.0}:
            column = TypedColumn(name, "binary", [int(v) for v in numbers], _ITSELF)
        elif all(v.is_integer() for v in numbers):
            column = TypedColumn(name, "category", [str(int(v)) for v in numbers], _ITSELF)
        else:
            column = TypedColumn(name, "number", numbers, _ITSELF)
        assign(state, [i for i, _ in hit], column)


def assign(state: State, at: Sequence[int], new: TypedColumn) -> None:
    """Lay `new.values` over the rows `at` of the column of that name, which is made or widened as needed."""
    count = len(state.rows)
    old = state.columns.get(new.name)
    kept = [] if old is None else _without(old.values, at)
    if old is None or all(is_empty(old.kind, v) for v in kept):
        old = TypedColumn(new.name, new.kind, [empty_cell(new.kind)] * count, new.origin)
    kind = common_kind(TypedColumn(old.name, old.kind, _without(old.values, at)), new)
    if kind is None:
        raise FewlabelError(
            f'the column "{new.name}" ({new.origin}) is a {new.kind} and the collection has it '
            f"as a {old.kind} ({old.origin}): give it another name in the label file"
        )
    values = list(promoted(TypedColumn(old.name, old.kind, _blanked(old, at)), kind).values)
    for row, value in zip(at, promoted(new, kind).values, strict=True):
        values[row] = value
    state.columns[new.name] = TypedColumn(new.name, kind, values, new.origin)


def _without(values: Sequence[Any], at: Sequence[int]) -> list[Any]:
    taken = set(at)
    return [v for row, v in enumerate(values) if row not in taken]


def _blanked(column: TypedColumn, at: Sequence[int]) -> list[Any]:
    values = list(column.values)
    for row in at:
        values[row] = column.empty
    return values


def _forget(state: State, at: Sequence[int], file_name: str) -> None:
    """Empty what an earlier version of the same label file said of these rows."""
    for name, column in state.columns.items():
        if column.origin.startswith(f"{file_name}: "):
            state.columns[name] = TypedColumn(name, column.kind, _blanked(column, at), column.origin)


def _drop_empty(state: State) -> None:
    for name, column in list(state.columns.items()):
        if all(is_empty(column.kind, v) for v in column.values):
            del state.columns[name]


def _set_roles(rows: Sequence[JSON], table: LabelTable, roles: Roles, found: Matching) -> dict[str, int]:
    """Fill patient, study, view, split and text; counts the images on which rows disagree, by column."""
    disagreeing: dict[str, int] = {}
    wanted = {"patient_id": roles.patient, "study_id": roles.study, "view": roles.view}
    wanted |= {"split": roles.split, "text": roles.text}
    for field, column in wanted.items():
        if column is None:
            continue
        for row, of_image in zip(rows, found.rows, strict=True):
            said = list(
                dict.fromkeys(c for r in of_image if (c := table.columns[column][r]).lower() not in BLANK)
            )
            if said:
                row[field] = _SPLITS.get(said[0].lower(), said[0].lower()) if field == "split" else said[0]
            if len(said) > 1:
                disagreeing[column] = disagreeing.get(column, 0) + 1
    return disagreeing


def _folder(name: str) -> str | None:
    """The innermost folder in a source's name; right inside an archive or volume, that file without its
    suffix.
    """
    inside = path_parts(name)[:-1]
    return stem(inside[-1]) if inside else None


def _match_notes(table: LabelTable, found: Matching, images: int) -> list[str]:
    notes = [
        f'{table.path.name}: column "{found.column}" matches the {found.by} of '
        f"{found.matched} of {images} images"
    ]
    if found.matched < images:
        notes.append(f"{images - found.matched} images have no row in {table.path.name}")
    if found.unmatched:
        some = ", ".join(table.columns[found.column][r] or "(blank)" for r in found.unmatched[:3])
        notes.append(f"{len(found.unmatched)} rows of {table.path.name} match no image, such as {some}")
    if found.ambiguous:
        some = ", ".join(found.ambiguous[:3])
        notes.append(
            f"{len(found.ambiguous)} names in {table.path.name} fit several images equally well and "
            f"were used for none, such as {some}: write more of the path"
        )
    return notes


def _conflict_notes(
    table: LabelTable, conflicts: dict[str, list[str]], disagreeing: dict[str, int]
) -> list[str]:
    notes = []
    if conflicts:
        some = "; ".join(f"{image} in {', '.join(names[:3])}" for image, names in list(conflicts.items())[:3])
        notes.append(
            f"{len(conflicts)} images have rows in {table.path.name} that contradict each other ({some}): "
            "those cells count as uncertain"
        )
    for column, count in disagreeing.items():
        notes.append(f'{count} images have several values of "{column}": the first was taken')
    return notes


def _column_notes(table: LabelTable, roles: Roles, unlisted: Unlisted) -> list[str]:
    notes = []
    for name, cells in table.columns.items():
        parts = multi_label_names(cells)
        if parts:
            notes.append(
                f'"{name}" lists several labels: {len(parts)} columns were made of it, and what a '
                f"row does not list counts as {unlisted}"
            )
    if roles.patient is None:
        likely = [n for n in table.columns if LOOKS_LIKE_PATIENT.fullmatch(n.strip())]
        if likely:
            notes.append(
                f'"{likely[0]}" looks like the patient: name it as patient column, so that splits '
                f"are made by patient"
            )
    return notes
