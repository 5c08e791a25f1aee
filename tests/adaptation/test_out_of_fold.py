"""Probabilities without the image's own patient: checked with patients whom only their own labels could explain."""

from __future__ import annotations

import numpy as np
import pytest

from fewlabel.adaptation.probe import fold_probabilities, out_of_fold_probabilities


def _mates(patients: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two images a patient, each patient in a direction of his own; labels by chance: only a mate tells the label."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(patients, 200))
    groups = np.repeat(np.arange(patients), 2)
    features = directions[groups] + 0.01 * rng.normal(size=(2 * patients, 200))
    return features, np.repeat(rng.integers(0, 2, patients), 2), groups


def test_the_labels_of_the_own_patient_are_not_seen() -> None:
    features, y, groups = _mates()
    p = out_of_fold_probabilities(features, y, groups, classes=2)
    assert ((p[:, 1] > 0.5) == y).mean() < 0.7
    leaking = out_of_fold_probabilities(features, y, np.arange(len(y)), classes=2)
    assert ((leaking[:, 1] > 0.5) == y).mean() > 0.8


def test_what_the_others_say_is_used() -> None:
    rng = np.random.default_rng(1)
    y, groups = np.arange(90) % 3, np.repeat(np.arange(30), 3)
    features = rng.normal(size=(90, 8)) + 6 * np.eye(8)[y]
    p = out_of_fold_probabilities(features, y, groups, classes=3)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert (p.argmax(axis=1) == y).mean() > 0.95
    np.testing.assert_array_equal(p, out_of_fold_probabilities(features, y, groups, classes=3))


def test_nothing_is_said_of_a_class_that_only_one_patient_has() -> None:
    rng = np.random.default_rng(2)
    y = np.r_[np.arange(40) % 2, 2, 2]
    groups = np.r_[np.arange(40), 40, 40]
    p = out_of_fold_probabilities(rng.normal(size=(42, 4)), y, groups, classes=3)
    assert np.isnan(p[40:]).all()
    assert np.isfinite(p[:40]).all()


def test_one_patient_or_one_class_gives_no_opinion() -> None:
    x = np.random.default_rng(3).normal(size=(6, 2))
    assert np.isnan(out_of_fold_probabilities(x, np.arange(6) % 2, np.zeros(6, dtype=int), classes=2)).all()
    assert np.isnan(out_of_fold_probabilities(x, np.zeros(6, dtype=int), np.arange(6), classes=2)).all()


def test_others_are_judged_by_all_labels() -> None:
    x = np.array([[0.0], [1.0], [4.0], [5.0]])
    p = fold_probabilities(x, np.array([0, 0, 1, 1]), np.array([[-1.0], [2.5], [6.0]]), classes=2)
    assert p[0, 0] > 0.5 > p[2, 0]
    assert p[1, 0] == pytest.approx(0.5, abs=1e-6)
