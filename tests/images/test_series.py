"""Slices become volumes by geometry alone; what is odd about them is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_makers import ct_series, dicom, save

from fewlabel.images import read, scan
from fewlabel.types import UnreadableImage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def scanned(folder: Path, **options):
    return scan(folder, scratch=folder.parent / "scratch", **options)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(5)), flipped=st.booleans())
def test_slices_are_sorted_by_position_whatever_the_file_names(tmp_path_factory, order, flipped):
    folder = tmp_path_factory.mktemp("series")
    heights = [10.0 + 2.5 * number for number in order]
    extra = {"ImageOrientationPatient": [1, 0, 0, 0, -1, 0]} if flipped else {}
    ct_series(folder, heights, **extra)
    (source,), rejected = scan(folder, scratch=folder / "scratch")
    image = read(source)
    assert rejected == []
    assert source.name == "series-1.2.3.4"
    expected = sorted(round(height) for height in heights)
    assert image.pixels[0, :, 0, 0].tolist() == (expected[::-1] if flipped else expected)
    assert image.spacing_mm == (2.5, 0.5, 0.75)
    assert image.warnings == ()
    shuffled = replace(source, paths=tuple(sorted(source.paths)))
    assert (read(shuffled).pixels == image.pixels).all()


def test_the_affine_maps_column_row_slice_to_ras(folder):
    ct_series(folder, [0.0, 4.0, 2.0])
    (source,), _ = scanned(folder)
    image = read(source)
    assert image.affine @ [0, 0, 0, 1] == pytest.approx([10, 20, 0, 1])
    assert image.affine @ [1, 0, 0, 1] == pytest.approx([10 - 0.75, 20, 0, 1])
    assert image.affine @ [0, 1, 0, 1] == pytest.approx([10, 20 - 0.5, 0, 1])
    assert image.affine @ [0, 0, 2, 1] == pytest.approx([10, 20, 4, 1])


def test_gantry_tilt_is_said_with_its_angle(folder):
    ct_series(folder, [0.0, 5.0, 10.0], tilt_deg=18.5, GantryDetectorTilt=18.5)
    (source,), _ = scanned(folder)
    image = read(source)
    assert "gantry tilt of 18.5 degrees" in image.warnings[0]
    assert image.spacing_mm[0] == pytest.approx(5 * np.cos(np.radians(18.5)))
    assert np.linalg.norm(image.affine[:3, 2]) == pytest.approx(5)


def test_uneven_spacing_and_missing_slices_are_told_apart(folder):
    ct_series(folder / "uneven", [0.0, 4.0, 8.0, 9.1, 16.1], SeriesInstanceUID="1.1")
    ct_series(folder / "missing", [0.0, 2.0, 4.0, 10.0, 12.0], SeriesInstanceUID="1.2")
    missing, uneven = scanned(folder)[0]
    assert "uneven slice spacing: 1.1 to 7 mm" in read(uneven).warnings[0]
    image = read(missing)
    assert image.warnings == ("missing slices: 2 of 2 mm, after slice 3 of 5",)
    assert image.spacing_mm[0] == 2.0


def test_localizers_and_other_sizes_are_split_off_and_said(folder):
    ct_series(folder, [0.0, 1.0, 2.0])
    scout = dicom(np.zeros((9, 9), np.int16), Modality="CT", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    save(scout, folder / "scout.dcm")
    odd = dicom(np.zeros((6, 6), np.int16), Modality="CT")
    odd.ImagePositionPatient, odd.ImageOrientationPatient = [0, 0, 9], [1, 0, 0, 0, 1, 0]
    save(odd, folder / "odd.dcm")
    sources, rejected = scanned(folder)
    assert [source.name for source in sources] == ["odd.dcm", "scout.dcm", "series-1.2.3.4"]
    assert rejected == []
    images = [read(source) for source in sources]
    assert any("split into 2 parts" in line for line in images[0].provenance)
    assert any("localizer" in line for line in images[1].provenance)
    assert images[2].pixels.shape == (1, 3, 4, 5)


def test_repeated_positions_make_parts_and_lone_repeats_are_rejected(folder):
    ct_series(folder / "times", [0.0, 1.0, 0.0, 1.0], SeriesInstanceUID="1.1")
    ct_series(folder / "lone", [0.0, 1.0, 2.0, 1.0], SeriesInstanceUID="1.2")
    sources, rejected = scanned(folder)
    assert [source.name for source in sources] == [
        "lone/series-1.2",
        "times/series-1.1",
        "times/series-1.1-part2",
    ]
    assert [path.name for path in sources[2].paths] == ["002.dcm", "003.dcm"]
    assert [item.name for item in rejected] == ["lone/003.dcm"]
    assert "same position of its series as lone/001.dcm" in rejected[0].reason


def test_copies_of_one_object_are_rejected_and_the_largest_is_kept(folder):
    ct_series(folder, [0.0, 1.0, 2.0])
    whole = (folder / "001.dcm").read_bytes()
    (folder / "000-cut.dcm").write_bytes(whole[:-8])
    (source,), rejected = scanned(folder)
    assert [path.name for path in source.paths] == ["000.dcm", "001.dcm", "002.dcm"]
    assert [item.name for item in rejected] == ["000-cut.dcm"]
    assert "a copy of 001.dcm" in rejected[0].reason


def test_a_series_over_several_folders_is_one_but_copies_of_a_folder_are_two(folder):
    ct_series(folder / "a" / "1", [0.0, 1.0])
    ct_series(folder / "a" / "2", [2.0, 3.0])
    (source,), _ = scanned(folder)
    assert source.name == "a/series-1.2.3.4"
    assert len(source.paths) == 4
    for path in (folder / "a" / "1").iterdir():
        save(pydicom.dcmread(path), folder / "b" / path.name)
    assert [source.name for source in scanned(folder)[0]] == [
        "a/1/series-1.2.3.4",
        "a/2/series-1.2.3.4",
        "b/series-1.2.3.4",
    ]


def test_slice_by_slice_nothing_is_merged(folder):
    ct_series(folder, [0.0, 1.0, 2.0])
    frames = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    save(dicom(frames, SeriesInstanceUID="9"), folder / "frames.dcm")
    sources, _ = scanned(folder, slices=True)
    names = ["000.dcm", "001.dcm", "002.dcm", "frames.dcm#00000", "frames.dcm#00001"]
    assert [source.name for source in sources] == names
    assert read(sources[1]).pixels.shape == (1, 4, 5)
    assert (read(sources[4]).pixels[0] == frames[1]).all()


def test_slices_with_their_own_rescale_share_one_type(folder):
    for number, slope in enumerate([1.0, 0.5]):
        ct_series(folder / str(number), [float(number)], RescaleSlope=slope, Modality="PT")
    (source,), _ = scanned(folder)
    image = read(source)
    assert image.pixels.dtype == np.float32
    assert image.pixels[0, :, 0, 0].tolist() == [0.0, 1025 * 0.5 - 1024]


def test_a_broken_slice_names_itself(folder):
    paths = ct_series(folder, [0.0, 1.0, 2.0])
    paths[1].write_bytes(paths[1].read_bytes()[:-10])
    (source,), _ = scanned(folder)
    with pytest.raises(UnreadableImage, match=r"slice 001\.dcm of the series.*cut short"):
        read(source)


def test_a_changed_slice_changes_the_stamp_and_nothing_else_does(folder):
    paths = ct_series(folder, [0.0, 1.0])
    stamp = scanned(folder)[0][0].stamp
    assert scanned(folder)[0][0].stamp == stamp
    paths[0].write_bytes(paths[0].read_bytes() + b"\0\0")
    assert scanned(folder)[0][0].stamp != stamp
