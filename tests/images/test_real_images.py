"""Every real file is read as the format's own library reads it, or rejected with a true reason."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_color_lut, apply_modality_lut

from fewlabel.images import Rejected, Source, read, scan
from fewlabel.types import Image, UnreadableImage

pytestmark = pytest.mark.real

FOLDERS = ("awkward-dicom", "lidc-ct-nodules", "lidc-ct-pair", "registration-pairs", "spm-brain-templates")
READ_BY_NO_PLUGIN_OF_PYDICOM = {"JPEG-lossy.dcm", "JPGExtended.dcm"}


def expected_of_dicom(path: Path) -> np.ndarray:
    """(F, H, W) or (F, H, W, 3) by pydicom alone, with whichever decoder it picks."""
    dataset = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    array = dataset.pixel_array
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        array = apply_color_lut(array, dataset) >> 8
    elif dataset.PhotometricInterpretation == "MONOCHROME1":
        array = 2**dataset.BitsStored - 1 - array.astype(int)
    elif dataset.get("SamplesPerPixel", 1) == 1:
        array = apply_modality_lut(array, dataset)
    frames = int(dataset.get("NumberOfFrames") or 1)
    return array.reshape(frames, dataset.Rows, dataset.Columns, -1)


def as_read(image: Image) -> np.ndarray:
    """(F, H, W, C), a grey image as one channel."""
    pixels = image.pixels if image.pixels.ndim == 4 else image.pixels[:, None]
    return np.moveaxis(pixels, 0, -1)


def check_dicom(source: Source, image: Image) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.concatenate([expected_of_dicom(path) for path in source.paths])
    np.testing.assert_allclose(as_read(image), expected[..., : image.pixels.shape[0]], rtol=1e-6, atol=1e-4)


def check_nifti(source: Source, image: Image) -> None:
    loaded = nibabel.load(source.paths[0])
    canonical = nibabel.as_closest_canonical(loaded)
    expected = np.asarray(canonical.dataobj)[::-1, ::-1].transpose(2, 1, 0)
    np.testing.assert_allclose(image.pixels[0], expected, rtol=1e-5)
    corner = image.affine @ [image.pixels.shape[3] - 1, image.pixels.shape[2] - 1, 0, 1]
    np.testing.assert_allclose(corner, canonical.affine @ [0, 0, 0, 1], atol=1e-3)


@pytest.fixture(scope="module")
def everything(shared_data, tmp_path_factory) -> tuple[list[tuple[Source, Image]], list[Rejected]]:
    """All sources that could be read, and all rejections, of the scan and of reading."""
    good: list[tuple[Source, Image]] = []
    bad: list[Rejected] = []
    for name in FOLDERS:
        if not (shared_data / name).is_dir():
            pytest.skip(f"no {name} among the real images")
        sources, rejected = scan(shared_data / name, scratch=tmp_path_factory.mktemp("scratch"))
        bad += [Rejected(f"{name}/{item.name}", item.reason) for item in rejected]
        for source in sources:
            try:
                good.append((source, read(source)))
            except UnreadableImage as error:
                bad.append(Rejected(f"{name}/{source.name}", str(error)))
    return good, bad


def test_what_is_read_is_what_the_libraries_read(everything, capsys):
    good, bad = everything
    checked: Counter[str] = Counter()
    for source, image in good:
        if source.paths[0].name in READ_BY_NO_PLUGIN_OF_PYDICOM:
            assert image.pixels.shape == (1, 1024, 256)
            assert image.pixels.max() == 264
        elif source.kind in ("dicom", "series"):
            check_dicom(source, image)
        elif source.kind == "nifti":
            check_nifti(source, image)
        checked[source.kind] += 1
        assert image.pixels.dtype.name in ("uint8", "uint16", "int16", "int32", "float32")
        assert image.valid is None or image.valid.shape == image.pixels.shape[1:]
        assert image.spacing_mm is None or len(image.spacing_mm) == image.pixels.ndim - 1
    with capsys.disabled():
        print(f"\n{len(good)} images read: {dict(checked)}; {len(bad)} rejected:")
        for reason, count in Counter(item.reason for item in bad).most_common():
            print(f"  {count:3d}  {reason}")
    assert checked["dicom"] >= 85
    assert checked["series"] == 4
    assert checked["nifti"] == 8


def test_no_file_with_pixels_is_rejected_but_for_a_true_reason(everything):
    """pydicom on its own agrees that what was rejected has no pixels, is broken, or is no picture."""
    _, bad = everything
    unexpected = {
        item.name: item.reason
        for item in bad
        if not item.reason.startswith(
            ("not an image", "the file is cut short", "the pixel data is cut short")
        )
    }
    assert {Path(name).name for name in unexpected} == {"JPEG2000-embedded-sequence-delimiter.dcm"}
    cut = [Path(item.name).name for item in bad if "cut short" in item.reason]
    assert sorted(cut) == ["MR_truncated.dcm", "emri_small_jpeg_2k_lossless_too_short.dcm"]


def test_the_tilted_head_ct_is_said_to_be_tilted_and_uneven(everything):
    good, _ = everything
    image = next(image for source, image in good if "gantry_tilt" in source.name)
    assert image.pixels.shape == (1, 28, 512, 512)
    spacing, tilt = image.warnings
    assert "uneven slice spacing: 1.08 to 7 mm" in spacing
    assert "gantry tilt of 18.5 degrees" in tilt
    assert (np.diag(image.affine)[:2] < 0).all()


def test_pneumoniamnist_is_read_whole(shared_data, tmp_path):
    folder = shared_data / "pneumoniamnist"
    if not folder.is_dir():
        pytest.skip("no pneumoniamnist among the real images")
    sources, _ = scan(folder, scratch=tmp_path)
    assert Counter(source.split for source in sources) == {"train": 4708, "val": 524, "test": 624}
    assert sum(source.labels["label"] for source in sources if source.split == "train") == 3494
    image = read(sources[-1])
    assert image.pixels.shape == (1, 28, 28)
