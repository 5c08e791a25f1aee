"""Small shared facts about pixel values: dtypes that `Image` allows, grey colour images, drawing ranges."""

from __future__ import annotations

import numpy as np

from fewlabel.types import UnreadableImage

_MAX_SAMPLES = 1_000_000


def allowed_dtype(values: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """The same numbers in uint8, uint16, int16, int32 or float32, native byte order, and what was done.

    Raises:
        UnreadableImage: complex or other values that are no intensities.
    """
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    name = values.dtype.name
    if name in ("uint8", "uint16", "int16", "int32", "float32"):
        return values, ()
    if name == "bool":
        return values.astype(np.uint8) * np.uint8(255), ("1-bit pixels stored as 0 and 255",)
    if name == "int8":
        return values.astype(np.int16), ("int8 stored as int16",)
    if name == "float16":
        return values.astype(np.float32), ("float16 stored as float32",)
    if name in ("uint32", "int64", "uint64"):
        return _narrowed(values)
    if name in ("float64", "longdouble", "float128"):
        return values.astype(np.float32), (f"{name} stored as float32",)
    raise UnreadableImage(f"its values are of type {name}, which are no intensities")


def _narrowed(values: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    limits = np.iinfo(np.int32)
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if limits.min <= low and high <= limits.max:
        return values.astype(np.int32), (f"{values.dtype.name} stored as int32, no value changed",)
    return values.astype(np.float32), (f"{values.dtype.name} stored as float32, 24 bits of precision",)


def as_integers(values: np.ndarray) -> np.ndarray:
    """int16 where all values fit, else int32, else float32."""
    low, high = int(values.min()), int(values.max())
    for dtype in (np.int16, np.int32):
        limits = np.iinfo(dtype)
        if limits.min <= low and high <= limits.max:
            return values.astype(dtype)
    return values.astype(np.float32)


def linear(values: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """slope * values + intercept: integers stay integers when both numbers are whole, else float32."""
    if values.dtype.kind in "iu" and float(slope).is_integer() and float(intercept).is_integer():
        low, high = int(values.min()), int(values.max())
        ends = [int(slope) * low + int(intercept), int(slope) * high + int(intercept)]
        if max(map(abs, ends)) < 2**31 and max(abs(low), abs(high)) < 2**31 and abs(int(intercept)) < 2**31:
            small = abs(int(slope)) * max(abs(low), abs(high)) < 2**31
            wide = values.astype(np.int32 if small else np.int64)
            return as_integers(wide * int(slope) + int(intercept))
    return (values.astype(np.float64) * slope + intercept).astype(np.float32)


def grey_if_equal(pixels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """(3, ...) whose channels are equal becomes (1, ...)."""
    if pixels.shape[0] == 3 and (pixels[0] == pixels[1]).all() and (pixels[0] == pixels[2]).all():
        return pixels[:1], ("red, green and blue are equal: read as one grey channel",)
    return pixels, ()


def finite(
    pixels: np.ndarray, valid: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Not-a-number and infinite values (C, ...) become the lowest finite value and are marked not valid.

    Raises:
        UnreadableImage: there is no finite value at all.
    """
    if pixels.dtype.kind != "f":
        return pixels, valid, ()
    good = np.isfinite(pixels)
    if good.all():
        return pixels, valid, ()
    if not good.any():
        raise UnreadableImage("not one of its values is finite")
    everywhere = good.all(axis=0)
    filled = np.where(good, pixels, pixels[good].min())
    note = (
        f"{int((~everywhere).sum())} values that are not finite are masked and set to the lowest finite one"
    )
    return filled, everywhere if valid is None else valid & everywhere, (note,)


def drawing_range(pixels: np.ndarray, valid: np.ndarray | None) -> tuple[tuple[float, float], str]:
    """(0, 255) for uint8, otherwise the 0.5 and 99.5 percentiles of the valid pixels; and a word on it."""
    if pixels.dtype == np.uint8:
        return (0.0, 255.0), "display range 0 to 255"
    values = pixels.ravel() if valid is None else pixels[:, valid].ravel()
    if values.size == 0:
        values = pixels.ravel()
    values = values[:: max(1, values.size // _MAX_SAMPLES)]
    low, high = (float(value) for value in np.percentile(values, [0.5, 99.5]))
    return (low, high if high > low else low + 1.0), "display range from the 0.5 and 99.5 percentiles"
