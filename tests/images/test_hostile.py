"""Whatever the bytes are, a reader gives an image or raises UnreadableImage with a sentence: nothing else."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_makers import dicom
from pydicom.uid import RLELossless

from fewlabel.images import read, read_file, scan
from fewlabel.types import UnreadableImage

PIXELS = np.random.default_rng(0).integers(0, 4000, (8, 9), np.uint16)
MAGIC = [
    b"",
    b"\0" * 128 + b"DICM",
    b"\x08\0\x05\0CS",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"II*\0\x08\0\0\0",
    b"MM\0*\0\0\0\x08",
    b"\\\x01\0\0".ljust(344, b"\x01") + b"n+1\0",
    b"PK\x03\x04",
    b"\x1f\x8b\x08",
    b"BZh9",
    b"\xfd7zXZ\0",
    b"P5 9 9 255\n",
    b"GIF89a",
    b"BM",
    b"a/b".ljust(257, b"\0") + b"ustar\0" + b"00",
]


def _saved(save) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def _rle() -> bytes:
    dataset = dicom(PIXELS)
    dataset.compress(RLELossless)
    return _saved(lambda file: dataset.save_as(file, enforce_file_format=True))


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", _saved(lambda file: PIL.Image.fromarray(PIXELS).save(file, format="PNG")))
    return buffer.getvalue()


VALID = {
    "dicom": _saved(lambda file: dicom(PIXELS, PatientAge="010Y").save_as(file, enforce_file_format=True)),
    "rle": _rle(),
    "png": _saved(lambda file: PIL.Image.fromarray(PIXELS).save(file, format="PNG")),
    "jpeg": _saved(lambda file: PIL.Image.fromarray(PIXELS.astype(np.uint8)).save(file, format="JPEG")),
    "gif": _saved(lambda file: PIL.Image.fromarray(PIXELS.astype(np.uint8)).save(file, format="GIF")),
    "tiff": _saved(lambda file: tifffile.imwrite(file, PIXELS, photometric="minisblack", compression="lzw")),
    "nifti": nibabel.Nifti1Image(PIXELS.reshape(2, 4, 9), np.eye(4)).to_bytes(),
    "zip": _zip(),
    "npz": _saved(lambda file: np.savez(file, train_images=PIXELS[None], train_labels=np.zeros(1))),
}


def survives(folder: Path, content: bytes) -> None:
    path = folder / "x"
    path.write_bytes(content)
    try:
        image = read_file(path)
        assert image.pixels.ndim in (3, 4)
    except UnreadableImage as error:
        assert_sentence(str(error))
    sources, rejected = scan(path, scratch=folder / "scratch")
    for item in rejected:
        assert_sentence(item.reason)
    for source in sources:
        try:
            read(source)
        except UnreadableImage as error:
            assert_sentence(str(error))
    assert sources or rejected


def assert_sentence(reason: str) -> None:
    assert reason.strip()
    assert "\n" not in reason
    assert len(reason) < 600


hostile = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.data_too_large])


@hostile
@given(start=st.sampled_from(MAGIC), rest=st.binary(max_size=700))
def test_random_bytes(tmp_path_factory, start, rest):
    survives(tmp_path_factory.mktemp("hostile"), start + rest)


@pytest.mark.parametrize("kind", VALID)
@settings(hostile, max_examples=15)
@given(data=st.data())
def test_cut_files(tmp_path_factory, kind, data):
    content = VALID[kind]
    survives(tmp_path_factory.mktemp("cut"), content[: data.draw(st.integers(0, len(content) - 1))])


@pytest.mark.parametrize("kind", VALID)
@settings(hostile, max_examples=20)
@given(data=st.data())
def test_changed_bytes(tmp_path_factory, kind, data):
    content = bytearray(VALID[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    survives(tmp_path_factory.mktemp("changed"), bytes(content))


@pytest.mark.parametrize("kind", VALID)
def test_the_unchanged_file_is_read(tmp_path, kind):
    (tmp_path / "x").write_bytes(VALID[kind])
    (source,), _ = scan(tmp_path / "x", scratch=tmp_path / "scratch")
    assert read(source).pixels.size == PIXELS.size
