"""MedMNIST files: {train,val,test}_{images,labels} in one .npz, read from disk or fetched by name.

The arrays are unpacked once below the scan's scratch folder and read by memory map, so that an image costs
microseconds and no process holds the whole file. Pickled arrays are refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import shutil
import urllib.error
import urllib.request
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np

from fewlabel.files import replacing
from fewlabel.images.archives import open_archive
from fewlabel.images.intensities import allowed_dtype, drawing_range, grey_if_equal
from fewlabel.images.quiet import error_line
from fewlabel.images.source import Entry, Rejected, Source, check_size
from fewlabel.types import FewlabelError, Image, UnreadableImage

SPLITS = ("train", "val", "test")
_TIMEOUT_S = 60


def scan_npz(entry: Entry, scratch: Path) -> tuple[list[Source], list[Rejected]]:
    """One source for each image of a MedMNIST file, with its split and its labels.

    Returns:
        the sources, named "<file>#<split>/<entry>", and further arrays in the file as rejected.

    Raises:
        UnreadableImage: it is damaged or not in the layout of MedMNIST.
    """
    members, rejected = open_archive(entry, scratch)
    arrays = {member.name.rpartition("!/")[2].removesuffix(".npy"): member.path for member in members}
    splits = [split for split in SPLITS if f"{split}_images" in arrays]
    if not splits:
        raise UnreadableImage(
            f"an .npz file with the arrays {', '.join(sorted(arrays)[:6]) or 'none'}, not in the layout of "
            "MedMNIST (train_images, train_labels, val_images, ...)"
        )
    sources: list[Source] = []
    for split in splits:
        sources += _split_sources(entry, split, arrays)
    if not sources:
        raise UnreadableImage(f"its arrays {', '.join(f'{split}_images' for split in splits)} hold no image")
    used = {f"{split}_{what}" for split in splits for what in ("images", "labels")}
    reason = "an array that is no part of MedMNIST's layout"
    left = [Rejected(f"{entry.name}#{name}", reason) for name in arrays if name not in used]
    return sources, rejected + left


def _split_sources(entry: Entry, split: str, arrays: dict[str, Path]) -> list[Source]:
    path = arrays[f"{split}_images"]
    images = _array(path)
    if images.ndim not in (3, 4) or images.dtype.kind not in "uif":
        raise UnreadableImage(f"{split}_images is {images.shape} of {images.dtype}: no stack of images")
    check_size(*images.shape[1:], what=f"{split}_images")
    labels = _labels(arrays.get(f"{split}_labels"), len(images), split)
    return [
        Source(
            f"{entry.name}#{split}/{number:05d}", (path,), "npz", number, split, labels[number], entry.stamp
        )
        for number in range(len(images))
    ]


def _labels(path: Path | None, count: int, split: str) -> list[dict[str, str | float]]:
    if path is None:
        return [{} for _ in range(count)]
    labels = _array(path)
    labels = labels[:, None] if labels.ndim == 1 else labels
    if labels.ndim != 2 or len(labels) != count or labels.dtype.kind not in "uifb":
        raise UnreadableImage(f"{split}_labels has shape {labels.shape} for {count} images")
    names = ["label"] if labels.shape[1] == 1 else [f"label_{column}" for column in range(labels.shape[1])]
    return [dict(zip(names, map(float, row), strict=True)) for row in labels]


@lru_cache(maxsize=16)
def _array(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            start = file.read(6)
        if start != b"\x93NUMPY":
            raise UnreadableImage("an array of the .npz file has no NumPy header")
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except UnreadableImage:
        raise
    except Exception as error:  # numpy raises many things on broken headers
        raise UnreadableImage(f"an array of the .npz file is damaged: {error_line(error)}") from error


def read_entry(source: Source) -> Image:
    """One image of a MedMNIST file: (1, H, W), (3, H, W), or (1, D, H, W) for the 3-D sets.

    Raises:
        UnreadableImage: the array has changed or is damaged.
    """
    images = _array(source.paths[0])
    if not 0 <= source.index < len(images):
        raise UnreadableImage(f"it has {len(images)} images: there is no number {source.index}")
    item = np.array(images[source.index])
    coloured = item.ndim == 3 and item.shape[-1] == 3
    pixels = np.moveaxis(item, -1, 0) if coloured else item[None]
    pixels, dtype_notes = allowed_dtype(np.ascontiguousarray(pixels))
    pixels, grey_notes = grey_if_equal(pixels)
    window, note = drawing_range(pixels, None)
    notes = ("from a MedMNIST file", *dtype_notes, *grey_notes, note)
    return Image(pixels=pixels, display_range=window, provenance=notes)


def medmnist_npz(name: str, root: Path) -> Path:
    """The .npz file of a MedMNIST set by name, fetched where it is not there yet.

    name: such as "pneumonia", "pneumoniamnist", "pneumonia_64" or "medmnist:pneumonia"; the suffix is the
        side in pixels, 28 without one. Address and MD5 are those that the `medmnist` package publishes.
    root: the folder that keeps the file.

    Raises:
        FewlabelError: the package is missing, the name is unknown, there is no network, or the file is not
            the one that was published.
    """
    info = _package_info()
    flag, size = _flag(name, sorted(info))
    facts = info[flag]
    if f"url{size}" not in facts:
        raise FewlabelError(f"MedMNIST has no {flag} of {size[1:]} pixels: leave the suffix out for 28")
    target = root / f"{flag}{size}.npz"
    if target.is_file() and _md5(target) == facts[f"MD5{size}"]:
        return target
    root.mkdir(parents=True, exist_ok=True)
    _download(facts[f"url{size}"], facts[f"MD5{size}"], target)
    return target


def _package_info() -> dict[str, dict]:
    """INFO of the medmnist package; its import prints a hint to stdout when torchvision does not load."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import medmnist.info as module
    except ImportError as error:
        raise FewlabelError(
            'reading MedMNIST by name needs the medmnist package: pip install "fewlabel[medmnist]"'
        ) from error
    return _info_of(module)


def _info_of(module: ModuleType) -> dict[str, dict]:
    return dict(module.INFO)


def _flag(name: str, known: list[str]) -> tuple[str, str]:
    found = re.fullmatch(r"(?:medmnist:)?([a-z]+?)(?:mnist)?(3d)?(_\d+)?", name.strip().lower())
    if found:
        flag = f"{found[1]}mnist{found[2] or ''}"
        if flag in known:
            return flag, "" if found[3] in (None, "_28") else found[3]
    raise FewlabelError(f"MedMNIST has no set {name!r}: known are {', '.join(known)}")


def _download(url: str, md5: str, target: Path) -> None:
    try:
        with replacing(target) as partial:
            with partial.open("wb") as file, urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
                shutil.copyfileobj(answer, file)
            if _md5(partial) != md5:
                raise FewlabelError(
                    f"{url} is not the published file (its MD5 is not {md5}): try again later"
                )
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        raise FewlabelError(
            f"{url} could not be fetched ({error_line(error)}): connect to the network, or fetch the file "
            f"yourself and put it at {target}"
        ) from error


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
