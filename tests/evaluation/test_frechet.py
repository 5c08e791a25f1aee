"""The Fréchet feature distance: closed forms, scipy's matrix root, few images, and its interval by patient."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from fewlabel.evaluation.frechet import frechet_distance, frechet_with_interval
from fewlabel.types import FewlabelError


def test_one_feature_by_hand() -> None:
    """Means 1 and 4, variances 1 and 4: (1 - 4)^2 + (1 - 2)^2."""
    a = np.array([[0.0], [1.0], [2.0]])
    b = np.array([[2.0], [4.0], [6.0]])
    assert frechet_distance(a, b) == pytest.approx(10)


@pytest.mark.parametrize(("n", "m"), [(40, 55), (5, 7), (200, 4)])
def test_agrees_with_the_formula_by_a_matrix_root(n: int, m: int) -> None:
    """12 features: more images than features, and fewer, where the covariances are singular."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(12, 12))
    a, b = rng.normal(size=(n, 12)) @ mixed, 0.5 + rng.normal(size=(m, 12))
    c_a, c_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    apart = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
    expected = apart + np.trace(c_a + c_b - 2 * sqrtm(c_a @ c_b + 0j).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


def test_equal_sets_lie_at_no_distance_and_a_shift_counts_squared() -> None:
    a = np.random.default_rng(1).normal(size=(9, 30)).astype(np.float32)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + np.float32(2)) == pytest.approx(4 * 30, rel=1e-5)


def test_few_images_of_one_distribution_lie_farther_apart_than_many() -> None:
    rng = np.random.default_rng(2)
    found = [np.mean([frechet_distance(*rng.normal(size=(2, n, 8))) for _ in range(20)]) for n in (20, 200)]
    assert found[0] > 5 * found[1] > 0


def test_interval_holds_the_distance_and_is_drawn_by_patient() -> None:
    """Images of a patient are one another's copies: drawn one by one they would seem to be four times as many."""
    rng = np.random.default_rng(3)
    images = np.repeat(rng.normal(size=(30, 4)), 4, axis=0)
    made = images + 0.5 + 0.8 * np.repeat(rng.normal(size=(30, 4)), 4, axis=0)
    patients = np.repeat(np.arange(30), 4)
    by_patient = frechet_with_interval(images, made, patients, paired=True, seed=0).distance
    by_image = frechet_with_interval(images, made, np.arange(120), paired=True, seed=0).distance
    assert by_patient.low < by_patient.value < by_patient.high
    assert by_patient.value == by_image.value == pytest.approx(frechet_distance(images, made))
    assert (by_patient.n, by_patient.patients) == (120, 30)
    assert by_patient.high - by_patient.low > 1.4 * (by_image.high - by_image.low)
    again = frechet_with_interval(images, made, patients, paired=True, seed=0).distance
    assert again == by_patient


def test_a_copy_drawn_with_its_image_never_differs_from_it() -> None:
    images = np.random.default_rng(4).normal(size=(20, 6))
    paired = frechet_with_interval(images, images, np.arange(20), paired=True, resamples=20, seed=0).distance
    apart = frechet_with_interval(images, images, np.arange(20), paired=False, resamples=20, seed=0).distance
    assert paired.high == pytest.approx(0, abs=1e-9)
    assert apart.high > 0.01


def test_interval_holds_the_distance_where_images_are_few() -> None:
    """Resamples of 15 images hold about 10 different ones: all lie farther apart than the images themselves."""
    a, b = np.random.default_rng(6).normal(size=(2, 15, 20))
    found = frechet_with_interval(a, b, np.arange(15), paired=False, resamples=100, seed=0).distance
    assert found.low < found.value < found.high


def test_floor_is_of_as_many_other_real_images() -> None:
    rng = np.random.default_rng(5)
    images, made, spare = rng.normal(size=(40, 5)), 3 + rng.normal(size=(25, 5)), rng.normal(size=(90, 5))
    found = frechet_with_interval(
        images, made, np.arange(40), paired=False, spare=spare, resamples=20, seed=0
    )
    assert found.floor_n == 25
    assert found.floor is not None
    assert 0 < found.floor < 2 < found.distance.value
    few = frechet_with_interval(
        images, made, np.arange(40), paired=False, spare=spare[:1], resamples=5, seed=0
    )
    assert few.floor is None


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (np.zeros((4, 3)), np.zeros((4, 2)), "of one encoder"),
        (np.zeros((1, 3)), np.zeros((4, 3)), "at least 2 images"),
        (np.zeros((4, 3)), np.full((4, 3), np.nan), "NaN"),
    ],
)
def test_bad_features_are_named(a: np.ndarray, b: np.ndarray, said: str) -> None:
    with pytest.raises(FewlabelError, match=said):
        frechet_distance(a, b)


def test_pairs_of_two_lengths_are_named() -> None:
    with pytest.raises(FewlabelError, match="12 others came with 10 images"):
        frechet_with_interval(np.zeros((10, 2)), np.zeros((12, 2)), np.arange(10), paired=True, seed=0)
