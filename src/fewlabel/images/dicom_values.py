"""What stored DICOM pixels mean: padding, polarity, modality LUT, rescale, and windows (never applied)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut

from fewlabel.images.dicom_header import functional, number, numbers, text
from fewlabel.images.dicom_pixels import Stored
from fewlabel.images.intensities import as_integers, drawing_range, finite, linear
from fewlabel.images.quiet import error_line
from fewlabel.types import UnreadableImage

_ABSOLUTE = ("CT", "PT")
"""Modalities whose values are a physical scale: MONOCHROME1 then only says how to draw them."""


@dataclass(frozen=True)
class Values:
    """pixels: (C, F, H, W). valid: (F, H, W) or None. The rest as in `Image`."""

    pixels: np.ndarray
    valid: np.ndarray | None
    display_range: tuple[float, float]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def meaningful(stored: Stored, dataset: Dataset) -> Values:
    """Stored values -> mask of padding, polarity, modality values, display range, in this order."""
    if not stored.grey:
        bits = 8 if stored.pixels.dtype == np.uint8 else stored.bits
        notes = (*stored.notes, *_colour_rescale(dataset))
        return Values(stored.pixels, None, (0.0, float(2**bits - 1)), notes, ())
    valid, padding_notes = _padding(stored, dataset)
    inverted, polarity_notes = _inverts(dataset)
    warnings: tuple[str, ...] = ()
    if dataset.get("ModalityLUTSequence"):
        pixels, mirror, rescale_notes = _lookup(stored.pixels, inverted, dataset)
    else:
        pixels, mirror, more = _mirrored(stored) if inverted else (stored.pixels, None, ())
        polarity_notes += more
        pixels, mirror, rescale_notes, warnings = _rescaled(pixels, mirror, dataset)
    pixels, valid, finite_notes = finite(pixels, valid)
    window, window_notes = _window(dataset, mirror)
    if window is None:
        window, fallback = drawing_range(pixels, valid)
        window_notes = (*window_notes, fallback)
    notes = stored.notes + padding_notes + polarity_notes + rescale_notes + finite_notes + window_notes
    return Values(pixels, valid, window, notes, warnings)


def _colour_rescale(dataset: Dataset) -> tuple[str, ...]:
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    if slope not in (None, 1.0) or intercept not in (None, 0.0):
        return ("a rescale is stated for a colour image and ignored",)
    return ()


def _stored_range(stored: Stored, dataset_signed: bool) -> tuple[int, int]:
    half = 2 ** (stored.bits - 1)
    return (-half, half - 1) if dataset_signed else (0, 2 * half - 1)


def _padding(stored: Stored, dataset: Dataset) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """PixelPaddingValue, or the range up to PixelPaddingRangeLimit, in stored values."""
    value = number(dataset, "PixelPaddingValue")
    name = "PixelPaddingValue"
    if value is None:
        for keyword in ("FloatPixelPaddingValue", "DoubleFloatPixelPaddingValue"):
            value = number(dataset, keyword)
            if value is not None:
                name = keyword
                break
    if value is None:
        return None, ()
    limit = number(dataset, "PixelPaddingRangeLimit")
    low, high = sorted((value, value if limit is None else limit))
    pixels = stored.pixels[0]
    if pixels.dtype.kind in "iu":
        low, high = (_as_stored(bound, pixels.dtype) for bound in (low, high))
        low, high = min(low, high), max(low, high)
    padded = (pixels >= low) & (pixels <= high)
    if not padded.any():
        return None, ()
    what = f"{value:g}" if limit is None else f"{low:g} to {high:g}"
    return ~padded, (f"{padded.mean():.1%} of the pixels are padding ({name} {what}) and masked",)


def _as_stored(value: float, dtype: np.dtype) -> float:
    """A padding value whose sign was written the other way (65536 - 2000 for -2000) is turned round."""
    limits = np.iinfo(dtype)
    span = int(limits.max) - int(limits.min) + 1
    if value > limits.max:
        return value - span
    return value + span if value < limits.min else value


def _inverts(dataset: Dataset) -> tuple[bool, tuple[str, ...]]:
    if text(dataset, "PhotometricInterpretation").upper() != "MONOCHROME1":
        return False, ()
    modality = text(dataset, "Modality").upper()
    if modality in _ABSOLUTE:
        return False, (f"MONOCHROME1 concerns drawing only: {modality} values are kept",)
    return True, ()


def _mirrored(stored: Stored) -> tuple[np.ndarray, float, tuple[str, ...]]:
    """x -> low + high - x over the range of stored values, so the result stays within that range."""
    pixels = stored.pixels
    if pixels.dtype.kind == "f":
        total = float(pixels.min()) + float(pixels.max())
        note = f"MONOCHROME1 inverted: x becomes {total:g} - x"
        return (total - pixels).astype(pixels.dtype), total, (note,)
    low, high = _stored_range(stored, pixels.dtype.kind == "i")
    note = ""
    if pixels.min() < low or pixels.max() > high:
        limits = np.iinfo(pixels.dtype)
        low, high = int(limits.min), int(limits.max)
        note = "; values exceed BitsStored, the range of the type is taken"
    total = low + high
    inverted = (total - pixels.astype(np.int64)).astype(pixels.dtype)
    return inverted, float(total), (f"MONOCHROME1 inverted: x becomes {total} - x{note}",)


def _rescaled(
    pixels: np.ndarray, mirror: float | None, dataset: Dataset
) -> tuple[np.ndarray, float | None, tuple[str, ...], tuple[str, ...]]:
    """Slope and intercept; `mirror` is the K of y -> K - y that windows need after an inversion."""
    frames = pixels.shape[1]
    scales = [_rescale(dataset, frame) for frame in range(frames)]
    units = text(dataset, "RescaleType") or text(dataset, "Units")
    if len(set(scales)) == 1:
        slope, intercept = scales[0]
        if slope == 0.0:
            return pixels, mirror, (), ("the rescale slope is 0: it was ignored",)
        if (slope, intercept) == (1.0, 0.0):
            return pixels, mirror, (), ()
        note = f"rescaled: {slope:g} * stored {'+' if intercept >= 0 else '-'} {abs(intercept):g}"
        moved = None if mirror is None else slope * mirror + 2 * intercept
        return linear(pixels, slope, intercept), moved, (f"{note} ({units})" if units else note,), ()
    if any(slope == 0.0 for slope, _ in scales):
        return pixels, mirror, (), ("a rescale slope is 0: the rescales of all frames were ignored",)
    parts = [pixels[:, frame].astype(np.float64) * s + i for frame, (s, i) in enumerate(scales)]
    moved = None if mirror is None else scales[0][0] * mirror + 2 * scales[0][1]
    return np.stack(parts, axis=1).astype(np.float32), moved, ("each frame rescaled by its own numbers",), ()


def _rescale(dataset: Dataset, frame: int) -> tuple[float, float]:
    source = functional(dataset, "PixelValueTransformationSequence", frame) or dataset
    slope, intercept = number(source, "RescaleSlope"), number(source, "RescaleIntercept")
    return (1.0 if slope is None else slope, 0.0 if intercept is None else intercept)


def _lookup(
    pixels: np.ndarray, inverted: bool, dataset: Dataset
) -> tuple[np.ndarray, float | None, tuple[str, ...]]:
    if pixels.dtype.kind not in "iu":
        raise UnreadableImage("it states a modality look-up table for float pixels")
    try:
        values = np.asarray(apply_modality_lut(pixels, dataset))
        bits = int(dataset.ModalityLUTSequence[0].LUTDescriptor[2])
    except Exception as error:  # a broken table may raise anything
        raise UnreadableImage(f"its modality look-up table is broken: {error_line(error)}") from error
    if not inverted:
        return as_integers(values), None, ("modality look-up table applied",)
    top = max(2**bits - 1, int(values.max()))
    mirrored = as_integers(top - values.astype(np.int64))
    note = f"modality look-up table applied; MONOCHROME1 inverted: y becomes {top} - y"
    return mirrored, float(top), (note,)


def _window(dataset: Dataset, mirror: float | None) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """The first window (or the input range of a VOI LUT) as (low, high); others are written down."""
    source = functional(dataset, "FrameVOILUTSequence", 0) or dataset
    centers, widths = numbers(source, "WindowCenter"), numbers(source, "WindowWidth")
    exact = text(source, "VOILUTFunction").upper() in ("LINEAR_EXACT", "SIGMOID")
    windows = [
        _edges(center, width, exact)
        for center, width in zip(centers, widths, strict=False)
        if width >= 1 or exact
    ]
    windows = [window for window in windows if window[1] > window[0]]
    notes: list[str] = []
    if len(windows) < len(centers):
        notes.append("a window of no width is ignored")
    if windows:
        spoken = "; ".join(f"center {c:g} width {w:g}" for c, w in zip(centers, widths, strict=False))
        which = " (the first is used)" if len(windows) > 1 else ""
        notes.append(f"window recorded, not applied: {spoken}{which}")
        chosen: tuple[float, float] | None = windows[0]
    else:
        chosen = _voi_range(source)
        if chosen:
            notes.append("VOI look-up table recorded by its input range, not applied")
    if chosen and mirror is not None:
        chosen = tuple(sorted((mirror - chosen[1], mirror - chosen[0])))  # type: ignore[assignment]
    return chosen, tuple(notes)


def _edges(center: float, width: float, exact: bool) -> tuple[float, float]:
    """PS3.3 C.11.2.1.2: LINEAR is center - 0.5 ± (width - 1) / 2, the others are center ± width / 2."""
    if exact or width == 1:
        return center - width / 2, center + width / 2
    return center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2


def _voi_range(source: Dataset) -> tuple[float, float] | None:
    try:
        items = source.get("VOILUTSequence")
        descriptor = numbers(items[0], "LUTDescriptor") if items else []
    except Exception:  # a broken sequence says nothing
        return None
    if len(descriptor) < 2:
        return None
    entries = descriptor[0] or 65536
    return (descriptor[1], descriptor[1] + entries - 1) if entries > 1 else None
