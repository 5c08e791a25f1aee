"""TIFF -> Image by tifffile: 1 to 32 bits, floats, compressed, tiled, several pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from fewlabel.images.intensities import allowed_dtype
from fewlabel.images.quiet import collected, error_line, library_notes, muted_stderr
from fewlabel.images.raster import as_image
from fewlabel.images.source import check_size
from fewlabel.types import Image, UnreadableImage

_MAX_PAGES = 10_000


def read_tiff(path: Path) -> Image:
    """Reads a TIFF file.

    Returns:
        pixels (C, H, W); (1, D, H, W) when it has several grey pages of one size and type. When pages differ,
        the first is read and a warning says so.

    Raises:
        UnreadableImage: with the reason.
    """
    messages: list[str] = []
    try:
        with collected(messages), muted_stderr(), tifffile.TiffFile(path) as file:
            pages = _pages(file)
            check_size(len(pages), *pages[0].shape)
            parts = [_page(page) for page in pages]
            further = _page_count(file) - len(pages)
    except UnreadableImage:
        raise
    except Exception as error:  # decoders raise many things on broken data
        raise UnreadableImage(f"the TIFF file is damaged or not decodable: {error_line(error)}") from error
    pixels = np.stack([part[0] for part in parts])
    alphas = [part[1] for part in parts if part[1] is not None]
    alpha = np.stack(alphas) if len(alphas) == len(parts) else None
    image = as_image(pixels, alpha, parts[0][2] + library_notes(messages, "tifffile"))
    if further:
        warning = f"{further} further pages differ in size or type from the first and were not read"
        return Image(**{**vars(image), "warnings": (warning,)})
    return image


def page_count(path: Path) -> int:
    """How many slices `read_tiff` gives, from the headers alone; 1 for a single page.

    Raises:
        UnreadableImage: the file is broken.
    """
    try:
        with collected([]), tifffile.TiffFile(path) as file:
            return len(_pages(file))
    except UnreadableImage:
        raise
    except Exception as error:  # tifffile raises many things on broken data
        raise UnreadableImage(f"the TIFF file is damaged: {error_line(error)}") from error


def _page_count(file: tifffile.TiffFile) -> int:
    count = len(file.pages)
    if count > _MAX_PAGES:
        raise UnreadableImage(f"the TIFF file holds {count} pages, more than the limit of {_MAX_PAGES}")
    return count


def _pages(file: tifffile.TiffFile) -> list[Any]:
    count = _page_count(file)
    if count == 0:
        raise UnreadableImage("the TIFF file holds no page")
    first = file.pages.first
    if not first.shape or len(first.shape) not in (2, 3):
        raise UnreadableImage(f"the first page of the TIFF file has the shape {first.shape}")
    if count == 1 or len(first.shape) != 2:
        return [first]
    pages = [file.pages[number] for number in range(count)]
    alike = all(page.shape == first.shape and page.dtype == first.dtype for page in pages)
    return pages if alike else [first]


def _page(page: tifffile.TiffPage) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """(H, W) or (H, W, 3), alpha (H, W) or None, and what was done."""
    check_size(*page.shape)
    array = page.asarray()
    if array.shape != page.shape:
        raise UnreadableImage(
            f"the TIFF page came out as {array.shape}, not as {page.shape} as its header states"
        )
    if array.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        array = np.moveaxis(array, 0, -1)
    photometric = tifffile.PHOTOMETRIC
    notes: tuple[str, ...] = ()
    alpha = None
    if page.photometric == photometric.PALETTE and page.colormap is not None:
        array, notes = _palette(array, np.asarray(page.colormap)), ("palette applied",)
    elif page.photometric == photometric.MINISWHITE:
        array, notes = _inverted(array, page.bitspersample)
    elif page.photometric not in (photometric.MINISBLACK, photometric.RGB, photometric.YCBCR):
        raise UnreadableImage(f"the TIFF colour space {page.photometric!r} is not read")
    if array.ndim == 3:
        array, alpha = _channels(array)
    array, turned = _oriented(array, page)
    alpha = None if alpha is None else _oriented(alpha, page)[0]
    return array, alpha, notes + turned


def _palette(array: np.ndarray, table: np.ndarray) -> np.ndarray:
    coloured = np.moveaxis(table[:, array.astype(np.intp)], 0, -1)  # one-bit pages are boolean
    return (coloured >> 8).astype(np.uint8)


def _inverted(array: np.ndarray, bits: int) -> tuple[np.ndarray, tuple[str, ...]]:
    array = allowed_dtype(array)[0] if array.dtype != bool else array
    if array.dtype == bool:
        return ~array, ("white-is-zero pixels inverted",)
    top = 2**bits - 1 if array.dtype.kind == "u" else -1 if array.dtype.kind == "i" else float(array.max())
    if array.dtype.kind == "f":
        return (top - array).astype(array.dtype), ("white-is-zero pixels inverted",)
    return (top - array.astype(np.int64)).astype(array.dtype), (f"white-is-zero: x becomes {top} - x",)


def _channels(array: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    channels = array.shape[-1]
    if channels not in (1, 2, 3, 4):
        raise UnreadableImage(
            f"the TIFF file has {channels} channels; grey and RGB, also with alpha, are read"
        )
    alpha = array[..., -1] if channels in (2, 4) else None
    return (array[..., :3] if channels >= 3 else array[..., 0]), alpha


def _oriented(array: np.ndarray, page: tifffile.TiffPage) -> tuple[np.ndarray, tuple[str, ...]]:
    """The TIFF tag Orientation (274): 1 is upright, the others are flips and turns of it."""
    tag = page.tags.get(274)
    code = int(tag.value) if tag is not None else 1
    if code == 1 or not 1 <= code <= 8:
        return array, ()
    if code >= 5:
        array = np.swapaxes(array, 0, 1)
    if code in (2, 3, 7, 6):
        array = array[:, ::-1]
    if code in (3, 4, 7, 8):
        array = array[::-1]
    return array, (f"TIFF orientation {code} applied",)
