"""All images of a collection as squares of one size: made once, kept as a file, read by memory map."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fewlabel.collection.chunks import full_range, shrunk
from fewlabel.collection.resample import area_resample, fitted_size, luminance, to_range
from fewlabel.collection.store import is_disk_full
from fewlabel.files import replacing
from fewlabel.types import FewlabelError, Image, ProgressCallback, UnreadableImage

if TYPE_CHECKING:
    from fewlabel.collection.cases import Collection

_BLOCK = 128


def square_pixels(
    collection: Collection,
    size_px: int,
    *,
    channels: int,
    window: tuple[float, float] | None,
    progress: ProgressCallback | None,
) -> np.ndarray:
    """See `Collection.square`."""
    if size_px < 1 or channels not in (1, 3):
        raise FewlabelError(
            f"square images of {size_px} px and {channels} channels: size from 1, channels 1 or 3"
        )
    if window is not None and not window[1] > window[0]:
        raise FewlabelError(f"window is {window}: the second number must be above the first")
    shapes = collection.column("case:shape")
    volumes = sum(len(s) == 4 for s in shapes)
    if volumes:
        raise FewlabelError(
            f"{collection.path} holds {volumes} 3-D volumes, and squares are made of 2-D images: "
            "import it again with slices=True (--slices)"
        )
    path = _cache_path(collection, size_px, channels, window)
    if not path.exists():
        try:
            _remove_stale(collection)
            _make(collection, path, size_px, channels, window, progress)
        except OSError as error:
            if is_disk_full(error):
                raise FewlabelError(
                    f"the disk that holds {path.parent} is full: free some space and try again"
                ) from None
            raise FewlabelError(f"{path.parent} cannot be written: {error.strerror or error}") from None
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _cache_path(
    collection: Collection, size_px: int, channels: int, window: tuple[float, float] | None
) -> Path:
    view = "display" if window is None else f"{window[0]:g}to{window[1]:g}"
    return (
        collection.path / "cache" / f"{collection.pixel_fingerprint[:16]}-{size_px}px-{channels}ch-{view}.npy"
    )


def _remove_stale(collection: Collection) -> None:
    folder = collection.path / "cache"
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.npy"):
        if not path.name.startswith(collection.pixel_fingerprint[:16]):
            path.unlink(missing_ok=True)


def _make(
    collection: Collection,
    path: Path,
    size_px: int,
    channels: int,
    window: tuple[float, float] | None,
    progress: ProgressCallback | None,
) -> None:
    count = len(collection)
    dtype = np.dtype(np.uint8 if all(d == "uint8" for d in collection.column("case:dtype")) else np.uint16)
    low, high = collection.column("case:display_low"), collection.column("case:display_high")
    shape = (count, channels, size_px, size_px)

    def block(start: int) -> np.ndarray:
        rows = range(start, min(start + _BLOCK, count))
        made = np.zeros((len(rows), channels, size_px, size_px), dtype)
        for out, row in zip(made, rows, strict=True):
            between = window or (low[row], high[row])
            _fill(out, collection.pixels(row), collection.valid(row), between)
        return made

    with (
        replacing(path) as temporary,
        temporary.open("wb") as file,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads,
    ):
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        starts = list(range(0, count, _BLOCK))
        for first in range(0, len(starts), 16):  # a few blocks at a time, so that memory stays flat
            for made in threads.map(block, starts[first : first + 16]):
                file.write(made.data)
            if progress:
                progress(min(count, starts[first] + 16 * _BLOCK), count, f"squares of {size_px} px")


def _fill(
    out: np.ndarray, pixels: np.ndarray, valid: np.ndarray | None, between: tuple[float, float]
) -> None:
    """Write one image (C, H, W) into the black square `out` (channels, S, S)."""
    low, high = between
    if out.shape[0] == 1:
        pixels = luminance(pixels)
    if valid is not None:
        pixels = np.where(valid, pixels, np.asarray(low, np.float32))
    height, width = fitted_size(pixels.shape[-2], pixels.shape[-1], out.shape[-1])
    top, left = (out.shape[-1] - height) // 2, (out.shape[-1] - width) // 2
    drawn = area_resample(pixels, height, width)
    out[:, top : top + height, left : left + width] = to_range(drawn, low, high, out.dtype)


def square_image(image: Image, size_px: int, *, channels: int, max_side_px: int) -> np.ndarray:
    """One image that is in no collection, as `Collection.square` would give it: (channels, S, S) uint16.

    max_side_px: of the collection to agree with. Raises UnreadableImage for a volume.
    """
    if image.pixels.ndim != 3:
        raise UnreadableImage(
            f"a volume of {image.pixels.shape[1]} slices, where single 2-D images are expected"
        )
    small = shrunk(image, max_side_px)
    eight_bit = image.pixels.dtype == np.uint8
    out = np.zeros((channels, size_px, size_px), np.uint8 if eight_bit else np.uint16)
    _fill(out, small.pixels, small.valid, small.display_range or full_range(small))
    return out.astype(np.uint16) * np.uint16(257) if eight_bit else out
