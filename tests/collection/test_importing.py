from __future__ import annotations

import csv
import errno
import fcntl
import json
import os
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from fewlabel import images
from fewlabel.collection import Collection, import_images
from fewlabel.types import FewlabelError, LabelState


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all sources that are read, in order (with workers=1)."""
    seen: list[str] = []
    read = images.read

    def counted(source: images.Source):
        seen.append(source.name)
        return read(source)

    monkeypatch.setattr(images, "read", counted)
    return seen


def write_labels(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_pixels_come_back_as_they_were_8_and_16_bit_grey_and_colour(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source = tmp_path / "in"
    source.mkdir()
    grey, deep, colour = (
        rng.integers(0, 256, (20, 31), dtype=np.uint8),
        rng.integers(0, 65536, (33, 20), dtype=np.uint16),
        rng.integers(0, 256, (9, 17, 3), dtype=np.uint8),
    )
    for name, pixels in {"a.png": grey, "b.png": deep, "c.png": colour}.items():
        Image.fromarray(pixels).save(source / name)
    summary = import_images(source, tmp_path / "c", workers=1)
    assert (summary.images, summary.added, summary.quarantined) == (3, 3, 0)
    collection = Collection.open(tmp_path / "c")
    assert collection.column("case_id").tolist() == ["a.png", "b.png", "c.png"]
    for row, expected in enumerate((grey[None], deep[None], colour.transpose(2, 0, 1))):
        np.testing.assert_array_equal(collection.pixels(row), expected)
        assert collection.pixels(row).dtype == expected.dtype
        original = images.read_file(source / ("a.png", "b.png", "c.png")[row])
        assert collection.image(row).display_range == original.display_range


def test_large_images_are_shrunk_and_say_so(tmp_path: Path, make_images) -> None:
    (pixels,) = make_images(tmp_path / "in", ["a.png"], shape=(100, 60))
    import_images(tmp_path / "in", tmp_path / "c", max_side_px=50, workers=1)
    image = Collection.open(tmp_path / "c").image(0)
    assert image.pixels.shape == (1, 50, 30)
    expected = pixels.reshape(50, 2, 30, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(image.pixels[0], expected, atol=0.51)
    assert "area-resampled from 100 x 60 to 50 x 30 pixels" in image.provenance


def test_volumes_keep_affine_and_spacing_and_follow_the_shrinking(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(-1000, 1000, (40, 20, 5)).astype(np.int16)
    affine = np.array([[0.5, 0, 0, -10], [0, 0.7, 0, 20], [0, 0, 3, 5], [0, 0, 0, 1.0]])
    (tmp_path / "in").mkdir()
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "in" / "v.nii.gz")
    import_images(tmp_path / "in", tmp_path / "whole", workers=1)
    import_images(tmp_path / "in", tmp_path / "half", max_side_px=20, workers=1)
    whole, half = (Collection.open(tmp_path / n).image(0) for n in ("whole", "half"))
    assert whole.pixels.shape == (1, 5, 20, 40)
    assert half.pixels.shape == (1, 5, 10, 20)
    assert half.spacing_mm == pytest.approx((3.0, 1.4, 1.0))
    centre = np.array([19.5, 9.5, 2, 1])  # the middle of the volume lies where it lay
    np.testing.assert_allclose(half.affine @ [9.5, 4.5, 2, 1], whole.affine @ centre, atol=1e-6)
    with pytest.raises(FewlabelError, match=r"holds 1 3-D volumes.*slices=True \(--slices\)"):
        Collection.open(tmp_path / "whole").square(16)
    import_images(tmp_path / "in", tmp_path / "slices", slices=True, workers=1)
    assert Collection.open(tmp_path / "slices").square(16).shape == (5, 1, 16, 16)


def test_labels_reach_their_images_and_all_columns_can_be_used(tmp_path: Path, make_images) -> None:
    make_images(tmp_path / "in", ["a.png", "b.png", "c.png", "d.png"])
    labels = write_labels(
        tmp_path / "labels.csv",
        "Image,Finding,Patient ID,Age,View,Report,Set\nb.jpg,Edema|Mass,7,61,PA,heart large,Training\n"
        "a.jpg,No Finding,7,44,AP,clear,testing\nc.jpg,,8,,PA,,train\nz.jpg,Mass,9,1,PA,,train\n",
    )
    summary = import_images(
        tmp_path / "in",
        tmp_path / "c",
        labels=labels,
        patient_column="Patient ID",
        view_column="View",
        text_column="Report",
        split_column="Set",
        workers=1,
    )
    assert (summary.labels_matched, summary.labels_unmatched, summary.rows_unmatched) == (3, 1, 1)
    assert 'column "Image" matches the file name of 3 of 4 images' in str(summary)
    collection = Collection.open(tmp_path / "c")
    assert collection.column("Edema").tolist() == [0, 1, -2, -2]
    assert collection.column("patient_id").tolist() == ["7", "7", "8", ""]
    assert collection.column("text").tolist() == ["clear", "heart large", "", ""]
    assert collection.column("split").tolist() == ["test", "train", "train", ""]
    assert collection.where("\"View\" = 'PA' AND Age > 50").tolist() == [1]
    assert collection.patients().tolist() == [0, 0, 1, 2]
    assert collection.target("Edema").not_mentioned == 2
    about = json.loads((tmp_path / "c" / "collection.json").read_text())
    assert {c["name"]: c["kind"] for c in about["labels"]}["Edema"] == "binary"


def test_a_label_file_among_the_images_is_no_broken_image(tmp_path: Path, make_images) -> None:
    make_images(tmp_path / "in", ["a.png"])
    labels = write_labels(tmp_path / "in" / "labels.csv", "f,ill\na,1\n")
    assert import_images(tmp_path / "in", tmp_path / "c", labels=labels, workers=1).quarantined == 0
    assert import_images(tmp_path / "in", tmp_path / "d", workers=1).quarantined == 1


def test_labels_from_folders_also_inside_archives(tmp_path: Path, make_images) -> None:
    make_images(tmp_path / "in", ["normal/a.png", "ill/b.png"])
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for name in ("normal/a.png", "ill/b.png"):
            archive.write(tmp_path / "in" / name, name)
    for source in ("in", "in.zip"):
        import_images(tmp_path / source, tmp_path / f"c-{source}", labels="folders", workers=1)
        target = Collection.open(tmp_path / f"c-{source}").target("folder")
        assert (target.kind, target.classes, target.values.tolist()) == ("binary", ("ill", "normal"), [0, 1])
    make_images(tmp_path / "flat", ["a.png"])
    with pytest.raises(FewlabelError, match="no image lies in a folder"):
        import_images(tmp_path / "flat", tmp_path / "c-flat", labels="folders", workers=1)


def test_a_medmnist_file_brings_its_labels_and_splits(tmp_path: Path) -> None:
    arrays = {}
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        rng = np.random.default_rng(count)
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 3)[:, None].astype(np.uint8)
    np.savez(tmp_path / "threemnist.npz", **arrays)
    import_images(tmp_path / "threemnist.npz", tmp_path / "c", workers=1)
    collection = Collection.open(tmp_path / "c")
    assert collection.labels["label"].classes == ("0", "1", "2")
    assert sorted(collection.column("split")) == ["test"] * 3 + ["train"] * 6 + ["val"] * 3
    row = collection.where("split = 'val'")[1]
    np.testing.assert_array_equal(collection.pixels(row)[0], arrays["val_images"][1])


def test_contradicting_rows_become_uncertain_and_are_told(tmp_path: Path, make_images) -> None:
    make_images(tmp_path / "in", ["a.png", "b.png"])
    labels = write_labels(tmp_path / "l.csv", "f,ill,grade\na,1,3\na,0,3\nb,1,2\nb,1,0\n")
    summary = import_images(tmp_path / "in", tmp_path / "c", labels=labels, workers=1)
    collection = Collection.open(tmp_path / "c")
    assert collection.column("ill").tolist() == [LabelState.UNCERTAIN, LabelState.POSITIVE]
    assert collection.column("grade").tolist() == ["3", None]
    assert collection.target("ill").uncertain == 1
    assert "2 images have rows in l.csv that contradict each other (a.png in ill; b.png in grade)" in str(
        summary
    )


def test_appending_reads_only_what_is_new_and_old_rows_stay(
    tmp_path: Path, make_images, reads: list[str]
) -> None:
    make_images(tmp_path / "in", ["b.png", "d.png"])
    import_images(tmp_path / "in", tmp_path / "c", workers=1)
    old = Collection.open(tmp_path / "c").fingerprint
    reads.clear()
    make_images(tmp_path / "in", ["a.png", "c.png"], seed=1)
    summary = import_images(tmp_path / "in", tmp_path / "c", workers=1)
    assert reads == ["a.png", "c.png"]
    assert (summary.added, summary.unchanged, summary.images) == (2, 2, 4)
    collection = Collection.open(tmp_path / "c")
    assert collection.column("case_id").tolist() == ["b.png", "d.png", "a.png", "c.png"]
    assert collection.fingerprint != old


def test_nothing_new_reads_and_changes_nothing(
    tmp_path: Path, make_images, reads: list[str], folder_bytes
) -> None:
    make_images(tmp_path / "in", ["a.png", "b.png"])
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    labels = write_labels(tmp_path / "l.csv", "f,ill\na,1\nb,0\n")
    import_images(tmp_path / "in", tmp_path / "c", labels=labels, workers=1)
    before = folder_bytes(tmp_path / "c")
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "c").glob("*.*")}
    reads.clear()
    summary = import_images(tmp_path / "in", tmp_path / "c", labels=labels, workers=1)
    assert reads == []
    assert (summary.added, summary.changed, summary.unchanged, summary.quarantined) == (0, 0, 2, 1)
    assert folder_bytes(tmp_path / "c") == before
    assert {p: p.stat().st_mtime_ns for p in times} == times


def test_a_new_label_file_changes_labels_and_reads_no_pixels(
    tmp_path: Path, make_images, reads: list[str]
) -> None:
    make_images(tmp_path / "in", ["a.png", "b.png"])
    labels = write_labels(tmp_path / "l.csv", "f,ill,old\na,1,x\nb,0,y\n")
    import_images(tmp_path / "in", tmp_path / "c", labels=labels, workers=1)
    first = Collection.open(tmp_path / "c")
    reads.clear()
    write_labels(labels, "f,ill,grade\na,0,3\nb,u,0\n")
    import_images(tmp_path / "in", tmp_path / "c", labels=labels, workers=1)
    second = Collection.open(tmp_path / "c")
    assert reads == []
    assert second.column("ill").tolist() == [0, -1]
    assert list(second.labels) == ["ill", "grade"]
    assert second.fingerprint != first.fingerprint
    assert second.pixel_fingerprint == first.pixel_fingerprint
    assert first.column("ill").tolist() == [1, 0]  # what is open stays what it was


def test_a_changed_file_is_read_again_in_its_place(tmp_path: Path, make_images, reads: list[str]) -> None:
    make_images(tmp_path / "in", ["a.png", "b.png"])
    labels = write_labels(tmp_path / "l.csv", "f,ill\na,1\nb,0\n")
    import_images(tmp_path / "in", tmp_path / "c", labels=labels, workers=1)
    reads.clear()
    (pixels,) = make_images(tmp_path / "in", ["a.png"], seed=9, shape=(30, 30))
    summary = import_images(tmp_path / "in", tmp_path / "c", workers=1)
    collection = Collection.open(tmp_path / "c")
    assert (reads, summary.changed, summary.added, summary.images) == (["a.png"], 1, 0, 2)
    np.testing.assert_array_equal(collection.pixels(0)[0], pixels)
    assert collection.column("ill").tolist() == [1, 0]


def test_all_files_may_have_changed_where_folders_tell_equal_names_apart(tmp_path: Path, make_images) -> None:
    names = ["train/1.png", "train/2.png", "test/1.png", "test/2.png"]
    labels = write_labels(
        tmp_path / "l.csv", "f,ill\ntrain/1.png,1\ntrain/2.png,0\ntest/1.png,0\ntest/2.png,1\n"
    )
    for seed in (0, 9):
        make_images(tmp_path / "in", names, seed=seed)
        summary = import_images(tmp_path / "in", tmp_path / "c", labels=labels, workers=1)
    assert (summary.changed, summary.images, summary.labels_matched) == (4, 4, 4)


def test_two_sources_go_into_one_collection_and_names_do_not_collide(tmp_path: Path, make_images) -> None:
    for part, seed in (("train", 0), ("test", 1)):
        make_images(tmp_path / part, ["1.png", "2.png"], seed=seed)
        labels = write_labels(tmp_path / f"{part}.csv", f"f,grade\n1,{seed}\n2,{3 + seed}\n")
        import_images(tmp_path / part, tmp_path / "c", labels=labels, workers=1)
    collection = Collection.open(tmp_path / "c")
    assert collection.column("case_id").tolist() == ["1.png", "2.png", "test/1.png", "test/2.png"]
    assert collection.column("grade").tolist() == ["0", "3", "1", "4"]
    assert [h["added"] for h in collection.history] == [2, 2]


def test_what_cannot_be_read_is_quarantined_with_its_reason(
    tmp_path: Path, make_images, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_images(tmp_path / "in", ["a.png", "big.png", "odd.png"])
    (tmp_path / "in" / "notes.txt").write_text("no image")
    read = images.read

    def troubled(source: images.Source):
        if source.name == "big.png":
            raise MemoryError
        if source.name == "odd.png":
            raise RuntimeError("decoder\nfell over")
        return read(source)

    monkeypatch.setattr(images, "read", troubled)
    summary = import_images(tmp_path / "in", tmp_path / "c", workers=1)
    assert (summary.images, summary.quarantined) == (1, 3)
    rows = dict(list(csv.reader((tmp_path / "c" / "quarantine.csv").open()))[1:])
    assert set(rows) == {"big.png", "notes.txt", "odd.png"}
    assert rows["big.png"] == "there is not enough memory to read it"
    assert "RuntimeError: decoder fell over" in rows["odd.png"]
    monkeypatch.setattr(images, "read", read)  # what was no fault of the file is tried again
    assert import_images(tmp_path / "in", tmp_path / "c", workers=1).added == 2


def test_duplicates_are_found_also_across_imports(tmp_path: Path, make_images) -> None:
    make_images(tmp_path / "in", ["a.png", "b.png", "c.png"], shape=(64, 64))
    (tmp_path / "in" / "a-again.png").write_bytes((tmp_path / "in" / "a.png").read_bytes())
    import_images(tmp_path / "in", tmp_path / "c", workers=1)
    (tmp_path / "more").mkdir()
    picture = Image.open(tmp_path / "in" / "b.png")
    picture.resize((32, 32), Image.Resampling.BOX).save(tmp_path / "more" / "small.png")
    summary = import_images(tmp_path / "more", tmp_path / "c", workers=1)
    collection = Collection.open(tmp_path / "c")
    assert collection.column("case_id").tolist() == ["a-again.png", "a.png", "b.png", "c.png", "small.png"]
    assert collection.column("exact_group").tolist() == [0, 0, -1, -1, -1]
    assert collection.column("near_group").tolist() == [0, 0, 2, -1, 2]
    assert (summary.exact_duplicates, summary.near_duplicates) == (2, 4)


def test_mistakes_give_one_sentence_and_touch_nothing(tmp_path: Path, make_images) -> None:
    make_images(tmp_path / "in", ["a.png"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("x")
    wrong = write_labels(tmp_path / "wrong.csv", "f,ill\nu,1\nv,0\n")
    good = write_labels(tmp_path / "good.csv", "f,ill\na,1\n")
    cases = [
        ({"source": "nowhere", "to": "c"}, "there is nothing at"),
        ({"source": "empty", "to": "c"}, "is empty"),
        ({"source": "texts", "to": "c"}, "none of the 1 files"),
        ({"source": "in", "to": "taken"}, "is no collection: name an empty or a new folder"),
        ({"source": "in", "to": "good.csv"}, "is a file"),
        ({"source": "in", "to": "in/c"}, "lie inside each other"),
        ({"source": "in", "to": "c", "labels": wrong}, "matches none of the 1 images"),
        ({"source": "in", "to": "c", "labels": good, "patient_column": "il"}, 'did you mean "ill"'),
        ({"source": "in", "to": "c", "patient_column": "ill"}, "no label file was given"),
        ({"source": "in", "to": "c", "max_side_px": 2}, "max_side_px is 2"),
    ]
    for settings, said in cases:
        paths = {k: tmp_path / v for k, v in settings.items() if k in ("source", "to")}
        with pytest.raises(FewlabelError, match=said) as error:
            import_images(**{**settings, **paths}, workers=1)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "c").exists()
    assert [p.name for p in (tmp_path / "taken").iterdir()] == ["mine.txt"]


def test_another_size_for_the_same_collection_is_refused(tmp_path: Path, make_images) -> None:
    make_images(tmp_path / "in", ["a.png"])
    import_images(tmp_path / "in", tmp_path / "c", workers=1)
    with pytest.raises(FewlabelError, match="max_side_px=512 and 64 was asked for"):
        import_images(tmp_path / "in", tmp_path / "c", max_side_px=64, workers=1)


def test_two_imports_at_once_are_refused(tmp_path: Path, make_images) -> None:
    make_images(tmp_path / "in", ["a.png"])
    import_images(tmp_path / "in", tmp_path / "c", workers=1)
    with (tmp_path / "c" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(FewlabelError, match="another import is writing"):
            import_images(tmp_path / "in", tmp_path / "c", workers=1)


@pytest.mark.parametrize("nth", [1, 4, 9])
def test_a_full_disk_is_one_sentence_and_the_next_run_goes_on(
    tmp_path: Path, make_images, folder_bytes, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    make_images(tmp_path / "in", [f"{n}.png" for n in range(9)])
    import_images(tmp_path / "in", tmp_path / "whole", workers=1)
    synced, sync = [], os.fsync

    def full(handle: int) -> None:
        synced.append(handle)
        if len(synced) == nth:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FewlabelError, match=r"the disk that holds .* is full: free some space"):
        import_images(tmp_path / "in", tmp_path / "c", workers=1)
    import_images(tmp_path / "in", tmp_path / "c", workers=1)
    assert folder_bytes(tmp_path / "c") == folder_bytes(tmp_path / "whole")
