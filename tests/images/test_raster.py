"""Pictures at full bit depth: PNG, JPEG, TIFF and relatives."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fewlabel.images import read_file, scan
from fewlabel.types import UnreadableImage

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 255, (6, 7, 3), np.uint8)
shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)


def said(image, word: str) -> bool:
    return any(word in line for line in image.provenance)


@settings(max_examples=40, deadline=None)
@given(pixels=hnp.arrays(st.sampled_from([np.uint8, np.uint16]), shapes))
def test_png_keeps_every_bit(tmp_path_factory, pixels):
    path = tmp_path_factory.mktemp("png") / "picture.jpg"
    PIL.Image.fromarray(pixels).save(path, format="PNG")
    image = read_file(path)
    assert image.pixels.dtype == pixels.dtype
    assert (image.pixels[0] == pixels).all()


@settings(max_examples=40, deadline=None)
@given(
    pixels=st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]).flatmap(
        lambda dtype: hnp.arrays(dtype, shapes, elements=st.integers(0, 255).map(dtype))
    ),
    compression=st.sampled_from([None, "lzw", "deflate"]),
    order=st.sampled_from("<>"),
    tiled=st.booleans(),
)
def test_tiff_keeps_every_bit(tmp_path_factory, pixels, compression, order, tiled):
    path = tmp_path_factory.mktemp("tiff") / "x"
    tile = (16, 16) if tiled else None
    tifffile.imwrite(
        path, pixels, compression=compression, byteorder=order, tile=tile, photometric="minisblack"
    )
    image = read_file(path)
    assert image.pixels.dtype == pixels.dtype
    assert (image.pixels[0] == pixels).all()


def test_colour_and_grey_colour(tmp_path):
    PIL.Image.fromarray(COLOUR).save(tmp_path / "a.png")
    assert (read_file(tmp_path / "a.png").pixels == np.moveaxis(COLOUR, -1, 0)).all()
    grey = np.repeat(COLOUR[..., :1], 3, axis=-1)
    PIL.Image.fromarray(grey).save(tmp_path / "b.png")
    image = read_file(tmp_path / "b.png")
    assert image.pixels.shape == (1, 6, 7)
    assert said(image, "equal")


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_colour_png(tmp_path, channels):
    from imagecodecs import png_encode

    pixels = RANDOM.integers(0, 65535, (4, 5, channels), np.uint16)
    if channels == 4:
        pixels[0, 0, 3] = 0
    (tmp_path / "x").write_bytes(png_encode(pixels))
    image = read_file(tmp_path / "x")
    assert image.pixels.dtype == np.uint16
    assert (image.pixels == np.moveaxis(pixels[..., :3], -1, 0)).all()
    assert (image.valid is None) == (channels == 3)


def test_one_bit_palette_alpha_and_cmyk(tmp_path):
    mask = np.array([[True, False], [False, True]])
    PIL.Image.fromarray(mask).save(tmp_path / "bit.png")
    assert read_file(tmp_path / "bit.png").pixels.tolist() == [[[255, 0], [0, 255]]]
    PIL.Image.fromarray(COLOUR).convert("P").save(tmp_path / "palette.png")
    expected = np.asarray(PIL.Image.open(tmp_path / "palette.png").convert("RGB"))
    assert (read_file(tmp_path / "palette.png").pixels == np.moveaxis(expected, -1, 0)).all()
    alpha = np.dstack([COLOUR, np.full((6, 7), 255, np.uint8)])
    alpha[:3, :, 3] = 0
    PIL.Image.fromarray(alpha).save(tmp_path / "alpha.png")
    image = read_file(tmp_path / "alpha.png")
    assert (image.pixels == np.moveaxis(COLOUR, -1, 0)).all()
    assert image.valid.sum() == 21
    PIL.Image.fromarray(np.full((8, 8, 3), (200, 30, 30), np.uint8)).convert("CMYK").save(tmp_path / "c.jpg")
    image = read_file(tmp_path / "c.jpg")
    assert np.abs(image.pixels[:, 0, 0].astype(int) - [200, 30, 30]).max() <= 4
    assert said(image, "from CMYK")


def test_exif_orientation_is_applied_and_said(tmp_path):
    pixels = np.zeros((8, 16), np.uint8)
    pixels[:, :8] = 255
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(pixels).save(tmp_path / "x.jpg", exif=exif, quality=100)
    image = read_file(tmp_path / "x.jpg")
    assert image.pixels.shape == (1, 16, 8)
    assert image.pixels[0, 0].min() > 200
    assert said(image, "EXIF orientation 6")


@pytest.mark.parametrize("code", range(1, 9))
def test_tiff_orientation_agrees_with_exif(tmp_path, code):
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    tags = [(274, "H", 1, code, True)]
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="minisblack", extratags=tags)
    exif = PIL.Image.Exif()
    exif[0x0112] = code
    PIL.Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    assert (read_file(tmp_path / "x.tif").pixels == read_file(tmp_path / "x.png").pixels).all()


def test_tiff_pages_become_depth_when_they_are_alike(tmp_path):
    pages = RANDOM.integers(0, 65535, (3, 4, 5), np.uint16)
    tifffile.imwrite(tmp_path / "alike.tif", pages, photometric="minisblack")
    image = read_file(tmp_path / "alike.tif")
    assert image.pixels.shape == (1, 3, 4, 5)
    assert (image.pixels[0] == pages).all()
    with tifffile.TiffWriter(tmp_path / "differ.tif") as file:
        file.write(pages[0], photometric="minisblack")
        file.write(pages[1, :2], photometric="minisblack")
    image = read_file(tmp_path / "differ.tif")
    assert (image.pixels[0] == pages[0]).all()
    assert "1 further pages" in image.warnings[0]
    sources, _ = scan(tmp_path / "alike.tif", scratch=tmp_path / "scratch", slices=True)
    assert len(sources) == 3


def test_tiff_white_is_zero_palette_and_planar_colour(tmp_path):
    pixels = np.array([[0, 10], [255, 100]], np.uint8)
    tifffile.imwrite(tmp_path / "white.tif", pixels, photometric="miniswhite")
    assert (read_file(tmp_path / "white.tif").pixels[0] == 255 - pixels).all()
    table = RANDOM.integers(0, 255, (3, 256), np.uint8)
    tifffile.imwrite(
        tmp_path / "p.tif", pixels, photometric="palette", colormap=table.astype(np.uint16) * 257
    )
    assert (read_file(tmp_path / "p.tif").pixels == table[:, pixels]).all()
    planes = np.moveaxis(COLOUR, -1, 0)
    tifffile.imwrite(tmp_path / "rgb.tif", planes, photometric="rgb", planarconfig="separate")
    assert (read_file(tmp_path / "rgb.tif").pixels == planes).all()


def test_one_bit_tiff_with_and_without_palette(tmp_path):
    bits = np.array([[True, False, True]])
    picture = PIL.Image.fromarray(bits)
    picture.save(tmp_path / "grey.tif")
    assert read_file(tmp_path / "grey.tif").pixels.tolist() == [[[255, 0, 255]]]
    tags = [(320, "H", 6, (0, 65535, 0, 256, 0, 0), True)]
    tifffile.imwrite(tmp_path / "p.tif", bits, photometric="minisblack", extratags=tags)
    content = (tmp_path / "p.tif").read_bytes()
    grey, palette = (struct.pack("<HHIH", 262, 3, 1, photometric) for photometric in (1, 3))
    (tmp_path / "p.tif").write_bytes(content.replace(grey, palette))
    assert read_file(tmp_path / "p.tif").pixels[:, 0].tolist() == [[255, 0, 255], [1, 0, 1], [0, 0, 0]]


def test_a_tiff_page_of_no_bits(tmp_path):
    tifffile.imwrite(
        tmp_path / "x.tif", np.ones((4, 5), np.uint16), photometric="minisblack", compression="lzw"
    )
    content = (tmp_path / "x.tif").read_bytes()
    stated, changed = (struct.pack("<HHIH", 258, 3, 1, bits) for bits in (16, 0))
    (tmp_path / "x.tif").write_bytes(content.replace(stated, changed))
    with pytest.raises(UnreadableImage, match=r"came out as \(0,\), not as \(4, 5\)"):
        read_file(tmp_path / "x.tif")


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path):
    from imagecodecs import png_encode

    data = bytearray(png_encode(np.zeros((2, 2), np.uint8)))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(UnreadableImage, match=r"60000 x 60000|exceeds limit"):
        read_file(tmp_path / "x.png")


def test_a_cut_jpeg_is_damaged(tmp_path):
    path: Path = tmp_path / "x.jpg"
    PIL.Image.fromarray(RANDOM.integers(0, 255, (64, 64), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(UnreadableImage, match="truncated"):
        read_file(path)
