"""Cut points: the best there are, by trying all; grades and referable probabilities by hand."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabel.evaluation.metrics import quadratic_weighted_kappa
from fewlabel.tasks.grading import (
    Cuts,
    choose_cuts,
    expected_grade,
    halfway_cuts,
    likeliest_grade,
    referable_probability,
)
from fewlabel.types import FewlabelError


def kappa(y: np.ndarray, called: np.ndarray) -> float:
    return float(quadratic_weighted_kappa(y, called, np.ones((1, len(y))))[0])


def best_of_all(score: np.ndarray, y: np.ndarray, grades: int) -> float:
    """The highest kappa of every way to cut the scores."""
    values = np.unique(score)
    places = np.searchsorted(values, score)
    found = []
    for ends in combinations_with_replacement(range(len(values) + 1), grades - 1):
        found.append(kappa(y, np.searchsorted(np.array(ends), places, side="right")))
    return max(found)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), grades=st.sampled_from([3, 4]), ties=st.booleans())
def test_no_other_cuts_have_a_higher_kappa(seed: int, grades: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, grades, 12)
    y[:2] = 0, grades - 1
    p = rng.dirichlet(np.full(grades, 0.5), 12)
    if ties:
        p = p[rng.integers(0, 5, 12)]
    cuts = choose_cuts(p, y)
    assert np.isfinite(cuts.at).all()
    assert list(cuts.at) == sorted(cuts.at)
    score = expected_grade(p)
    assert kappa(y, cuts(p)) == pytest.approx(best_of_all(score, y, grades), abs=1e-9)
    assert kappa(y, cuts(p)) >= kappa(y, halfway_cuts(grades)(p)) - 1e-9


def test_worked_by_hand() -> None:
    """Too timid probabilities: nobody is expected above 1.2, and the cuts move down."""
    score = np.repeat([0.2, 0.6, 1.2], 4)
    p = np.stack([1 - score / 2, np.zeros(12), score / 2], axis=1)  # the expected grade is `score`
    y = np.repeat([0, 1, 2], 4)
    cuts = choose_cuts(p, y)
    assert cuts.at == pytest.approx((0.4, 0.9))
    assert cuts(p).tolist() == y.tolist()
    assert halfway_cuts(3)(p).tolist() == [0] * 4 + [1] * 8


def test_too_few_labels_to_choose() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(5), 30)
    assert choose_cuts(p[:9], np.arange(9) % 5) == halfway_cuts(5) == Cuts((0.5, 1.5, 2.5, 3.5))
    assert choose_cuts(p, np.full(30, 2)) == halfway_cuts(5)
    assert choose_cuts(p, np.arange(30) % 5) != halfway_cuts(5)


def test_grades_of_probabilities() -> None:
    p = np.array([[0.5, 0.0, 0.0, 0.0, 0.5], [0.1, 0.2, 0.4, 0.2, 0.1]])
    assert expected_grade(p).tolist() == [2.0, 2.0]
    assert likeliest_grade(p).tolist() == [0, 2]
    assert referable_probability(p, 2) == pytest.approx([0.5, 0.7])
    assert referable_probability(p[None], 3) == pytest.approx(np.array([[0.5, 0.3]]))
    assert halfway_cuts(5)(p).tolist() == [2, 2]
    assert Cuts((0.5, 1.5, 2.0, 3.0))(p).tolist() == [3, 3]  # a cut that is reached counts


def test_cuts_of_another_target_are_refused() -> None:
    with pytest.raises(FewlabelError, match="2 cuts came with probabilities of 5 grades"):
        Cuts((0.5, 1.5))(np.ones((1, 5)) / 5)
