"""NIfTI: voxels, scaling, orientation and units, against nibabel's own reading."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabel.images import read, read_file, scan
from fewlabel.types import UnreadableImage


def write(
    path: Path, data: np.ndarray, affine: np.ndarray | None = None, kind=nibabel.Nifti1Image, **header
) -> Path:
    image = kind(data, np.diag([2.0, 3.0, 4.0, 1.0]) if affine is None else affine)
    image.header.set_xyzt_units("mm")
    for name, value in header.items():
        image.header[name] = value
    image.to_filename(path)
    return path


@settings(max_examples=30, deadline=None)
@given(
    axes=st.permutations("XYZ"),
    flips=st.tuples(*[st.booleans()] * 3),
    dtype=st.sampled_from(["u1", "i2", "u2", "i4", "f4", ">i2", "f8", "i1"]),
    kind=st.sampled_from([nibabel.Nifti1Image, nibabel.Nifti2Image]),
    suffix=st.sampled_from([".nii", ".nii.gz", ".nii.bz2"]),
)
def test_every_orientation_gives_the_same_point_the_same_value(
    tmp_path_factory, axes, flips, dtype, kind, suffix
):
    folder = tmp_path_factory.mktemp("nifti")
    data = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(dtype)
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for column, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
        affine["XYZ".index(axis), column] = (-1 if flip else 1) * (column + 1.5)
    affine[:3, 3] = [5, -6, 7]
    path = write(folder / f"v{suffix}", data, affine, kind)
    image = read_file(path.rename(folder / "no-extension"))
    voxel = np.array([1, 2, 3])
    world = affine @ [*voxel, 1]
    i, j, k = np.round(np.linalg.inv(image.affine) @ world)[:3].astype(int)
    assert image.pixels[0, k, j, i] == data[tuple(voxel)]
    assert image.affine[0, 0] < 0
    assert image.affine[1, 1] < 0
    assert image.affine[2, 2] > 0
    assert image.spacing_mm == pytest.approx([image.affine[2, 2], -image.affine[1, 1], -image.affine[0, 0]])


def test_rows_run_as_in_an_axial_dicom_slice(tmp_path):
    data = np.zeros((3, 4, 5), np.uint8)
    data[0, 3, 0] = 200  # the patient's right-most, front-most, lowest voxel of a file with LAS axes
    image = read_file(write(tmp_path / "v.nii", data, np.diag([-1.0, 1.0, 1.0, 1.0])))
    assert image.pixels.shape == (1, 5, 4, 3)
    assert image.pixels[0, 0, 0, 0] == 200
    assert any("turned from LAS" in line for line in image.provenance)


def test_slope_and_intercept(tmp_path):
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = read_file(write(tmp_path / "v.nii", data, scl_slope=2, scl_inter=-1000))
    assert image.pixels.dtype == np.int16
    assert sorted(image.pixels.ravel()) == [2 * value - 1000 for value in range(24)]
    image = read_file(write(tmp_path / "w.nii", data, scl_slope=0.5, scl_inter=0))
    assert image.pixels.dtype == np.float32
    assert image.pixels.max() == 11.5


def test_not_a_number_is_masked(tmp_path):
    data = np.ones((2, 3, 4), np.float32)
    data[1, 1, 1] = np.nan
    image = read_file(write(tmp_path / "v.nii", data))
    assert np.isfinite(image.pixels).all()
    assert (~image.valid).sum() == 1


def test_single_slice_4d_and_rgb(tmp_path):
    plane = read_file(write(tmp_path / "a.nii", np.ones((5, 6, 1), np.uint8)))
    assert plane.pixels.shape == (1, 6, 5)
    assert plane.spacing_mm == (3.0, 2.0)
    many = np.stack([np.full((2, 3, 4), value, np.int16) for value in (7, 8)], axis=-1)
    image = read_file(write(tmp_path / "b.nii", many))
    assert image.pixels.shape == (1, 4, 3, 2)
    assert image.pixels.max() == 7
    assert "first of 2 volumes" in image.warnings[0]
    colour = np.zeros((2, 3, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colour["G"] = 9
    assert read_file(write(tmp_path / "c.nii", colour)).pixels[:, 0, 0, 0].tolist() == [0, 9, 0]


def test_lengths_in_metres_become_mm(tmp_path):
    image = nibabel.Nifti1Image(np.ones((2, 2, 2), np.uint8), np.diag([0.001, 0.002, 0.003, 1]))
    image.header.set_xyzt_units("meter")
    image.to_filename(tmp_path / "v.nii")
    assert read_file(tmp_path / "v.nii").spacing_mm == pytest.approx((3, 2, 1))


def test_slices_of_a_volume(tmp_path):
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    write(tmp_path / "v.nii", data)
    sources, _ = scan(tmp_path, scratch=tmp_path / "scratch", slices=True)
    assert [source.name for source in sources] == [f"v.nii#{index:05d}" for index in range(4)]
    whole = read_file(tmp_path / "v.nii")
    for index, source in enumerate(sources):
        assert (read(source).pixels == whole.pixels[:, index]).all()
        assert read(source).spacing_mm == whole.spacing_mm[1:]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:400], "cut short: 48 of 192 bytes"),
        (lambda data: data[:40] + b"\x03\x00" + b"\xff\x7f" * 3 + data[48:], "more than the limit"),
        (lambda data: data[:70] + b"\x20\x00\x40\x00" + data[74:], "complex64.*no intensities"),
        (lambda data: data[:108] + np.float32(9e9).tobytes() + data[112:], "cannot be"),
    ],
)
def test_broken_files_give_a_reason(tmp_path, change, reason):
    path = write(tmp_path / "v.nii", np.ones((2, 3, 4), np.complex64 if "complex" in reason else np.float64))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UnreadableImage, match=reason):
        read_file(path)
