"""Every measure against scikit-learn with sample weights, and each by hand."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from fewlabel.evaluation import metrics
from fewlabel.types import FewlabelError

ONE = np.ones((1, 4))
Y = np.array([0, 0, 1, 1])


@st.composite
def cases(draw: st.DrawFn, classes: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth (N,), scores (N, K) in [0, 1] on a coarse grid (ties are common), integer weights (3, N)."""
    n = draw(st.integers(8, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    y = rng.permutation(np.arange(n) % classes)
    scores = rng.integers(0, draw(st.sampled_from([2, 5, 50])), (n, classes)) + 1.0
    weights = rng.integers(0, 4, (3, n))
    weights[:, [int(np.flatnonzero(y == k)[0]) for k in range(classes)]] += 1  # every class drawn
    return y, scores / scores.sum(axis=1, keepdims=True), weights


def _matches(ours: np.ndarray, theirs: list[float]) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_binary_measures_equal_scikit_learn(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    y, scores, weights = case
    p = scores[:, 1]
    called = p > 0.5
    _matches(metrics.auroc(y, p, weights), [sk.roc_auc_score(y, p, sample_weight=w) for w in weights])
    _matches(
        metrics.average_precision(y, p, weights),
        [sk.average_precision_score(y, p, sample_weight=w) for w in weights],
    )
    _matches(metrics.brier(y, p, weights), [sk.brier_score_loss(y, p, sample_weight=w) for w in weights])
    _matches(
        metrics.balanced_accuracy(y, called, weights),
        [sk.balanced_accuracy_score(y, called, sample_weight=w) for w in weights],
    )
    for w, ours in zip(weights, metrics.sensitivity_at_specificity(y, p, weights), strict=True):
        fpr, tpr, _ = sk.roc_curve(y, p, sample_weight=w, drop_intermediate=False)
        assert ours == pytest.approx(tpr[fpr <= 0.1 + 1e-9].max())


@settings(max_examples=40, deadline=None)
@given(cases())
def test_calibration_error_equals_scikit_learns_bins(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    y, scores, weights = case
    p = np.round(scores[:, 1], 1)  # on the edges of the bins
    for w, ours in zip(weights, metrics.expected_calibration_error(y, p, weights), strict=True):
        truth, mean = calibration_curve(np.repeat(y, w), np.repeat(p, w), n_bins=10)
        share = np.histogram(np.searchsorted(np.linspace(0, 1, 11)[1:-1], np.repeat(p, w)), np.arange(11))[0]
        expected = (np.abs(truth - mean) * share[share > 0]).sum() / share.sum()
        assert ours == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(cases(classes=4))
def test_multiclass_measures_equal_scikit_learn(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    y, scores, weights = case
    called = scores.argmax(axis=1)
    truth = np.eye(4)[y]
    _matches(
        metrics.macro_auroc(y, scores, weights),
        [sk.roc_auc_score(truth, scores, average="macro", sample_weight=w) for w in weights],
    )
    _matches(
        metrics.macro_average_precision(y, scores, weights),
        [sk.average_precision_score(truth, scores, average="macro", sample_weight=w) for w in weights],
    )
    _matches(
        metrics.balanced_accuracy(y, called, weights),
        [sk.balanced_accuracy_score(y, called, sample_weight=w) for w in weights],
    )
    _matches(
        metrics.multiclass_brier(y, scores, weights),
        [np.average(((scores - truth) ** 2).sum(axis=1), weights=w) for w in weights],
    )
    _matches(
        metrics.log_loss(y, scores, weights),
        [sk.log_loss(y, scores, sample_weight=w, labels=range(4)) for w in weights],
    )
    kappas = [
        sk.cohen_kappa_score(y, called, weights="quadratic", sample_weight=w, labels=range(4))
        for w in weights
    ]
    np.testing.assert_allclose(metrics.quadratic_weighted_kappa(y, called, weights), kappas, atol=1e-9)
    np.testing.assert_allclose(
        metrics.top_label_calibration_error(y, scores, weights),
        metrics.expected_calibration_error(called == y, scores.max(axis=1), weights),
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 1e6]))
def test_regression_measures_equal_scikit_learn(seed: int, offset: float) -> None:
    rng = np.random.default_rng(seed)
    y, error = offset + rng.normal(size=30), rng.normal(size=30)
    weights = rng.integers(0, 4, (3, 30))
    _matches(
        metrics.mean_absolute_error(y, y + error, weights),
        [sk.mean_absolute_error(y, y + error, sample_weight=w) for w in weights],
    )
    np.testing.assert_allclose(
        metrics.r_squared(y, y + error, weights),
        [sk.r2_score(y, y + error, sample_weight=w) for w in weights],
        rtol=1e-6,
    )


def test_auroc_by_hand() -> None:
    score = np.array([0.1, 0.4, 0.4, 0.8])  # pairs: 1 + 1/2 + 1 + 1 of 4
    assert metrics.auroc(Y, score, ONE) == pytest.approx([3.5 / 4])
    assert metrics.auroc(Y, score, np.array([[1, 3, 1, 1]])) == pytest.approx([(1 + 1 + 1.5 + 3) / 8])


def test_average_precision_by_hand() -> None:
    score = np.array([0.1, 0.6, 0.4, 0.8])  # positives are called 1st and 3rd: (1/1 + 2/3) / 2
    assert metrics.average_precision(Y, score, ONE) == pytest.approx([5 / 6])


def test_sensitivity_at_specificity_by_hand() -> None:
    y = np.array([0] * 10 + [1] * 4)
    score = np.array([0, 0, 0, 0, 0, 0, 0, 0, 5, 7, 8, 6, 4, 1])  # one false positive of ten is allowed: >= 6
    weights = np.ones((1, 14), dtype=int)
    assert metrics.sensitivity_at_specificity(y, score, weights) == pytest.approx([2 / 4])
    assert metrics.sensitivity_at_specificity(y, score, weights, specificity=0.8) == pytest.approx([1.0])
    assert metrics.sensitivity_at_specificity(y, score, weights, specificity=1.0) == pytest.approx([1 / 4])


def test_the_others_by_hand() -> None:
    p = np.array([0.1, 0.3, 0.6, 0.8])
    assert metrics.brier(Y, p, ONE) == pytest.approx([(0.01 + 0.09 + 0.16 + 0.04) / 4])
    assert metrics.expected_calibration_error(Y, p, ONE) == pytest.approx([(0.1 + 0.3 + 0.4 + 0.2) / 4])
    assert metrics.balanced_accuracy(Y, np.array([0, 1, 1, 1]), ONE) == pytest.approx([0.75])
    assert metrics.mean_absolute_error(Y, p, ONE) == pytest.approx([0.25])
    assert metrics.r_squared(Y, p, ONE) == pytest.approx([1 - 0.3 / 1.0])
    assert metrics.multiclass_brier(Y, np.stack([1 - p, p], axis=1), ONE) == pytest.approx([2 * 0.3 / 4])
    # observed E(d^2) = 1/4; by chance: y in {0, 1} evenly, predicted 1 with 3/4: 1/2
    assert metrics.quadratic_weighted_kappa(Y, np.array([0, 1, 1, 1]), ONE) == pytest.approx([0.5])


def test_top_label_calibration_by_hand() -> None:
    probabilities = np.array([[0.72, 0.2, 0.08], [0.15, 0.78, 0.07]])  # one bin: right 1 of 2, mean 0.75
    ours = metrics.top_label_calibration_error(np.array([0, 2]), probabilities, np.ones((1, 2)))
    assert ours == pytest.approx([0.25])


@pytest.mark.parametrize(
    "measure",
    [metrics.auroc, metrics.average_precision, metrics.sensitivity_at_specificity, metrics.balanced_accuracy],
)
def test_a_resample_with_one_class_gives_nan_there_only(measure: metrics.MetricFunction) -> None:
    weights = np.array([[1, 1, 1, 1], [2, 2, 0, 0], [0, 0, 2, 2], [0, 0, 0, 0]])
    assert np.isnan(measure(Y, np.array([0, 0, 1, 1]), weights)).tolist() == [False, True, True, True]


def test_a_multiclass_resample_without_a_class_is_measured_on_the_others() -> None:
    y = np.array([0, 0, 1, 1, 2, 2])
    scores = np.eye(3)[y]
    weights = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]])
    assert metrics.macro_auroc(y, scores, weights)[0] == 1
    assert np.isnan(metrics.macro_auroc(y, scores, weights)[1])


def test_kappa_and_r_squared_without_spread_give_nan() -> None:
    same = np.full(4, 0.1)
    assert np.isnan(metrics.r_squared(same, np.arange(4.0), ONE)).all()
    assert np.isnan(metrics.quadratic_weighted_kappa(np.ones(4), np.ones(4), ONE)).all()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    y, score, weights = rng.integers(0, 2, 50), rng.random(50), rng.integers(0, 3, (33, 50))
    whole = metrics.auroc(y, score, weights)
    monkeypatch.setattr(metrics, "MEMORY_BYTES", 50 * 8 * 10 * 4)
    np.testing.assert_array_equal(metrics.auroc(y, score, weights), whole)


@pytest.mark.parametrize(
    ("y", "score", "weights", "message"),
    [
        (Y, np.zeros(3), ONE, "same N"),
        (Y, np.zeros(4), np.ones(4), "same N"),
        (np.array([0, 1, -1, -2]), np.zeros(4), ONE, "only 0 and 1"),
        (Y, np.array([0, 1, np.nan, 0]), ONE, "NaN"),
        (np.zeros(0), np.zeros(0), np.ones((1, 0)), "no image"),
    ],
)
def test_a_mistake_gives_one_sentence(
    y: np.ndarray, score: np.ndarray, weights: np.ndarray, message: str
) -> None:
    with pytest.raises(FewlabelError, match=message):
        metrics.auroc(y, score, weights)


def test_raw_scores_are_refused_as_probabilities() -> None:
    with pytest.raises(FewlabelError, match="calibrated"):
        metrics.brier(Y, np.array([-2.0, 0, 1, 3]), ONE)
    with pytest.raises(FewlabelError, match="class indices"):
        metrics.macro_auroc(np.array([0, 1, 2, 3]), np.full((4, 3), 1 / 3), ONE)
