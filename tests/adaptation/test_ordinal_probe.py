"""The probe for grades: it finds the thresholds that made the data, and chooses on validation alone."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from fewlabel.adaptation.ordinal import PSEUDO, OrdinalProbe, fit_cumulative, fit_ordinal_probe
from fewlabel.adaptation.probe import STRENGTHS, Calibration, NeighbourProbe, Scaling, validation_score
from fewlabel.types import FewlabelError

WEIGHTS, THRESHOLDS = np.array([2.0, -1.0, 0.0, 0.5]), np.array([-1.5, -1.0, 0.5, 2.0])
AS_THEY_ARE = Scaling(np.zeros(4), 1.0)


def made(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features and the grades that the proportional-odds model draws for them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 4))
    latent = x @ WEIGHTS + rng.logistic(size=count)
    return x, (latent[:, None] > THRESHOLDS).sum(axis=1)


def start(width: int = 4, grades: int = 5) -> np.ndarray:
    return np.zeros(width + grades - 1)


def loss(parameters: np.ndarray, x: np.ndarray, y: np.ndarray, strength: float) -> float:
    """What the fit minimises, by loops."""
    w, b = parameters[:4], parameters[4] + np.r_[0, np.exp(parameters[5:]).cumsum()]

    def p(f: float, k: int) -> float:
        above = np.r_[1.0, 1 / (1 + np.exp(b - f)), 0.0]
        return float(above[k] - above[k + 1])

    total = w @ w / (2 * strength)
    total -= sum(np.log(p(row @ w, grade)) for row, grade in zip(x, y, strict=True))
    return float(total - PSEUDO * sum(np.log(p(0.0, k)) for k in range(len(b) + 1)))


def test_weights_and_thresholds_that_made_the_data_are_found() -> None:
    x, y = made(6000)
    found = fit_cumulative(x, y, 1e3, start())
    assert np.allclose(found[:4], WEIGHTS, atol=0.12)
    assert np.allclose(found[4] + np.r_[0, np.exp(found[5:]).cumsum()], THRESHOLDS, atol=0.12)


@pytest.mark.parametrize("strength", [1e-3, 1.0])
def test_nothing_near_the_fit_is_better(strength: float) -> None:
    x, y = made(60)
    found = fit_cumulative(x, y, strength, start())
    least = loss(found, x, y, strength)
    rng = np.random.default_rng(1)
    for _ in range(40):
        assert loss(found + 0.02 * rng.normal(size=len(found)), x, y, strength) > least


def test_the_strength_is_the_best_on_validation() -> None:
    x, y = made(40)
    x = np.hstack([x, np.random.default_rng(5).normal(size=(40, 60))])
    val_x, val_y = made(150, seed=1)
    val_x = np.hstack([val_x, np.random.default_rng(6).normal(size=(150, 60))])
    scaling = Scaling.of(x)
    found = fit_ordinal_probe(x, y, val_x, val_y, classes=5, scaling=scaling)
    scores, at = {}, np.r_[np.zeros(64), start(0)]
    for strength in STRENGTHS:
        at = fit_cumulative(scaling(x), y, strength, at)
        b = at[64] + np.r_[0, np.exp(at[65:]).cumsum()]
        scores[strength] = validation_score("ordinal", val_y, OrdinalProbe(scaling, at[:64], b).logits(val_x))
    assert scores[found.strength] == pytest.approx(max(scores.values()), abs=2e-3)
    assert min(scores.values()) < max(scores.values()) - 0.005
    assert found.calibration != Calibration()
    assert found.predict(val_x).shape == (150, 5)
    assert np.allclose(found.predict(val_x).sum(axis=1), 1)


def test_test_data_cannot_be_used_since_they_are_never_given() -> None:
    given = set(inspect.signature(fit_ordinal_probe).parameters) - {"classes", "scaling"}
    assert given == {"features", "y", "val_features", "val_y"}


def test_grades_without_a_label_are_unlikely_and_finite() -> None:
    x, y = made(80)
    val = made(60, seed=1)
    for missing in (0, 2, 4):
        rows = y != missing
        found = fit_ordinal_probe(x[rows], y[rows], *val, classes=5, scaling=AS_THEY_ARE)
        p = np.exp(found.logits(val[0]))
        assert np.isfinite(found.logits(val[0])).all()
        assert p[:, missing].mean() < 0.02
        assert (np.diff(found.thresholds) > 0).all()


def test_calibration_keeps_referable_rising_with_the_score() -> None:
    probe = OrdinalProbe(Scaling(np.zeros(1), 1.0), np.ones(1), THRESHOLDS, Calibration(0.4))
    p = probe.predict(np.linspace(-6, 6, 300)[:, None])
    assert (np.diff(p[:, 2:].sum(axis=1)) > 0).all()


def test_one_grade_only_and_no_validation() -> None:
    x, y = made(10)
    with pytest.raises(FewlabelError, match="The 10 labelled training images hold one class only"):
        fit_ordinal_probe(x, np.full(10, 2), x, y, classes=5, scaling=AS_THEY_ARE)
    with pytest.raises(FewlabelError, match="No validation image has a label"):
        fit_ordinal_probe(x, y, x[:0], y[:0], classes=5, scaling=AS_THEY_ARE)


def test_validation_score_of_grades_is_the_mean_auroc_over_the_cuts() -> None:
    y = np.array([0, 1, 2, 2])
    logits = np.log(np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]]))
    above_0 = 1.0  # P(y > 0) = 0.2 against 0.9, 0.8 and 0.9
    above_1 = (1.0 + 0.5 * (0.5 + 0.5)) / 2  # P(y > 1) = 0.7 above both, 0.1 ties with both
    assert validation_score("ordinal", y, logits) == pytest.approx((above_0 + above_1) / 2)
    assert validation_score("ordinal", np.full(4, 1), logits) < 0  # one grade only: minus the log loss


def test_neighbours_vote_for_grades() -> None:
    features, y = np.array([[2.0, 0.0], [0.6, 0.8], [0.0, 5.0]]), np.array([4, 0, 0])
    p = NeighbourProbe("ordinal", 5, features, y, k=1).predict(np.array([[3.0, 0.1]]))
    assert p.shape == (1, 5)
    assert p.argmax() == 4


def test_the_fit_leaves_no_trace_in_torchs_randomness() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    fit_cumulative(*made(20), 1.0, start())
    assert torch.equal(before, torch.get_rng_state())
