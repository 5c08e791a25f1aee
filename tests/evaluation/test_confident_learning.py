"""Confident learning: a case by hand, the paper's definitions by loops, and labels flipped on purpose."""

from __future__ import annotations

import numpy as np
import pytest

from fewlabel.evaluation.confident_learning import class_thresholds, confident_class, suspected
from fewlabel.types import FewlabelError

P = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6], [0.1, 0.9], [0.85, 0.15]])
Y = np.array([0, 0, 0, 1, 1, 1])


def test_a_case_by_hand() -> None:
    """t = ((.9 + .7 + .2) / 3, (.6 + .9 + .15) / 3) = (.6, .55): the third and the last count for the other class."""
    np.testing.assert_allclose(class_thresholds(P, Y), [0.6, 0.55])
    assert confident_class(P, np.array([0.6, 0.55])).tolist() == [0, 0, 1, 1, 1, 0]
    found = suspected(P, Y)
    assert found.positions.tolist() == [5, 2]
    assert found.suggested.tolist() == [0, 1]
    np.testing.assert_allclose(found.margin, [0.7, 0.6])


def test_against_loops_over_the_papers_definitions() -> None:
    rng = np.random.default_rng(0)
    p, y = rng.dirichlet([0.5] * 4, 80), rng.integers(0, 4, 80)
    expected = {}
    t = [sum(p[i][j] for i in range(80) if y[i] == j) / sum(y == j) for j in range(4)]
    for i in range(80):
        sure = [j for j in range(4) if p[i][j] >= t[j]]
        if sure:
            best = max(sure, key=lambda j: p[i][j])
            if best != y[i]:
                expected[i] = (best, p[i][best] - p[i][y[i]])
    found = suspected(p, y)
    assert len(expected) > 10
    order = sorted(expected, key=lambda i: -expected[i][1])
    assert found.positions.tolist() == order
    assert found.suggested.tolist() == [expected[i][0] for i in order]
    np.testing.assert_allclose(found.margin, [expected[i][1] for i in order])
    assert (np.diff(found.margin) <= 0).all()


def test_a_rare_class_that_nobody_is_sure_of_is_not_suspected_as_a_whole() -> None:
    """Of 100 images 5 are rare; their probability is 0.3, higher than elsewhere, but never above a half."""
    y = np.r_[np.zeros(95, dtype=int), np.ones(5, dtype=int)]
    rare = np.where(y == 1, 0.3, 0.03)
    rare[0], rare[95] = 0.4, 0.02
    found = suspected(np.column_stack([1 - rare, rare]), y)
    assert set(found.positions.tolist()) == {0, 95}
    assert (rare[96:] < 0.5).all()  # calling the likeliest class would have suspected all five


def test_rows_of_which_nothing_is_known_take_no_part() -> None:
    with_gap, y = np.vstack([[[np.nan, np.nan]], P]), np.r_[1, Y]
    found = suspected(with_gap, y)
    assert found.positions.tolist() == [6, 3]
    np.testing.assert_allclose(found.margin, [0.7, 0.6])


def test_a_class_without_labels_is_never_suggested_and_nothing_is_no_suspect() -> None:
    p = np.column_stack([P, np.full(6, 0.5)])
    assert 2 not in suspected(p, Y).suggested
    assert len(suspected(np.empty((0, 2)), np.empty(0, dtype=int)).positions) == 0


def test_flipped_labels_are_found_far_above_chance() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 2000)
    p = np.array([rng.dirichlet(np.where(np.arange(3) == k, 6.0, 1.0)) for k in truth])
    flipped = rng.random(2000) < 0.05
    y = np.where(flipped, (truth + rng.integers(1, 3, 2000)) % 3, truth)
    found = suspected(p, y).positions
    precision, recall = flipped[found].mean(), np.isin(np.flatnonzero(flipped), found).mean()
    assert recall > 0.6
    assert recall > 5 * len(found) / 2000  # as many drawn at random would find that share
    assert precision > 5 * flipped.mean()
    assert flipped[found[:30]].mean() > 0.9  # the likeliest come first


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(FewlabelError, match=r"probabilities are \(6, 2\) and labels \(5,\)"):
        suspected(P, Y[:5])
