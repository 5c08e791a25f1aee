"""Retrieval: ranking and precision by loops, own patients left out, intervals, the drawing of a protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fewlabel.evaluation.intervals import Resamples, paired_difference
from fewlabel.evaluation.retrieval import (
    NO_PATIENT,
    Search,
    cosines,
    draw_protocol,
    exclusive_classes,
    precision_at,
    ranked,
)
from fewlabel.types import FewlabelError

Found = tuple[float, np.ndarray]


def _study(
    seed: int = 0, queries: int = 12, candidates: int = 60, patients: int = 15, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray, Search]:
    """Embeddings of queries (Q, 6) and candidates (N, 6), three classes, patients on both sides."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 3, queries), rng.integers(0, 3, candidates)
    centres = np.eye(3, 6) * 2
    q, c = (centres[one] + noise * rng.normal(size=(len(one), 6)) for one in classes)
    owners = rng.integers(0, patients, queries), rng.integers(0, patients, candidates)
    return q, c, Search.by_class(*classes, *owners)


def _by_loops(similarity: np.ndarray, search: Search, weights: np.ndarray, k: int) -> float:
    """Precision@k of one resample: everybody who was drawn is written down as often as that, and the list is sorted."""
    queries = len(similarity)
    found = []
    for q in range(queries):
        listed = []
        for n in range(similarity.shape[1]):
            own = search.exclude_patients and search.query_patients[q] == search.candidate_patients[n]
            itself = search.query_rows is not None and search.query_rows[q] == n
            if not itself and not (own and search.query_patients[q] != NO_PATIENT):
                listed += [(-similarity[q, n], n)] * int(weights[queries + n])
        first = sorted(listed)[:k]
        if len(first) == k:
            found += [sum(search.relevant[q, n] for _, n in first) / k] * int(weights[q])
    return sum(found) / len(found) if found else float("nan")


def _precision(similarity: np.ndarray, search: Search, k: int = 5, **drawing: Any) -> Found:
    drawn = search.draw(**{"resamples": 20, "seed": 0, **drawing})
    result = precision_at(similarity, search, drawn, at=(k,)).precision[k]
    return result.value, result.draws


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("exclude_patients", [False, True])
@pytest.mark.parametrize("as_text", [False, True])
def test_every_resample_is_the_precision_by_loops(ties: bool, exclude_patients: bool, as_text: bool) -> None:
    q, c, search = _study()
    nobody = np.full(len(q), NO_PATIENT)
    rows = None if as_text else np.arange(len(q))
    owners = nobody if as_text else search.query_patients
    search = Search(search.relevant, owners, search.candidate_patients, rows, exclude_patients)
    similarity = np.round(cosines(q, c), 1 if ties else 6)
    drawn = search.draw(resamples=40, seed=3)
    found = precision_at(similarity, search, drawn, at=(1, 5, 30))
    everybody = np.ones(len(q) + len(c))
    assert (len(c) > len(np.unique(similarity))) == ties
    for k, precision in found.precision.items():
        assert precision.value == pytest.approx(_by_loops(similarity, search, everybody, k))
        wanted = [_by_loops(similarity, search, weights, k) for weights in drawn.weights]
        np.testing.assert_allclose(precision.draws, wanted, rtol=1e-6)


def test_the_deep_end_of_a_ranking_is_looked_at_where_a_resample_needs_it() -> None:
    """Forty images of one patient come first; a resample without that patient has to look behind them."""
    owners = np.repeat([0, 1, 2, 3], [40, 4, 4, 4])
    similarity = np.linspace(1, 0, len(owners))[None]
    search = Search(np.array([owners > 1]), np.array([9]), owners)
    weights = np.ones((2, 1 + len(owners)), dtype=np.uint16)
    weights[1, 1:41] = 0
    found = precision_at(similarity, search, Resamples(weights, 5, 0), at=(8,)).precision[8]
    np.testing.assert_allclose(found.draws, [0, 0.5])


def test_a_case_by_hand() -> None:
    """Ranking 0 1 2 3, of which 0 and 3 are right, and 1 is of the query's own patient."""
    similarity = np.array([[0.9, 0.8, 0.7, 0.6]])
    search = Search(np.array([[True, False, False, True]]), np.array([5]), np.array([1, 5, 2, 3]))
    assert search.chance() == pytest.approx(2 / 3)
    assert search.allowed(0).tolist() == [True, False, True, True]
    weights = np.array([[1, 1, 1, 1, 1], [1, 0, 2, 1, 2], [1, 3, 1, 0, 0]], dtype=np.uint16)
    found = precision_at(similarity, search, Resamples(weights, 4, 0), at=(2, 3)).precision
    assert (found[2].value, found[3].value) == (pytest.approx(1 / 2), pytest.approx(2 / 3))
    np.testing.assert_allclose(found[2].draws, [1 / 2, 1 / 2, 1])
    np.testing.assert_allclose(found[3].draws, [2 / 3, 2 / 3, 1])


def test_the_own_patient_would_be_found_and_is_not() -> None:
    """Every image is like the others of its patient and like nobody else; patients have both classes."""
    rng = np.random.default_rng(0)
    owners = np.repeat(np.arange(20), 6)
    classes = np.repeat(np.arange(20) % 2, 6)
    images = rng.normal(size=(20, 16))[owners] + 0.01 * rng.normal(size=(120, 16))
    similarity, rows = cosines(images, images), np.arange(120)
    by_patient = [
        Search.by_class(classes, classes, owners, owners, query_rows=rows, exclude_patients=exclude)
        for exclude in (False, True)
    ]
    leaking, honest = (_precision(similarity, search)[0] for search in by_patient)
    assert leaking == 1
    assert honest < 0.75
    assert by_patient[1].chance() == pytest.approx(54 / 114)


def test_a_query_never_finds_itself() -> None:
    owners = np.arange(12)
    similarity = np.eye(12)
    for exclude in (False, True):
        search = Search(np.eye(12, dtype=bool), owners, owners, owners, exclude)
        assert _precision(similarity, search, k=1)[0] == 0
    alone = Search(np.eye(12, dtype=bool), owners, owners, exclude_patients=False)
    assert _precision(similarity, alone, k=1)[0] == 1


def test_the_order_of_queries_and_candidates_does_not_matter() -> None:
    q, c, search = _study()
    rng = np.random.default_rng(5)
    a, b = rng.permutation(len(q)), rng.permutation(len(c))
    moved = Search(search.relevant[a][:, b], search.query_patients[a], search.candidate_patients[b])
    similarity = cosines(q, c)
    drawn = search.draw(resamples=30, seed=1)
    weights = np.concatenate([drawn.weights[:, a], drawn.weights[:, len(q) + b]], axis=1)
    first = precision_at(similarity, search, drawn)
    again = precision_at(similarity[a][:, b], moved, Resamples(weights, drawn.patients, 1))
    assert first.chance == pytest.approx(again.chance)
    for k in (5, 10):
        assert first.precision[k].value == pytest.approx(again.precision[k].value)
        np.testing.assert_allclose(first.precision[k].draws, again.precision[k].draws, rtol=1e-6)


@pytest.mark.parametrize("depth", [None, 1, 4, 9, 50])
def test_a_cut_ranking_is_the_beginning_of_the_whole(depth: int | None) -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        similarity = rng.integers(0, 4, 20) / 4
        allowed = rng.random(20) < 0.7
        whole = sorted(np.flatnonzero(allowed), key=lambda n: (-similarity[n], n))
        assert ranked(similarity, allowed, depth).tolist() == whole[:depth]


def test_what_belongs_to_nobody_is_found_by_everybody() -> None:
    search = Search(np.ones((2, 3), dtype=bool), np.array([NO_PATIENT, 1]), np.array([NO_PATIENT, 1, 2]))
    assert [search.allowed(q).tolist() for q in range(2)] == [[True] * 3, [True, False, True]]


def test_a_query_that_may_find_nobody_does_not_count_for_chance() -> None:
    relevant = np.array([[True, False], [True, True]])
    assert Search(relevant, np.array([1, 2]), np.array([2, 2])).chance() == 0.5
    assert np.isnan(Search(relevant, np.array([2, 2]), np.array([2, 2])).chance())


@pytest.mark.filterwarnings("ignore:the test set holds")
def test_queries_with_too_few_candidates_do_not_count() -> None:
    """The second query may find three, since all others are of its patient."""
    owners = np.repeat([1, 2, 3, 4, 5], [1, 1, 1, 5, 5])
    relevant = np.ones((2, 13), dtype=bool)
    relevant[1] = False
    similarity = np.random.default_rng(0).random((2, 13))
    search = Search(relevant, np.array([9, 4]), owners)
    found = precision_at(similarity, search, search.draw(resamples=50, seed=0), at=(5, 10))
    assert found.left_out == {5: 0, 10: 1}
    assert (found.precision[5].value, found.precision[10].value) == (0.5, 1)
    assert (found.precision[5].n, found.precision[10].n) == (2, 1)
    assert np.isnan(found.precision[10].draws).any()
    with pytest.raises(FewlabelError, match="No query has 14 candidates"):
        precision_at(similarity, search, search.draw(resamples=5, seed=0), at=(14,))


def test_queries_and_candidates_of_a_patient_are_drawn_together() -> None:
    search = Search(
        np.ones((3, 14), dtype=bool),
        np.array([0, 1, NO_PATIENT]),
        np.array([0, 0, 1, NO_PATIENT, *range(2, 12)]),
    )
    drawn = search.draw(resamples=200, seed=0)
    w = drawn.weights
    np.testing.assert_array_equal(w[:, 0], w[:, 3])
    np.testing.assert_array_equal(w[:, 3], w[:, 4])
    np.testing.assert_array_equal(w[:, 1], w[:, 5])
    assert (w[:, 2] == 1).all()
    assert (w[:, 6] == 1).all()
    assert drawn.patients == 12
    np.testing.assert_array_equal(w[:, [0, 1, *range(7, 17)]].sum(axis=1), 12)


def _alike_within_patients(patients: int) -> tuple[np.ndarray, Search]:
    """Similarity of 60 queries and 600 candidates; a patient's images have one class and lie close together."""
    rng = np.random.default_rng(2)
    owners = np.arange(60) % patients, np.arange(600) % patients
    place = np.eye(3, 6)[np.arange(patients) % 3] + rng.normal(size=(patients, 6))
    q, c = (place[own] + 0.3 * rng.normal(size=(len(own), 6)) for own in owners)
    return cosines(q, c), Search.by_class(owners[0] % 3, owners[1] % 3, *owners)


def test_intervals_hold_the_value_and_grow_where_patients_are_few() -> None:
    widths = []
    for patients in (30, 300):
        similarity, search = _alike_within_patients(patients)
        found = precision_at(similarity, search, search.draw(resamples=300, seed=0))
        for metric in found.metrics():
            assert metric.low < metric.value < metric.high
            assert (metric.n, metric.patients) == (60, patients)
        assert [metric.name for metric in found.metrics()] == ["precision@5", "precision@10", "precision@50"]
        widths.append(np.ptp(found.precision[10].interval()))
    assert widths[0] > 1.3 * widths[1]


def test_an_order_that_knows_nothing_is_at_chance() -> None:
    _, _, search = _study(3, queries=200, candidates=900, patients=300)
    similarity = np.random.default_rng(0).random((200, 900))
    found = precision_at(similarity, search, search.draw(resamples=200, seed=0))
    for metric in found.metrics():
        assert metric.low < found.chance < metric.high


def test_encoders_are_compared_on_the_same_resamples() -> None:
    q, c, search = _study(4, queries=60, candidates=300, patients=80)
    noise = np.random.default_rng(0).normal(size=(300, 6))
    good, poor = (
        precision_at(cosines(q, one), search, search.draw(resamples=200, seed=0)).precision[10]
        for one in (c, noise)
    )
    gap = paired_difference(good, poor)
    assert gap.low > 0
    assert gap.value == pytest.approx(good.value - poor.value)
    other = precision_at(cosines(q, c), search, search.draw(resamples=200, seed=1)).precision[10]
    with pytest.raises(FewlabelError, match="resampled apart"):
        paired_difference(good, other)


def test_cosines() -> None:
    found = cosines(
        np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[1.0, 0.0], [-6.0, -8.0]], dtype=np.float32)
    )
    assert found.tolist() == [[0.6, -1.0], [0.0, 0.0]]


def _mistake(name: str) -> None:
    q, c, search = _study()
    drawn = search.draw(resamples=3, seed=0)
    similarity = cosines(q, c)
    if name == "width":
        cosines(q, c[:, :3])
    if name == "relevance":
        Search(search.relevant.T, search.query_patients, search.candidate_patients)
    if name == "counts":
        Search(search.relevant.astype(int), search.query_patients, search.candidate_patients)
    if name == "rows":
        Search(search.relevant, search.query_patients, search.candidate_patients, np.arange(3))
    if name == "no class":
        Search.by_class(np.array([0, -1]), np.array([0, 1]), np.arange(2), np.arange(2))
    if name == "shape":
        precision_at(similarity.T, search, drawn)
    if name == "nan":
        precision_at(similarity * np.nan, search, drawn)
    if name == "k":
        precision_at(similarity, search, drawn, at=(0, 5))
    if name == "weights":
        precision_at(similarity, search, Resamples(drawn.weights[:, 1:], 3, 0))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("width", "of one model"),
        ("relevance", r"for 12 queries and 60 candidates: give bool \(Q, N\)"),
        ("counts", "relevant is int64"),
        ("rows", "for 12 queries"),
        ("no class", "1 queries or candidates have no class"),
        ("shape", "the resamples of this search"),
        ("nan", "NaN or infinity"),
        ("k", "give numbers from 1"),
        ("weights", "the resamples of this search"),
    ],
)
def test_mistakes_are_said(name: str, said: str) -> None:
    with pytest.raises(FewlabelError, match=said):
        _mistake(name)


def _labels(sizes: Sequence[int], per_patient: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Classes of so many images, shuffled, some without a class; a patient has several images of any class."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.concatenate([np.repeat(np.arange(len(sizes)), sizes), np.full(40, -1)]))
    return labels, rng.integers(0, len(labels) // per_patient, len(labels))


def test_a_protocol_has_as_many_of_each_class_and_no_patient_twice() -> None:
    labels, patients = _labels((300, 400, 500))
    drawn = draw_protocol(labels, patients, candidates_per_class=150, queries_per_class=10, seed=0)
    assert drawn.note == ""
    assert np.bincount(drawn.query_classes).tolist() == [10, 10, 10]
    assert np.bincount(drawn.candidate_classes).tolist() == [150, 150, 150]
    np.testing.assert_array_equal(drawn.query_classes, labels[drawn.queries])
    np.testing.assert_array_equal(drawn.candidate_classes, labels[drawn.candidates])
    assert len({*drawn.candidates}) == 450
    assert not {*patients[drawn.queries]} & {*patients[drawn.candidates]}
    for c in range(3):
        assert len({*patients[drawn.queries[drawn.query_classes == c]]}) == 10
    again, other = (draw_protocol(labels, patients, candidates_per_class=150, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(drawn.candidates, again.candidates)
    assert not np.array_equal(drawn.queries, other.queries)


def test_the_papers_numbers_are_the_defaults() -> None:
    labels = np.repeat(np.arange(8), 210)
    drawn = draw_protocol(labels, np.arange(len(labels)), seed=0)
    assert (drawn.queries_per_class, drawn.candidates_per_class) == (10, 200)
    search = Search.by_class(drawn.query_classes, drawn.candidate_classes, drawn.queries, drawn.candidates)
    assert search.chance() == pytest.approx(1 / 8)


@pytest.mark.parametrize(
    ("rare", "asking", "finding"), [(60, 10, 50), (12, 6, 6), (7, 3, 4), (2, 1, 1), (209, 10, 199)]
)
def test_the_rarest_class_tells_how_many_all_have(rare: int, asking: int, finding: int) -> None:
    labels = np.repeat([0, 5, 7], [300, rare, 400])
    drawn = draw_protocol(labels, np.arange(len(labels)), seed=0)
    assert (drawn.queries_per_class, drawn.candidates_per_class) == (asking, finding)
    assert np.bincount(drawn.query_classes)[[0, 5, 7]].tolist() == [asking] * 3
    assert np.bincount(drawn.candidate_classes)[[0, 5, 7]].tolist() == [finding] * 3
    assert drawn.note == (
        f"Class 5 has {rare} image(s) of {rare} patient(s), so each class has {asking} queries and {finding} "
        "candidates instead of 10 and 200."
    )


def test_a_protocol_that_cannot_be_drawn() -> None:
    labels = np.repeat([0, 1], [30, 5])
    with pytest.raises(FewlabelError, match="Class edema has 5"):
        draw_protocol(labels, np.minimum(np.arange(35), 30), seed=0, names=("effusion", "edema"))
    with pytest.raises(FewlabelError, match=r"Class 1 has 5 image\(s\) of 1 patient\(s\), too few to ask"):
        draw_protocol(labels, np.minimum(np.arange(35), 30), seed=0)
    with pytest.raises(FewlabelError, match=r"1 class\(es\)"):
        draw_protocol(np.zeros(9, dtype=int), np.arange(9), seed=0)
    with pytest.raises(FewlabelError, match="numbers from 1"):
        draw_protocol(labels, np.arange(35), queries_per_class=0, seed=0)


def test_a_class_whose_patients_all_ask_for_others_is_refused() -> None:
    labels, patients = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    said = set()
    for seed in range(10):
        try:
            drawn = draw_protocol(labels, patients, seed=seed)
            said.add("")
            assert not {*patients[drawn.queries]} & {*patients[drawn.candidates]}
        except FewlabelError as error:
            said.add(str(error))
    assert {"", next(one for one in said if "2 image(s) of 2 patient(s), too few" in one)} == said


def test_exclusive_classes() -> None:
    positive = np.array([[1, 0, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0]], dtype=bool)
    assert exclusive_classes(positive).tolist() == [0, 2, -1, -1]
