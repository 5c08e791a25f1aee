"""Who asks, who may be found and who is right; candidates in the order of their similarity to a query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewlabel.evaluation.intervals import Resamples, draw_resamples
from fewlabel.types import FewlabelError

NO_PATIENT = -1
DECIMALS = 6
"""Cosines that agree to so many are a tie: what is below is rounding of float32."""


def cosines(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Cosines (Q, N) float64 of embeddings (Q, K) and (N, K), rounded to `DECIMALS`; 0 for a zero vector."""
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1]:
        raise FewlabelError(
            f"Queries are {queries.shape} and candidates {candidates.shape}: give embeddings (Q, K) and (N, K) of one "
            "model."
        )
    return np.round(_units(queries) @ _units(candidates).T, DECIMALS)


def _units(embeddings: np.ndarray) -> np.ndarray:
    exact = embeddings.astype(np.float64)
    return exact / np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class Search:
    """Who asks, who may be found, and who is right.

    relevant: (Q, N) bool, whether candidate n is right for query q.
    query_patients: (Q,), candidate_patients: (N,), integer codes of the same numbering; NO_PATIENT for what belongs to
        nobody, as a prompt does: it may be found by everybody, and no resample leaves it out.
    query_rows: (Q,), which candidate the query itself is, -1 = none; None = no query is among the candidates.
    exclude_patients: whether candidates of the query's own patient are left out.
    Raises FewlabelError for shapes that do not belong together.
    """

    relevant: np.ndarray
    query_patients: np.ndarray
    candidate_patients: np.ndarray
    query_rows: np.ndarray | None = None
    exclude_patients: bool = True

    def __post_init__(self) -> None:
        wanted = (len(self.query_patients), len(self.candidate_patients))
        rows = wanted[0] if self.query_rows is None else len(self.query_rows)
        if (
            self.relevant.shape != wanted
            or self.relevant.dtype != bool
            or not all(wanted)
            or rows != wanted[0]
        ):
            raise FewlabelError(
                f"relevant is {self.relevant.dtype} {self.relevant.shape} for {wanted[0]} queries and {wanted[1]} "
                "candidates: give bool (Q, N), and the patient of each of them."
            )

    @staticmethod
    def by_class(
        query_classes: np.ndarray,
        candidate_classes: np.ndarray,
        query_patients: np.ndarray,
        candidate_patients: np.ndarray,
        *,
        query_rows: np.ndarray | None = None,
        exclude_patients: bool = True,
    ) -> Search:
        """Right is who has the query's class; classes (Q,) and (N,), all from 0."""
        for classes in (query_classes, candidate_classes):
            if len(classes) and np.min(classes) < 0:
                raise FewlabelError(
                    f"{np.count_nonzero(np.asarray(classes) < 0)} queries or candidates have no class: leave them out."
                )
        relevant = np.asarray(query_classes)[:, None] == np.asarray(candidate_classes)
        return Search(relevant, query_patients, candidate_patients, query_rows, exclude_patients)

    def allowed(self, query: int) -> np.ndarray:
        """(N,) bool: who may be found by a query."""
        patient, candidates = self.query_patients[query], np.asarray(self.candidate_patients)
        same = (candidates == patient) & (patient != NO_PATIENT) & self.exclude_patients
        if self.query_rows is not None and self.query_rows[query] >= 0:
            same[self.query_rows[query]] = True
        return ~same

    def chance(self) -> float:
        """Precision of a random order: the share of right candidates among those allowed, averaged over queries.

        Queries that may find nobody do not count; NaN if there are only such.
        """
        shares = []
        for query, right in enumerate(self.relevant):
            allowed = self.allowed(query)
            if allowed.any():
                shares.append(right[allowed].mean())
        return float(np.mean(shares)) if shares else float("nan")

    def draw(self, *, resamples: int = 1000, seed: int) -> Resamples:
        """Draw patients; weights (R, Q + N), queries first. What belongs to nobody has weight 1.

        The same seed and patients give the same draws, so that encoders are compared on them in pairs. Raises
        FewlabelError if nothing belongs to a patient.
        """
        patients = np.concatenate([self.query_patients, self.candidate_patients])
        known = patients != NO_PATIENT
        drawn = draw_resamples(patients[known], resamples=resamples, seed=seed)
        weights = np.ones((resamples, len(patients)), dtype=drawn.weights.dtype)
        weights[:, known] = drawn.weights
        return Resamples(weights, drawn.patients, seed)


def ranked(similarity: np.ndarray, allowed: np.ndarray, depth: int | None = None) -> np.ndarray:
    """The most similar allowed candidates, best first; among equals the one of the lower number comes first.

    similarity: (N,). allowed: (N,) bool. depth: how many at most, None = all. Returns candidate numbers (M,).
    """
    rows = np.flatnonzero(allowed)
    scores = similarity[rows]
    if depth is not None and depth < len(rows):
        last = np.partition(scores, len(rows) - depth)[len(rows) - depth]
        kept = scores >= last
        rows, scores = rows[kept], scores[kept]
    return rows[np.argsort(-scores, kind="stable")][:depth]


def check_search(similarity: np.ndarray, search: Search, resamples: Resamples, at: Sequence[int]) -> None:
    """Raise FewlabelError unless these belong together and each k of `at` is a number from 1."""
    if similarity.shape != search.relevant.shape or resamples.weights.shape[1] != sum(similarity.shape):
        raise FewlabelError(
            f"Similarities are {similarity.shape}, relevance is {search.relevant.shape} and weights are "
            f"{resamples.weights.shape}: give (Q, N), (Q, N), and the resamples of this search."
        )
    if not np.isfinite(similarity).all():
        raise FewlabelError("Similarities hold NaN or infinity: embed the images and texts again.")
    if not at or min(at) < 1:
        raise FewlabelError(f"Measures were asked for at k = {list(at)}: give numbers from 1.")
