"""Precision@k: the share of right candidates among the first k."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewlabel.evaluation.intervals import Bootstrap, Resamples
from fewlabel.evaluation.retrieval.search import Search, check_search, ranked
from fewlabel.types import FewlabelError, Metric


@dataclass(frozen=True)
class Retrieval:
    """What a search found.

    precision: by k. chance: precision of a random order. left_out: by k, how many queries have fewer than k allowed
    candidates and do not count. queries, candidates: how many there are.
    """

    precision: dict[int, Bootstrap]
    chance: float
    left_out: dict[int, int]
    queries: int
    candidates: int

    def metrics(self) -> list[Metric]:
        """Each precision as a result, named such as "precision@5"; n counts the queries."""
        return [found.metric(f"precision@{k}") for k, found in self.precision.items()]


def precision_at(
    similarity: np.ndarray, search: Search, resamples: Resamples, *, at: Sequence[int] = (5, 10, 50)
) -> Retrieval:
    """Precision@k for each k in `at`, with its resamples.

    similarity: (Q, N), as of `cosines`. resamples: of `Search.draw`. In a resample a candidate that was drawn w times
    fills w of the k places, as far as there are any; a query that was drawn w times counts w times. A query with fewer
    than k allowed candidates (in a resample: drawn ones) has no precision@k and does not count; where none has, it is
    NaN. Memory: O(R (Q + N)), of which the weights are the most.
    Raises FewlabelError for wrong shapes, and for a k that no query has candidates for.
    """
    check_search(similarity, search, resamples, at)
    queries = len(similarity)
    everybody = np.ones((similarity.shape[1], 1), dtype=np.uint16)
    drawn = np.ascontiguousarray(resamples.weights[:, queries:].T)  # (N, R): rows are gathered
    plain = np.empty((queries, len(at), 1))
    total = np.zeros((len(at), len(resamples.weights)))
    counted = np.zeros_like(total)
    for query in range(queries):
        right, allowed = search.relevant[query], search.allowed(query)
        plain[query] = _precisions(similarity[query], right, allowed, everybody, at)
        found = _precisions(similarity[query], right, allowed, drawn, at)  # (k, R)
        weight = resamples.weights[:, query] * ~np.isnan(found)
        counted += weight
        total += weight * np.nan_to_num(found)
    draws = np.divide(total, counted, out=np.full_like(total, np.nan), where=counted > 0)
    source = (resamples.seed, *resamples.weights.shape, resamples.patients)
    precision, left_out = {}, {}
    for k, values, of_draws in zip(at, plain[..., 0].T, draws, strict=True):
        defined = values[~np.isnan(values)]
        if not len(defined):
            raise FewlabelError(
                f"No query has {k} candidates to find: ask for a smaller k, or give more candidates."
            )
        left_out[k] = queries - len(defined)
        value = float(defined.mean())
        precision[k] = Bootstrap(value, np.array([value]), of_draws, len(defined), resamples.patients, source)
    return Retrieval(precision, search.chance(), left_out, queries, similarity.shape[1])


def _precisions(
    similarity: np.ndarray, right: np.ndarray, allowed: np.ndarray, drawn: np.ndarray, at: Sequence[int]
) -> np.ndarray:
    """Precision@k of one query in every resample, (k, R); NaN where it has fewer than k candidates.

    drawn: (N, R), how often each candidate was drawn. Only as much of the ranking is looked at as every resample needs.
    """
    depth, there = 4 * max(at), np.count_nonzero(allowed)
    while True:
        order = ranked(similarity, allowed, depth)
        filled = np.cumsum(drawn[order], axis=0, dtype=np.float32)  # (M, R), places taken up to here; exact
        if len(order) == there or filled[-1].min() >= max(at):
            break
        depth *= 2
    # Places taken by right ones: sum_j right_j (c_j - c_(j-1)) with c = min(places, k), gathered by c.
    ends = right[order].astype(np.float32)
    ends[:-1] -= ends[1:].copy()
    found = np.full((len(at), drawn.shape[1]), np.nan)
    for place, k in enumerate(at):
        enough = filled[-1] >= k if len(filled) else np.zeros(drawn.shape[1], dtype=bool)
        found[place, enough] = (ends @ np.minimum(filled[:, enough], k)).astype(np.float64) / k
    return found
