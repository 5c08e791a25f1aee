"""Probes: they find what is there, settings come from validation alone, probabilities are calibrated."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from fewlabel.adaptation import probe
from fewlabel.adaptation.probe import (
    NEIGHBOURS,
    STRENGTHS,
    Calibration,
    NeighbourProbe,
    Scaling,
    fit_linear_probe,
    fit_neighbour_probe,
    validation_score,
)
from fewlabel.types import FewlabelError

AS_THEY_ARE = Scaling(np.zeros(1), 1.0)


def separable(count: int, classes: int = 2, seed: int = 0, width: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Class k lies 3 deviations out along direction k."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % classes
    return rng.normal(size=(count, width)) + 3 * np.eye(classes, width)[y], y


def linear(x: np.ndarray, y: np.ndarray, val_x: np.ndarray, val_y: np.ndarray, **changes: Any) -> Any:
    arguments = {"kind": "binary", "classes": 2, "scaling": Scaling.of(x), **changes}
    return fit_linear_probe(x, y, val_x, val_y, **arguments)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_separating_directions_are_found(classes: int) -> None:
    x, y = separable(90, classes)
    val, test = separable(60, classes, seed=1), separable(300, classes, seed=2)
    fitted = linear(x, y, *val, kind="binary" if classes == 2 else "category", classes=classes)
    p = fitted.predict(test[0])
    assert p.shape == (300, classes)
    assert np.allclose(p.sum(axis=1), 1)
    assert (p.argmax(axis=1) == test[1]).mean() > 0.93
    assert (
        np.abs(fitted.weights).mean(axis=1)[:classes].min()
        > np.abs(fitted.weights).mean(axis=1)[classes:].max()
    )
    neighbours = fit_neighbour_probe(x, y, *val, kind="category", classes=classes)
    assert (neighbours.predict(test[0]).argmax(axis=1) == test[1]).mean() > 0.85


def test_the_weights_are_those_of_logistic_regression() -> None:
    x, y = separable(60)
    val_x, val_y = separable(40, seed=1)
    fitted = linear(x, y, val_x, val_y)
    theirs = LogisticRegression(C=fitted.strength, max_iter=500).fit(fitted.scaling(x), y)
    logits = fitted.logits(val_x)
    assert np.allclose(
        logits[:, 1] - logits[:, 0], theirs.decision_function(fitted.scaling(val_x)), atol=1e-6
    )


def test_the_strength_is_the_best_on_validation_and_the_stronger_regularisation_on_a_tie() -> None:
    x, y = separable(30, width=40)
    val_x, val_y = separable(200, seed=1, width=40)
    chosen = linear(x, y, val_x, val_y)
    scores = {}
    for strength in STRENGTHS:
        w, b = probe._fit_linear(chosen.scaling(x), y, "binary", 2, strength)
        scores[strength] = validation_score("binary", val_y, chosen.scaling(val_x) @ w + b)
    best = max(scores.values())
    assert chosen.strength == min(s for s in scores if scores[s] >= best - 1e-9)
    assert min(scores.values()) < best - 0.001
    easy = separable(30)[0] * 50  # every strength separates it
    assert linear(easy, y, easy, y).strength == min(STRENGTHS)


def test_other_validation_labels_choose_another_strength() -> None:
    """Were the strength chosen on anything else, it could not follow the validation part."""
    x, y = separable(40, width=60, seed=3)
    chosen = {
        linear(x, y, np.random.default_rng(seed).normal(size=(30, 60)), y[:30]).strength for seed in range(8)
    }
    assert len(chosen) > 1


@pytest.mark.parametrize("function", [fit_linear_probe, fit_neighbour_probe])
def test_test_data_cannot_be_used_since_they_are_never_given(function: Any) -> None:
    given_data = set(inspect.signature(function).parameters) - {"kind", "classes", "scaling"}
    assert given_data == {"features", "y", "val_features", "val_y"}


def test_scaling_centres_and_has_one_scale() -> None:
    x = np.array([[0.0, 10.0], [2.0, 30.0]])
    scaling = Scaling.of(x)
    assert scaling.mean.tolist() == [1.0, 20.0]
    assert scaling.scale == pytest.approx(5.5)  # of the deviations 1 and 10
    assert np.allclose(scaling(x), [[-1 / 5.5, -10 / 5.5], [1 / 5.5, 10 / 5.5]])
    assert Scaling.of(np.ones((3, 2))).scale == 1.0


def distorted(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, 2) three times too sure and shifted, and the classes that the true ones drew."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(0, 2, count)
    y = (rng.uniform(size=count) < 1 / (1 + np.exp(-margin))).astype(int)
    wrong = 3 * margin + 1.5
    return np.column_stack([-wrong / 2, wrong / 2]), y


def test_calibration_mends_distorted_probabilities_and_keeps_their_order() -> None:
    logits, y = distorted(400)
    fresh, truth = distorted(4000, seed=1)
    calibration = Calibration.fit(logits, y)
    assert calibration.slope == pytest.approx(1 / 3, abs=0.1)
    assert calibration.offset == pytest.approx(-0.5, abs=0.3)
    before, after = Calibration()(fresh), calibration(fresh)
    assert log_loss(truth, after) < log_loss(truth, before) - 0.1
    assert roc_auc_score(truth, after[:, 1]) == pytest.approx(roc_auc_score(truth, before[:, 1]))


def test_calibration_of_several_classes_is_a_temperature() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (600, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = np.array([rng.choice(3, p=row) for row in p])
    calibration = Calibration.fit(4 * logits, y)
    assert calibration.slope == pytest.approx(0.25, abs=0.04)
    assert calibration.offset == 0.0
    assert np.allclose(calibration(4 * logits), p, atol=0.1)


def test_no_temperature_of_a_grid_is_better() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 4, (120, 4))
    y = np.where(rng.random(120) < 0.6, logits.argmax(axis=1), rng.integers(0, 4, 120))
    slopes = np.geomspace(0.01, 10, 600)
    losses = [log_loss(y, Calibration(slope)(logits), labels=range(4)) for slope in slopes]
    fitted = Calibration.fit(logits, y)
    assert fitted.slope == pytest.approx(slopes[int(np.argmin(losses))], rel=0.02)
    assert log_loss(y, fitted(logits), labels=range(4)) <= min(losses) + 1e-6


def test_no_slope_and_offset_of_a_grid_are_better() -> None:
    """Under Platt's targets (positives + 1) / (positives + 2) and 1 / (negatives + 2)."""
    logits, y = distorted(80, seed=4)
    target = np.where(y == 1, (y.sum() + 1) / (y.sum() + 2), 1 / ((1 - y).sum() + 2))

    def loss(calibration: Calibration) -> float:
        p = calibration(logits)
        return float(-(target * np.log(p[:, 1]) + (1 - target) * np.log(p[:, 0])).mean())

    grid = [
        Calibration(slope, offset) for slope in np.geomspace(0.05, 3, 60) for offset in np.linspace(-3, 3, 61)
    ]
    assert loss(Calibration.fit(logits, y)) <= min(map(loss, grid)) + 1e-6


def test_too_few_labels_to_calibrate() -> None:
    logits, y = distorted(9)
    assert Calibration.fit(logits, y) == Calibration()
    assert Calibration.fit(np.tile(logits, (3, 1)), np.zeros(27, dtype=int)) == Calibration()
    assert Calibration.fit(np.tile(logits, (2, 1)), np.tile(y, 2)) != Calibration()


@settings(max_examples=50, deadline=None)
@given(
    labels=st.lists(st.integers(0, 1), min_size=10, max_size=30),
    scale=st.sampled_from([0.0, 1e-6, 1.0, 1e4]),
)
def test_calibration_is_always_finite_and_never_turns_the_order_round(
    labels: list[int], scale: float
) -> None:
    y = np.array(labels)
    margin = scale * np.where(y == 1, 1.0, -1.0)  # separated perfectly
    calibration = Calibration.fit(np.column_stack([-margin / 2, margin / 2]), y)
    assert np.isfinite([calibration.slope, calibration.offset]).all()
    assert calibration.slope > 0


def test_ridge_finds_a_line() -> None:
    rng = np.random.default_rng(0)
    x, val_x = rng.normal(size=(80, 4)), rng.normal(size=(50, 4))
    slope = np.array([2.0, -1.0, 0.0, 0.5])
    y, val_y = (part @ slope + 7 for part in (x, val_x))
    fitted = linear(x, y, val_x, val_y, kind="number", classes=0)
    assert fitted.predict(val_x).shape == (50,)
    assert np.abs(fitted.predict(val_x) - val_y).max() < 0.15
    assert fitted.strength == max(STRENGTHS)
    assert fitted.calibration == Calibration()


def test_nearest_neighbours_worked_by_hand() -> None:
    """Cosines of the query with the three labelled images: 1, 0.6 and 0."""
    features = np.array([[2.0, 0.0], [0.6, 0.8], [0.0, 5.0]])
    y = np.array([1, 0, 0])
    two = NeighbourProbe("binary", 2, features, y, k=2).predict(np.array([[3.0, 0.0]]))
    smoothed = np.array([0.6, 1.0]) + 1e-3
    assert np.allclose(two, smoothed / smoothed.sum(), atol=1e-6)
    numbers = NeighbourProbe("number", 0, features, np.array([10.0, 20.0, 99.0]), k=2)
    assert numbers.predict(np.array([[3.0, 0.0]])) == pytest.approx([(10 + 0.6 * 20) / 1.6])
    one = NeighbourProbe("binary", 2, features, y, k=1).predict(np.array([[3.0, 0.1], [0.1, 3.0]]))
    assert one.argmax(axis=1).tolist() == [1, 0]


def test_k_is_chosen_on_validation_and_never_above_the_labels() -> None:
    x, y = separable(8)
    val_x, val_y = separable(60, seed=1)
    fitted = fit_neighbour_probe(x, y, val_x, val_y, kind="binary", classes=2)
    assert fitted.k in [k for k in NEIGHBOURS if k <= 8]
    many_x, many_y = separable(100)
    flipped = np.where(np.arange(100) % 5 == 0, 1 - many_y, many_y)  # a fifth of the labels is wrong
    assert fit_neighbour_probe(many_x, flipped, val_x, val_y, kind="binary", classes=2).k > 1


def test_classes_without_a_label_get_almost_nothing() -> None:
    x, y = separable(40, classes=4)
    val_x, val_y = separable(40, classes=4, seed=1)
    for kept in ([0, 2], [0, 1, 3]):
        rows = np.isin(y, kept)
        p = linear(x[rows], y[rows], val_x, val_y, kind="category", classes=4).predict(val_x)
        missing = [c for c in range(4) if c not in kept]
        assert p[:, missing].max() < 1e-3
        assert np.isfinite(p).all()


@pytest.mark.parametrize("function", [linear, fit_neighbour_probe])
def test_one_class_only_and_no_validation(function: Any) -> None:
    x, y = separable(10)
    named = {} if function is linear else {"kind": "binary", "classes": 2}
    with pytest.raises(FewlabelError, match="The 10 labelled training images hold one class only"):
        function(x, np.zeros(10, dtype=int), x, y, **named)
    with pytest.raises(FewlabelError, match="No validation image has a label"):
        function(x, y, x[:0], y[:0], **named)


def test_validation_score_by_kind() -> None:
    y = np.array([0, 0, 1, 1])
    logits = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 1.5], [0.0, 3.0]])
    assert validation_score("binary", y, logits) == 0.75
    assert validation_score("number", np.array([1.0, 2.0]), np.array([1.0, 4.0])) == -2.0
    three = np.eye(3)[[0, 1, 2, 0]]
    assert validation_score("category", np.array([0, 1, 2, 0]), three) == 1.0
    sure, unsure = (
        validation_score("binary", np.ones(3, dtype=int), np.tile([0.0, m], (3, 1))) for m in (5, 1)
    )
    assert unsure < sure < 0  # one class only: minus the log loss
