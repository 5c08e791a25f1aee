"""The pixel store: parts of records that are read by memory map, and the writing of files that matter.

A part, `pixels/00012.bin`, holds the records of one chunk of sources, each starting at a multiple of 64
bytes: the pixels, little-endian and uncompressed, then (only where an image has padding) its valid mask as
packed bits. `thumbnails/00012.bin` holds 1024 bytes for each record. Where a record lies stands in its row of
`cases.parquet`.
"""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np

from fewlabel.types import FewlabelError

FORMAT = 1
CASES = "cases.parquet"
ABOUT = "collection.json"
QUARANTINE = "quarantine.csv"
STAGING = ".staging"
LOCK = ".lock"
ALIGNMENT = 64


def part_path(root: Path, part: int) -> Path:
    """Where the pixels of a part lie."""
    return root / "pixels" / f"{part:05d}.bin"


def thumbnails_path(root: Path, part: int) -> Path:
    """Where the thumbnails of a part lie: (records, 1024) uint8."""
    return root / "thumbnails" / f"{part:05d}.bin"


def is_disk_full(error: OSError) -> bool:
    """No space, or no quota, left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def locked(root: Path, writer: str = "import") -> Iterator[None]:
    """Only one process at a time writes to a folder; the lock goes with the process, however that ends.

    writer: what such a process does, for the one that comes second. Raises FewlabelError for that one.
    """
    with (root / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FewlabelError(f"another {writer} is writing to {root}: wait until it has ended") from None
        yield


class RecordReader:
    """Reads records of the parts under `root`, opening each part when it is first needed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._map = lru_cache(maxsize=256)(self._open)

    def _open(self, part: int) -> np.ndarray:
        path = part_path(self.root, part)
        try:
            return np.memmap(path, dtype=np.uint8, mode="r")
        except (OSError, ValueError):
            raise FewlabelError(
                f"{path} is missing or empty, though the collection needs it: import the source again"
            ) from None

    def read(self, part: int, offset: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        """A view of the pixels of one record, shape (C, [D,] H, W)."""
        kind = np.dtype(dtype).newbyteorder("<")
        return self._bytes(part, offset, int(np.prod(shape)) * kind.itemsize).view(kind).reshape(shape)

    def read_mask(self, part: int, offset: int, shape: tuple[int, ...]) -> np.ndarray:
        """The valid mask of the spatial axes `shape`, unpacked: bool."""
        count = int(np.prod(shape))
        packed = self._bytes(part, offset, (count + 7) // 8)
        return np.unpackbits(packed, count=count).astype(bool).reshape(shape)

    def _bytes(self, part: int, offset: int, size: int) -> np.ndarray:
        found = self._map(part)[offset : offset + size]
        if len(found) != size:
            raise FewlabelError(
                f"{part_path(self.root, part)} is shorter than the collection says: import the source again"
            )
        return found


def read_thumbnails(root: Path, parts: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """(N, 1024) uint8: the thumbnail in place `slots[i]` of part `parts[i]`, for each i."""
    found = np.empty((len(parts), 1024), np.uint8)
    for part in np.unique(parts):
        rows = np.flatnonzero(parts == part)
        path = thumbnails_path(root, part)
        try:
            found[rows] = np.fromfile(path, np.uint8).reshape(-1, 1024)[slots[rows]]
        except (OSError, ValueError, IndexError):
            raise FewlabelError(
                f"{path} is missing or broken: import the source again into a new folder"
            ) from None
    return found
