"""NIfTI-1 and -2 (single file, plain or compressed) -> Image.

The array is turned so that D runs from feet to head, H from front to back and W from the patient's right to
left: the axes of an axial DICOM slice, so that volumes of both formats look alike. The affine maps the voxel
(i, j, k) = (column, row, slice), that is pixels[c, k, j, i], to RAS+ mm.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

import nibabel
import numpy as np
from nibabel import orientations

from fewlabel.images.intensities import allowed_dtype, drawing_range, finite, grey_if_equal, linear
from fewlabel.images.quiet import collected, error_line, library_notes
from fewlabel.images.sniffing import HEAD, PACKING_ERRORS, is_nifti, unpacked
from fewlabel.images.source import check_size
from fewlabel.types import Image, UnreadableImage

_MAX_HEADER = 2**26
"""Largest header with extensions that is believed, in bytes."""
_MM = {"meter": 1000.0, "micron": 0.001}


def read_nifti(path: Path) -> Image:
    """Reads a NIfTI file.

    Returns:
        pixels (1, D, H, W), or (1, H, W) for one slice; C is 3 for RGB. scl_slope and scl_inter are applied.
        Of a 4-D file the first volume is read and a warning says so.

    Raises:
        UnreadableImage: with the reason.
    """
    messages: list[str] = []
    try:
        with collected(messages), path.open("rb") as file:
            header, data = _read_bytes(file)
            raw, affine, notes, warnings = _canonical(header, data)
    except UnreadableImage:
        raise
    except PACKING_ERRORS as error:
        raise UnreadableImage(f"the NIfTI file is cut short or damaged: {error_line(error)}") from error
    except Exception as error:  # nibabel raises many things on broken headers
        raise UnreadableImage(f"the NIfTI header is broken: {error_line(error)}") from error
    pixels, more = _values(raw, header)
    pixels, grey = grey_if_equal(pixels)
    pixels, valid, masked = finite(pixels, None)
    window = _stated_range(header)
    if window is None:
        window, fallback = drawing_range(pixels, valid)
        more += (fallback,)
    spacing = tuple(round(float(value), 6) for value in np.linalg.norm(affine[:3, :3], axis=0)[::-1])
    if pixels.shape[1] == 1:
        pixels, valid, spacing = pixels[:, 0], None if valid is None else valid[0], spacing[1:]
    return Image(
        pixels=np.ascontiguousarray(pixels),
        spacing_mm=spacing if min(spacing) > 0 else None,
        display_range=window,
        valid=valid,
        affine=affine,
        provenance=notes + more + grey + masked + library_notes(messages, "nibabel"),
        warnings=warnings,
    )


def slice_count(path: Path) -> int:
    """How many axial slices `read_nifti` will give, from the header alone; 1 for a single slice.

    Raises:
        UnreadableImage: the header is broken.
    """
    try:
        with path.open("rb") as file:
            header = _header(unpacked(file).read(HEAD))
        shape = _shape(header)
        axes = orientations.io_orientation(header.get_best_affine())[:, 0]
        return int(shape[list(axes).index(2)])
    except UnreadableImage:
        raise
    except Exception as error:  # nibabel raises many things on broken headers
        raise UnreadableImage(f"the NIfTI header is broken: {error_line(error)}") from error


def _header(head: bytes) -> nibabel.Nifti1Header:
    if not is_nifti(head):
        raise UnreadableImage("not an image: it has no NIfTI header")
    two = head[4:7] == b"n+2"
    kind = nibabel.Nifti2Header if two else nibabel.Nifti1Header
    return kind(head[: 540 if two else 348], check=False)


def _shape(header: nibabel.Nifti1Header) -> tuple[int, int, int]:
    """The three spatial lengths."""
    full = tuple(int(length) for length in header.get_data_shape())
    if not full:
        raise UnreadableImage("the NIfTI header states no dimensions")
    check_size(*full[:3], what="the NIfTI header")
    return (*full, 1, 1)[:3]  # type: ignore[return-value]


def _read_bytes(file: IO[bytes]) -> tuple[nibabel.Nifti1Header, np.ndarray]:
    """The header and the first volume, (X, Y, Z) of the stored type; no more bytes are unpacked than that."""
    stream = unpacked(file)
    head = stream.read(540)
    header = _header(head)
    shape, dtype = _shape(header), header.get_data_dtype()
    if dtype.itemsize == 0:
        raise UnreadableImage("the NIfTI header states a data type of no size")
    offset = int(header["vox_offset"])
    if not 348 <= offset <= _MAX_HEADER:
        raise UnreadableImage(f"the NIfTI header says that the data starts at byte {offset}, which cannot be")
    needed = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    rest = head[offset:] + stream.read(max(0, offset - len(head)) + needed)
    data = rest[max(0, offset - len(head)) :][:needed]
    if len(data) < needed:
        raise UnreadableImage(f"the NIfTI file is cut short: {len(data)} of {needed} bytes of data are there")
    return header, np.frombuffer(data, dtype).reshape(shape, order="F")


def _canonical(
    header: nibabel.Nifti1Header, data: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """(X, Y, Z) as stored -> (D, H, W), the affine of (W, H, D) indices to RAS+ mm, notes and warnings."""
    notes: list[str] = []
    warnings: list[str] = []
    volumes = [int(length) for length in header.get_data_shape()[3:]]
    extra = int(np.prod(volumes, dtype=np.int64))
    if extra > 1:
        warnings.append(f"a 4-D file: the first of {extra} volumes was read, the others were not")
    affine = np.asarray(header.get_best_affine(), float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise UnreadableImage("the affine of the NIfTI file is singular: its axes are not known")
    if not int(header["sform_code"]) and not int(header["qform_code"]):
        warnings.append("the NIfTI file states no orientation (sform and qform codes are 0)")
    affine = _in_mm(affine, header, notes)
    stored = orientations.io_orientation(affine)
    change = orientations.ornt_transform(stored, orientations.axcodes2ornt("LPS"))
    turned = orientations.apply_orientation(data, change)
    affine = affine @ orientations.inv_ornt_aff(change, data.shape)
    codes = "".join(orientations.ornt2axcodes(stored))
    if codes != "LPS":
        notes.append(
            f"turned from {codes} to axial slices feet to head, rows to the back, columns to the left"
        )
    return turned.transpose(2, 1, 0), affine, tuple(notes), tuple(warnings)


def _in_mm(affine: np.ndarray, header: nibabel.Nifti1Header, notes: list[str]) -> np.ndarray:
    unit = header.get_xyzt_units()[0]
    if unit in _MM:
        notes.append(f"lengths converted from {unit} to mm")
        return np.diag([_MM[unit]] * 3 + [1.0]) @ affine
    return affine


def _values(raw: np.ndarray, header: nibabel.Nifti1Header) -> tuple[np.ndarray, tuple[str, ...]]:
    """(D, H, W) -> (C, D, H, W) with slope and intercept applied."""
    if raw.dtype.names:
        if raw.dtype.names[:3] != ("R", "G", "B"):
            fields = ", ".join(raw.dtype.names)
            raise UnreadableImage(f"its values are records of {fields}, which are no intensities")
        return np.stack([raw[name] for name in "RGB"]), ("RGB voxels",)
    pixels, notes = allowed_dtype(raw[None])
    slope, intercept = header.get_slope_inter()
    if slope is None or (slope, intercept) == (1.0, 0.0):
        return pixels, notes
    return linear(pixels, slope, intercept), (*notes, f"rescaled: {slope:g} * stored + {intercept:g}")


def _stated_range(header: nibabel.Nifti1Header) -> tuple[float, float] | None:
    low, high = float(header["cal_min"]), float(header["cal_max"])
    return (low, high) if np.isfinite([low, high]).all() and high > low else None
