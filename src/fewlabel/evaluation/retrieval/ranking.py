"""Recall@k, R-precision and MAP@R, as Musgrave, Belongie and Lim 2020 define them, arXiv:2003.08505.

For a query with R right candidates, the first R of its ranking, and P(i) the precision among the first i:

    recall@k     1 if any of the first k is right, else 0, which is what metric learning calls recall;
    R-precision  r / R,  r the right ones among the first R;
    MAP@R        1/R sum_{i=1..R} P(i) [the i-th is right],

each averaged over the queries. R counts those that may be found, so nobody of the query's own patient. A query
without a right candidate does not count.

Intervals draw the patients who ask; what is to be found stays. Were candidates drawn, too, as for precision@k, copies
of the same ones would fill the first places, and recall@k of most draws would lie below that of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from fewlabel.evaluation.intervals import Bootstrap, Resamples
from fewlabel.evaluation.retrieval.search import Search, check_search, ranked
from fewlabel.types import FewlabelError


@dataclass(frozen=True)
class RankMeasure:
    """A measure with its resamples, and what a random order would have; `found.n` counts the queries."""

    found: Bootstrap
    chance: float


def rank_measures(
    similarity: np.ndarray, search: Search, resamples: Resamples, *, recall_at: Sequence[int] = (1, 5, 10)
) -> dict[str, RankMeasure]:
    """ "recall@k" for each k, "r_precision" and "map_at_r", with their resamples.

    similarity: (Q, N), as of `cosines`. resamples: of `Search.draw`, of which the queries' weights count: one that was
    drawn w times counts w times. Raises FewlabelError for wrong shapes, and if no query has a right candidate to find.
    """
    check_search(similarity, search, resamples, recall_at)
    names = [*(f"recall@{k}" for k in recall_at), "r_precision", "map_at_r"]
    values, chances = np.full((2, len(names), len(similarity)), np.nan)
    for query, scores in enumerate(similarity):
        order = ranked(scores, search.allowed(query))
        places = np.flatnonzero(search.relevant[query][order])
        if len(places):
            values[:, query] = _measures(places, recall_at)
            chances[:, query] = _chances(len(places), len(order), recall_at)
    counting = ~np.isnan(values[0])
    if not counting.any():
        raise FewlabelError(
            "No query has a right candidate of another patient to find: give more images or classes with more patients."
        )
    weights = resamples.weights[:, : len(similarity)][:, counting].astype(np.float64)  # (draws, queries)
    total = weights.sum(axis=1)
    draws = np.divide(
        values[:, counting] @ weights.T, total, out=np.full((len(names), len(total)), np.nan), where=total > 0
    )
    return {
        name: RankMeasure(_bootstrap(of_queries, of_draws, resamples), float(np.nanmean(chance)))
        for name, of_queries, chance, of_draws in zip(names, values, chances, draws, strict=True)
    }


def _bootstrap(values: np.ndarray, draws: np.ndarray, resamples: Resamples) -> Bootstrap:
    """values: (Q,) of each query, NaN where it does not count. draws: (resamples,) their mean in each."""
    value, n = float(np.nanmean(values)), int(np.count_nonzero(~np.isnan(values)))
    source = (resamples.seed, *resamples.weights.shape, resamples.patients)
    return Bootstrap(value, np.array([value]), draws, n, resamples.patients, source)


def _measures(places: np.ndarray, recall_at: Sequence[int]) -> list[float]:
    """Measures of one query. places: (R,) of the right candidates in its ranking, from 0, the first first."""
    counting = places[places < len(places)]
    precisions = np.arange(1, len(counting) + 1) / (counting + 1)
    shares = (len(counting) / len(places), float(precisions.sum()) / len(places))
    return [*(float(places[0] < k) for k in recall_at), *shares]


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
