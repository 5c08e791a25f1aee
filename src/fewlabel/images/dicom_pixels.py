"""Stored DICOM pixels as arrays: decoding, unused bits, colour spaces, palettes; no meaning is given yet."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import apply_color_lut, convert_color_space, get_decoder
from pydicom.uid import JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

from fewlabel.images.dicom_header import frame_count, has_pixels, text
from fewlabel.images.intensities import allowed_dtype, grey_if_equal
from fewlabel.images.quiet import collected, error_line, library_notes, muted_stderr, one_line
from fewlabel.images.source import check_size
from fewlabel.types import UnreadableImage


@dataclass(frozen=True)
class Stored:
    """Pixels as stored.

    pixels: (C, F, H, W), C is 1 or 3, F frames; integers, or float for float pixel data.
    bits: BitsStored, for integers.
    """

    pixels: np.ndarray
    bits: int
    notes: tuple[str, ...]

    @property
    def grey(self) -> bool:
        return self.pixels.shape[0] == 1


def decode(dataset: Dataset) -> Stored:
    """Decodes all frames.

    Raises:
        UnreadableImage: no pixels, a size beyond the limits, no decoder, or damaged data.
    """
    if not has_pixels(dataset):
        raise UnreadableImage("it has the header of an image but holds no pixel data")
    frames, samples = frame_count(dataset), int(dataset.get("SamplesPerPixel") or 1)
    check_size(samples, frames, int(dataset.Rows), int(dataset.Columns))
    if samples not in (1, 3):
        raise UnreadableImage(f"it has {samples} samples per pixel; 1 (grey) and 3 (colour) are read")
    messages: list[str] = []
    with collected(messages):
        array, notes = _decoded(dataset)
    notes += library_notes(messages, "pydicom")
    array = array.reshape(frames, int(dataset.Rows), int(dataset.Columns), samples)
    array, colour_notes = _colours(array, dataset)
    pixels, dtype_notes = allowed_dtype(np.ascontiguousarray(np.moveaxis(array, -1, 0)))  # (C, F, H, W)
    pixels, grey_notes = grey_if_equal(pixels)
    bits = int(dataset.get("BitsStored") or dataset.get("BitsAllocated") or 16)
    return Stored(pixels, bits, notes + colour_notes + dtype_notes + grey_notes)


def _decoded(dataset: Dataset) -> tuple[np.ndarray, tuple[str, ...]]:
    """(F, H, W, C) in any order of its own, colours as RGB, and how it was decoded."""
    syntax = dataset.file_meta.TransferSyntaxUID
    name = syntax.name if not syntax.name[:1].isdigit() else f"transfer syntax {syntax}"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise UnreadableImage(
            f"its pixels are stored as {name}, for which there is no decoder here"
        ) from error
    try:
        if not syntax.is_encapsulated:
            return _native(dataset, decoder), ()
        with muted_stderr():
            return _compressed(dataset, decoder, name)
    except UnreadableImage:
        raise
    except MemoryError as error:
        raise UnreadableImage(f"its pixels ({name}) need more memory than there is") from error
    except Exception as error:  # decoders raise many things on broken data
        raise UnreadableImage(_decoding_reason(error, name)) from error


def _native(dataset: Dataset, decoder) -> np.ndarray:  # type: ignore[no-untyped-def]
    bits, high = int(dataset.get("BitsStored") or 0), dataset.get("HighBit")
    shift = int(high) + 1 - bits if bits and high is not None else 0
    if shift <= 0 or "PixelData" not in dataset:
        return decoder.as_array(dataset)[0]
    # pydicom drops the bits above BitsStored but takes the lowest for granted: here they lie higher up
    array = decoder.as_array(dataset, correct_unused_bits=False)[0]
    left = 8 * array.dtype.itemsize - int(high) - 1
    return np.right_shift(np.left_shift(array, left), left + shift)


def _compressed(dataset: Dataset, decoder, name: str) -> tuple[np.ndarray, tuple[str, ...]]:  # type: ignore[no-untyped-def]
    syntax = dataset.file_meta.TransferSyntaxUID
    deep = syntax == JPEGExtended12Bit and int(dataset.get("BitsStored") or 8) > 8
    if deep or syntax in (JPEGLossless, JPEGLosslessSV1):
        return _turbo_jpeg(dataset), (f"decoded from {name} with libjpeg-turbo",)
    plugins = _plugins(decoder.available_plugins)
    if not plugins:
        raise UnreadableImage(f"its pixels are stored as {name}, for which no decoder is installed")
    failures = []
    for plugin in plugins:
        try:
            return decoder.as_array(dataset, decoding_plugin=plugin)[0], (
                f"decoded from {name} with {plugin}",
            )
        except Exception as error:  # each plug-in has exceptions of its own
            last = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
            failures.append(f"{plugin}: {one_line(last.removeprefix(f'{plugin}:'), 150)}")
    raise UnreadableImage(f"the pixel data ({name}) is damaged or not decodable: {'; '.join(failures)}")


def _plugins(available: Iterable[str]) -> list[str]:
    """The order in which decoders are tried, never GDCM: on damaged JPEG data it aborts the whole process."""
    return sorted(set(available) - {"gdcm"}, key=lambda name: (name == "pillow", name))


def _turbo_jpeg(dataset: Dataset) -> np.ndarray:
    """Lossless and 12-bit JPEG by libjpeg-turbo 3: no safe, permissive plug-in of pydicom reads them."""
    from imagecodecs import jpeg8_decode

    count, samples = frame_count(dataset), int(dataset.get("SamplesPerPixel") or 1)
    shape = (int(dataset.Rows), int(dataset.Columns), *([3] if samples == 3 else []))
    space = "RGB" if samples == 3 else None  # as stored: the header says what the channels are
    coded = generate_frames(dataset.PixelData, number_of_frames=count)
    frames = [jpeg8_decode(frame, colorspace=space, outcolorspace=space) for frame in coded]
    if len(frames) != count or any(frame.shape != shape for frame in frames):
        found = " and ".join(sorted({str(frame.shape) for frame in frames}))
        raise ValueError(f"{len(frames)} frames of {found} came out, not {count} of {shape} as stated")
    array = np.stack(frames)
    if samples == 3 and text(dataset, "PhotometricInterpretation").upper().startswith("YBR"):
        array = convert_color_space(array, "YBR_FULL", "RGB")
    return _signed(array, dataset) if dataset.get("PixelRepresentation") == 1 else array


def _signed(array: np.ndarray, dataset: Dataset) -> np.ndarray:
    """JPEG knows no sign: the two's complement of BitsStored bits is widened to the whole integer."""
    bits = int(dataset.BitsStored)
    array = array.astype(np.int32) & (2**bits - 1)
    return np.where(array >= 2 ** (bits - 1), array - 2**bits, array).astype(np.int16)


def _decoding_reason(error: Exception, name: str) -> str:
    short = re.search(r"less than expected \((\d+) vs (\d+) bytes\)", str(error))
    if short:
        return f"the pixel data is cut short: {short[1]} of {short[2]} bytes are there"
    return f"the pixel data ({name}) cannot be decoded: {error_line(error)}"


def _colours(array: np.ndarray, dataset: Dataset) -> tuple[np.ndarray, tuple[str, ...]]:
    """Palettes become RGB, other colour spaces are already RGB by pydicom; (F, H, W, C)."""
    photometric = text(dataset, "PhotometricInterpretation").upper()
    if photometric == "PALETTE COLOR":
        return _palette(array[..., 0], dataset)
    if array.shape[-1] == 3 and photometric != "RGB":
        return array, (f"colours converted from {photometric} to RGB",)
    if array.shape[-1] == 1 and photometric not in ("MONOCHROME1", "MONOCHROME2", ""):
        return array, (f"photometric interpretation {photometric} with one sample is read as grey",)
    return array, ()


def _palette(indices: np.ndarray, dataset: Dataset) -> tuple[np.ndarray, tuple[str, ...]]:
    try:
        coloured = apply_color_lut(indices, dataset)[..., :3]
    except Exception as error:  # a broken table may raise anything
        raise UnreadableImage(f"its colour palette is broken: {error_line(error)}") from error
    if coloured.dtype == np.uint16:
        low, high = coloured & 0xFF, coloured >> 8
        if not low.any() or (low == high).all():
            return high.astype(np.uint8), ("palette applied; its 16-bit entries hold 8-bit colours",)
    return coloured, ("palette applied",)
