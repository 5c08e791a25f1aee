"""What a scan finds, and the true reason for everything else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from image_makers import ct_series, dicom, save

from fewlabel.images import read, read_file, scan
from fewlabel.types import FewlabelError, UnreadableImage


def picture(path: Path, value: int = 7) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.full((4, 4), value, np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def scanned(folder: Path, **options):
    return scan(folder, scratch=folder.parent / "scratch", **options)


OTHERS = {
    "labels.csv": (b"name,label\na,1\n", "not an image: a text file (.csv)"),
    "README": (b"Read me first", "not an image: a text file (no extension)"),
    "paper.pdf": (b"%PDF-1.7\n", "not an image: a PDF document"),
    "empty.png": (b"", "the file is empty"),
    ".DS_Store": (b"\0\0\0\1Bud1", "not an image: left behind by the operating system"),
    "Thumbs.db": (b"\xd0\xcf\x11\xe0", "not an image: left behind by the operating system"),
    "DICOMDIR": (b"\x01\x02\x03\xff" * 9, "not an image: DICOMDIR, the index of a DICOM medium"),
    "model.pkl": (b"\x80\x04\x95\x10\0\0", "not an image: a Python pickle, which is never loaded"),
    "v.mha": (
        b"ObjectType = Image\n",
        "not an image: a MetaImage file (.mha, .mhd), which is not read; convert it to NIfTI",
    ),
    "noise.bin": (bytes(range(255, 0, -1)), "not an image: its content is of no format that is read here"),
}


def test_every_other_file_has_its_true_reason(folder):
    for name, (content, _) in OTHERS.items():
        (folder / name).write_bytes(content)
    picture(folder / "a.png")
    sources, rejected = scanned(folder)
    assert [source.name for source in sources] == ["a.png"]
    assert {item.name: item.reason for item in rejected} == {
        name: reason for name, (_, reason) in OTHERS.items()
    }
    assert [item.name for item in rejected] == sorted(OTHERS)


def test_content_decides_and_not_the_extension(folder):
    picture(folder / "a.png").rename(folder / "a.dcm")
    save(dicom(np.ones((2, 2), np.uint8)), folder / "b.jpg")
    sources, _ = scanned(folder)
    assert [(source.name, source.kind) for source in sources] == [("a.dcm", "raster"), ("b.jpg", "dicom")]
    assert read(sources[0]).pixels.max() == 7
    assert read(sources[1]).pixels.max() == 1


def test_links_do_not_hang_and_are_said(folder):
    picture(folder / "a" / "x.png")
    outside = folder.parent / "outside"
    picture(outside / "y.png")
    os.symlink(folder, folder / "a" / "loop")
    os.symlink(folder / "a", folder / "0-inner")
    os.symlink(outside, folder / "linked")
    os.symlink(outside, outside / "self")
    os.symlink(folder / "nothing", folder / "dangling.png")
    os.mkfifo(folder / "pipe.png")
    (folder / ".git").mkdir()
    sources, rejected = scanned(folder)
    assert [source.name for source in sources] == ["a/x.png", "linked/y.png"]
    reasons = {item.name: item.reason for item in rejected}
    assert set(reasons) == {".git", "0-inner", "a/loop", "dangling.png", "linked/self", "pipe.png"}
    assert reasons["dangling.png"] == "a link that leads nowhere"
    assert "pipe" in reasons["pipe.png"]


def test_a_scratch_folder_inside_the_root_is_not_searched(folder):
    ct_series(folder / "ct", [0.0, 1.0])
    np.savez(folder / "p.npz", train_images=np.zeros((2, 4, 4), np.uint8))
    first = scan(folder, scratch=folder / "scratch")
    assert scan(folder, scratch=folder / "scratch") == first
    assert len(first[0]) == 3


def test_one_file_a_missing_path_and_an_empty_folder(folder):
    path = picture(folder / "a.png")
    (source,), _ = scanned(path)
    assert (source.name, source.kind, source.paths) == ("a.png", "raster", (path,))
    with pytest.raises(FewlabelError, match="there is no file or folder"):
        scanned(folder / "nowhere")
    assert scanned(folder, slices=True)[0][0].name == "a.png"
    path.unlink()
    assert scanned(folder) == ([], [])


def test_two_processes_find_what_one_finds(folder, monkeypatch):
    from fewlabel.images import scanning

    monkeypatch.setattr(scanning, "_PARALLEL_FROM", 2)
    ct_series(folder / "ct", [0.0, 1.0, 2.0])
    picture(folder / "x.png")
    (folder / "notes.txt").write_text("notes")
    assert scanned(folder, workers=2) == scanned(folder)


def test_a_touched_file_has_another_stamp(folder):
    path = picture(folder / "a.png")
    before = scanned(folder)[0][0]
    assert scanned(folder)[0][0] == before
    os.utime(path, ns=(1, 1))
    assert scanned(folder)[0][0].stamp != before.stamp


def test_an_archive_is_no_single_image(folder):
    np.savez(folder / "x.npz", train_images=np.zeros((1, 2, 2), np.uint8))
    with pytest.raises(UnreadableImage, match="import it"):
        read_file(folder / "x.npz")


def test_importing_the_package_stays_light():
    heavy = "'torch', 'pydicom', 'nibabel', 'tifffile', 'PIL', 'imagecodecs'"
    code = f"import sys, fewlabel.images; print([name for name in ({heavy}) if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
