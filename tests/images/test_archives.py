"""Archives: what is inside is found, what attacks is refused, and nothing appears outside the scratch."""

from __future__ import annotations

import errno
import gzip
import io
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest

from fewlabel.images import archives, read, scan
from fewlabel.types import FewlabelError


def png(value: int = 1) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.full((4, 4), value, np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def listed(path: Path, scratch: Path) -> tuple[list[str], dict[str, str]]:
    sources, rejected = scan(path, scratch=scratch)
    return [source.name for source in sources], {item.name: item.reason for item in rejected}


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_archives_by_content(tmp_path, scratch, mode):
    data = [(tarfile.TarInfo("a/one.png"), png(1)), (tarfile.TarInfo("a/notes.txt"), b"hello there")]
    path = tarred(tmp_path / "whatever", data, mode)
    names, rejected = listed(path, scratch)
    assert names == ["whatever!/a/one.png"]
    assert rejected == {"whatever!/a/notes.txt": "not an image: a text file (.txt)"}
    (source,), _ = scan(path, scratch=scratch)
    assert read(source).pixels.max() == 1


def test_zip_in_a_folder_and_a_single_compressed_file(tmp_path, scratch):
    folder = tmp_path / "data"
    folder.mkdir()
    zipped(folder / "x.zip", {"b/two.png": png(2), "one.png": png(1), "__MACOSX/._one.png": b"x" * 50})
    (folder / "three.png.gz").write_bytes(gzip.compress(png(3)))
    (folder / "four.png.xz").write_bytes(lzma.compress(png(4)))
    names, rejected = listed(folder, scratch)
    assert names == ["four.png.xz!/four.png", "three.png.gz!/three.png", "x.zip!/b/two.png", "x.zip!/one.png"]
    assert list(rejected) == ["x.zip!/__MACOSX/._one.png"]
    assert [int(read(source).pixels.max()) for source in scan(folder, scratch=scratch)[0]] == [4, 3, 2, 1]


def test_nifti_inside_an_archive(tmp_path, scratch):
    image = nibabel.Nifti1Image(np.ones((2, 3, 4), np.int16), np.eye(4))
    zipped(tmp_path / "x.zip", {"v.nii.gz": gzip.compress(image.to_bytes())})
    (source,), _ = scan(tmp_path / "x.zip", scratch=scratch)
    assert read(source).pixels.shape == (1, 4, 3, 2)


@pytest.mark.parametrize(
    "name", ["../evil.png", "/tmp/evil.png", "a/../../evil.png", "..\\evil.png", "C:\\evil.png"]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_that_lead_out_refuse_the_archive(tmp_path, scratch, name, kind):
    path = tmp_path / "x"
    if kind == "zip":
        zipped(path, {"good.png": png(), name: png()})
    else:
        tarred(path, [(tarfile.TarInfo("good.png"), png()), (tarfile.TarInfo(name), png())])
    before = {item for item in tmp_path.rglob("*") if scratch not in item.parents}
    names, rejected = listed(path, scratch)
    assert names == []
    assert "leads out of it" in rejected["x"]
    assert {item for item in tmp_path.rglob("*") if scratch not in item.parents} - before == {scratch}
    assert list(scratch.iterdir()) == []


def test_links_and_devices_are_never_made(tmp_path, scratch):
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard = tarfile.TarInfo("hard.png")
    hard.type, hard.linkname = tarfile.LNKTYPE, "good.png"
    device = tarfile.TarInfo("device")
    device.type = tarfile.CHRTYPE
    members = [(tarfile.TarInfo("good.png"), png()), (link, b""), (hard, b""), (device, b"")]
    names, rejected = listed(tarred(tmp_path / "x.tar", members), scratch)
    assert names == ["x.tar!/good.png"]
    assert set(rejected) == {"x.tar!/link.png", "x.tar!/hard.png", "x.tar!/device"}
    info = zipfile.ZipInfo("link.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    assert "link" in listed(tmp_path / "y.zip", scratch)[1]["y.zip!/link.png"]
    assert all(
        path.is_file() and not path.is_symlink() for folder in scratch.iterdir() for path in folder.iterdir()
    )


def test_a_bomb_is_refused_and_leaves_nothing(tmp_path, scratch, monkeypatch):
    monkeypatch.setattr(archives, "FREE_BYTES", 100_000)
    path = zipped(tmp_path / "x.zip", {"good.png": png(), "zeros": b"\0" * 5_000_000})
    names, rejected = listed(path, scratch)
    assert names == []
    assert "decompression bomb" in rejected["x.zip"]
    assert list(scratch.iterdir()) == []


def test_too_many_members(tmp_path, scratch, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    path = zipped(tmp_path / "x.zip", {f"{number}.png": png() for number in range(4)})
    assert "more than 3 members" in listed(path, scratch)[1]["x.zip"]


def test_encrypted_damaged_and_nested(tmp_path, scratch):
    data = bytearray(zipped(tmp_path / "x.zip", {"a.png": png()}).read_bytes())
    for start in (data.index(b"PK\x03\x04") + 6, data.index(b"PK\x01\x02") + 8):
        data[start] |= 1
    (tmp_path / "x.zip").write_bytes(data)
    assert "with its password first" in listed(tmp_path / "x.zip", scratch)[1]["x.zip"]
    whole = tarred(tmp_path / "t.tar.gz", [(tarfile.TarInfo("a.png"), os.urandom(5000))], "w:gz").read_bytes()
    (tmp_path / "t.tar.gz").write_bytes(whole[:-1500])
    assert "damaged" in listed(tmp_path / "t.tar.gz", scratch)[1]["t.tar.gz"]
    inner = zipped(tmp_path / "inner.zip", {"a.png": png()}).read_bytes()
    names, rejected = listed(zipped(tmp_path / "outer.zip", {"b.png": png(), "inner.zip": inner}), scratch)
    assert names == ["outer.zip!/b.png"]
    assert "inside an archive" in rejected["outer.zip!/inner.zip"]


def test_damaged_zip_member_by_its_checksum(tmp_path, scratch):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a.png", png())
    data = path.read_bytes()
    path.write_bytes(data.replace(b"IHDR", b"IHDX"))
    assert "damaged" in listed(path, scratch)[1]["x.zip"]


def test_an_archive_without_a_file(tmp_path, scratch):
    assert listed(zipped(tmp_path / "x.zip", {}), scratch) == ([], {"x.zip": "the archive holds no file"})
    assert listed(tarred(tmp_path / "x.tar.gz", [], "w:gz"), scratch)[1] != {}


def test_a_member_without_a_name(tmp_path, scratch):
    content = zipped(tmp_path / "x.zip", {"a.png": png()}).read_bytes()
    directory = content.index(b"PK\x01\x02")
    (tmp_path / "x.zip").write_bytes(content[: directory + 46] + b"\0" + content[directory + 47 :])
    assert "damaged" in listed(tmp_path / "x.zip", scratch)[1]["x.zip"]


def test_members_of_one_name(tmp_path, scratch):
    members = [(tarfile.TarInfo("a.png"), png(1)), (tarfile.TarInfo("a.png"), png(2))]
    names, rejected = listed(tarred(tmp_path / "x.tar", members), scratch)
    assert names == ["x.tar!/a.png"]
    assert "another member of this name" in rejected["x.tar!/a.png"]


def test_a_complete_extraction_is_used_again_and_an_interrupted_one_is_not(tmp_path, scratch, monkeypatch):
    path = zipped(tmp_path / "x.zip", {"a.png": png()})
    first = scan(path, scratch=scratch)
    monkeypatch.setattr(archives, "_unpack", lambda *_: pytest.fail("unpacked again"))
    assert scan(path, scratch=scratch) == first
    monkeypatch.undo()
    (folder,) = scratch.iterdir()
    leftover = folder.with_name(f"{folder.name}.partial-999999999")
    shutil.copytree(folder, leftover)
    (folder / "manifest.json").unlink()
    shutil.rmtree(folder)
    assert scan(path, scratch=scratch) == first
    assert not leftover.exists()
    changed = zipped(tmp_path / "x.zip", {"a.png": png(), "b.png": png()})
    assert len(scan(changed, scratch=scratch)[0]) == 2


def test_a_full_disk_stops_the_scan_with_one_sentence(tmp_path, scratch, monkeypatch):
    path = zipped(tmp_path / "x.zip", {"a.png": png()})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archives, "_write_members", full)
    with pytest.raises(FewlabelError, match=r"disk .* is full"):
        scan(path, scratch=scratch)
    assert list(scratch.iterdir()) == []
