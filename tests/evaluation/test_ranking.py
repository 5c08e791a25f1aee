"""Recall@k, R-precision and MAP@R: cases by hand, every resample by loops, chance by all orders."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from fewlabel.evaluation.intervals import Resamples, paired_difference
from fewlabel.evaluation.retrieval import Search, cosines, rank_measures
from fewlabel.types import FewlabelError

NAMES = ["recall@1", "recall@5", "recall@10", "r_precision", "map_at_r"]


def of_ranking(right: list[bool]) -> list[float] | None:
    """The five measures of one ranking, best first; None without a right one."""
    r = sum(right)
    if not r:
        return None
    precision = [sum(right[: i + 1]) / (i + 1) for i in range(len(right))]
    map_at_r = sum(precision[i] for i in range(r) if right[i]) / r
    return [*(float(any(right[:k])) for k in (1, 5, 10)), sum(right[:r]) / r, map_at_r]


def by_loops(similarity: np.ndarray, search: Search, weights: np.ndarray) -> np.ndarray:
    """Each query's list is sorted, and it counts as often as it was drawn."""
    queries = len(similarity)
    total, count = np.zeros(5), 0
    for q in range(queries):
        listed = []
        for n in range(similarity.shape[1]):
            own = search.exclude_patients and search.query_patients[q] == search.candidate_patients[n]
            itself = search.query_rows is not None and search.query_rows[q] == n
            if not itself and not own:
                listed.append((-similarity[q, n], n))
        found = of_ranking([bool(search.relevant[q, n]) for _, n in sorted(listed)])
        if found is not None:
            total += int(weights[q]) * np.array(found)
            count += int(weights[q])
    return total / count if count else np.full(5, np.nan)


def made_search(seed: int = 0, images: int = 40, classes: int = 4, **more: bool) -> tuple[np.ndarray, Search]:
    """Images that ask for each other, of half as many patients."""
    rng = np.random.default_rng(seed)
    codes, owners = rng.integers(0, classes, images), rng.integers(0, images // 2, images)
    z = 2 * np.eye(classes, 6)[codes] + rng.normal(size=(images, 6))
    rows = np.arange(images)
    return cosines(z, z), Search.by_class(codes, codes, owners, owners, query_rows=rows, **more)


@pytest.mark.parametrize("exclude_patients", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_every_resample_is_the_measure_by_loops(ties: bool, exclude_patients: bool) -> None:
    similarity, search = made_search(exclude_patients=exclude_patients)
    similarity = np.round(similarity, 1) if ties else similarity
    drawn = search.draw(resamples=25, seed=3)
    found = rank_measures(similarity, search, drawn)
    assert list(found) == NAMES
    plain = by_loops(similarity, search, np.ones(80))
    wanted = np.array([by_loops(similarity, search, weights) for weights in drawn.weights])
    for place, measure in enumerate(found.values()):
        assert measure.found.value == pytest.approx(plain[place])
        np.testing.assert_allclose(measure.found.draws, wanted[:, place], rtol=1e-9)


def test_cases_by_hand() -> None:
    """Musgrave's point: R-precision sees which ten are found, MAP@R also in which order.

    Ten right ones: found at places 1 and 2 only, or at 9 and 10 only.
    """
    right = np.zeros((2, 30), dtype=bool)
    right[0, [0, 1, *range(20, 28)]] = True
    right[1, [8, 9, *range(20, 28)]] = True
    similarity = np.tile(np.linspace(1, 0, 30), (2, 1))
    values = []
    for q in range(2):
        search = Search(right[q : q + 1], np.array([99]), np.arange(30))
        found = rank_measures(similarity[:1], search, search.draw(resamples=5, seed=0))
        values.append([measure.found.value for measure in found.values()])
    assert values[0] == pytest.approx([1, 1, 1, 2 / 10, (1 + 1) / 10])
    assert values[1] == pytest.approx([0, 0, 1, 2 / 10, (1 / 9 + 2 / 10) / 10])


@pytest.mark.filterwarnings("ignore:the test set holds")
def test_a_resample_by_hand() -> None:
    """Two queries, R W R and W R: drawn once each, the first alone three times, and neither."""
    relevant = np.array([[True, False, True], [False, True, False]])
    similarity = np.array([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7]])
    search = Search(relevant, np.array([8, 9]), np.arange(3))
    weights = np.array([[1, 1, 2, 0, 1], [3, 0, 1, 1, 1], [0, 0, 1, 1, 1]], dtype=np.uint16)
    found = rank_measures(similarity, search, Resamples(weights, 5, 0), recall_at=(1, 2))
    np.testing.assert_allclose(found["map_at_r"].found.draws, [(1 / 2 + 0) / 2, 1 / 2, np.nan])
    np.testing.assert_allclose(found["recall@1"].found.draws, [1 / 2, 1, np.nan])
    np.testing.assert_allclose(found["recall@2"].found.draws, [1, 1, np.nan])
    assert found["r_precision"].found.value == pytest.approx((1 / 2 + 0) / 2)


def test_an_interval_holds_the_value_also_where_few_may_be_found() -> None:
    """Were candidates drawn with the queries, recall@5 of most draws would be too low."""
    similarity, search = made_search(seed=2, images=60)
    found = rank_measures(np.random.default_rng(5).normal(size=similarity.shape), search, search.draw(seed=0))
    for measure in found.values():
        low, high = measure.found.interval()
        assert low <= measure.found.value <= high
        assert np.nanmean(measure.found.draws) == pytest.approx(measure.found.value, abs=0.03)


@pytest.mark.parametrize(("right", "candidates"), [(1, 5), (2, 5), (4, 5), (5, 5)])
def test_chance_is_the_mean_over_all_orders(right: int, candidates: int) -> None:
    classes = np.arange(candidates) < right
    orders = [of_ranking([bool(classes[i]) for i in order]) for order in permutations(range(candidates))]
    wanted = np.array([found for found in orders if found is not None]).mean(axis=0)
    search = Search(classes[None], np.array([99]), np.arange(candidates))
    with pytest.warns(UserWarning, match="the test set holds"):
        drawn = search.draw(resamples=2, seed=0)
    found = rank_measures(np.zeros((1, candidates)), search, drawn)
    assert [measure.chance for measure in found.values()] == pytest.approx(wanted.tolist())


def test_the_own_patient_is_neither_found_nor_counted_among_the_right() -> None:
    """Each image has a twin of its own patient, which would be found first, and one other image of its class."""
    owners = np.repeat(np.arange(12), 2)
    classes = owners // 2  # two patients a class
    z = np.random.default_rng(0).normal(size=(12, 8))[owners] + 1e-3 * np.arange(24)[:, None]
    rows = np.arange(24)
    leaking, honest = (
        Search.by_class(classes, classes, owners, owners, query_rows=rows, exclude_patients=exclude)
        for exclude in (False, True)
    )
    similarity = cosines(z, z)
    found = [
        rank_measures(similarity, search, search.draw(resamples=20, seed=0))["recall@1"]
        for search in (leaking, honest)
    ]
    assert found[0].found.value == 1
    assert found[1].found.value < 0.5
    assert found[1].chance == pytest.approx(2 / 22)


def test_two_encoders_are_compared_in_pairs() -> None:
    similarity, search = made_search(images=60)
    drawn = search.draw(resamples=200, seed=0)
    good = rank_measures(similarity, search, drawn)["map_at_r"]
    noise = np.random.default_rng(1).normal(size=similarity.shape)
    bad = rank_measures(noise, search, drawn)["map_at_r"]
    difference = paired_difference(good.found, bad.found)
    assert difference.low > 0
    assert bad.found.value == pytest.approx(bad.chance, abs=0.05)
    low, high = good.found.interval()
    assert low < good.found.value < high


def test_mistakes_are_named() -> None:
    similarity, search = made_search()
    drawn = search.draw(resamples=3, seed=0)
    with pytest.raises(FewlabelError, match="numbers from 1"):
        rank_measures(similarity, search, drawn, recall_at=(0,))
    with pytest.raises(FewlabelError, match=r"Similarities are \(40, 39\)"):
        rank_measures(similarity[:, 1:], search, drawn)
    nobody = Search(np.zeros_like(search.relevant), search.query_patients, search.candidate_patients)
    with pytest.raises(FewlabelError, match="No query has a right candidate"):
        rank_measures(similarity, nobody, drawn)
