"""One change of an index in a folder: which files are written anew, and the manifest of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fewlabel.search.manifest import (
    Manifest,
    Segment,
    joined,
    read_facts,
    read_links,
    read_vectors,
    store_links,
    store_segment,
    vectors_between,
)
from fewlabel.search.vectors import new_graph, scan_of, wants_graph

DEAD_SHARE = 5
"""Deleted rows stay as empty ones in the graph until they are more than one in so many; then it is made anew."""


class Change:
    """The work of one `FolderIndex.change` in the locked folder: it writes files, and gives the manifest of them."""

    def __init__(
        self,
        folder: Path,
        before: Manifest,
        remove: set[str],
        add: tuple[np.ndarray, pa.Table] | None,
        facts: pa.Table | None,
    ) -> None:
        self.folder, self.before, self.remove, self.add, self.facts = folder, before, remove, add, facts
        self.generation = before.generation + 1
        self.segments = list(before.segments)
        self.links = before.links

    def run(self, fingerprint: str) -> Manifest:
        dead = self._edit()
        if self.links is not None and dead * DEAD_SHARE > sum(one.rows for one in self.segments):
            self._compact()
        if self.add is not None and len(self.add[0]):
            self._append(*self.add)
        count = sum(one.rows for one in self.segments)
        if wants_graph(count, self.links.rows if self.links else 0):
            self._link(count)
        return replace(
            self.before,
            generation=self.generation,
            fingerprint=fingerprint,
            segments=tuple(self.segments),
            links=self.links,
        )

    def _name(self, place: int) -> str:
        return f"{self.generation:08d}-{place}"

    def _edit(self) -> int:
        """Write those segments anew in which cases go or have other facts; returns how many rows are dead then."""
        changed = set() if self.facts is None else set(self.facts["case_id"].to_pylist())
        if not (self.remove or changed):
            return 0
        dead = 0
        kept: list[Segment] = []
        for place, segment in enumerate(self.segments):
            table = read_facts(self.folder, segment)
            ids = table["case_id"].to_pylist()
            gone = np.array([case in self.remove for case in ids], dtype=bool)
            other = np.array([case in changed for case in ids], dtype=bool)
            if gone.any() or other.any():
                if other.any():
                    assert self.facts is not None
                    table = _with_facts(table, ids, self.facts)
                kept += self._rewritten(place, table, gone, read_vectors(self.folder, segment))
            else:
                kept.append(segment)
            dead += sum(case is None for case in ids) + int(gone.sum())
        self.segments = kept
        return dead

    def _rewritten(self, place: int, table: pa.Table, gone: np.ndarray, vectors: np.ndarray) -> list[Segment]:
        """Without the rows that are gone; where the graph counts on their places, with nothing in them."""
        if self.links is None:
            vectors, table = vectors[~gone], table.filter(pa.array(~gone))
        elif gone.any():
            vectors = np.where(gone[:, None], np.float32(0), vectors)
            table = table.take(pa.array(np.arange(len(gone)), pa.int64(), mask=gone))
        return [store_segment(self.folder, self._name(place), vectors, table)] if len(vectors) else []

    def _compact(self) -> None:
        """One segment without the dead rows, and no graph."""
        table = joined([read_facts(self.folder, one) for one in self.segments])
        alive = pc.is_valid(table["case_id"])
        vectors = np.concatenate([read_vectors(self.folder, one) for one in self.segments])
        vectors, table = vectors[alive.to_numpy(zero_copy_only=False)], table.filter(alive)
        name = self._name(len(self.segments))
        self.links, self.segments = None, []
        if len(vectors):
            self.segments = [store_segment(self.folder, name, vectors, table)]

    def _append(self, vectors: np.ndarray, table: pa.Table) -> None:
        """A new last segment, together with those before it that are not much longer."""
        parts, tables = [vectors], [table]
        while self.segments and self.segments[-1].rows < 2 * sum(map(len, parts)):
            last = self.segments.pop()
            parts.insert(0, read_vectors(self.folder, last))
            tables.insert(0, read_facts(self.folder, last))
        name = self._name(len(self.segments) + 1000)
        self.segments.append(store_segment(self.folder, name, np.concatenate(parts), joined(tables)))

    def _link(self, count: int) -> None:
        """Bring all rows into the graph."""
        dim, covered = self.before.origin.dim, 0
        graph: Any = new_graph(dim)
        if self.links is not None:
            covered = self.links.rows
            storage = scan_of(dim, *vectors_between(self.folder, self.segments, 0, covered))
            graph = read_links(self.folder, self.links, storage)
        for part in vectors_between(self.folder, self.segments, covered, count):
            graph.add(np.ascontiguousarray(part))
        self.links = store_links(self.folder, f"{self.generation:08d}", graph)


def _with_facts(table: pa.Table, ids: Sequence[str | None], facts: pa.Table) -> pa.Table:
    """The rows of `table`, those of which `facts` speaks as it says."""
    places = {case: len(table) + place for place, case in enumerate(facts["case_id"].to_pylist())}
    both = joined([table, facts])
    return both.take(pa.array([places.get(case, row) for row, case in enumerate(ids)], pa.int64()))
