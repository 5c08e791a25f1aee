"""Pictures of single cases: what a map of similarity looks like, and what is no map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from matplotlib import colormaps

from fewlabel.pipeline.figures import MAP_OPACITY, case_figure, match_figure, similarity_figure
from fewlabel.report.style import SIMILARITY_COLOURS
from fewlabel.tasks.evidence import PlaceMatch
from fewlabel.types import FewlabelError

LOWEST, HIGHEST = 255 * np.asarray(colormaps[SIMILARITY_COLOURS]([0.0, 1.0]))[:, :3]


def _drawn(tmp_path: Path, image: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    similarity_figure(image, similarity, tmp_path / "figures" / "map.png")
    with PIL.Image.open(tmp_path / "figures" / "map.png") as picture:
        return np.asarray(picture, np.float64)


def _mixed(grey: float, colour: np.ndarray) -> np.ndarray:
    return (1 - MAP_OPACITY) * 255 * grey + MAP_OPACITY * colour


def test_a_map_is_laid_over_the_image_where_it_belongs(tmp_path: Path) -> None:
    similarity = np.array([[-0.4, 0.6], [-0.4, -0.4]])
    drawn = _drawn(tmp_path, np.full((1, 32, 32), 0.6), similarity)
    assert drawn.shape == (224, 224, 3)
    np.testing.assert_allclose(drawn[0, -1], _mixed(0.6, HIGHEST), atol=1)
    for corner in ((0, 0), (-1, 0), (-1, -1)):
        np.testing.assert_allclose(drawn[corner], _mixed(0.6, LOWEST), atol=1)


def test_the_image_shines_through(tmp_path: Path) -> None:
    image = np.zeros((1, 64, 64))
    image[:, :, 32:] = 1
    drawn = _drawn(tmp_path, image, np.zeros((7, 7)))
    np.testing.assert_allclose(drawn[:, :100], np.broadcast_to(_mixed(0, LOWEST), (224, 100, 3)), atol=1)
    np.testing.assert_allclose(drawn[:, 124:], np.broadcast_to(_mixed(1, LOWEST), (224, 100, 3)), atol=1)


def test_colours_follow_the_range_of_the_map(tmp_path: Path) -> None:
    """Scale and offset change nothing in the picture, and the range is given back for the caption."""
    rng = np.random.default_rng(0)
    image, similarity = rng.random((3, 240, 240)), rng.uniform(-1, 1, (5, 9))
    assert similarity_figure(image, similarity, tmp_path / "a.png") == (similarity.min(), similarity.max())
    low, high = similarity_figure(image, 40 * similarity + 7, tmp_path / "b.png")
    assert (low, high) == pytest.approx((40 * similarity.min() + 7, 40 * similarity.max() + 7))
    with PIL.Image.open(tmp_path / "a.png") as a, PIL.Image.open(tmp_path / "b.png") as b:
        assert a.size == b.size == (240, 240)
        np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), atol=1)


def test_image_and_map_have_one_size(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (1, 1, 300, 300), np.uint8)
    case_figure(pixels, 0, tmp_path / "image.png")
    similarity_figure(pixels[0] / 255.0, np.eye(3), tmp_path / "map.png")
    with PIL.Image.open(tmp_path / "image.png") as image, PIL.Image.open(tmp_path / "map.png") as drawn:
        assert image.size == drawn.size == (300, 300)


@pytest.mark.parametrize(
    "similarity",
    [np.zeros((1, 7, 7)), np.zeros(7), np.zeros((0, 7)), np.array([[0.0, np.nan]]), np.array([[np.inf]])],
)
def test_what_is_no_map_is_refused(tmp_path: Path, similarity: np.ndarray) -> None:
    with pytest.raises(FewlabelError, match="give one finite number for each place"):
        similarity_figure(np.zeros((1, 8, 8)), similarity, tmp_path / "map.png")
    assert not list(tmp_path.iterdir())


def test_two_images_lie_side_by_side_under_one_scale_of_colours(tmp_path: Path) -> None:
    """One place of the query matches one of the hit best; on both stands the number 1."""
    of_query, of_hit = np.full((7, 7), 0.1), np.full((7, 7), 0.5)
    of_query[0, 6] = of_hit[6, 0] = 0.9
    in_hit, in_query = np.full((7, 7), 42), np.full((7, 7), 10)
    in_query[6, 0] = 6
    match = PlaceMatch(of_query, in_hit, of_hit, in_query)
    black = np.zeros((1, 32, 32))
    assert match_figure(black, black, match, tmp_path / "match.png") == (0.1, 0.9)
    with PIL.Image.open(tmp_path / "match.png") as picture:
        drawn = np.asarray(picture, np.float64)
    assert drawn.shape == (224, 2 * 224 + 8, 3)
    query, hit = drawn[:, :224], drawn[:, -224:]
    np.testing.assert_allclose(query[-1, 0], _mixed(0, LOWEST), atol=1)
    middle = 255 * np.asarray(colormaps[SIMILARITY_COLOURS](0.5))[:3]
    np.testing.assert_allclose(hit[0, -1], _mixed(0, middle), atol=2)
    white = [np.argwhere((side == 255).all(axis=2)).mean(axis=0) for side in (query, hit)]
    np.testing.assert_allclose(white[0], (16, 208), atol=2)
    np.testing.assert_allclose(white[1], (208, 16), atol=2)
