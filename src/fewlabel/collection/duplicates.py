"""Near-duplicates: the same picture again at another size, brightness or compression, found from thumbnails.

Plain correlation of small pictures cannot tell a copy of a chest X-ray from another patient's chest X-ray:
both are above 0.95. What differs is the fine detail, so the correlation is taken of the detail: the thumbnail
less its blur, divided by its local contrast. The evidence for the threshold is in
docs/decisions/near-duplicates.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fewlabel.collection.resample import THUMBNAIL_PX
from fewlabel.types import ProgressCallback

THRESHOLD = 0.90
_KEPT_DIRECTIONS = 128
_SAMPLE = 4096
_BLOCK = 2048


def detail(thumbnails: np.ndarray) -> np.ndarray:
    """Unit vectors whose products are correlations of fine detail.

    thumbnails: (N, 1024) uint8. Returns (N, 1024) float32; rows of zeros for pictures without detail
    (constant ones), which are therefore like nothing else.
    """
    x = thumbnails.reshape(-1, THUMBNAIL_PX, THUMBNAIL_PX).astype(np.float32)
    fine = x - gaussian_filter(x, (0, 1, 1))
    contrast = np.sqrt(gaussian_filter(fine * fine, (0, 2, 2)))
    flat = (fine / (contrast + 1)).reshape(len(x), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.where(norm > 1, flat / np.maximum(norm, 1), 0).astype(np.float32)


def find_duplicates(
    thumbs_a: np.ndarray,
    thumbs_b: np.ndarray | None = None,
    *,
    threshold: float = THRESHOLD,
    progress: ProgressCallback | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of near-identical pictures within one set, or between two.

    thumbs_a, thumbs_b: (N, 1024) uint8 as `Collection.thumbnails` gives them.
    Returns (i, j, correlation), sorted by i then j: row numbers in a, row numbers in b (in a and i < j where
    `thumbs_b` is None), and the correlation of fine detail, negative where one is the other's negative.
    """
    found = [np.empty((3, 0))]
    for i, j, r in _pairs(thumbs_a, thumbs_b, threshold, progress):
        found.append(np.stack([i, j, r]))
    i, j, r = np.concatenate(found, axis=1)
    order = np.lexsort((j, i))
    return i[order].astype(np.int64), j[order].astype(np.int64), r[order].astype(np.float32)


def near_groups(
    thumbnails: np.ndarray, known: np.ndarray, exact: np.ndarray, progress: ProgressCallback | None = None
) -> np.ndarray:
    """Group numbers that join near-duplicates, exact ones and chains of them.

    thumbnails: (N, 1024); known: (M,) group numbers of the first M rows from an earlier run (M may be 0);
    exact: (N,) exact-duplicate groups. A group's number is its first row; -1 = alone. Returns (N,) int64.
    """
    count, old = len(thumbnails), len(known)
    links = [np.stack([np.flatnonzero(g >= 0), g[g >= 0]]) for g in (known, exact)]
    first = np.flatnonzero((exact < 0) | (exact == np.arange(count)))  # one of each set of exact copies
    fresh, seen = first[first >= old], first[first < old]
    for rows, others in ((fresh, None), (fresh, seen)):
        for i, j, _ in _pairs(
            thumbnails[rows], None if others is None else thumbnails[others], THRESHOLD, progress
        ):
            links.append(np.stack([rows[i], (rows if others is None else others)[j]]))
    return joined_groups(np.concatenate(links, axis=1), count)


def joined_groups(links: np.ndarray, count: int) -> np.ndarray:
    """Connected rows share the number of their first row; -1 = alone. links: (2, pairs)."""
    graph = coo_array((np.ones(links.shape[1], dtype=bool), (links[0], links[1])), shape=(count, count))
    _, part = connected_components(graph, directed=False)
    _, first, inverse, size = np.unique(part, return_index=True, return_inverse=True, return_counts=True)
    return np.where(size[inverse] > 1, first[inverse], -1).astype(np.int64)


def _pairs(
    thumbs_a: np.ndarray, thumbs_b: np.ndarray | None, threshold: float, progress: ProgressCallback | None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Blocks of (i, j, correlation).

    A pair is first judged in the 128 main directions: by Cauchy and Schwarz |a.b| <= |Pa.Pb| + |Qa||Qb|, P
    the part in those directions and Q the rest, so that nothing above the threshold is lost.
    """
    if len(thumbs_a) == 0 or (thumbs_b is not None and len(thumbs_b) == 0):
        return
    larger = thumbs_a if thumbs_b is None or len(thumbs_a) > len(thumbs_b) else thumbs_b
    directions = _main_directions(larger) if len(larger) > _BLOCK else None
    near_a, rest_a = _split(thumbs_a, directions)
    near_b, rest_b = (near_a, rest_a) if thumbs_b is None else _split(thumbs_b, directions)
    for start in range(0, len(near_a), _BLOCK):
        for other in range(start if thumbs_b is None else 0, len(near_b), _BLOCK):
            bound = np.abs(near_a[start : start + _BLOCK] @ near_b[other : other + _BLOCK].T)
            bound += rest_a[start : start + _BLOCK, None] * rest_b[None, other : other + _BLOCK]
            i, j = np.nonzero(bound >= threshold - 1e-4)
            i, j = i + start, j + other
            if thumbs_b is None:
                i, j = i[i < j], j[i < j]
            if len(i):
                yield from _exact(i, j, thumbs_a, thumbs_a if thumbs_b is None else thumbs_b, threshold)
        if progress:
            progress(min(start + _BLOCK, len(near_a)), len(near_a), "looking for near-duplicates")


def _exact(
    i: np.ndarray, j: np.ndarray, thumbs_a: np.ndarray, thumbs_b: np.ndarray, threshold: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    for start in range(0, len(i), 16384):
        some_i, some_j = i[start : start + 16384], j[start : start + 16384]
        r = np.einsum("nk,nk->n", detail(thumbs_a[some_i]), detail(thumbs_b[some_j]))
        keep = np.abs(r) >= threshold
        yield some_i[keep], some_j[keep], r[keep]


def _main_directions(thumbnails: np.ndarray) -> np.ndarray:
    """(1024, 128): main directions of a spread sample. They only decide speed, never the result."""
    some = detail(thumbnails[np.linspace(0, len(thumbnails) - 1, min(len(thumbnails), _SAMPLE)).astype(int)])
    _, vectors = np.linalg.eigh(some.T @ some)
    return np.ascontiguousarray(vectors[:, -_KEPT_DIRECTIONS:])


def _split(thumbnails: np.ndarray, directions: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in the main directions (N, 128) and length of the rest (N,), 0 without directions."""
    if directions is None:
        return detail(thumbnails), np.zeros(len(thumbnails), np.float32)
    near = np.empty((len(thumbnails), directions.shape[1]), np.float32)
    rest = np.empty(len(thumbnails), np.float32)
    for start in range(0, len(thumbnails), _BLOCK):
        some = detail(thumbnails[start : start + _BLOCK])
        near[start : start + _BLOCK] = some @ directions
        squares = (some**2).sum(axis=1) - (near[start : start + _BLOCK] ** 2).sum(axis=1)
        rest[start : start + _BLOCK] = np.sqrt(np.maximum(squares, 0))
    return near, rest
