"""What is worth a second look: flipped labels, copies, outliers; each with a plain way to say what is right."""

from __future__ import annotations

import numpy as np
import pytest

from fewlabel.evaluation.hygiene import (
    NEIGHBOURS,
    Opinions,
    copies,
    how_well_told,
    opinions,
    opinions_on_others,
    outliers,
    suspected_labels,
)


def _flipped(seed: int = 0, n: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features of two overlapping classes, labels of which 5 % are wrong, patients of two images, who is wrong."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.integers(0, 2, n // 2), 2)
    features = rng.normal(size=(n, 10)) + 2.2 * truth[:, None] * (np.arange(10) < 2)
    wrong = rng.random(n) < 0.05
    return features, np.where(wrong, 1 - truth, truth), np.repeat(np.arange(n // 2), 2), wrong


def test_flipped_labels_are_found_above_chance() -> None:
    features, y, groups, wrong = _flipped()
    found = suspected_labels(opinions(features, y, groups, classes=2), y)
    precision, recall = wrong[found.positions].mean(), np.isin(np.flatnonzero(wrong), found.positions).mean()
    assert precision > 4 * wrong.mean()
    assert recall > 0.5
    assert recall > 8 * len(found.positions) / len(y)  # as many drawn at random would find that share
    assert wrong[found.positions[:15]].mean() > 0.8
    assert (np.diff(found.margin) <= 1e-12).all()
    assert (found.suggested == 1 - y[found.positions]).all()


def test_the_own_patient_is_no_witness() -> None:
    """Two wrong labels of one patient, whose images are all but the same: neither vouches for the other."""
    features, y, groups, _ = _flipped(1)
    first = int(np.flatnonzero((y == 0) & (groups == np.roll(groups, -1)))[0])
    features[first : first + 2] = [9.0, 9.0, *np.zeros(8)]
    y[first : first + 2] = 0
    held = opinions(features, y, groups, classes=2)
    assert held.neighbours[first, 1] == held.neighbours[first + 1, 1] == 1.0
    assert {first, first + 1} <= set(suspected_labels(held, y).positions.tolist())


def test_labels_of_others_do_not_depend_on_their_own() -> None:
    """Test images: their labels are judged, and have no say in the opinions."""
    features, y, _, wrong = _flipped(2)
    held = opinions_on_others(features[:400], y[:400], features[400:], classes=2)
    assert held.probe.shape == held.neighbours.shape == (200, 2)
    np.testing.assert_allclose(held.neighbours.sum(axis=1), 1)
    found = suspected_labels(held, y[400:])
    assert wrong[400:][found.positions].mean() > 3 * wrong.mean()


def test_both_opinions_must_suspect_a_label_and_for_the_same_class() -> None:
    y = np.array([0, 0, 0, 0, 1, 1, 2, 2, 0])
    sure = np.eye(3)[y] * 0.8 + 0.2 / 3
    probe, neighbours = sure.copy(), sure.copy()
    probe[0], neighbours[0] = (0.05, 0.9, 0.05), (0.0, 1.0, 0.0)
    probe[1] = (0.05, 0.9, 0.05)  # the neighbours believe the label
    neighbours[2] = (0.0, 1.0, 0.0)  # the probe believes it
    probe[3], neighbours[3] = (0.05, 0.9, 0.05), (0.0, 0.0, 1.0)  # each something else
    probe[8], neighbours[8] = np.nan, (0.0, 1.0, 0.0)  # no opinion could be formed
    found = suspected_labels(Opinions(probe, neighbours), y)
    assert found.positions.tolist() == [0]
    assert found.suggested.tolist() == [1]
    assert found.margin.tolist() == pytest.approx([(0.9 + 1.0) / 2 - 0.05 / 2])


def test_opinions_that_know_nothing_are_told_from_those_that_do() -> None:
    rng = np.random.default_rng(5)
    y, groups = rng.integers(0, 2, 200), np.repeat(np.arange(100), 2)
    noise, apart = rng.normal(size=(200, 6)), rng.normal(size=(200, 6)) + 2 * y[:, None]
    knows_nothing, knows = (
        how_well_told(opinions(features, y, groups, classes=2), y, groups) for features in (noise, apart)
    )
    assert knows_nothing.low < 0.5
    assert knows.low > 0.9
    assert knows.patients == 100


def _thumbs(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (n, 1024), dtype=np.uint8)


def test_copies_are_pairs_exact_or_near() -> None:
    thumbs = _thumbs(6)
    thumbs[3] = thumbs[1]
    thumbs[4] = np.clip(thumbs[2].astype(int) + np.random.default_rng(1).integers(-9, 9, 1024), 0, 255)
    hashes = np.array(["a", "b", "c", "b", "d", "e"], dtype=object)
    found = copies(thumbs, hashes, np.array([-1, 1, 2, 1, 2, -1]))
    assert list(zip(found.a.tolist(), found.b.tolist(), strict=True)) == [(1, 3), (2, 4)]
    assert found.exact.tolist() == [True, False]
    assert found.correlation[0] == pytest.approx(1)
    assert 0.9 < found.correlation[1] < 1


def test_three_copies_are_three_pairs_also_without_detail() -> None:
    flat = np.full((3, 1024), 7, dtype=np.uint8)
    found = copies(flat, np.array(["x", "x", "x"], dtype=object), np.zeros(3, dtype=int))
    assert list(zip(found.a.tolist(), found.b.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2)]
    assert found.exact.all()


def test_no_copies() -> None:
    found = copies(_thumbs(3), np.array(["x", "y", "z"], dtype=object), np.full(3, -1))
    assert len(found.a) == len(found.exact) == 0


def test_outliers_are_those_that_lie_apart() -> None:
    rng = np.random.default_rng(0)
    features, groups = rng.normal(size=(300, 8)), np.arange(300)
    features[[7, 250]] += 25
    found = outliers(features, groups, np.arange(200))
    assert set(found.positions[:2].tolist()) == {
        7,
        250,
    }  # the second is no reference, and is judged all the same
    assert len(found.positions) < 8
    assert found.score[1] > 2 * found.score[2:].max(initial=3.5)
    distance = np.sort(np.linalg.norm(features[7] - np.delete(features[:200], 7, axis=0), axis=1))[
        NEIGHBOURS - 1
    ]
    each = np.array([
        np.sort(np.linalg.norm(features[i] - features[:200][groups[:200] != i], axis=1))[NEIGHBOURS - 1]
        for i in range(200)
    ])  # fmt: skip
    x = np.log(each)
    z = 0.6745 * (np.log(distance) - np.median(x)) / np.median(np.abs(x - np.median(x)))
    assert found.score[found.positions.tolist().index(7)] == pytest.approx(z)


def test_images_of_one_odd_patient_do_not_hide_each_other() -> None:
    rng = np.random.default_rng(1)
    features, groups = rng.normal(size=(120, 8)), np.arange(120)
    features[:15] += 25
    groups[:15] = 0
    assert set(range(15)) <= set(outliers(features, groups, np.arange(120)).positions.tolist())


def test_too_few_or_all_alike_have_no_outlier() -> None:
    assert len(outliers(np.zeros((8, 3)), np.arange(8), np.arange(8)).positions) == 0
    assert len(outliers(np.ones((50, 3)), np.arange(50), np.arange(50)).positions) == 0
