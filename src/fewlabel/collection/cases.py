"""`Collection`: a data set on disk, opened at once and read by memory map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fewlabel.collection.filtering import RowFilter
from fewlabel.collection.labels import ColumnKind
from fewlabel.collection.matching import checked_name
from fewlabel.collection.squares import square_pixels
from fewlabel.collection.store import RecordReader, read_thumbnails
from fewlabel.collection.tables import CASE_COLUMNS, Facts, open_cases, read_facts, read_quarantine
from fewlabel.collection.targets import NamedColumn, Target, graded_target, make_target
from fewlabel.types import FewlabelError, Image, LabelColumn, ProgressCallback

CASE_PREFIX = "case:"


class Collection:
    """Images with what is known of them, as `import_images` laid them down. Made by `Collection.open`.

    path, name: the folder and its name. fingerprint: sha256 over pixels, labels, patients and splits in row
    order, whatever the folder is called; pixel_fingerprint: of the pixels alone. labels: the label columns by
    name. facts: sentences that a report should repeat. A collection that is open does not change, even while
    an import adds to it.
    """

    def __init__(self, path: Path, file: pq.ParquetFile, facts: Facts) -> None:
        self.path = path
        self.name = path.resolve().name
        self.fingerprint = facts.fingerprint
        self.pixel_fingerprint = facts.pixel_fingerprint
        self.labels: dict[str, LabelColumn] = {c.name: c for c in facts.labels}
        self.facts: tuple[str, ...] = tuple(facts.facts)
        self._about = facts
        self._file = file
        self._reading = Lock()
        self._records = RecordReader(path)
        self._arrow = lru_cache(maxsize=None)(self._read_arrow)

    @staticmethod
    def open(path: str | Path) -> Collection:
        """Open the collection in the folder `path`. Raises FewlabelError for none, or half of one."""
        root = Path(path)
        file = open_cases(root)
        return Collection(root, file, read_facts(file, root))

    def __len__(self) -> int:
        return self._about.images

    def __repr__(self) -> str:
        return (
            f"Collection({str(self.path)!r}: {len(self)} images, labels {', '.join(self.labels) or 'none'})"
        )

    @cached_property
    def cases(self) -> pa.Table:
        """The whole table, one row an image; a label column named like a case column is "label:name"."""
        return self._file.read()

    @property
    def column_names(self) -> tuple[str, ...]:
        """Every name that `column`, `where` and `target` know; label columns come before case columns."""
        names = [*self.labels, *self._about.texts, *self._about.attributes, *CASE_COLUMNS]
        return tuple(dict.fromkeys(names))

    @property
    def max_side_px(self) -> int:
        """Images with a longer side were area-resampled to this one when they were imported."""
        return self._about.max_side_px

    @property
    def history(self) -> tuple[dict, ...]:
        """What each import did: source, labels, numbers of images."""
        return tuple(self._about.history)

    @cached_property
    def quarantine(self) -> tuple[tuple[str, str], ...]:
        """(file, reason) of everything that could not be read."""
        return tuple((q["name"], q["reason"]) for q in read_quarantine(self._file))

    def column(self, name: str) -> np.ndarray:
        """One column, shape (N,). Raises FewlabelError with close matches for an unknown name.

        Binary labels are int8 `LabelState` codes, numbers float64 with NaN, all else object arrays of str
        (None or "" = unknown) or lists. Where a label column hides a case column, "case:name" gives the case
        column.
        """
        hidden = name.startswith(CASE_PREFIX) and name.removeprefix(CASE_PREFIX) in CASE_COLUMNS
        stored = name.removeprefix(CASE_PREFIX) if hidden else self._stored(name)
        array = self._arrow(stored)
        if pa.types.is_floating(array.type):
            return array.fill_null(np.nan).to_numpy()
        if pa.types.is_string(array.type) or pa.types.is_list(array.type):
            return np.fromiter(array.to_pylist(), dtype=object, count=len(self))
        return array.to_numpy(zero_copy_only=False)

    def pixels(self, row: int) -> np.ndarray:
        """Shape (C, H, W) or (C, D, H, W), native type: a view of the memory map, not to be written to."""
        place = self._place
        row = self._checked_row(row)
        return self._records.read(
            int(place["part"][row]),
            int(place["offset"][row]),
            place["dtype"][row],
            tuple(place["shape"][row]),
        )

    def valid(self, row: int) -> np.ndarray | None:
        """The mask of the spatial axes, False where the source has padding; None = all valid."""
        row = self._checked_row(row)
        place = self._place
        if not place["has_padding"][row]:
            return None
        after = int(place["offset"][row]) + int(place["nbytes"][row])
        return self._records.read_mask(int(place["part"][row]), after, tuple(place["shape"][row][1:]))

    def image(self, row: int) -> Image:
        """The image of one row with all that is known of it, as it was read (and shrunk, if it was)."""
        row = self._checked_row(row)
        found = {n: self._arrow(n)[row].as_py() for n in CASE_COLUMNS}
        attributes = {n: v for n in self._about.attributes if (v := self._arrow(n)[row].as_py()) is not None}
        return Image(
            pixels=self.pixels(row),
            spacing_mm=None if found["spacing_mm"] is None else tuple(found["spacing_mm"]),
            modality=found["modality"],
            patient_id=found["patient_id"],
            study_id=found["study_id"],
            series_id=found["series_id"],
            view=found["view"],
            display_range=(found["display_low"], found["display_high"]),
            valid=self.valid(row),
            affine=None if found["affine"] is None else np.reshape(found["affine"], (4, 4)),
            provenance=tuple(found["provenance"].split("\n")) if found["provenance"] else (),
            warnings=tuple(found["warnings"].split("\n")) if found["warnings"] else (),
            attributes=attributes,
        )

    def square(
        self,
        size_px: int,
        *,
        channels: int = 1,
        window: tuple[float, float] | None = None,
        progress: ProgressCallback | None = None,
    ) -> np.ndarray:
        """All images as squares: shape (N, channels, size_px, size_px), a read-only memory map.

        Each image is area-resampled so that its longer side is `size_px` and centred on black; `window` (low,
        high), in units of the pixels, or else each image's display range is mapped to the full range of uint8
        (all sources of 8 bits) or uint16, clipped; padding is black. Colour becomes luminance when `channels`
        is 1, grey is repeated when it is 3. Kept under cache/ and made once.
        Raises FewlabelError for collections that hold volumes.
        """
        return square_pixels(self, size_px, channels=channels, window=window, progress=progress)

    def thumbnails(self) -> np.ndarray:
        """(N, 1024) uint8: 32 x 32 grey pictures for `find_duplicates`, aspect not kept."""
        return read_thumbnails(self.path, self.column("case:part"), self.column("case:slot"))

    def where(self, expression: str) -> np.ndarray:
        """Row numbers, ascending, for which an SQL expression holds: '"View Position" = \\'PA\\'
        AND age_years > 40'.

        Binary labels are 1, 0, -1 (uncertain) and -2 (not mentioned). Raises FewlabelError for a mistake in
        it.
        """
        return RowFilter(self.column_names, self.column, len(self)).rows(expression)

    def target(
        self, spec: str, *, grades: Sequence[str] | None = None, referable: str | None = None
    ) -> Target:
        """What a model is to learn: "Pneumonia", "class=malignant", "View Position=PA", "Patient Age>55".

        A column by its name is taken as it is (a category of two classes as binary); a comparison is binary,
        with 1 where it holds. grades: the values of that column from least to most, which makes the target
        ordinal; referable: the grade from which on an image is referable, None = the middle one.
        Raises FewlabelError for unknown columns and classes, with close matches, and for mistakes in the grades.
        """
        if grades is not None:
            return graded_target(spec, self.column_names, self._named, grades, referable)
        return make_target(spec, self.column_names, self._named)

    def patients(self) -> np.ndarray:
        """(N,) int64 group numbers; an image without a patient id is its own group (`facts` says how many
        are).
        """
        return _numbered(self.column("case:patient_id"))

    def studies(self) -> np.ndarray:
        """(N,) int64 numbers of studies, within patients; an image without a study id is its own study."""
        ids = zip(self.column("case:patient_id"), self.column("case:study_id"), strict=True)
        return _numbered([study and f"{patient}\0{study}" for patient, study in ids])

    @cached_property
    def _place(self) -> dict[str, np.ndarray]:
        names = ("part", "offset", "nbytes", "dtype", "shape", "has_padding")
        return {n: self.column(CASE_PREFIX + n) for n in names}

    def _checked_row(self, row: int) -> int:
        if not -len(self) <= row < len(self):
            raise FewlabelError(f"row {row} was asked for and {self.path} has rows 0 to {len(self) - 1}")
        return int(row) % len(self)

    def _named(self, name: str) -> NamedColumn:
        values = self.column(name)
        if name in self.labels:
            kind: ColumnKind = self.labels[name].kind
            return NamedColumn(name, kind, self.labels[name].classes, values)
        if values.dtype == object and any(isinstance(v, list) for v in values):
            raise FewlabelError(f'"{name}" holds lists, which cannot be learned: choose a label column')
        kind = "text" if values.dtype == object else "number"
        return NamedColumn(name, kind, (), values)

    def _stored(self, name: str) -> str:
        checked_name(name, self.column_names, f"the collection {self.name}")
        is_label = name in self.labels or name in self._about.texts
        return self._about.stored_name(name) if is_label else name

    def _read_arrow(self, stored: str) -> pa.Array:
        with self._reading:  # the file handle is shared by threads
            column = self._file.read(columns=[stored])[stored].combine_chunks()
        return column.chunk(0) if isinstance(column, pa.ChunkedArray) else column


def _numbered(ids: Iterable[str]) -> np.ndarray:
    """(N,) numbers from 0 in order of appearance; each empty id is one of its own."""
    own = np.array([i or f"\0{row}" for row, i in enumerate(ids)], dtype=object)
    _, first, inverse = np.unique(own, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
