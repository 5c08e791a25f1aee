"""Copies of training images are found, whatever their exposure; noise, averages and real images are no copies."""

from __future__ import annotations

import numpy as np
import pytest

from fewlabel.evaluation import memorisation
from fewlabel.evaluation.memorisation import CopyCheck, nearness, without_exposure
from fewlabel.types import FewlabelError

SIDE = 12


def _real(count: int, seed: int) -> np.ndarray:
    """Images (N, 1, S, S) that share much and differ each in its own way, as radiographs do."""
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(0).random((1, SIDE, SIDE))
    own = rng.normal(size=(count, 20)) @ np.random.default_rng(1).normal(size=(20, SIDE * SIDE))
    return shared + 0.05 * own.reshape(count, 1, SIDE, SIDE)


def _looks(images: np.ndarray) -> dict[str, np.ndarray]:
    features = images.reshape(len(images), -1) @ np.random.default_rng(2).normal(size=(SIDE * SIDE, 8))
    return {"pixels": without_exposure(images), "features": features}


@pytest.fixture(scope="module")
def training() -> np.ndarray:
    return _real(200, seed=10)


@pytest.fixture(scope="module")
def check(training: np.ndarray) -> CopyCheck:
    return CopyCheck.of(_looks(training), _looks(_real(60, seed=11)), np.arange(60) // 2)


def test_nearness_by_loops() -> None:
    rng = np.random.default_rng(0)
    x, training = (rng.normal(size=(count, 5)).astype(np.float32) for count in (9, 30))
    found = nearness(x, training, neighbours=4)
    for i in range(len(x)):
        apart = sorted(float(np.sqrt(((x[i].astype(float) - t.astype(float)) ** 2).sum())) for t in training)
        assert found.distance[i] == pytest.approx(apart[0], rel=1e-9)
        assert found.relative[i] == pytest.approx(apart[0] / np.mean(apart[1:5]), rel=1e-9)


def test_nearness_by_hand() -> None:
    """On a line: from 1 to 0, 3 and 5 it is 1, 2 and 4."""
    found = nearness(np.array([[1.0], [3.0]]), np.array([[0.0], [3.0], [5.0]]))
    np.testing.assert_allclose(found.distance, [1, 0])
    np.testing.assert_allclose(found.relative, [1 / 3, 0])


def test_many_are_asked_in_pieces() -> None:
    rng = np.random.default_rng(4)
    x, training = rng.normal(size=(2 * memorisation._BLOCK + 3, 6)), rng.normal(size=(80, 6))
    whole, parts = nearness(x, training), [nearness(x[i : i + 1], training) for i in (0, 64, 130)]
    np.testing.assert_allclose(whole.relative[[0, 64, 130]], [one.relative[0] for one in parts])


def test_a_generator_that_copies_is_flagged_wholly(check: CopyCheck, training: np.ndarray) -> None:
    copies = training[::3]
    judged = check.judge(_looks(copies))
    assert judged.too_close.all()
    np.testing.assert_array_equal(judged.nearness["pixels"].distance, 0)
    share = check.share(judged)
    assert (share.value, share.low, share.high, share.n, share.patients) == (1, 1, 1, len(copies), 30)


def test_copies_with_another_exposure_or_some_noise_are_copies(
    check: CopyCheck, training: np.ndarray
) -> None:
    rng = np.random.default_rng(5)
    changed = 0.3 + 0.6 * training[:50] + 0.002 * rng.normal(size=training[:50].shape)
    judged = check.judge(_looks(changed))
    assert judged.too_close.all()
    by_features = judged.nearness["features"].relative <= check.limits["features"]
    assert by_features.mean() < 0.2  # which know of brightness; pixels alone tell it


def test_noise_is_not_flagged_at_all(check: CopyCheck) -> None:
    noise = np.random.default_rng(6).random((100, 1, SIDE, SIDE))
    judged = check.judge(_looks(noise))
    assert not judged.too_close.any()
    share = check.share(judged)
    assert (share.value, share.low) == (0, 0)
    assert share.high < 0.05


def test_an_average_image_copies_nobody(check: CopyCheck, training: np.ndarray) -> None:
    """It lies nearer to training images than real ones do, but to all of them alike."""
    rng = np.random.default_rng(7)
    means = np.stack([training[rng.permutation(200)[:100]].mean(axis=0) for _ in range(40)])
    judged = check.judge(_looks(means))
    assert np.median(judged.nearness["pixels"].distance) < np.quantile(check.real["pixels"].distance, 0.05)
    assert not judged.too_close.any()


def test_unseen_real_images_are_called_too_close_as_rarely_as_was_asked(
    check: CopyCheck,
) -> None:
    judged = check.judge(_looks(_real(400, seed=12)))
    share = check.share(judged)
    assert 0.01 < share.value < 0.2
    assert share.low <= share.value <= share.high
    assert 0.05 <= check.of_held_out <= 0.1


def test_limits_are_the_quantile_of_held_out_images() -> None:
    training, held_out = np.array([[0.0], [10.0], [20.0]]), np.array([[1.0], [2.0], [3.0], [4.0]])
    check = CopyCheck.of({"line": training}, {"line": held_out}, np.arange(4), quantile=0.5)
    relative = [1 / 14, 2 / 13, 3 / 12, 4 / 11]
    np.testing.assert_allclose(check.real["line"].relative, relative)
    assert check.limits["line"] == pytest.approx(2 / 13)
    judged = check.judge({"line": np.array([[2.0], [2.5], [11.0]])})
    assert judged.too_close.tolist() == [True, False, True]
    strict = CopyCheck.of({"line": training}, {"line": held_out}, np.arange(4), quantile=0.05)
    assert strict.limits["line"] == pytest.approx(1 / 14)  # of too few, the nearest


def test_copies_are_found_where_held_out_images_are_copies_themselves(training: np.ndarray) -> None:
    check = CopyCheck.of(_looks(training), _looks(training[:10]), np.arange(10))
    assert check.judge(_looks(training[20:30])).too_close.all()


def test_held_out_images_of_one_patient_are_drawn_together(training: np.ndarray) -> None:
    """With few patients the limit is less sure, and so is the share."""
    held_out, samples = _real(60, seed=13), _looks(_real(400, seed=14))
    widths = []
    for patients in (np.arange(60), np.arange(60) // 20):
        check = CopyCheck.of(_looks(training), _looks(held_out), patients)
        share = check.share(check.judge(samples))
        widths.append(share.high - share.low)
    assert widths[0] != widths[1]
    assert share.patients == 3


def test_an_image_of_one_value_is_nothing() -> None:
    found = without_exposure(np.stack([np.full((1, 4, 4), 0.3), np.eye(4)[None]]))
    assert found.shape == (2, 16)
    np.testing.assert_array_equal(found[0], 0)
    assert np.linalg.norm(found[1]) == pytest.approx(1, abs=1e-6)


def test_what_cannot_be_compared_is_refused(training: np.ndarray) -> None:
    looks = _looks(training)
    with pytest.raises(FewlabelError, match="compared with at least one"):
        CopyCheck.of(looks, {space: x[:0] for space, x in looks.items()}, np.arange(0))
    with pytest.raises(FewlabelError, match="a share between 0 and 1"):
        CopyCheck.of(looks, looks, np.arange(200), quantile=0)
    with pytest.raises(FewlabelError, match="in the same spaces"):
        CopyCheck.of(looks, {"pixels": looks["pixels"]}, np.arange(200))
    with pytest.raises(FewlabelError, match="a patient for each"):
        CopyCheck.of(looks, looks, np.arange(3))
    with pytest.raises(FewlabelError, match="at least two training images"):
        nearness(looks["features"], looks["features"][:1])
    with pytest.raises(FewlabelError, match="same width"):
        nearness(looks["features"], looks["pixels"])
