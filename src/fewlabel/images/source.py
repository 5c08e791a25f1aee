"""What a scan yields: `Source` (one image to be) and `Rejected` (a name and a reason); the size limits."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fewlabel.types import UnreadableImage

MAX_VALUES = 2**30
"""Largest image that is read: channels x depth x height x width, about 1.07e9 values (2 GiB at 16 bit).

A header that declares more is far more often broken or hostile than true.
"""

SourceKind = Literal["dicom", "series", "nifti", "raster", "npz"]


@dataclass(frozen=True)
class Source:
    """One image to be: a file, the slices of one series, or one entry of an npz.

    name: unique and stable within the scanned root, POSIX: "a/b.dcm", "x.zip!/a.png", "p.npz#train/00012",
        "v.nii.gz#00031" for a slice of a volume, "<folder>/series-<SeriesInstanceUID>" for a series.
    paths: the files on disk, in geometrical order for a series.
    index: entry of an npz split, or the slice when volumes are read slice by slice; -1 = the whole.
    split: "train", "val" or "test" where the source states one (npz).
    labels: what the source itself says of the image (npz: "label", or "label_0", "label_1", ...).
    stamp: cheap fingerprint (sizes, modification times) to recognise a source that has not changed.
    notes: decisions that the scan made about it; `read` adds them to the image's provenance.
    """

    name: str
    paths: tuple[Path, ...]
    kind: SourceKind
    index: int = -1
    split: str = ""
    labels: dict[str, str | float] = field(default_factory=dict)
    stamp: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rejected:
    """A file (or a member of an archive) that does not become an image, and the true reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class Entry:
    """A file on disk under the name that the user knows it by."""

    name: str
    path: Path
    stamp: str


def stamp_of(path: Path) -> str:
    """Size and modification time, enough to tell that a file was not touched."""
    status = os.stat(path)
    return f"{status.st_size}-{status.st_mtime_ns}"


def check_size(*lengths: int, what: str = "the header") -> None:
    """Refuses sizes that are not positive or exceed `MAX_VALUES`.

    Raises:
        UnreadableImage: with the sizes and the limit.
    """
    total = 1
    for length in lengths:
        total *= int(length)
    shape = " x ".join(str(int(length)) for length in lengths)
    if min(lengths) < 1:
        raise UnreadableImage(f"{what} declares an empty image ({shape})")
    if total > MAX_VALUES:
        raise UnreadableImage(f"{what} declares {shape} values, more than the limit of {MAX_VALUES}")
