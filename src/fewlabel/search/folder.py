"""An index in a folder: FAISS for the vectors, Arrow files for the facts, changed so that a kill at any moment leaves
the old state or the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fewlabel.collection.filtering import RowFilter
from fewlabel.collection.store import is_disk_full, locked
from fewlabel.search.cases import HASHES, Hit, Origin, left_out_mark
from fewlabel.search.changing import Change
from fewlabel.search.manifest import (
    Manifest,
    check,
    holds_index,
    joined,
    read_facts,
    read_links,
    read_manifest,
    sweep,
    vectors_between,
    write_manifest,
)
from fewlabel.search.vectors import Vectors, scan_of
from fewlabel.types import FewlabelError

_TRIES, _FILTERS = 20, 8
_NOTHING = pa.table({name: pa.array([], pa.string()) for name in ("case_id", "patient_id", *HASHES)})


@dataclass(frozen=True)
class State:
    """One generation of an index as a reader holds it; it stays what it is while writers go on."""

    manifest: Manifest
    vectors: Vectors
    facts: pa.Table

    @cached_property
    def alive(self) -> np.ndarray | None:
        """(N,) bool, rows that were not deleted; None = all."""
        ids = self.facts["case_id"]
        return None if ids.null_count == 0 else pc.is_valid(ids).to_numpy(zero_copy_only=False)

    @cached_property
    def chosen(self) -> Callable[[str], np.ndarray]:
        """(N,) bool, the rows for which an expression over the facts holds; kept for the last few expressions."""
        names = [name for name in self.facts.column_names if name not in HASHES]
        rows = RowFilter(names, self.column, len(self.vectors))

        def chosen(expression: str) -> np.ndarray:
            found = np.zeros(len(self.vectors), dtype=bool)
            found[rows.rows(expression)] = True
            return found

        return lru_cache(maxsize=_FILTERS)(chosen)

    def column(self, name: str) -> np.ndarray:
        """One column of the facts, (N,): float64 with NaN for floats, else objects."""
        column = self.facts[name]
        if pa.types.is_floating(column.type):
            return column.cast(pa.float64()).fill_null(np.nan).to_numpy()
        return np.fromiter(column.to_pylist(), dtype=object, count=len(column))

    def rows_of(self, name: str, value: str) -> np.ndarray:
        """(N,) bool, the rows whose text `name` is `value`."""
        found = pc.fill_null(pc.equal(self.facts[name], value), False)
        return found.to_numpy(zero_copy_only=False)


class FolderIndex:
    """An index in a folder, read by memory map. `open` it, or `begin` a new one.

    It stays at the state in which it was read until `refresh` or `change`. Searches may run in threads, beside a
    process that changes it; one process at a time changes it.
    """

    def __init__(self, folder: Path, state: State, begun: bool = False) -> None:
        self.folder, self._state, self._begun = folder, state, begun

    @staticmethod
    def open(place: str | Path) -> FolderIndex:
        """The index there, every byte checked. Raises FewlabelError where there is none, or a damaged one."""
        folder = Path(place)
        return FolderIndex(folder, _read(folder, None))

    @staticmethod
    def begin(place: str | Path, origin: Origin) -> FolderIndex:
        """A new index that takes the place of whatever index is there, with its first `change`.

        Raises FewlabelError for a folder that holds something else.
        """
        folder = Path(place)
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not holds_index(folder)):
            raise FewlabelError(f"{folder} is not empty and holds no index: give an empty or a new folder.")
        there = [int(path.name[:8]) for path in folder.glob("0*") if path.name[:8].isdigit()]
        manifest = Manifest(max(there, default=0), origin)
        return FolderIndex(folder, State(manifest, Vectors(None, scan_of(origin.dim)), _NOTHING), begun=True)

    def __len__(self) -> int:
        alive = self._state.alive
        return len(self._state.vectors) if alive is None else int(np.count_nonzero(alive))

    @property
    def place(self) -> str:
        """For people and commands."""
        return str(self.folder)

    @property
    def origin(self) -> Origin:
        """What its vectors were made of."""
        return self._state.manifest.origin

    @property
    def fingerprint(self) -> str:
        """Of the collection with which it agrees in every case; "" where it does not with any."""
        return self._state.manifest.fingerprint

    @property
    def left_out(self) -> frozenset[str]:
        """Marks of patients who were removed and are not to come back, see `left_out_mark`."""
        return frozenset(self._state.manifest.left_out)

    def known(self) -> dict[str, tuple[str, str]]:
        """The `HASHES` of each case, by id."""
        columns = [self._state.facts[name].to_pylist() for name in ("case_id", *HASHES)]
        return {
            case: (pixels, facts) for case, pixels, facts in zip(*columns, strict=True) if case is not None
        }

    def vector_of(self, case: str) -> tuple[np.ndarray, Hit] | None:
        """The unit vector (K,) of a case and what is known of it; None where the index does not have it."""
        state = self._state
        found = np.flatnonzero(state.rows_of("case_id", case))
        if not len(found):
            return None
        row = int(found[0])
        return state.vectors.vector(row), self._hit(state, row, 1.0)

    def nearest(
        self,
        vector: np.ndarray,
        k: int,
        *,
        where: str | None = None,
        without_patient: str = "",
        without_case: str = "",
    ) -> list[Hit]:
        """The k most similar cases, best first; fewer where fewer may be found.

        vector: unit, (K,). where: an SQL expression over the facts, as of `Collection.where`. without_patient,
        without_case: who is not to be found; "" = nobody. Raises FewlabelError for a mistake in the expression, or a
        vector of another width.
        """
        state = self._state
        allowed = _allowed(state, where, without_patient, without_case)
        cosines, rows = state.vectors.search(vector[None], min(k, max(1, len(state.vectors))), allowed)
        return [
            self._hit(state, int(row), float(c))
            for row, c in zip(rows[0], cosines[0], strict=True)
            if row >= 0
        ]

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Many queries (Q, K) at once, of unit vectors: cosines and row numbers (Q, k), as `Vectors.search` gives."""
        return self._state.vectors.search(queries, k, self._state.alive)

    @staticmethod
    def _hit(state: State, row: int, cosine: float) -> Hit:
        [facts] = state.facts.slice(row, 1).to_pylist()
        return Hit(cosine, {name: value for name, value in facts.items() if name not in HASHES})

    def refresh(self) -> None:
        """Go on to what is true now. Raises FewlabelError where that is damaged."""
        self._state = _read(self.folder, self._state)

    def change(
        self,
        *,
        remove: Iterable[str] = (),
        add: tuple[np.ndarray, pa.Table] | None = None,
        facts: pa.Table | None = None,
        fingerprint: str = "",
        leave_out: str = "",
    ) -> None:
        """One step from a whole index to a whole index; whatever ends it, readers find the one or the other.

        remove: ids of cases that go; of their vectors and facts nothing stays in the folder. add: unit vectors (n, K)
        and facts of new cases, one row each. facts: new facts of known cases. fingerprint: see `fingerprint`.
        leave_out: a patient who is to stay out from now on. Raises FewlabelError while another process writes, or where
        the disk is full.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder, "change"):
                before = self._state if self._begun else _read(self.folder, self._state)
                manifest = Change(self.folder, before.manifest, set(remove), add, facts).run(fingerprint)
                if leave_out:
                    marks = {*manifest.left_out, left_out_mark(leave_out)}
                    manifest = replace(manifest, left_out=tuple(sorted(marks)))
                write_manifest(self.folder, manifest)
                sweep(self.folder, manifest)
        except OSError as error:
            if is_disk_full(error):
                raise FewlabelError(
                    f"The disk of {self.folder} is full: free some space; the index is as before."
                ) from None
            raise FewlabelError(f"{self.folder} cannot be written: {error.strerror or error}.") from None
        self._begun = False
        self.refresh()

    def delete_patient(self, patient: str) -> int:
        """Remove all cases of a patient, vectors and facts, and keep him out; returns how many there were.

        Raises as `change` does.
        """
        self.refresh()
        of_patient = self._state.facts.filter(pc.equal(self._state.facts["patient_id"], patient))
        cases = of_patient["case_id"].to_pylist()
        if cases:
            self.change(remove=cases, fingerprint=self.fingerprint, leave_out=patient)
        return len(cases)


def _read(folder: Path, before: State | None) -> State:
    """What is true now; of `before`, what did not change is taken over and not checked again."""
    for _ in range(_TRIES):
        manifest = read_manifest(folder)
        if before is not None and before.manifest == manifest:
            return before
        known = set() if before is None else set(before.manifest.files)
        try:
            for file in manifest.files:
                if file not in known:
                    check(folder, manifest, file)
            return _loaded(folder, manifest, before)
        except FileNotFoundError:  # a writer has replaced it in between
            if read_manifest(folder) == manifest:
                break
    raise FewlabelError(
        f"A file of the index at {folder} is missing: make it anew with "
        f"`{manifest.origin.command(str(folder), ' --rebuild')}`."
    )


def _loaded(folder: Path, manifest: Manifest, before: State | None) -> State:
    tables = [read_facts(folder, one) for one in manifest.segments]
    return State(manifest, _vectors(folder, manifest, before), joined(tables) if tables else _NOTHING)


def _vectors(folder: Path, manifest: Manifest, before: State | None) -> Vectors:
    count, covered = sum(one.rows for one in manifest.segments), 0
    dim, graph = manifest.origin.dim, None
    if manifest.links is not None:
        covered = manifest.links.rows
        if before is not None and before.manifest.links == manifest.links:
            graph = before.vectors.graph  # rows that were deleted since are left out by their facts
        else:
            storage = scan_of(dim, *vectors_between(folder, manifest.segments, 0, covered))
            graph = read_links(folder, manifest.links, storage)
    return Vectors(graph, scan_of(dim, *vectors_between(folder, manifest.segments, covered, count)))


def _allowed(state: State, where: str | None, patient: str, case: str) -> np.ndarray | None:
    """(N,) bool: rows that may be found; None = all."""
    allowed = state.alive
    if where is not None:
        chosen = state.chosen(where)
        allowed = chosen if allowed is None else chosen & allowed
    for name, value in (("patient_id", patient), ("case_id", case)):
        if value:
            others = ~state.rows_of(name, value)
            allowed = others if allowed is None else others & allowed
    return allowed
