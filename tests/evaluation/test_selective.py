"""Abstaining: risk and coverage against loops, the bound against the binomial, and what it promises in simulation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from fewlabel.adaptation.probe import Calibration
from fewlabel.evaluation.selective import (
    STEPS,
    Cases,
    area_under_risk_coverage,
    bounded_thresholds,
    called_class,
    choose_threshold,
    coverage_above,
    one_image_a_patient,
    risk_above,
    risk_at_coverages,
    upper_bound,
)
from fewlabel.types import FewlabelError

WRONG = np.array([True, False, True, False])
CONFIDENCE = np.array([0.6, 0.9, 0.8, 0.7])
ONE = np.ones((1, 4))


@st.composite
def drawn_cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """wrong (N,), confidence (N,) on a coarse grid (ties are common), integer weights (3, N) with some drawn."""
    n = draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    confidence = rng.integers(1, draw(st.sampled_from([2, 6, 1000])) + 1, n) / 1000
    weights = rng.integers(0, 4, (3, n))
    weights[:, 0] += 1
    return rng.random(n) < 0.3, confidence, weights


def risk_by_loops(wrong: np.ndarray, confidence: np.ndarray, weights: np.ndarray, coverage: float) -> float:
    """Answers one group of equal confidence after the other, its share of wrong answers where it is cut."""
    left = total = coverage * weights.sum()
    errors = 0.0
    for value in sorted(set(confidence), reverse=True):
        group = confidence == value
        size = weights[group].sum()
        if size == 0:
            continue
        taken = min(left, size)
        errors += taken * weights[group & wrong].sum() / size
        left -= taken
    return errors / total


def test_by_hand() -> None:
    """In order of confidence: right, wrong, right, wrong."""
    risks = risk_at_coverages(WRONG, CONFIDENCE, ONE, np.array([0.25, 0.5, 0.75, 1.0]))
    np.testing.assert_allclose(risks, [[0, 1 / 2, 1 / 3, 1 / 2]])
    np.testing.assert_allclose(
        area_under_risk_coverage(WRONG, CONFIDENCE, ONE), [(1 / 2 + 1 / 3 + 1 / 2) / 4]
    )
    weights = np.array([[1, 1, 1, 1], [2, 1, 1, 0], [2, 0, 0, 0]])
    np.testing.assert_allclose(coverage_above(WRONG, CONFIDENCE, weights, 0.6), [3 / 4, 1 / 2, 0])
    np.testing.assert_allclose(risk_above(WRONG, CONFIDENCE, weights, 0.6), [1 / 3, 1 / 2, np.nan])


@settings(max_examples=60, deadline=None)
@given(drawn_cases())
def test_risk_and_coverage_equal_loops(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    wrong, confidence, weights = case
    coverages = np.arange(1, len(wrong) + 1) / len(wrong)
    ours = risk_at_coverages(wrong, confidence, weights, coverages)
    theirs = [[risk_by_loops(wrong, confidence, row, c) for c in coverages] for row in weights]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    np.testing.assert_allclose(area_under_risk_coverage(wrong, confidence, weights), ours.mean(axis=1))
    np.testing.assert_allclose(ours[:, -1], [np.average(wrong, weights=row) for row in weights])
    threshold = float(np.median(confidence))
    for row, risk, coverage in zip(
        weights,
        risk_above(wrong, confidence, weights, threshold),
        coverage_above(wrong, confidence, weights, threshold),
        strict=True,
    ):
        answered = np.repeat(wrong, row)[np.repeat(confidence, row) > threshold]
        assert coverage == pytest.approx(len(answered) / row.sum())
        assert np.isnan(risk) if not len(answered) else risk == pytest.approx(answered.mean())


def test_nothing_drawn_has_no_risk() -> None:
    assert np.isnan(risk_at_coverages(WRONG, CONFIDENCE, np.zeros((1, 4)), np.array([0.5, 1.0]))).all()


@pytest.mark.parametrize(("wrong", "answered"), [(0, 1), (0, 60), (3, 60), (59, 60), (12, 700)])
@pytest.mark.parametrize("delta", [0.005, 0.05])
def test_the_bound_leaves_the_tail_delta(wrong: int, answered: int, delta: float) -> None:
    assert binom.cdf(wrong, answered, upper_bound(wrong, answered, delta)) == pytest.approx(delta)


def test_the_bound_where_nothing_is_known() -> None:
    assert upper_bound(0, 0, 0.05) == 1.0
    assert upper_bound(7, 7, 0.05) == 1.0


def test_a_threshold_by_hand() -> None:
    """100 cases, the 60 most confident right, then every fourth wrong; tenths of them, delta a tenth of 0.05."""
    confidence = np.linspace(1.0, 0.505, 100)
    wrong = np.zeros(100, bool)
    wrong[60::4] = True
    cases = Cases(confidence, wrong)
    tenths = bounded_thresholds(cases)
    assert [one.answered for one in tenths] == list(range(10, 101, 10))
    assert [one.wrong for one in tenths] == [0, 0, 0, 0, 0, 0, 3, 5, 8, 10]
    assert tenths[5].bound == pytest.approx(1 - 0.005 ** (1 / 60))  # (1 - b) ** 60 = 0.005: 0.0845
    chosen = choose_threshold(cases, 0.09)
    assert chosen == tenths[5]
    assert chosen.value == confidence[60]
    assert choose_threshold(cases, 0.08) is None
    counted = bounded_thresholds(replace(cases, chosen_among=20))
    assert counted[5].bound == pytest.approx(1 - (0.005 / 20) ** (1 / 60))
    with pytest.raises(FewlabelError, match="chosen_among is 0"):
        replace(cases, chosen_among=0)
    everything = choose_threshold(cases, 0.25)
    assert everything is not None
    assert (everything.value, everything.answered) == (0.0, 100)


@settings(max_examples=100, deadline=None)
@given(drawn_cases(), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_higher_risk_never_answers_less(
    case: tuple[np.ndarray, np.ndarray, np.ndarray], one: float, other: float
) -> None:
    low, high = sorted((one, other))
    cases = Cases(case[1], case[0])
    strict, loose = choose_threshold(cases, low), choose_threshold(cases, high)
    if strict is not None:
        assert loose is not None
        assert loose.value <= strict.value
        assert loose.answered >= strict.answered
        assert strict.bound <= low
        assert strict.wrong == case[0][case[1] > strict.value].sum()


@pytest.mark.parametrize("risk", [0.0, 1.0, -0.1, 5.0, float("nan")])
def test_a_risk_that_is_no_share(risk: float) -> None:
    with pytest.raises(FewlabelError, match=r"such as 0\.05"):
        choose_threshold(Cases(CONFIDENCE, WRONG), risk)


@pytest.mark.parametrize(
    ("confidence", "wrong", "message"),
    [
        (CONFIDENCE[:3], WRONG, "the same|expected"),
        (np.zeros(0), np.zeros(0, bool), "at least 1"),
        (np.array([0.5, 1.2]), WRONG[:2], "above 0 and at most 1"),
        (np.array([0.5, 0.0]), WRONG[:2], "above 0 and at most 1"),
        (np.array([0.5, np.nan]), WRONG[:2], "above 0 and at most 1"),
    ],
)
def test_cases_that_cannot_be(confidence: np.ndarray, wrong: np.ndarray, message: str) -> None:
    with pytest.raises(FewlabelError, match=message):
        Cases(confidence, wrong)


def test_what_is_called_and_how_surely() -> None:
    two = np.array([[0.5, 0.5], [0.51, 0.49], [0.1, 0.9]])
    assert called_class(two).tolist() == [1, 0, 1]
    three = np.array([[0.2, 0.5, 0.3], [0.4, 0.3, 0.3]])
    cases = Cases.of(three, np.array([1, 2]))
    assert cases.wrong.tolist() == [False, True]
    assert cases.confidence.tolist() == [0.5, 0.4]


def test_one_image_of_each_patient_any_of_them() -> None:
    patients = np.array([7, 7, 3, 7, 9])
    draws = [one_image_a_patient(patients, np.random.default_rng(seed)) for seed in range(60)]
    assert all(sorted(patients[rows]) == [3, 7, 9] for rows in draws)
    assert {int(row) for rows in draws for row in rows} == {0, 1, 2, 3, 4}


ASKED, DELTA = 0.10, 0.10
JUST_ABOVE = 0.102


def hopeless(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidence that says nothing: above every threshold the risk is a little more than the asked one."""
    return rng.uniform(0.5, 1, n), rng.random(n) < JUST_ABOVE


def share_of_promises(
    draw: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]], draws: int = 400
) -> float:
    """How often a threshold is found; among hopeless cases each is a promise that is broken."""
    found = (
        choose_threshold(Cases(*draw(np.random.default_rng([5, i]))), ASKED, delta=DELTA)
        for i in range(draws)
    )
    return float(np.mean([one is not None for one in found]))


def test_the_promise_is_broken_as_seldom_as_it_says() -> None:
    """In the worst case; and it would be broken far more often were the observed share taken for the risk."""

    def observed(rng: np.random.Generator) -> bool:
        confidence, wrong = hopeless(rng, 500)
        tenths = bounded_thresholds(Cases(confidence, wrong), delta=DELTA)
        return any(one.wrong <= ASKED * one.answered for one in tenths)

    assert 0 < share_of_promises(lambda rng: hopeless(rng, 500)) <= DELTA
    assert np.mean([observed(np.random.default_rng([5, i])) for i in range(100)]) > 3 * DELTA


def test_where_confidence_tells_right_from_wrong_a_promise_is_made_and_kept() -> None:
    """Wrong with probability 0.8 (1 - c), c even on 0.5 to 1: above t the risk is 0.4 (1 - t), 0.2 in all."""
    chosen = []
    for i in range(200):
        rng = np.random.default_rng([6, i])
        confidence = rng.uniform(0.5, 1, 1000)
        cases = Cases(confidence, rng.random(1000) < 0.8 * (1 - confidence))
        chosen.append(choose_threshold(cases, ASKED, delta=DELTA))
    risks = [0.4 * (1 - one.value) for one in chosen if one is not None]
    assert len(risks) > 150
    assert np.mean(np.array(risks) > ASKED) <= DELTA


def test_all_ten_bounds_hold_at_once_as_often_as_promised() -> None:
    broken = 0
    for i in range(400):
        tenths = bounded_thresholds(Cases(*hopeless(np.random.default_rng([7, i]), 500)), delta=DELTA)
        assert len(tenths) == STEPS
        broken += any(one.bound < JUST_ABOVE for one in tenths)
    assert 0 < broken / 400 <= DELTA


def test_the_promise_survives_early_stopping_if_the_looks_are_counted() -> None:
    """Twenty networks, all a little worse than asked; the one with the fewest errors among the cases is kept."""
    looks, n, draws = 20, 500, 150

    def promises(chosen_among: int) -> float:
        found = []
        for i in range(draws):
            rng = np.random.default_rng([8, i])
            confidence, wrong = min((hopeless(rng, n) for _ in range(looks)), key=lambda one: one[1].sum())
            found.append(choose_threshold(Cases(confidence, wrong, chosen_among), ASKED, delta=DELTA))
        return float(np.mean([one is not None for one in found]))

    assert promises(looks) <= DELTA
    assert promises(1) > DELTA


def test_images_of_one_patient_are_no_independent_cases() -> None:
    """Ten images a patient, right or wrong together: one of each keeps the promise, all of them break it."""

    def clustered(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        patients = np.repeat(np.arange(300), 10)
        return rng.uniform(0.5, 1, 3000), (rng.random(300) < JUST_ABOVE)[patients], patients

    def by_patient(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        confidence, wrong, patients = clustered(rng)
        rows = one_image_a_patient(patients, rng)
        return confidence[rows], wrong[rows]

    assert share_of_promises(by_patient) <= DELTA
    assert share_of_promises(lambda rng: clustered(rng)[:2], draws=100) > DELTA


def test_the_promise_survives_that_calibration_saw_the_same_patients() -> None:
    """The classifier should be made without them; its calibration, one or two numbers, is not."""

    def study(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        margin = rng.normal(0, 2.5, n)
        y = (rng.random(n) < 1 / (1 + np.exp(-margin))).astype(int)
        raw = 3 * margin + 1
        return np.column_stack([-raw / 2, raw / 2]), y

    fresh, truth = study(np.random.default_rng(0), 40_000)
    risks = []
    for i in range(100):
        logits, y = study(np.random.default_rng([7, i]), 400)
        calibration = Calibration.fit(logits, y)
        chosen = choose_threshold(Cases.of(calibration(logits), y), ASKED, delta=DELTA)
        if chosen is not None:
            new = Cases.of(calibration(fresh), truth)
            risks.append(risk_above(new.wrong, new.confidence, np.ones((1, 40_000)), chosen.value)[0])
    assert len(risks) > 60
    assert np.mean(np.array(risks) > ASKED) <= DELTA
