"""The bootstrap by patient: what is drawn, what its intervals cover, and how two methods are compared."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from fewlabel.evaluation.intervals import (
    bootstrap,
    bootstrap_metric,
    draw_resamples,
    paired_difference,
    patient_weights,
)
from fewlabel.evaluation.metrics import auroc, brier, macro_auroc
from fewlabel.types import FewlabelError


def _study(
    rng: np.random.Generator, patients: int = 50, between: float = 1.0, within: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y, score and patient of images: 1 to 9 a patient, alike within the patient; positives 1 higher."""
    ids = np.repeat(np.arange(patients), rng.integers(1, 10, patients))
    sick = np.arange(patients) % 2
    score = sick + between * rng.normal(size=patients)
    return sick[ids], score[ids] + within * rng.normal(size=len(ids)), ids


def test_whole_patients_are_drawn() -> None:
    patients = np.array(["b", "a", "b", "c", "a", "b"])
    weights = patient_weights(patients, 500, np.random.default_rng(0))
    assert weights.shape == (500, 6)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 1], weights[:, 4])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), 3)
    assert weights.mean() == pytest.approx(1, abs=0.1)
    assert np.any(weights == 0)


def test_value_is_the_mean_over_seeds_on_the_full_test_set() -> None:
    rng = np.random.default_rng(1)
    y, score, patients = _study(rng)
    scores = np.stack([score, score + rng.normal(size=len(y)), -score])
    result = bootstrap_metric(auroc, y, scores, patients, name="AUROC", resamples=200, seed=3)
    assert result.value == pytest.approx(np.mean([roc_auc_score(y, s) for s in scores]))
    assert result.low < result.value < result.high
    assert (result.n, result.patients) == (len(y), 50)
    assert result == bootstrap_metric(auroc, y, scores, patients, name="AUROC", resamples=200, seed=3)


def test_a_resample_equals_the_measure_on_the_images_drawn() -> None:
    y, score, patients = _study(np.random.default_rng(2))
    drawn = draw_resamples(patients, resamples=20, seed=0)
    result = bootstrap(auroc, y, score[None], drawn)
    for r in range(20):
        w = drawn.weights[r]
        assert result.draws[r] == pytest.approx(roc_auc_score(np.repeat(y, w), np.repeat(score, w)))


def test_seeds_are_drawn_too() -> None:
    """Runs that differ much widen the interval; shares of the seeds sum to 1."""
    y, score, patients = _study(np.random.default_rng(3), patients=200)
    drawn = draw_resamples(patients, seed=0)
    alike = bootstrap(auroc, y, np.stack([score] * 3), drawn)
    unlike = bootstrap(auroc, y, np.stack([score, np.zeros(len(y)), 3.0 * y]), drawn)
    assert np.ptp(unlike.interval()) > 2 * np.ptp(alike.interval())
    np.testing.assert_allclose(drawn.seed_shares(3).sum(axis=1), 1)
    np.testing.assert_allclose(alike.draws, bootstrap(auroc, y, score[None], drawn).draws)


def test_scores_of_many_classes() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    scores = rng.dirichlet(np.ones(3), (2, 60))
    result = bootstrap_metric(macro_auroc, y, scores, np.arange(60), name="AUROC", resamples=100, seed=0)
    assert 0.3 < result.low < result.value < result.high < 0.7


def test_by_patient_covers_the_truth_and_by_image_does_not() -> None:
    """Clustered data with a known AUROC: the 95 % interval must hold it in about 95 % of studies."""
    truth = norm.cdf(1 / np.sqrt(2 * (1.0**2 + 0.5**2)))
    rng = np.random.default_rng(20)
    covered = {"patient": 0, "image": 0}
    studies = 200
    for study in range(studies):
        y, score, patients = _study(rng)
        for unit, ids in (("patient", patients), ("image", np.arange(len(y)))):
            drawn = draw_resamples(ids, resamples=250, seed=study)
            low, high = bootstrap(auroc, y, score[None], drawn).interval()
            covered[unit] += low <= truth <= high
    assert 0.88 <= covered["patient"] / studies <= 0.99
    assert covered["image"] / studies < covered["patient"] / studies - 0.15


def test_a_better_method_is_told_from_a_worse_one_and_a_method_not_from_itself() -> None:
    rng = np.random.default_rng(5)
    y, score, patients = _study(rng, patients=80)
    drawn = draw_resamples(patients, seed=1)
    good = bootstrap(auroc, y, np.stack([score + 2 * y] * 2), drawn)
    poor = bootstrap(auroc, y, rng.normal(size=(2, len(y))), drawn)
    better, worse, same = (paired_difference(*pair) for pair in ((good, poor), (poor, good), (good, good)))
    assert better.low > 0
    assert better.p == pytest.approx(2 / 1001)
    assert worse.p == better.p
    assert (worse.value, worse.low, worse.high) == pytest.approx((-better.value, -better.high, -better.low))
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_pairing_takes_away_what_the_patients_share() -> None:
    rng = np.random.default_rng(6)
    y, score, patients = _study(rng)
    drawn = draw_resamples(patients, seed=1)
    a = bootstrap(auroc, y, (score + 0.05 * rng.normal(size=len(y)))[None], drawn)
    b = bootstrap(auroc, y, score[None], drawn)
    difference = paired_difference(a, b)
    assert difference.high - difference.low < 0.3 * np.ptp(a.interval())


def test_resamples_with_one_class_are_counted_and_left_out() -> None:
    y = np.array([1] + [0] * 11)
    drawn = draw_resamples(np.arange(12), resamples=400, seed=0)
    result = bootstrap(auroc, y, np.linspace(1, 0, 12)[None], drawn)
    assert 0.2 < result.undefined / 400 < 0.5  # about (11 / 12) ** 12
    with pytest.warns(UserWarning, match="of 400 resamples"):
        metric = result.metric("AUROC")
    assert (metric.low, metric.high) == (1, 1)
    difference = paired_difference(result, result)
    assert difference.undefined == result.undefined


def test_nothing_defined_gives_nan() -> None:
    result = bootstrap(auroc, np.zeros(12), np.zeros((1, 12)), draw_resamples(np.arange(12), seed=0))
    assert np.isnan([result.value, *result.interval()]).all()
    assert np.isnan(paired_difference(result, result).value)


def test_few_patients_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="holds 3 patients"):
        draw_resamples(np.array([1, 1, 2, 3]), resamples=10, seed=0)


def test_mistakes_are_said() -> None:
    y, score, patients = _study(np.random.default_rng(0))
    drawn = draw_resamples(patients, resamples=10, seed=0)
    with pytest.raises(FewlabelError, match="one row a seed"):
        bootstrap(auroc, y, score, drawn)
    with pytest.raises(FewlabelError, match="at least 1"):
        draw_resamples(np.zeros(0), seed=0)
    other = draw_resamples(patients, resamples=10, seed=1)
    with pytest.raises(FewlabelError, match="resampled apart"):
        paired_difference(bootstrap(auroc, y, score[None], drawn), bootstrap(auroc, y, score[None], other))


def test_a_measure_needs_no_classes() -> None:
    p = np.full(20, 0.25)
    result = bootstrap_metric(brier, np.zeros(20), p[None], np.arange(20), name="Brier", resamples=50, seed=0)
    assert result.low == result.high == pytest.approx(0.0625)
