"""Area resampling of pixel arrays, exact to fractions of a pixel, and the small pictures made with it."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array

THUMBNAIL_PX = 32


def area_resample(
    pixels: np.ndarray, height_px: int, width_px: int, valid: np.ndarray | None = None
) -> np.ndarray:
    """Each new pixel is the mean of the area that it covers; enlarging is linear interpolation.

    pixels: shape (..., H, W), any number type. valid: (..., H, W) of the spatial axes, broadcast over the
    rest: where given, pixels outside it take no part in a mean (a mean of none keeps the plain mean).
    Returns float32 (..., height_px, width_px).
    """
    x = pixels.astype(np.float32, copy=False)
    if valid is None or valid.all():
        return _both_axes(x, height_px, width_px)
    weight = np.broadcast_to(valid, x.shape).astype(np.float32)
    total = _both_axes(x * weight, height_px, width_px)
    share = _both_axes(weight, height_px, width_px)
    return np.where(share > 0.01, total / np.maximum(share, 1e-6), _both_axes(x, height_px, width_px))


def resample_mask(valid: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """A pixel stays valid where at least half of its area is. valid: bool (..., H, W)."""
    return _both_axes(valid.astype(np.float32), height_px, width_px) >= 0.5


def fitted_size(height_px: int, width_px: int, side_px: int) -> tuple[int, int]:
    """Height and width whose longer one is `side_px`, aspect kept, none below 1."""
    scale = side_px / max(height_px, width_px)
    return max(1, round(height_px * scale)), max(1, round(width_px * scale))


def cast_like(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Float values back into `dtype`, rounded and clipped to its range."""
    if np.issubdtype(dtype, np.floating):
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max).astype(dtype)


def to_range(values: np.ndarray, low: float, high: float, dtype: np.dtype) -> np.ndarray:
    """Map [low, high] linearly to the range of an unsigned `dtype`, clipped; high <= low gives a step."""
    top = np.float32(np.iinfo(dtype).max)
    width = np.float32(high - low if high > low else 1)
    return (np.clip((values - np.float32(low)) / width, 0, 1) * top + np.float32(0.5)).astype(dtype)


def luminance(pixels: np.ndarray) -> np.ndarray:
    """(3, ...) RGB to (1, ...) grey by ITU-R BT.601 weights, float32; (1, ...) is only cast."""
    x = pixels.astype(np.float32, copy=False)
    if len(x) == 1:
        return x
    return (0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2])[None]


def thumbnail(pixels: np.ndarray, valid: np.ndarray | None, low: float, high: float) -> np.ndarray:
    """A 32 x 32 grey picture, aspect not kept (so that a copy stretched to a square still looks the same).

    pixels: (C, H, W) or (C, D, H, W): of a volume the middle slice. Padding is black. Returns (1024,) uint8.
    """
    if pixels.ndim == 4:
        middle = pixels.shape[1] // 2
        pixels, valid = pixels[:, middle], None if valid is None else valid[middle]
    grey = luminance(pixels)[0]
    if valid is not None:
        grey = np.where(valid, grey, np.float32(low))
    small = area_resample(grey, THUMBNAIL_PX, THUMBNAIL_PX)
    return to_range(small, low, high, np.dtype(np.uint8)).ravel()


def _both_axes(x: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    x = _last_axis(x.swapaxes(-1, -2), height_px).swapaxes(-1, -2) if x.shape[-2] != height_px else x
    return _last_axis(x, width_px) if x.shape[-1] != width_px else x


def _last_axis(x: np.ndarray, size: int) -> np.ndarray:
    columns = x.reshape(-1, x.shape[-1]).T  # (old size, everything else)
    return np.ascontiguousarray((_weights(x.shape[-1], size) @ columns).T).reshape(*x.shape[:-1], size)


@lru_cache(maxsize=256)
def _weights(old: int, new: int) -> csr_array:
    """The (new, old) matrix of one axis: overlap of areas when shrinking, linear interpolation when
    enlarging.
    """
    step = old / new
    if new > old:
        centre = np.clip((np.arange(new) + 0.5) * step - 0.5, 0, old - 1)
        first = np.minimum(centre.astype(int), max(old - 2, 0))
        part = centre - first
        second = np.minimum(first + 1, old - 1)
        rows = np.repeat(np.arange(new), 2)
        values = np.stack([1 - part, part], axis=1).ravel()
        table = (values, (rows, np.stack([first, second], axis=1).ravel()))
    else:
        edges = np.arange(new + 1) * step
        cells = [np.arange(int(a), min(int(np.ceil(b)), old)) for a, b in pairwise(edges)]
        rows = np.repeat(np.arange(new), [len(c) for c in cells])
        cols = np.concatenate(cells)
        overlap = np.minimum(cols + 1, edges[rows + 1]) - np.maximum(cols, edges[rows])
        table = (overlap / step, (rows, cols))
    return csr_array(table, shape=(new, old), dtype=np.float32)
