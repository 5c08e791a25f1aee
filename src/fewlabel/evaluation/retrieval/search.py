"""Retrieval: candidates in the order of their similarity to a query, and how many of the first k are right.

Precision@k is the share of right candidates among the first k, averaged over queries; image to image, text to image and
image to text differ only in who is embedded. A candidate of the query's own patient is never a hit: it would be found
by the patient and not by the finding. Intervals draw patients with replacement, queries and candidates together, by
`evaluation.intervals`: whoever was drawn twice asks twice, and stands twice in the ranking of everybody else.

The protocol is that of ConVIRT's CheXpert 8x200 (Zhang et al. 2020, arXiv:2010.00747, section 3.2): of each class 10
images to ask with and 200 to find, which have no other class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewlabel.evaluation.intervals import Bootstrap, Resamples, draw_resamples
from fewlabel.types import FewlabelError, Metric

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
    _check(similarity, search, resamples, at)
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


def _check(similarity: np.ndarray, search: Search, resamples: Resamples, at: Sequence[int]) -> None:
    if similarity.shape != search.relevant.shape or resamples.weights.shape[1] != sum(similarity.shape):
        raise FewlabelError(
            f"Similarities are {similarity.shape}, relevance is {search.relevant.shape} and weights are "
            f"{resamples.weights.shape}: give (Q, N), (Q, N), and the resamples of this search."
        )
    if not np.isfinite(similarity).all():
        raise FewlabelError("Similarities hold NaN or infinity: embed the images and texts again.")
    if not at or min(at) < 1:
        raise FewlabelError(f"Precision was asked for at k = {list(at)}: give numbers from 1.")


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


@dataclass(frozen=True)
class Protocol:
    """Who asks and who is to be found, as many of each class.

    queries, candidates: row numbers, class by class; query_classes, candidate_classes: their classes.
    queries_per_class, candidates_per_class: how many there are of each; note: one sentence where these are fewer than
    were asked for, else "".
    """

    queries: np.ndarray
    candidates: np.ndarray
    query_classes: np.ndarray
    candidate_classes: np.ndarray
    queries_per_class: int
    candidates_per_class: int
    note: str = ""


def exclusive_classes(positive: np.ndarray) -> np.ndarray:
    """(N,) the one class of each image, -1 where it has none or several; positive: (N, C) bool.

    What is uncertain or not mentioned is not positive, as in CheXpert 8x200.
    """
    return np.where(positive.sum(axis=1) == 1, positive.argmax(axis=1), -1)


def draw_protocol(
    labels: np.ndarray,
    patients: np.ndarray,
    *,
    candidates_per_class: int = 200,
    queries_per_class: int = 10,
    seed: int,
    names: Sequence[str] = (),
) -> Protocol:
    """Draw queries and candidates, no patient on both sides.

    labels: (N,) class of each image from 0, -1 = not to be used, as of `exclusive_classes`. patients: (N,) codes.
    names: of the classes, by code, for what is said of them; none = their codes.
    Queries are images of different patients, of at most half of a class's patients. Where a class has fewer
    than were asked for, all classes get as few. Raises FewlabelError for fewer than two classes, or a class that has no
    candidate left.
    """
    classes = np.unique(labels[labels >= 0])
    if len(classes) < 2 or labels.shape != patients.shape or min(candidates_per_class, queries_per_class) < 1:
        raise FewlabelError(
            f"{len(classes)} class(es), labels {labels.shape}, patients {patients.shape}, {queries_per_class} queries "
            f"and {candidates_per_class} candidates: give two classes or more, the patient of each image, and numbers "
            "from 1."
        )
    rng = np.random.default_rng(seed)
    owners = [np.unique(patients[labels == c]) for c in classes]
    asking = min(queries_per_class, *(len(own) // 2 for own in owners))
    queries = np.concatenate(
        [
            _of_different_patients(labels == c, patients, own, asking, rng)
            for c, own in zip(classes, owners, strict=True)
        ]
    )
    free = ~np.isin(patients, patients[queries])
    left = [np.flatnonzero((labels == c) & free) for c in classes]
    finding = min(candidates_per_class, *(len(rows) for rows in left))
    candidates = np.concatenate([np.sort(rng.permutation(rows)[:finding]) for rows in left])
    rarest = min(range(len(left)), key=lambda i: (min(queries_per_class, len(owners[i]) // 2), len(left[i])))
    images = np.count_nonzero(labels == classes[rarest])
    called = names[classes[rarest]] if names else classes[rarest]
    there = f"Class {called} has {images} image(s) of {len(owners[rarest])} patient(s)"
    if not asking or not finding:
        raise FewlabelError(
            f"{there}, too few to ask with some and find others: leave this class out, or give more patients."
        )
    asked_for = (asking, finding) == (queries_per_class, candidates_per_class)
    note = (
        ""
        if asked_for
        else (
            f"{there}, so each class has {asking} queries and {finding} candidates instead of {queries_per_class} and "
            f"{candidates_per_class}."
        )
    )
    return Protocol(queries, candidates, labels[queries], labels[candidates], asking, finding, note)


def _of_different_patients(
    of_class: np.ndarray, patients: np.ndarray, owners: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Rows of `count` images of a class, each of another of its patients `owners`. of_class: (N,) bool."""
    asked = np.sort(rng.permutation(owners)[:count])
    drawn = [rng.choice(np.flatnonzero(of_class & (patients == patient))) for patient in asked]
    return np.array(drawn, dtype=np.int64)
