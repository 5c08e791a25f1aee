"""One DICOM file -> Image: grey or colour, one frame or many.

Multi-frame objects become (C, D, H, W). Where the frames have positions (enhanced CT, MR, ...) D follows them
along the slice normal; otherwise D is the order of the frames, which may be time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from fewlabel.images.dicom_header import (
    attributes,
    frame_count,
    number,
    open_dataset,
    orientation_of,
    pixel_spacing,
    position_of,
    refuse_non_images,
    text,
)
from fewlabel.images.dicom_pixels import decode
from fewlabel.images.dicom_values import Values, meaningful
from fewlabel.images.geometry import affine_ras, stack, unit_normal
from fewlabel.images.quiet import collected, first_sentence
from fewlabel.types import Image, UnreadableImage

HEADER_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "ImageType",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "InstanceNumber",
    "AcquisitionNumber",
    "EchoNumbers",
    "TemporalPositionIdentifier",
    "StudyInstanceUID",
    "PatientID",
]


@dataclass(frozen=True)
class Header:
    """What grouping slices into volumes needs of one file.

    position, orientation: empty where the file states none that is usable.
    rank: acquisition order, for slices that share a position.
    """

    series: str
    instance: str
    modality: str
    size: tuple[int, int, int]
    frames: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    localizer: bool
    rank: tuple[float, ...]


def read_header(path: Path) -> Header:
    """The header of one image file, without its pixels.

    Raises:
        UnreadableImage: it is no DICOM file, is broken, or is a DICOM object without an image.
    """
    with _guarded():
        return _header(open_dataset(path, HEADER_TAGS)[0])


@contextmanager
def _guarded() -> Iterator[None]:
    """Values are converted when they are first looked at: only then does pydicom complain about them."""
    try:
        with collected([]):
            yield
    except UnreadableImage:
        raise
    except MemoryError as error:
        raise UnreadableImage("its pixels need more memory than there is") from error
    except Exception as error:  # a broken value may raise anything
        raise UnreadableImage(f"the DICOM header is broken: {first_sentence(error)}") from error


def _header(dataset: Dataset) -> Header:
    refuse_non_images(dataset)
    orders = ("TemporalPositionIdentifier", "EchoNumbers", "AcquisitionNumber", "InstanceNumber")
    orientation = orientation_of(dataset)
    return Header(
        series=text(dataset, "SeriesInstanceUID"),
        instance=text(dataset, "SOPInstanceUID"),
        modality=text(dataset, "Modality").upper(),
        size=(int(dataset.Rows), int(dataset.Columns), int(dataset.get("SamplesPerPixel") or 1)),
        frames=frame_count(dataset),
        position=tuple(position_of(dataset)),
        orientation=tuple(orientation) if unit_normal(orientation) is not None else (),
        localizer="LOCALIZER" in text(dataset, "ImageType").upper(),
        rank=tuple(number(dataset, keyword) or 0.0 for keyword in orders),
    )


def read_dicom(path: Path) -> Image:
    """Reads one DICOM file.

    Returns:
        pixels (C, H, W), or (C, D, H, W) for two or more frames. CT is in HU. MONOCHROME1 is inverted within
        the range of stored values, x -> 2**BitsStored - 1 - x (unsigned) or -1 - x (signed), except for CT
        and PET, whose values are a physical scale. Windows are recorded in `display_range`, never applied.

    Raises:
        UnreadableImage: with the reason.
    """
    with _guarded():
        return _read(*open_dataset(path))


def _read(dataset: Dataset, notes: tuple[str, ...]) -> Image:
    refuse_non_images(dataset)
    values = meaningful(decode(dataset), dataset)
    spacing, spacing_source = pixel_spacing(dataset)
    if spacing_source:
        notes += (f"pixel spacing from {spacing_source}",)
    image = Image(
        pixels=values.pixels[:, 0],
        spacing_mm=spacing,
        modality=text(dataset, "Modality").upper(),
        patient_id=text(dataset, "PatientID"),
        study_id=text(dataset, "StudyInstanceUID"),
        series_id=text(dataset, "SeriesInstanceUID"),
        view=text(dataset, "ViewPosition").upper(),
        display_range=values.display_range,
        valid=None if values.valid is None else values.valid[0],
        provenance=notes + values.notes,
        warnings=values.warnings,
        attributes=attributes(dataset),
    )
    if values.pixels.shape[1] == 1:
        return image
    return _many_frames(image, values, dataset)


def _many_frames(image: Image, values: Values, dataset: Dataset) -> Image:
    frames = values.pixels.shape[1]
    image = replace(image, pixels=values.pixels, valid=values.valid)
    positions = [position_of(dataset, frame) for frame in range(frames)]
    orientations = [orientation_of(dataset, frame) for frame in range(frames)]
    reason = _why_no_volume(positions, orientations)
    if reason:
        note = f"{frames} frames in the order of the file: {reason}; their distance is unknown"
        return replace(image, spacing_mm=None, provenance=(*image.provenance, note))
    geometry = stack(positions, orientations[0])
    order = list(geometry.order)
    in_plane = image.spacing_mm
    spacing = None if in_plane is None else (geometry.spacing_mm, *in_plane)
    affine = None
    if in_plane is not None:
        affine = affine_ras(geometry.origin_mm, orientations[0], geometry.step_mm, (in_plane[0], in_plane[1]))
    return replace(
        image,
        pixels=np.ascontiguousarray(values.pixels[:, order]),
        valid=None if values.valid is None else values.valid[order],
        spacing_mm=spacing,
        affine=affine,
        provenance=(*image.provenance, f"{frames} frames sorted by position along the slice normal"),
        warnings=image.warnings + geometry.warnings,
    )


def _why_no_volume(positions: list[list[float]], orientations: list[list[float]]) -> str:
    """ "" where the frames form one stack; otherwise why they do not."""
    if not all(positions) or not all(orientations):
        return "they have no positions"
    if np.ptp(np.asarray(orientations), axis=0).max() > 0.01:
        return "their orientations differ"
    normal = unit_normal(orientations[0])
    if normal is None:
        return "their orientation is not usable"
    heights = np.sort(np.asarray(positions) @ normal)
    if np.diff(heights).min() < 0.01:
        return "several share one position"
    return ""
