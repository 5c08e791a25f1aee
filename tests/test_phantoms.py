"""The made images hold the truth they claim, are the same from the same seed, and are not too easy."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image as PillowImage
from scipy.ndimage import label
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fewlabel.phantoms import (
    NOTE_NAME,
    Difficulty,
    MadeRadiographs,
    ct_volume,
    fundus,
    radiographs,
    write_fundi,
    write_radiographs,
)
from fewlabel.phantoms.fundi import COUNTS, KINDS
from fewlabel.types import FewlabelError


@pytest.fixture(scope="module")
def made() -> MadeRadiographs:
    return radiographs(1200, size_px=32, seed=0)


def test_radiographs_have_the_shapes_and_ranges_they_state(made: MadeRadiographs) -> None:
    assert made.pixels.shape == made.opacity_mask.shape == (1200, 32, 32)
    assert made.pixels.dtype == np.float32
    assert 0 <= made.pixels.min() < made.pixels.max() <= 1
    assert made.opacity.mean() == pytest.approx(0.4, abs=0.06)
    assert made.effusion.mean() == pytest.approx(0.2, abs=0.05)
    assert set(made.side) == set(made.effusion_side) == {"left", "right", "none"}
    assert set(made.views) == {"PA", "AP"}
    assert 18 <= made.ages.min() < made.ages.max() <= 95


def test_the_same_seed_gives_the_same_images_and_a_longer_run_begins_with_them() -> None:
    short, long = radiographs(9, size_px=32, seed=5), radiographs(20, size_px=32, seed=5)
    np.testing.assert_array_equal(short.pixels, long.pixels[:9])
    assert short.patients == long.patients[:9]
    assert not np.array_equal(short.pixels, radiographs(9, size_px=32, seed=6).pixels)


def test_patients_have_one_to_three_images_that_share_age_and_anatomy() -> None:
    calm = radiographs(150, size_px=32, difficulty=Difficulty(exposure=0, pose=0, noise=0, effusion_share=0))
    patients, counts = np.unique(calm.patients, return_counts=True)
    assert set(counts) == {1, 2, 3}
    flat = calm.pixels.reshape(150, -1)
    within, between = [], []
    for a, b in zip(range(149), range(1, 150), strict=True):
        same = calm.patients[a] == calm.patients[b]
        (within if same else between).append(float(np.abs(flat[a] - flat[b]).mean()))
        assert not same or calm.ages[a] == calm.ages[b]
    assert len(patients) > 60
    assert np.mean(within) < 0.5 * np.mean(between)


def test_an_opacity_lies_where_the_truth_says(made: MadeRadiographs) -> None:
    """It is brighter there than at the mirrored place, and its centre lies in the mask on the side stated."""
    for i in np.flatnonzero(made.opacity):
        row, column = np.clip(np.round(made.centre_px[i]).astype(int), 0, 31)
        assert made.opacity_mask[i, row, column]
    found = np.flatnonzero(made.opacity & ~made.effusion & (np.array(made.views) == "PA"))
    gain = [
        made.pixels[i][made.opacity_mask[i]].mean() - made.pixels[i][made.opacity_mask[i][:, ::-1]].mean()
        for i in found
    ]
    assert np.mean(np.array(gain) > 0) > 0.7
    columns = made.centre_px[found, 1]
    sides = np.array(made.side)[found]
    assert (columns[sides == "left"] > 15.5).mean() > 0.99
    assert (columns[sides == "right"] < 15.5).mean() > 0.99
    none = ~made.opacity
    assert np.isnan(made.centre_px[none]).all()
    assert not made.opacity_mask[none].any()
    assert (np.array(made.side)[none] == "none").all()


def test_an_effusion_whitens_the_base_of_its_side() -> None:
    sick = radiographs(
        60, size_px=64, seed=1, difficulty=Difficulty(opacity_share=0, effusion_share=1, reticulation_share=0)
    )
    lower = sick.pixels[:, 34:50]  # lower lung fields
    right, left = lower[:, :, 8:20].mean(axis=(1, 2)), lower[:, :, 44:56].mean(axis=(1, 2))
    side = np.array(sick.effusion_side)
    assert (left - right)[side == "left"].mean() > (left - right)[side == "right"].mean() + 0.1


def test_reticulation_is_a_net_over_both_lungs_and_no_change_of_their_brightness() -> None:
    bare = Difficulty(exposure=0, noise=0, clutter=0, opacity_share=0, effusion_share=0, reticulation_share=0)
    without = radiographs(60, size_px=64, seed=4, difficulty=bare)
    netted = radiographs(
        60, size_px=64, seed=4, difficulty=replace(bare, reticulation_share=1, reticulation_range=(0.2, 0.2))
    )
    assert not without.reticulation.any()
    assert netted.reticulation.all()
    for lung in (slice(12, 24), slice(40, 52)):
        plain, lines = without.pixels[:, 18:34, lung], netted.pixels[:, 18:34, lung]
        assert _roughness(lines) > 1.5 * _roughness(plain)
        assert abs(lines.mean() - plain.mean()) < 0.02


def _roughness(pixels: np.ndarray) -> float:
    return float(np.abs(np.diff(pixels, n=2, axis=2)).mean())


def test_simple_statistics_do_not_find_the_opacity(made: MadeRadiographs) -> None:
    border = np.ones((32, 32), dtype=bool)
    border[2:-2, 2:-2] = False
    centre = made.pixels[:, 8:24, 8:24].reshape(1200, -1)
    parts = (made.pixels.reshape(1200, -1), made.pixels[:, border], centre)
    statistics = np.stack([f(part) for part in parts for f in (_mean, _spread)], axis=1)
    test = np.array([int(p[1:]) % 2 for p in made.patients], dtype=bool)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(statistics[~test], made.opacity[~test])
    assert roc_auc_score(made.opacity[test], model.decision_function(statistics[test])) < 0.65


def _mean(pixels: np.ndarray) -> np.ndarray:
    return pixels.mean(axis=1)


def _spread(pixels: np.ndarray) -> np.ndarray:
    return pixels.std(axis=1)


def test_contrast_makes_the_opacity_brighter() -> None:
    def brightness(contrast: float) -> float:
        difficulty = Difficulty(contrast_range=(contrast, contrast), exposure=0, noise=0, opacity_share=1)
        seen = radiographs(30, size_px=32, seed=2, difficulty=difficulty)
        return float(seen.pixels[seen.opacity_mask].mean())

    assert brightness(0.05) < brightness(0.2) < brightness(0.4)


@pytest.mark.parametrize("arguments", [{"n": 0}, {"n": 5, "size_px": 8}])
def test_too_little_is_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(FewlabelError, match="at least"):
        radiographs(**arguments)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_folder_is_what_a_user_would_bring(tmp_path: Path) -> None:
    labels = write_radiographs(tmp_path / "a", 40, seed=7, size_px=32)
    made = radiographs(40, size_px=32, seed=7)
    rows = list(csv.DictReader(labels.open(newline="", encoding="utf-8")))
    assert list(rows[0]) == [
        "file", "Patient ID", "opacity", "effusion", "reticulation", "View Position", "Patient Age", "side", "made",
        "report",
    ]  # fmt: skip
    assert [row["Patient ID"] for row in rows] == list(made.patients)
    assert [row["opacity"] == "1" for row in rows] == made.opacity.tolist()
    assert {row["made"] for row in rows} == {"1"}
    assert len({row["file"] for row in rows}) == 40
    for i, row in enumerate(rows):
        path = tmp_path / "a" / row["file"]
        if path.suffix == ".png":
            stored = np.asarray(PillowImage.open(path))
            assert stored.dtype == np.uint8
            assert np.abs(stored / 255 - made.pixels[i]).max() <= 0.5 / 255 + 1e-6
    assert "show no person" in (tmp_path / "a" / NOTE_NAME).read_text()
    write_radiographs(tmp_path / "b", 40, seed=7, size_px=32)
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")


def test_some_files_are_dicom_of_both_polarities(tmp_path: Path) -> None:
    write_radiographs(tmp_path, 6, seed=1, size_px=32)
    made = radiographs(6, size_px=32, seed=1)
    files = sorted(tmp_path.glob("images/*.dcm"))
    read = {f.stem: pydicom.dcmread(f) for f in files}
    assert len(read) == 4
    assert {r.PhotometricInterpretation for r in read.values()} == {"MONOCHROME1", "MONOCHROME2"}
    assert len({r.SOPInstanceUID for r in read.values()}) == 4
    for i, (name, file) in enumerate(sorted(read.items())):
        stored = file.pixel_array / 4095
        bright_is_dense = 1 - stored if file.PhotometricInterpretation == "MONOCHROME1" else stored
        assert np.abs(bright_is_dense - made.pixels[i]).max() < 1e-3
        assert name.startswith(file.PatientID)
        assert file.PatientID == made.patients[i]
        assert file.ViewPosition == made.views[i]


def test_sixteen_bits_and_nothing_else(tmp_path: Path) -> None:
    write_radiographs(tmp_path, 2, size_px=32, bits=16, dicom_files=0)
    stored = np.asarray(PillowImage.open(next(tmp_path.glob("images/*.png"))))
    assert stored.dtype == np.uint16
    assert stored.max() > 255
    with pytest.raises(FewlabelError, match="8 or 16"):
        write_radiographs(tmp_path, 2, bits=12)


def test_a_ct_volume_holds_its_nodules() -> None:
    volume = ct_volume(seed=4, nodules=4)
    assert volume.pixels.dtype == np.int16
    assert volume.pixels.shape == volume.mask.shape == (32, 80, 96)
    assert np.unique(volume.mask).tolist() == [0, 1, 2, 3, 4]
    assert label(volume.mask > 0)[1] == 4  # none touches another
    voxel_mm3 = np.prod(volume.spacing_mm)
    for k, nodule in enumerate(volume.nodules, start=1):
        inside = volume.mask == k
        centre = np.argwhere(inside).mean(axis=0)
        assert np.abs((centre - nodule.centre_voxel) * volume.spacing_mm).max() < max(volume.spacing_mm) / 2
        expected_mm3 = 4 / 3 * np.pi * nodule.radius_mm**3
        assert inside.sum() * voxel_mm3 == pytest.approx(expected_mm3, rel=0.5)
        z, y, x = np.round(nodule.centre_voxel).astype(int)
        assert volume.pixels[z, y, x] > -400  # soft tissue in lung


def test_a_ct_volume_is_in_hu_and_seeded() -> None:
    volume = ct_volume(seed=0, noise_hu=5)
    assert np.median(volume.pixels[:, 0, :]) == pytest.approx(-1000, abs=5)
    share_of_lung = (np.abs(volume.pixels + 850) < 60).mean()
    assert 0.08 < share_of_lung < 0.35
    assert (volume.pixels > 250).mean() > 0.002  # bone
    np.testing.assert_array_equal(volume.pixels, ct_volume(seed=0, noise_hu=5).pixels)
    assert not np.array_equal(volume.pixels, ct_volume(seed=1, noise_hu=5).pixels)


def test_a_volume_too_full_is_refused() -> None:
    with pytest.raises(FewlabelError, match="no room"):
        ct_volume(nodules=200)
    with pytest.raises(FewlabelError, match="at least 16"):
        ct_volume(shape=(8, 64, 64))


@pytest.mark.parametrize("grade", range(5))
def test_a_fundus_has_the_lesions_of_its_grade(grade: int) -> None:
    photo = fundus(grade, seed=grade)
    assert photo.pixels.shape == (3, 128, 128)
    assert photo.pixels.dtype == np.uint8
    assert photo.pixels[:, 0, 0].max() < 15  # black outside the round field
    count = {kind: sum(lesion[0] == kind for lesion in photo.lesions) for kind in KINDS}
    for kind, (fewest, most) in zip(KINDS[:3], COUNTS[grade], strict=True):
        assert fewest <= count[kind] <= most
    assert count["new vessels"] == count["preretinal haemorrhage"] == (1 if grade == 4 else 0)
    assert (photo.mask > 0).any() == (grade > 0)
    np.testing.assert_array_equal(photo.pixels, fundus(grade, seed=grade).pixels)


def test_lesions_of_a_fundus_can_be_seen_where_they_are() -> None:
    photo = fundus(3, seed=2, size_px=256)
    green = photo.pixels[1].astype(float)
    plain = np.median(green[(photo.mask == 0) & (green > 40)])
    assert green[photo.mask == KINDS.index("haemorrhage") + 1].mean() < 0.75 * plain
    assert green[photo.mask == KINDS.index("exudate") + 1].mean() > 1.15 * plain
    quadrants = {(row > 128, column > 128) for kind, row, column, _ in photo.lesions if kind == "haemorrhage"}
    assert len(quadrants) == 4
    for _, row, column, _ in photo.lesions:
        assert photo.mask[round(row), round(column)] > 0


def test_another_grade_is_refused() -> None:
    with pytest.raises(FewlabelError, match="0 to 4"):
        fundus(5)


def test_written_fundi_have_the_grades_of_the_table(tmp_path: Path) -> None:
    labels = write_fundi(tmp_path / "a", 12, seed=3, size_px=32)
    with labels.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert {row["made"] for row in rows} == {"1"}
    assert "show no person" in (tmp_path / "a" / NOTE_NAME).read_text()
    eyes = [
        (int(left["Retinopathy grade"]), int(right["Retinopathy grade"])) for left, right in batched(rows)
    ]
    assert all(abs(left - right) <= 1 for left, right in eyes)
    assert len({grade for pair in eyes for grade in pair}) >= 4
    for row in rows:
        with PillowImage.open(tmp_path / "a" / row["file"]) as image:
            assert (image.size, image.mode) == ((32, 32), "RGB")
    again = write_fundi(tmp_path / "b", 12, seed=3, size_px=32)
    assert again.read_bytes() == labels.read_bytes()
    first = rows[0]["file"]
    assert (tmp_path / "a" / first).read_bytes() == (tmp_path / "b" / first).read_bytes()


def batched(rows: list[dict[str, str]]) -> zip[tuple[dict[str, str], dict[str, str]]]:
    """The two eyes of each patient."""
    return zip(rows[::2], rows[1::2], strict=True)
