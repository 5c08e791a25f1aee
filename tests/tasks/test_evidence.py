"""Nearest labelled cases by loops, whose they never are, and places that match in images made for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_towers import BLOCK_PX, SIZE_PX, known_model

from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.tasks.evidence import (
    NOBODY,
    LabelledCases,
    PlaceMatch,
    disagreeing,
    match_places,
    nearest_cases,
)
from fewlabel.tasks.places import place_features
from fewlabel.types import FewlabelError


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_against_loops() -> None:
    rng = np.random.default_rng(0)
    queries, cases = rng.normal(size=(9, 5)), rng.normal(size=(30, 5))
    asking, patients = np.r_[rng.integers(0, 6, 8), NOBODY], rng.integers(0, 6, 30)
    found = nearest_cases(queries, cases, 4, query_patients=asking, case_patients=patients)
    for q in range(9):
        allowed = [m for m in range(30) if asking[q] == NOBODY or patients[m] != asking[q]]
        order = sorted(allowed, key=lambda m: -_cosine(queries[q], cases[m]))[:4]
        assert found.places[q].tolist() == order
        np.testing.assert_allclose(found.cosines[q], [_cosine(queries[q], cases[m]) for m in order])


def test_where_nobody_else_is_left() -> None:
    same = np.zeros(3, dtype=int)
    found = nearest_cases(np.ones((1, 2)), np.ones((3, 2)), 5, query_patients=same[:1], case_patients=same)
    assert found.places.tolist() == [[-1, -1, -1]]
    assert np.isnan(found.cosines).all()
    assert np.isnan(found.votes(np.array([0, 1, 1]), 2)).all()
    assert disagreeing(found.votes(np.array([0, 1, 1]), 2), np.array([1])).tolist() == [False]


def test_votes_and_who_disagrees() -> None:
    cases = np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [0.0, 1.0]])
    found = nearest_cases(
        np.array([[1.0, 0.0]]), cases, 4, query_patients=np.array([NOBODY]), case_patients=np.arange(4)
    )
    y = np.array([0, 2, 2, 0])
    votes = found.votes(y, 3)
    assert votes.tolist() == [[0.5, 0.0, 0.5]]
    for called, expected in ((0, False), (1, True), (2, False)):  # a tie is no disagreement
        assert disagreeing(votes, np.array([called])).tolist() == [expected]


@pytest.fixture
def cases() -> LabelledCases:
    features = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [1.0, 0.02]])
    return LabelledCases(features, np.array([0, 0, 1, 1, 0]), tuple("abcde"), ("P1", "P1", "P2", "", ""))


def test_the_own_patient_is_never_found(cases: LabelledCases) -> None:
    asked = np.array([[0.95, 0.05]] * 3)
    found = cases.nearest(asked, ["P1", "P9", ""], 3)
    assert found.places[0].tolist() == [4, 3, 2]
    assert set(found.places[1].tolist()) == set(found.places[2].tolist()) == {0, 1, 4}


def test_an_image_that_is_a_case_is_known_whatever_its_file_says(cases: LabelledCases) -> None:
    """A PNG has no patient: its features are those of a case, so that all of its patient's images are left out."""
    found = cases.nearest(cases.features + 1e-6, [""] * 5, 2)
    assert not {0, 1} & {*found.places[0].tolist(), *found.places[1].tolist()}
    assert 2 not in found.places[2]
    assert 3 not in found.places[3]
    assert found.places[4].tolist() == [0, 1]
    other = cases.nearest(np.array([[1.0, 0.05]]), [""], 1)
    assert other.places.tolist() == [[4]]  # near is not the same


def test_lists_of_other_lengths() -> None:
    with pytest.raises(FewlabelError, match="2 features, 2 labels, 1 cases and 2 patients"):
        LabelledCases(np.zeros((2, 3)), np.zeros(2), ("a",), ("", ""))


def _blocks(*grey: tuple[int, int, int, int]) -> np.ndarray:
    """Images (n, 1, 16, 16) of four blocks, row by row."""
    tiles = np.array(grey, dtype=np.uint8).reshape(-1, 1, 2, 2)
    return tiles.repeat(BLOCK_PX, axis=2).repeat(BLOCK_PX, axis=3)


def test_a_bright_block_matches_the_bright_block() -> None:
    """Features of a place are (its mean, 1), less (a half, 1): bright places point one way, dark ones the other."""
    encoder = known_model({"x": (1.0, 0.0)}).encoder
    images = _blocks((255, 0, 0, 0), (0, 0, 0, 255))
    half = float(torch.as_tensor((0.5 - encoder.mean) / encoder.std))
    [match] = match_places(encoder, images[0], images[1:], size_px=SIZE_PX, centre=np.array([half, 1.0]))
    assert match.in_hit[0, 0] == 3
    assert match.in_query[1, 1] == 0
    assert (match.of_query > 0.999).all()
    assert (0, 3) in [pair[:2] for pair in match.mutual()]


def test_what_has_no_counterpart_is_dark_on_the_map() -> None:
    encoder = known_model({"x": (1.0, 0.0)}).encoder
    images = _blocks((255, 0, 0, 0), (0, 0, 0, 0), (255, 255, 255, 255))
    half = float(torch.as_tensor((0.5 - encoder.mean) / encoder.std))
    dark, bright = match_places(encoder, images[0], images[1:], size_px=SIZE_PX, centre=np.array([half, 1.0]))
    assert dark.of_query[0, 0] < -0.999
    assert (dark.of_query.ravel()[1:] > 0.999).all()
    assert (dark.of_hit > 0.999).all()  # and the way back is another question
    assert bright.of_query[0, 0] > 0.999
    assert (bright.of_query.ravel()[1:] < -0.999).all()


def test_matches_are_the_best_cosines_both_ways() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = Encoder(EncoderSettings("test_resnet", 1, 96))
    images = np.random.default_rng(0).integers(0, 255, (3, 1, 96, 96), dtype=np.uint8)
    centre = np.full(encoder.dim, 0.1)
    matches = match_places(encoder, images[0], images[1:], size_px=96, centre=centre)
    assert encoder.training  # it was left as it was
    with torch.no_grad():
        maps = place_features(encoder.eval(), torch.from_numpy(images).float() / 255).numpy() - centre
    for hit, match in enumerate(matches, start=1):
        a, b = maps[0].reshape(9, -1), maps[hit].reshape(9, -1)
        table = np.array([[_cosine(x, y) for y in b] for x in a])
        np.testing.assert_allclose(match.of_query.ravel(), table.max(axis=1), atol=1e-4)
        np.testing.assert_allclose(match.of_hit.ravel(), table.max(axis=0), atol=1e-4)
        assert match.in_hit.ravel().tolist() == table.argmax(axis=1).tolist()
        assert match.in_query.ravel().tolist() == table.argmax(axis=0).tolist()
        both = [(i, int(table[i].argmax())) for i in range(9) if table[:, table[i].argmax()].argmax() == i]
        assert sorted(pair[:2] for pair in match.mutual()) == both
        assert match.mutual()[0][2] == pytest.approx(max(table[i, j] for i, j in both), abs=1e-4)


def test_an_image_matches_itself_place_by_place() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = Encoder(EncoderSettings("test_resnet", 1, 96))
    image = np.random.default_rng(1).integers(0, 255, (1, 96, 96), dtype=np.uint8)
    [match] = match_places(encoder, image, image[None], size_px=96)
    assert match.in_hit.ravel().tolist() == list(range(9))
    assert len(match.mutual()) == 9


def test_mutual_are_places_that_choose_each_other() -> None:
    """Of three places the first two choose the second of the hit, which chooses the first; the third ones agree."""
    match = PlaceMatch(
        np.array([[0.7, 0.6, 0.9]]), np.array([[1, 1, 2]]), np.array([[0.2, 0.7, 0.9]]), np.array([[2, 0, 2]])
    )
    assert match.mutual() == [(2, 2, 0.9), (0, 1, 0.7)]
