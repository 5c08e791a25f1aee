"""Unit vectors in memory and their nearest by cosine: scanned, or by a graph where there are many.

The graph is HNSW (Malkov and Yashunin 2016, arXiv:1603.09320) as FAISS builds it: each vector is linked with about
2 M others, and a search walks along links, keeping the ef best seen. It may miss some of the nearest; a scan does not.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from fewlabel.types import FewlabelError

EXACT = 100_000
"""Up to so many vectors are scanned, be it all that there are or those that a filter leaves: some milliseconds."""
TAIL_SHARE = 20
"""Vectors that came after the graph was made are scanned, too, until they are more than one in so many."""
LINKS, BUILD_BREADTH, SEARCH_BREADTH = 32, 120, 128
"""M, efConstruction and ef; see docs/search.md for the recall they give."""


class Vectors:
    """Rows 0 to N-1 of unit vectors: those of the graph first, then those that are scanned. Never changed.

    graph: HNSW over the first rows, with the vectors as its storage; None = all are scanned. scanned: the rows after
    it. Searches may run in several threads at once.
    """

    def __init__(self, graph: Any | None, scanned: Any) -> None:
        self.graph, self.scanned = graph, scanned

    def __len__(self) -> int:
        return self.covered + int(self.scanned.ntotal)

    @property
    def covered(self) -> int:
        """How many rows the graph holds."""
        return 0 if self.graph is None else int(self.graph.ntotal)

    @property
    def dim(self) -> int:
        """K."""
        return int(self.scanned.d)

    def vector(self, row: int) -> np.ndarray:
        """The vector (K,) of a row."""
        if row < self.covered:
            return np.asarray(self.graph.storage.reconstruct(row))  # type: ignore[union-attr]
        return np.asarray(self.scanned.reconstruct(row - self.covered))

    def search(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None, *, breadth: int = SEARCH_BREADTH
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest of each query, best first: cosines (Q, k) float32 and rows (Q, k) int64.

        queries: unit vectors (Q, K). allowed: (N,) bool, the rows that may be found; None = all. Where fewer are
        allowed, the rest of a line is row -1 with cosine -inf. breadth: ef, at least k. Raises FewlabelError for
        queries of another width.
        """
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise FewlabelError(
                f"Queries are {queries.shape} and the vectors of the index have {self.dim} numbers: ask with features "
                "of the model that made it."
            )
        asked = np.ascontiguousarray(queries, dtype=np.float32)
        first, rest = (None, None) if allowed is None else np.split(allowed, [self.covered])
        parts = [_nearest(self.scanned, asked, k, rest)]
        if self.graph is not None:
            parts.insert(0, _walk(self.graph, asked, k, first, max(breadth, k)))
            parts[1][1][parts[1][1] >= 0] += self.covered
        cosines, rows = (np.concatenate(side, axis=1) for side in zip(*parts, strict=True))
        cosines = np.where(rows >= 0, cosines, -np.inf)
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(cosines, order, axis=1), np.take_along_axis(rows, order, axis=1)


def scan_of(dim: int, *parts: np.ndarray) -> Any:
    """A FAISS index that scans the rows of `parts`, each (n, K)."""
    index = faiss.IndexFlatIP(dim)
    for part in parts:
        if len(part):
            index.add(np.ascontiguousarray(part, dtype=np.float32))
    return index


def new_graph(dim: int) -> Any:
    """A graph of no vector yet; `graph.add(vectors)` links more."""
    graph = faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = BUILD_BREADTH
    return graph


def wants_graph(count: int, covered: int) -> bool:
    """Whether of `count` vectors so many are outside of the graph that it should grow, or be made."""
    return count > EXACT and (count - covered) * TAIL_SHARE > count


def _nearest(index: Any, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> tuple[Any, Any]:
    chosen = None if allowed is None else faiss.SearchParameters(sel=_selector(allowed))
    return index.search(queries, k, params=chosen)


def _walk(
    graph: Any, queries: np.ndarray, k: int, allowed: np.ndarray | None, breadth: int
) -> tuple[Any, Any]:
    """By the graph; by a scan where few are allowed, or where the walk has met fewer than k of them.

    Where a part is allowed, the walk is as much wider, so that among all that it keeps there are as many of them.
    """
    storage = faiss.downcast_index(graph.storage)
    chosen = faiss.SearchParametersHNSW(efSearch=breadth)
    if allowed is not None:
        count = int(np.count_nonzero(allowed))
        if count <= EXACT:
            return _nearest(storage, queries, k, allowed)
        wider = -(-breadth * len(allowed) // count)
        chosen = faiss.SearchParametersHNSW(efSearch=wider, sel=_selector(allowed))
    cosines, rows = graph.search(queries, k, params=chosen)
    lost = np.flatnonzero((rows < 0).any(axis=1))
    if len(lost):
        cosines[lost], rows[lost] = _nearest(storage, queries[lost], k, allowed)
    return cosines, rows


def _selector(allowed: np.ndarray) -> Any:
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
