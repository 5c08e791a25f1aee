"""A made image is known by its file, wherever it goes; others are not taken for made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from fewlabel.collection import Collection, import_images
from fewlabel.images import read_file
from fewlabel.images.made import MADE_KEY, MADE_NOTE, MADE_TEXT, write_made_png
from fewlabel.pipeline.results import is_made

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_file_says_that_it_is_made(tmp_path: Path, channels: int) -> None:
    pixels = RANDOM.integers(0, 255, (channels, 20, 24), np.uint8)
    write_made_png(tmp_path / "made-1.png", pixels, "Class opacity, seed 0, number 1.")
    with PIL.Image.open(tmp_path / "made-1.png") as picture:
        assert picture.info[MADE_KEY] == f"{MADE_TEXT} Class opacity, seed 0, number 1."
    image = read_file(tmp_path / "made-1.png")
    assert (image.pixels == pixels).all()
    assert image.provenance[0] == MADE_NOTE
    assert image.attributes == {"made": 1.0}


def test_other_pictures_are_not_made(tmp_path: Path) -> None:
    PIL.Image.fromarray(RANDOM.integers(0, 255, (20, 24), np.uint8)).save(tmp_path / "made-2.png")
    image = read_file(tmp_path / "made-2.png")
    assert MADE_NOTE not in image.provenance
    assert image.attributes == {}


def test_a_collection_knows_its_made_images(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(3):
        pixels = RANDOM.integers(0, 255, (1, 20, 20), np.uint8)
        PIL.Image.fromarray(pixels[0]).save(tmp_path / "images" / f"real-{number}.png")
    import_images(tmp_path / "images", tmp_path / "chest", workers=1)
    assert not is_made(Collection.open(tmp_path / "chest"))
    write_made_png(tmp_path / "images" / "x.png", RANDOM.integers(0, 255, (1, 20, 20), np.uint8))
    summary = import_images(tmp_path / "images", tmp_path / "chest", workers=1)
    chest = Collection.open(tmp_path / "chest")
    assert is_made(chest)
    assert "1 images are made by a generator and show no patient (column made)" in summary.notes
    assert [chest.column("source")[row] for row in chest.where("made = 1")] == ["x.png"]
    assert chest.image(3).provenance[0] == MADE_NOTE
