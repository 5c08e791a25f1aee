"""Writing files so that a reader finds the old one or the whole new one, whatever happens in between."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fewlabel.types import FewlabelError


@contextmanager
def replacing(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """A temporary path in the folder of `path`, which is made; the file that the block writes there takes the place of
    `path` when the block ends, and is removed when it fails. What killed processes left behind is removed first.

    lasting: also after a power cut; without it a torn file is possible then, and the write is faster.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if not is_at_work(left.suffix[1:]):
            left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        if lasting:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if lasting:
        sync_folder(path.parent)


def check_new(out: Path) -> None:
    """Raise FewlabelError unless `out` is an empty folder, or nothing yet."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FewlabelError(f"{out} is not an empty folder: give a new one with --out.")


@contextmanager
def filling(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out`; what the block puts there comes to `out` when it ends, and is removed when it
    fails. Raises FewlabelError for a folder that is not empty, or cannot be written.
    """
    check_new(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
            made = Path(folder) / "made"
            made.mkdir()
            yield made
            out.mkdir(exist_ok=True)
            for child in made.iterdir():
                os.replace(child, out / child.name)
    except OSError as error:
        raise FewlabelError(
            f"{out} could not be written ({error}): free some space or choose another --out."
        ) from error


def is_at_work(process: str) -> bool:
    """Whether another process of this number is running on this machine; also where it is no number."""
    if process == str(os.getpid()):
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):
        return True
    return True


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes, *, lasting: bool = True) -> None:
    """Replace a file, as `replacing` does. Raises OSError when it cannot be written."""
    with replacing(path, lasting=lasting) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Replace a text file, in UTF-8; its folder is made. Raises FewlabelError when it cannot be written."""
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise FewlabelError(
            f"{path} could not be written ({error.strerror or error}): make room, or choose another folder."
        ) from error
