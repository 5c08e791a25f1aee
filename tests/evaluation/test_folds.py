"""Measures over folds: the mean of the folds against the same by hand, pooled outputs, and what the intervals hold."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fewlabel.evaluation.folds import joined, over_folds
from fewlabel.evaluation.intervals import Resamples, draw_resamples
from fewlabel.evaluation.metrics import auroc, balanced_accuracy

Study = tuple[list[np.ndarray], list[np.ndarray], list[Resamples]]


def _study(shift: float, folds: int = 3, n: int = 80) -> Study:
    """y, scores (2 seeds) and draws of each fold; fold k's scores lie `shift` * k higher, as of another scale."""
    rng = np.random.default_rng(0)
    y = [np.arange(n) % 2 for _ in range(folds)]
    scores = [one + rng.normal(size=(2, n)) + shift * k for k, one in enumerate(y)]
    drawn = [draw_resamples(np.arange(n) // 2, resamples=100, seed=k) for k in range(folds)]
    return y, scores, drawn


def test_the_mean_is_of_the_folds_and_pooled_is_of_all_outputs() -> None:
    y, scores, drawn = _study(0.5)
    found = over_folds(auroc, y, scores, drawn)
    by_hand = [np.mean([roc_auc_score(t, s) for s in ss]) for t, ss in zip(y, scores, strict=True)]
    assert [one.value for one in found.folds] == pytest.approx(by_hand)
    assert found.mean.value == pytest.approx(np.mean(by_hand))
    assert found.spread == pytest.approx(np.std(by_hand, ddof=1))
    pooled = [roc_auc_score(np.concatenate(y), np.concatenate([s[i] for s in scores])) for i in (0, 1)]
    assert found.pooled.value == pytest.approx(np.mean(pooled))
    assert (found.mean.n, found.mean.patients) == (found.pooled.n, found.pooled.patients) == (240, 120)


def test_scales_that_differ_move_the_pooled_figure_alone() -> None:
    alike, unlike = (over_folds(auroc, *_study(shift)) for shift in (0.0, 5.0))
    assert unlike.mean.value == pytest.approx(alike.mean.value)
    assert alike.pooled.value == pytest.approx(alike.mean.value, abs=0.03)
    assert unlike.pooled.value < alike.pooled.value - 0.1


def test_a_mean_over_images_is_the_same_either_way() -> None:
    y, scores, drawn = _study(0.0)
    found = over_folds(balanced_accuracy, y, [score > 0.5 for score in scores], drawn)
    assert found.pooled.value == pytest.approx(found.mean.value)


def test_the_interval_is_that_of_all_patients_and_not_of_one_fold() -> None:
    found = over_folds(auroc, *_study(0.0))
    low, high = found.mean.interval()
    assert low < found.mean.value < high
    widths = [np.ptp(one.interval()) for one in found.folds]
    assert high - low == pytest.approx(np.mean(widths) / np.sqrt(3), rel=0.25)


def test_patients_are_drawn_within_their_fold() -> None:
    drawn = joined([draw_resamples(np.arange(12), resamples=30, seed=k) for k in range(2)])
    assert drawn.weights.shape == (30, 24)
    assert drawn.patients == 24
    assert (drawn.weights[:, :12].sum(axis=1) == 12).all()
    assert not np.array_equal(drawn.weights[:, :12], drawn.weights[:, 12:])
