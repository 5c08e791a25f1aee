"""From a folder, a file or an archive to the list of images in it. Only headers are read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from fewlabel.images.archives import open_archive
from fewlabel.images.sniffing import Kind, sniff
from fewlabel.images.source import Entry, Rejected, Source, SourceKind, stamp_of
from fewlabel.types import FewlabelError, UnreadableImage

_SYSTEM_FILES = {".ds_store", "thumbs.db", "desktop.ini", "ehthumbs.db", ".directory"}
_PARALLEL_FROM = 200
"""Fewer files than this are looked at faster than processes start."""
_NESTED = "an archive inside an archive, which is not opened; unpack it and import the folder"


def scan(
    root: Path, *, scratch: Path, slices: bool = False, workers: int = 1
) -> tuple[list[Source], list[Rejected]]:
    """Lists every image below `root`, and everything else with the reason why it is none.

    root: a folder, one file, one archive, or one MedMNIST .npz. Links to folders outside are followed once.
    scratch: where archives are unpacked; the sources point into it. A complete extraction is used again.
        It is not searched itself when it lies below `root`.
    slices: no volume is made: each file of a series, and each slice of a volume, page or frame of a file, is
        an image of its own. The small volumes of a 3-D MedMNIST file stay whole.
    workers: processes that look at headers.

    Returns:
        sources and rejected, each sorted by name.

    Raises:
        FewlabelError: `root` does not exist, or the disk is full.
    """
    root, scratch = Path(root), Path(scratch)
    if not root.exists():
        raise FewlabelError(f"there is no file or folder {root}: give the path of your images")
    entries, rejected = (
        _walk(root, scratch) if root.is_dir() else ([Entry(root.name, root, stamp_of(root))], [])
    )
    looked = _look_at(entries, slices, workers)
    members: list[Entry] = []
    sources: list[Source] = []
    for entry, kind in [found for found in looked if isinstance(found, tuple)]:
        try:
            if kind == "npz":
                inside, refused = _npz(entry, scratch)
                sources += inside
            else:
                unpacked, refused = open_archive(entry, scratch)
                members += unpacked
            rejected += refused
        except UnreadableImage as error:
            rejected.append(Rejected(entry.name, str(error)))
    kept = [member for member in members if not _is_system_file(member.name)]
    rejected += [_system_file(member.name) for member in members if _is_system_file(member.name)]
    looked = [found for found in looked if not isinstance(found, tuple)] + _look_at(kept, slices, workers)
    return _sorted(looked, sources, rejected, slices)


def _sorted(
    looked: list, sources: list[Source], rejected: list[Rejected], slices: bool
) -> tuple[list[Source], list[Rejected]]:
    headers = []
    for found in looked:
        if isinstance(found, Rejected):
            rejected.append(found)
        elif isinstance(found, list):
            sources += found
        elif isinstance(found, tuple):
            rejected.append(Rejected(found[0].name, _NESTED))
        else:
            headers.append(found)
    if headers:
        from fewlabel.images.series import group

        grouped, refused = group(headers)
        sources += grouped
        rejected += refused
    return sorted(sources, key=lambda item: item.name), sorted(rejected, key=lambda item: item.name)


def _npz(entry: Entry, scratch: Path) -> tuple[list[Source], list[Rejected]]:
    from fewlabel.images.medmnist import scan_npz

    return scan_npz(entry, scratch)


def _look_at(entries: list[Entry], slices: bool, workers: int) -> list:
    look = partial(_look, slices=slices)
    if workers <= 1 or len(entries) < _PARALLEL_FROM:
        return [look(entry) for entry in entries]
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(look, entries, chunksize=32))


def _look(entry: Entry, *, slices: bool):  # type: ignore[no-untyped-def]
    """Sources or Rejected, (entry, kind) for an archive, or a DICOM slice that waits for its series."""
    kind, reason = sniff(entry.path)
    if kind == "none":
        return Rejected(entry.name, _named(reason, entry))
    if kind in ("zip", "tar", "packed", "npz"):
        return entry, kind
    try:
        if kind in ("dicom", "dicom?"):
            return _dicom(entry, slices)
        return _file(entry, kind, slices)
    except UnreadableImage as error:
        return Rejected(entry.name, str(error))


def _named(reason: str, entry: Entry) -> str:
    """Members of archives lie on disk under numbers: the extension in a reason is that of their name."""
    suffix = Path(entry.name).suffix.lower()
    return reason.replace("(no extension)", f"({suffix})") if suffix else reason


def _dicom(entry: Entry, slices: bool):  # type: ignore[no-untyped-def]
    from fewlabel.images.dicom import read_header
    from fewlabel.images.series import Slice, single

    header = read_header(entry.path)
    if not slices:
        return Slice(entry, header)
    return _cut(entry, "dicom", header.frames) if header.frames > 1 else [single(entry)]


def _file(entry: Entry, kind: Kind, slices: bool) -> list[Source]:
    name: SourceKind = "nifti" if kind == "nifti" else "raster"
    count = 1
    if slices and kind == "nifti":
        from fewlabel.images.nifti import slice_count

        count = slice_count(entry.path)
    elif slices and kind == "tiff":
        from fewlabel.images.tiff import page_count

        count = page_count(entry.path)
    return (
        _cut(entry, name, count)
        if count > 1
        else [Source(entry.name, (entry.path,), name, stamp=entry.stamp)]
    )


def _cut(entry: Entry, kind: SourceKind, count: int) -> list[Source]:
    return [
        Source(f"{entry.name}#{index:05d}", (entry.path,), kind, index, stamp=entry.stamp)
        for index in range(count)
    ]


def _walk(root: Path, scratch: Path) -> tuple[list[Entry], list[Rejected]]:
    entries: list[Entry] = []
    rejected: list[Rejected] = []
    seen: set[tuple[int, int]] = set()
    pending = [root]
    while pending:
        folder = pending.pop()
        if folder.resolve() == scratch.resolve():
            continue
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            rejected.append(Rejected(_name(folder, root), "a link to a folder that was read already"))
            continue
        seen.add((status.st_dev, status.st_ino))
        try:
            children = sorted(folder.iterdir())
        except OSError as error:
            rejected.append(Rejected(_name(folder, root), f"the folder cannot be opened: {error.strerror}"))
            continue
        _sort_out(children, root, entries, rejected, pending)
    return entries, rejected


def _sort_out(
    children: Iterable[Path], root: Path, entries: list[Entry], rejected: list[Rejected], pending: list[Path]
) -> None:
    """Real folders are read before linked ones, so that an image is known by its own path."""
    for path in children:
        name = _name(path, root)
        try:
            status = path.stat()
        except OSError as error:
            what = "a link that leads nowhere" if path.is_symlink() else f"cannot be opened: {error.strerror}"
            rejected.append(Rejected(name, what))
            continue
        if _is_system_file(name):
            rejected.append(_system_file(name))
        elif stat.S_ISDIR(status.st_mode):
            if path.name.startswith("."):
                rejected.append(Rejected(name, "a hidden folder, which is not searched"))
            elif path.is_symlink() and path.resolve().is_relative_to(root.resolve()):
                rejected.append(Rejected(name, "a link to a folder that is read under its own name"))
            elif path.is_symlink():
                pending.insert(0, path)
            else:
                pending.append(path)
        elif stat.S_ISREG(status.st_mode):
            entries.append(Entry(name, path, f"{status.st_size}-{status.st_mtime_ns}"))
        else:
            rejected.append(Rejected(name, "not a regular file but a pipe, socket or device"))


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root else root.name


def _is_system_file(name: str) -> bool:
    parts = name.replace("!/", "/").split("/")
    last = os.path.basename(parts[-1]).lower()
    return "__MACOSX" in parts or last in _SYSTEM_FILES or last.startswith("._")


def _system_file(name: str) -> Rejected:
    return Rejected(name, "not an image: left behind by the operating system")
