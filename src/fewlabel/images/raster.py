"""PNG, JPEG, BMP, GIF, WebP, JPEG 2000, PNM and TIFF -> Image, at their full bit depth."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
from PIL import ImageOps, ImageSequence

from fewlabel.images.intensities import allowed_dtype, drawing_range, finite, grey_if_equal
from fewlabel.images.made import MADE_KEY, MADE_NOTE
from fewlabel.images.quiet import collected, error_line, muted_stderr
from fewlabel.images.source import check_size
from fewlabel.types import Image, UnreadableImage

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "JPEG2000", "PPM")
_GREY_MODES = ("L", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def read_raster(path: Path) -> Image:
    """Reads a picture by Pillow.

    Returns:
        pixels (1, H, W) or (3, H, W); (C, D, H, W) for several frames of one size. The EXIF orientation is
        applied. Fully transparent pixels are marked not valid. A file with the mark of made images gives the attribute
        "made" = 1.

    Raises:
        UnreadableImage: with the reason. Pillow's own guard refuses pictures above 179 million pixels.
    """
    try:
        with collected([]), muted_stderr():
            if _is_deep_colour_png(path):
                stacked, alpha, notes = _deep_colour_png(path)
            else:
                stacked, alpha, notes = _pillow(path)
    except UnreadableImage:
        raise
    except PIL.UnidentifiedImageError as error:
        raise UnreadableImage("the picture is damaged: its header cannot be understood") from error
    except Exception as error:  # decoders raise many things on broken data
        raise UnreadableImage(f"the picture is damaged or not decodable: {error_line(error)}") from error
    image = as_image(stacked, alpha, notes)
    return replace(image, attributes={"made": 1.0}) if MADE_NOTE in notes else image


def as_image(frames: np.ndarray, alpha: np.ndarray | None, notes: tuple[str, ...]) -> Image:
    """(D, H, W) or (D, H, W, 3) of any numeric type -> Image; alpha (D, H, W) is 0 where there is nothing."""
    pixels = frames[None] if frames.ndim == 3 else np.moveaxis(frames, -1, 0)
    pixels, dtype_notes = allowed_dtype(pixels)
    pixels, grey_notes = grey_if_equal(pixels)
    valid = None
    if alpha is not None and not alpha.all():
        valid = alpha > 0
        notes += (f"{1 - valid.mean():.1%} of the pixels are fully transparent and masked",)
    pixels, valid, finite_notes = finite(pixels, valid)
    window, window_note = drawing_range(pixels, valid)
    if pixels.shape[1] == 1:
        pixels, valid = pixels[:, 0], None if valid is None else valid[0]
    else:
        notes += (f"{pixels.shape[1]} pages of one size are read as depth",)
    return Image(
        pixels=np.ascontiguousarray(pixels),
        display_range=window,
        valid=valid,
        provenance=notes + dtype_notes + grey_notes + finite_notes + (window_note,),
    )


def _pillow(path: Path) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    with PIL.Image.open(path, formats=FORMATS) as picture:
        count = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
        check_size(count, picture.height, picture.width)
        if count == 1:
            turned, notes = _upright(picture)
            pixels, alpha, more = _pixels(turned)
            made = (MADE_NOTE,) if MADE_KEY in picture.info else ()
            return pixels[None], None if alpha is None else alpha[None], made + notes + more
        parts = [_pixels(frame) for frame in ImageSequence.Iterator(picture)]
    if len({part[0].shape for part in parts}) > 1:
        parts = [_as_colour(part) for part in parts]
    alphas = [np.full(part[0].shape[:2], 255, np.uint8) if part[1] is None else part[1] for part in parts]
    return np.stack([part[0] for part in parts]), np.stack(alphas), parts[0][2]


def _as_colour(
    part: tuple[np.ndarray, np.ndarray | None, tuple[str, ...]],
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    pixels, alpha, notes = part
    return (np.stack([pixels] * 3, axis=-1) if pixels.ndim == 2 else pixels), alpha, notes


def _upright(picture: PIL.Image.Image) -> tuple[PIL.Image.Image, tuple[str, ...]]:
    orientation = picture.getexif().get(0x0112, 1)
    if orientation in (None, 1):
        return picture, ()
    return ImageOps.exif_transpose(picture), (f"EXIF orientation {orientation} applied",)


def _pixels(picture: PIL.Image.Image) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """(H, W) or (H, W, 3), alpha (H, W) or None, and what was done."""
    mode = picture.mode
    if mode == "1":
        return np.asarray(picture.convert("L")), None, ("1-bit pixels stored as 0 and 255",)
    if mode in _GREY_MODES:
        return np.asarray(picture), None, ()
    if mode == "RGB" and "transparency" not in picture.info:
        return np.asarray(picture), None, ()
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        coloured = np.asarray(picture.convert("RGBA"))
        return coloured[..., :3], coloured[..., 3], (f"mode {mode}: colours kept, alpha used as mask",)
    return np.asarray(picture.convert("RGB")), None, (f"converted from {mode} to RGB",)


def _is_deep_colour_png(path: Path) -> bool:
    """16-bit PNG with more than one channel, which Pillow would cut to 8 bits."""
    with path.open("rb") as file:
        head = file.read(26)
    return head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) == 26 and head[24] == 16 and head[25] in (2, 4, 6)


def _deep_colour_png(path: Path) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    from imagecodecs import png_decode

    data = path.read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    check_size(height, width, 4)
    array = png_decode(data)
    alpha = array[..., -1][None] if array.shape[-1] in (2, 4) else None
    pixels = array[..., :3] if array.shape[-1] >= 3 else array[..., 0]
    return pixels[None], alpha, ("16-bit PNG with several channels",)
