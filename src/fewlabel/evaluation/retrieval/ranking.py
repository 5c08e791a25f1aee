"""Recall@k, R-precision and MAP@R, as Musgrave, Belongie and Lim 2020 define them, arXiv:2003.08505.

For a query with R right candidates, the first R of its ranking, and P(i) the precision among the first i:

    recall@k     1 if any of the first k is right, else 0, which is what metric learning calls recall;
    R-precision  r / R,  r the right ones among the first R;
    MAP@R        1/R sum_{i=1..R} P(i) [the i-th is right],

each averaged over the queries. R counts those that may be found, so nobody of the query's own patient. A query
without a right candidate does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from fewlabel.evaluation.intervals import Bootstrap, Resamples
from fewlabel.evaluation.retrieval.search import Search, check_search, ranked
from fewlabel.types import FewlabelError

CHUNK = 4_000_000
"""Cells of candidates times resamples that are looked at at once: some tens of MB."""


@dataclass(frozen=True)
class RankMeasure:
    """A measure with its resamples, and what a random order would have; `found.n` counts the queries."""

    found: Bootstrap
    chance: float


def rank_measures(
    similarity: np.ndarray, search: Search, resamples: Resamples, *, recall_at: Sequence[int] = (1, 5, 10)
) -> dict[str, RankMeasure]:
    """ "recall@k" for each k, "r_precision" and "map_at_r", with their resamples.

    similarity: (Q, N), as of `cosines`. resamples: of `Search.draw`. In a resample a candidate that was drawn w times
    fills w places of a ranking and counts w times in R; a query that was drawn w times counts w times, and one
    without a right candidate that was drawn does not count. Time grows with Q N times
    the resamples; of far more than 10,000 candidates take some. Raises FewlabelError for wrong shapes, and if no
    query has a right candidate to find.
    """
    check_search(similarity, search, resamples, recall_at)
    names = [*(f"recall@{k}" for k in recall_at), "r_precision", "map_at_r"]
    queries, candidates = similarity.shape
    everybody = np.ones((candidates, 1), dtype=np.uint16)
    drawn = np.ascontiguousarray(resamples.weights[:, queries:].T)  # (N, draws): rows are gathered
    plain, chances = np.full((len(names), queries), np.nan), np.full((len(names), queries), np.nan)
    total, counted = np.zeros((2, len(names), drawn.shape[1]))
    for query in range(queries):
        allowed = search.allowed(query)
        right = search.relevant[query]
        if not (right & allowed).any():
            continue
        order = ranked(similarity[query], allowed)
        plain[:, query] = _measures(order, right, everybody, recall_at)[:, 0]
        chances[:, query] = _chances(int(right[order].sum()), len(order), recall_at)
        found = _in_chunks(order, right, drawn, recall_at)  # (measures, draws)
        weight = resamples.weights[:, query] * ~np.isnan(found)
        counted += weight
        total += weight * np.nan_to_num(found)
    if np.isnan(plain).all():
        raise FewlabelError(
            "No query has a right candidate of another patient to find: give more images or classes with more patients."
        )
    draws = np.divide(total, counted, out=np.full_like(total, np.nan), where=counted > 0)
    return {
        name: RankMeasure(_bootstrap(values, of_draws, resamples), float(np.nanmean(chance)))
        for name, values, chance, of_draws in zip(names, plain, chances, draws, strict=True)
    }


def _bootstrap(values: np.ndarray, draws: np.ndarray, resamples: Resamples) -> Bootstrap:
    """values: (Q,) of each query, NaN where it does not count. draws: (resamples,) their mean in each."""
    value, n = float(np.nanmean(values)), int(np.count_nonzero(~np.isnan(values)))
    source = (resamples.seed, *resamples.weights.shape, resamples.patients)
    return Bootstrap(value, np.array([value]), draws, n, resamples.patients, source)


def _in_chunks(
    order: np.ndarray, right: np.ndarray, drawn: np.ndarray, recall_at: Sequence[int]
) -> np.ndarray:
    step = max(1, CHUNK // max(1, len(order)))
    parts = [
        _measures(order, right, drawn[:, first : first + step], recall_at)
        for first in range(0, drawn.shape[1], step)
    ]
    return np.concatenate(parts, axis=1)


def _measures(
    order: np.ndarray, right: np.ndarray, drawn: np.ndarray, recall_at: Sequence[int]
) -> np.ndarray:
    """Measures of one query in every resample, (measures, draws); NaN where no right candidate was drawn.

    order: candidates, best first. drawn: (N, draws), how often each was drawn.

    The w copies of a right candidate stand at the places c + 1 .. c + w, of which the first R count, with f false ones
    before them: P(c + t) = (c + t - f) / (c + t), so that they add n - f (H(c + n) - H(c)) to R MAP@R, with n of them
    counting and H the harmonic numbers.
    """
    rows = np.flatnonzero(right[order])
    copies = drawn[order[rows]].astype(np.int32)  # (right, draws)
    before = np.cumsum(drawn[order], axis=0, dtype=np.int32)[rows] - copies  # places taken
    false = before - (np.cumsum(copies, axis=0) - copies)
    total = copies.sum(axis=0)  # R
    counting = np.clip(total - before, 0, copies)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, max(1, total.max()) + 1))])
    start = np.minimum(before, total)
    precisions = counting - false * (harmonic[start + counting] - harmonic[start])
    first = np.where(copies > 0, before, np.iinfo(np.int32).max).min(axis=0)
    with np.errstate(invalid="ignore"):
        shares = np.stack([counting.sum(axis=0), precisions.sum(axis=0)]) / total
    recalls = np.where(total > 0, [first < k for k in recall_at], np.nan)
    return np.concatenate([recalls, shares])


def _chances(right: int, candidates: int, recall_at: Sequence[int]) -> list[float]:
    """Each measure in a random order of M candidates, of which R are right.

    The i-th is right with R / M, and then (i - 1) (R - 1) / (M - 1) of those before it are, on average.
    """
    share = right / candidates
    recalls = [
        1 - comb(candidates - right, k) / comb(candidates, k) if k <= candidates else 1.0 for k in recall_at
    ]
    places = np.arange(1, right + 1)
    before = (places - 1) * (right - 1) / max(1, candidates - 1)
    return [*recalls, share, float(share * ((1 + before) / places).mean())]
