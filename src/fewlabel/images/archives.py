"""Archives are opened safely: nothing is written outside `scratch`, and no bomb goes off.

Members are written under numbers, never under their own names, so no name can lead anywhere. Links and
devices are never made. The bytes that come out are counted as they come, whatever the headers claim. The
folder appears under its final name only when it is complete: an interrupted extraction is simply done again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from fewlabel.files import is_at_work
from fewlabel.images.quiet import error_line
from fewlabel.images.sniffing import sniff, unpacked
from fewlabel.images.source import Entry, Rejected, stamp_of
from fewlabel.types import FewlabelError, UnreadableImage

MAX_BYTES = 500 * 2**30
"""Most bytes that one archive may unpack to."""
MAX_MEMBERS = 1_000_000
"""Most members that one archive may hold."""
MAX_RATIO = 200
"""Most that an archive may grow by, once past `FREE_BYTES`: masks and blank images do compress very well."""
FREE_BYTES = 2**30
"""Bytes that any archive may unpack to, whatever its ratio."""

_MANIFEST = "manifest.json"
Member = tuple[str, Callable[[], IO[bytes]] | str]
"""A member's name, and either how to open it or why it is not opened."""


def open_archive(entry: Entry, scratch: Path) -> tuple[list[Entry], list[Rejected]]:
    """Unpacks a zip, tar (plain, gzip, bzip2, xz) or single compressed file below `scratch`.

    A complete earlier extraction of the same file (path, size, time) is used again.

    Returns:
        the members as entries named "<archive>!/<member>", and those that were not unpacked.

    Raises:
        UnreadableImage: the whole archive is refused: encrypted, damaged, escaping paths, too big.
        FewlabelError: the disk is full.
    """
    key = hashlib.sha256(f"{entry.path.resolve()}\0{entry.stamp}".encode()).hexdigest()[:24]
    folder = scratch / key
    if not (folder / _MANIFEST).is_file():
        _unpack(entry, scratch, folder)
    manifest = json.loads((folder / _MANIFEST).read_text())
    if not manifest["members"] and not manifest["rejected"]:
        raise UnreadableImage("the archive holds no file")
    members = [
        Entry(f"{entry.name}!/{name}", folder / f"{number:07d}", f"{entry.stamp}!{number}")
        for number, name in enumerate(manifest["members"])
    ]
    return members, [Rejected(f"{entry.name}!/{name}", reason) for name, reason in manifest["rejected"]]


def _unpack(entry: Entry, scratch: Path, folder: Path) -> None:
    scratch.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(scratch, folder.name)
    partial = scratch / f"{folder.name}.partial-{os.getpid()}"
    partial.mkdir()
    try:
        manifest = _write_members(entry.path, partial)
        (partial / _MANIFEST).write_text(json.dumps(manifest))
        if stamp_of(entry.path) != entry.stamp:
            raise UnreadableImage("the archive changed while it was being read; import it again")
        _rename(partial, folder)
    except FewlabelError:
        raise
    except Exception as error:  # on damaged archives the standard library raises many things
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FewlabelError(
                f"the disk of {scratch} is full while unpacking {entry.path}: free some space and run again"
            ) from error
        raise UnreadableImage(f"the archive is damaged: {error_line(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _rename(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError:
        if not (folder / _MANIFEST).is_file():
            raise


def _remove_leftovers(scratch: Path, key: str) -> None:
    for leftover in scratch.glob(f"{key}.partial-*"):
        if not is_at_work(leftover.name.rpartition("-")[2]):
            shutil.rmtree(leftover, ignore_errors=True)


def _write_members(path: Path, folder: Path) -> dict[str, list]:
    names: list[str] = []
    rejected: list[tuple[str, str]] = []
    seen: set[str] = set()
    budget = _Budget(path)
    with path.open("rb") as file:
        for raw_name, opened in _members(path, file):
            budget.count_member()
            name = safe_name(raw_name)
            if isinstance(opened, str):
                rejected.append((name, opened))
            elif name in seen:
                rejected.append((name, "the archive holds another member of this name"))
            else:
                seen.add(name)
                budget.copy(opened, folder / f"{len(names):07d}")
                names.append(name)
    return {"members": names, "rejected": rejected}


def safe_name(name: str) -> str:
    """A member's name with "/" between its parts.

    Raises:
        UnreadableImage: the name is absolute or climbs out by "..".
    """
    name = name.replace("\\", "/")
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or re.match(r"^[A-Za-z]:", name):
        raise UnreadableImage(
            f"the archive holds the path {name[:80]!r}, which leads out of it; such archives are not opened"
        )
    if any(ord(character) < 32 for character in name):
        raise UnreadableImage(f"the archive holds the path {name[:80]!r} with control characters in it")
    return "/".join(parts)


class _Budget:
    """Counts members and bytes as they come out of one archive."""

    def __init__(self, path: Path) -> None:
        self.size = path.stat().st_size
        self.limit = min(MAX_BYTES, max(FREE_BYTES, MAX_RATIO * self.size))
        self.members = 0
        self.bytes = 0

    def count_member(self) -> None:
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise UnreadableImage(f"the archive holds more than {MAX_MEMBERS} members, the limit")

    def copy(self, opener: Callable[[], IO[bytes]], target: Path) -> None:
        with opener() as source, target.open("wb") as file:
            while block := source.read(2**20):
                self.bytes += len(block)
                if self.bytes > self.limit:
                    raise UnreadableImage(
                        f"the archive of {self.size} bytes unpacks to more than {self.limit} bytes: "
                        "it looks like a decompression bomb; unpack it yourself if you trust it"
                    )
                file.write(block)


def _members(path: Path, file: IO[bytes]) -> Iterator[Member]:
    kind, _ = sniff(path)
    if kind in ("zip", "npz"):
        yield from _zip_members(file)
    elif kind == "tar":
        yield from _tar_members(file)
    else:
        stem = path.name.rsplit(".", 1)[0] if "." in path.name else path.name
        yield stem or "content", lambda: unpacked(file)


def _zip_members(file: IO[bytes]) -> Iterator[Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.flag_bits & 1:
                raise UnreadableImage("the zip archive is encrypted; unpack it with its password first")
            if info.is_dir():
                safe_name(info.filename)
                continue
            mode = info.external_attr >> 16
            if mode and (mode & 0o170000) not in (0, 0o100000):
                yield info.filename, "a link or a device inside an archive, which is never made"
            else:
                yield info.filename, lambda info=info: archive.open(info)  # type: ignore[misc]


def _tar_members(file: IO[bytes]) -> Iterator[Member]:
    with tarfile.open(fileobj=unpacked(file), mode="r|") as archive:
        for info in archive:
            if info.isdir():
                safe_name(info.name)
            elif info.isreg():
                yield info.name, lambda info=info: _extracted(archive, info)  # type: ignore[misc]
            else:
                yield info.name, "a link or a device inside an archive, which is never made"


def _extracted(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    member = archive.extractfile(info)
    if member is None:
        raise zlib.error(f"no data for {info.name}")
    return member
