"""Few-shot: who is drawn, that nobody is on both sides, and that the interval is that of the slow way."""

from __future__ import annotations

import numpy as np
import pytest

from fewlabel.adaptation.prototypes import fit_prototypes
from fewlabel.evaluation.few_shot import _balanced_accuracy, draw_support, few_shot, left_out
from fewlabel.evaluation.intervals import bootstrap, draw_resamples
from fewlabel.evaluation.metrics import balanced_accuracy
from fewlabel.types import FewlabelError


def test_the_interval_is_that_of_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    y, patients = rng.integers(0, 3, 40), np.repeat(np.arange(20), 2)
    called = rng.integers(0, 3, (7, 40))
    resamples = draw_resamples(patients, resamples=50, seed=1)
    found, slow = _balanced_accuracy(y, called, resamples), bootstrap(balanced_accuracy, y, called, resamples)
    assert found.value == pytest.approx(slow.value)
    np.testing.assert_allclose(found.seed_values, slow.seed_values)
    np.testing.assert_allclose(found.draws, slow.draws, atol=1e-6)
    assert found.drawn_from == slow.drawn_from


def test_resamples_with_one_class_say_nothing() -> None:
    """As in the bootstrap: two patients, one of each class; half of the draws hold one class."""
    y, called = np.array([0, 1]), np.array([[0, 1], [1, 1]])
    with pytest.warns(UserWarning, match="2 patients"):
        resamples = draw_resamples(np.array([0, 1]), resamples=30, seed=0)
    found, slow = _balanced_accuracy(y, called, resamples), bootstrap(balanced_accuracy, y, called, resamples)
    assert 0 < found.undefined < 30
    np.testing.assert_allclose(found.draws, slow.draws)


def test_examples_are_of_as_many_patients() -> None:
    rng = np.random.default_rng(2)
    y, patients = rng.integers(0, 2, 200), rng.integers(0, 40, 200)
    for seed in range(20):
        drawn = draw_support(y, patients, classes=2, shots=10, rng=np.random.default_rng(seed))
        for k in (0, 1):
            of_class = drawn[y[drawn] == k]
            assert len(of_class) == 10
            assert len(np.unique(patients[of_class])) == 10


def test_every_image_of_a_patient_may_be_the_example() -> None:
    y, patients = np.zeros(6, dtype=int), np.repeat([0, 1], 3)
    seen = {
        int(row)
        for seed in range(40)
        for row in draw_support(y, patients, classes=1, shots=1, rng=np.random.default_rng(seed))
    }
    assert seen == set(range(6))


def test_classes_apart_are_told_and_noise_is_not() -> None:
    rng = np.random.default_rng(3)
    y, patients = np.arange(120) % 3, np.arange(120)
    train, test = np.arange(60), np.arange(60, 120)
    resamples = draw_resamples(patients[test], resamples=60, seed=0)
    noise = rng.normal(size=(120, 4))
    apart = noise + 30 * np.eye(4)[y]
    for features, value in ((apart, 1.0), (noise, 1 / 3)):
        found = few_shot(
            features, y, patients, train, test, resamples, classes=3, shots=5, episodes=50
        ).accuracy
        low, high = found.interval()
        assert found.value == pytest.approx(value, abs=0.06)
        assert low - 1e-9 <= value <= high + 1e-9


def test_more_examples_help_and_draws_of_one_differ_more() -> None:
    rng = np.random.default_rng(4)
    y, patients = np.arange(400) % 2, np.arange(400)
    features = rng.normal(size=(400, 6)) + 0.9 * y[:, None]
    resamples = draw_resamples(patients[200:], resamples=40, seed=0)
    one, ten = (
        few_shot(
            features, y, patients, np.arange(200), np.arange(200, 400), resamples, classes=2, shots=shots
        )
        for shots in (1, 10)
    )
    assert ten.accuracy.value > one.accuracy.value + 0.03
    width = [high - low for low, high in (one.single_draws(), ten.single_draws())]
    assert width[0] > 2 * width[1]


def test_episodes_are_the_same_for_all_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []

    def look(features: np.ndarray, y: np.ndarray, *, classes: int) -> object:
        seen.append(features[:, 0].astype(int).tolist())
        return fit_prototypes(features, y, classes=classes)

    monkeypatch.setattr("fewlabel.evaluation.few_shot.fit_prototypes", look)
    y, rows = np.arange(40) % 2, np.arange(40)
    resamples = draw_resamples(rows[20:], resamples=5, seed=0)
    numbered = np.column_stack([rows, rows]).astype(float)
    for features in (numbered, numbered + np.array([0, 100])):
        few_shot(features, y, rows, rows[:20], rows[20:], resamples, classes=2, shots=3, episodes=4)
    assert seen[:4] == seen[4:]
    assert all(row < 20 for drawn in seen for row in drawn)
    assert len({tuple(drawn) for drawn in seen}) == 4


def test_a_patient_on_both_sides_is_refused() -> None:
    y, patients = np.arange(20) % 2, np.r_[np.arange(19), 3]
    resamples = draw_resamples(patients[10:], resamples=5, seed=0)
    with pytest.raises(FewlabelError, match=r"^1 patient\(s\) would be both among the examples"):
        few_shot(
            np.zeros((20, 2)), y, patients, np.arange(10), np.arange(10, 20), resamples, classes=2, shots=1
        )


def test_too_few_patients_are_one_sentence() -> None:
    y, patients = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 3, 3, 3])
    assert left_out(("clear", "opacity"), y, patients, 1) == ""
    assert left_out(("clear", "opacity"), y, patients, 5) == (
        "5 examples a class: left out, since opacity has 1 training patient."
    )
    with pytest.raises(FewlabelError, match=r"5 examples .* class 1 has 1 patient"):
        draw_support(y, patients, classes=2, shots=5, rng=np.random.default_rng(0))
