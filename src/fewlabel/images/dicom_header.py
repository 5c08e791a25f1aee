"""Opening DICOM data sets, whatever their state, and the facts that their headers give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from fewlabel.images.quiet import collected, error_line, library_notes
from fewlabel.types import UnreadableImage

PIXEL_ELEMENTS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_DICOMDIR = "1.2.840.10008.1.3.10"
_REFUSED = {
    "SEG": "a DICOM segmentation (SEG): its pixels are labels of regions, not intensities",
    "RTDOSE": "a radiotherapy dose grid (RTDOSE): its pixels are dose, not an image",
}
_REFUSED_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.66.7": "SEG",
    "1.2.840.10008.5.1.4.1.1.481.2": "RTDOSE",
}
_NOT_TRUSTED = "its content is of no format that is read here"


def open_dataset(path: Path, tags: list[str] | None = None) -> tuple[Dataset, tuple[str, ...]]:
    """Reads a DICOM file (only the named elements, without pixels, when `tags` is given).

    Files without preamble or file meta are read too; a missing transfer syntax is taken from how the data set
    is encoded.

    Returns:
        the data set and the decisions made.

    Raises:
        UnreadableImage: it is no DICOM file or its structure is broken.
    """
    messages: list[str] = []
    try:
        with collected(messages):
            dataset = pydicom.dcmread(
                path, force=True, stop_before_pixels=tags is not None, specific_tags=tags
            )
            notes = _mend_meta(dataset)
            _check_plausible(dataset)
            _check_whole(dataset, messages, header_only=tags is not None)
    except UnreadableImage:
        raise
    except MemoryError as error:
        raise UnreadableImage("the DICOM structure is broken: a length in it exceeds the memory") from error
    except Exception as error:  # a broken file may make the parser raise anything
        raise UnreadableImage(f"the DICOM structure is broken: {error_line(error)}") from error
    return dataset, (*notes, *library_notes(messages, "pydicom"))


def _mend_meta(dataset: Dataset) -> tuple[str, ...]:
    notes = []
    if not getattr(dataset, "preamble", None):
        notes.append("the file has no DICOM preamble")
    meta = getattr(dataset, "file_meta", None)
    if meta is None:
        meta = dataset.file_meta = FileMetaDataset()
    if not meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        guess = (
            ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        )
        meta.TransferSyntaxUID = guess
        notes.append(f"no transfer syntax is stated; the data set is encoded as {guess.name}")
    return tuple(notes)


def _check_plausible(dataset: Dataset) -> None:
    """With `force`, pydicom makes something of any bytes: without preamble, known elements must be there."""
    if getattr(dataset, "preamble", None):
        return
    known = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "Modality", "Rows", "PatientID")
    if not any(name in dataset for name in known) and "MediaStorageSOPClassUID" not in dataset.file_meta:
        raise UnreadableImage(f"not an image: {_NOT_TRUSTED}")


def _check_whole(dataset: Dataset, messages: list[str], header_only: bool) -> None:
    """pydicom only warns when the file ends in the middle of an element, and then gives what it has."""
    cut = any(message.startswith("End of file reached") for message in messages)
    if cut and ("SOPClassUID" not in dataset if header_only else not has_pixels(dataset)):
        raise UnreadableImage("the file is cut short: it ends in the middle of a DICOM element")


def has_pixels(dataset: Dataset) -> bool:
    """Whether there is pixel data of any kind."""
    return any(name in dataset for name in PIXEL_ELEMENTS)


def refuse_non_images(dataset: Dataset) -> None:
    """Raises UnreadableImage for DICOM objects that hold no image, with what they are."""
    class_uid = str(dataset.get("SOPClassUID", "") or dataset.file_meta.get("MediaStorageSOPClassUID", ""))
    if class_uid == _DICOMDIR:
        raise UnreadableImage("not an image: DICOMDIR, the index of a DICOM medium")
    modality = text(dataset, "Modality").upper()
    kind = _REFUSED_CLASSES.get(class_uid, modality)
    if kind in _REFUSED:
        raise UnreadableImage(f"not an image: {_REFUSED[kind]}")
    missing = [name for name in ("Rows", "Columns") if not dataset.get(name)]
    if missing:
        name = UID(class_uid).name if class_uid else ""
        what = name if name and not name[0].isdigit() else modality or "of no stated kind"
        raise UnreadableImage(f"not an image: a DICOM object that describes no image ({what})")


def text(dataset: Dataset, keyword: str) -> str:
    """An element as stripped text, "" when it is missing or cannot be read."""
    try:
        value = dataset.get(keyword)
    except Exception:  # a value that breaks its own VR says nothing
        return ""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.replace("\x00", "").strip()
    try:
        parts = [str(part).strip() for part in value]
    except TypeError:
        return str(value).replace("\x00", "").strip()
    return "\\".join(parts)


def numbers(dataset: Dataset | None, keyword: str) -> list[float]:
    """An element's finite numbers; [] when it is missing, empty or no number."""
    if dataset is None:
        return []
    try:
        value = dataset.get(keyword)
        if value is None or isinstance(value, bytes):
            return []
        several = isinstance(value, Sequence) and not isinstance(value, str)
        parts = list(value) if several else [value]
        result = [float(part) for part in parts]
    except Exception:  # a value that breaks its own VR says nothing
        return []
    return result if all(math.isfinite(part) for part in result) else []


def number(dataset: Dataset | None, keyword: str) -> float | None:
    """The first number of an element, None without one."""
    found = numbers(dataset, keyword)
    return found[0] if found else None


def functional(dataset: Dataset, macro: str, frame: int) -> Dataset | None:
    """The item of a functional group macro for a frame of an enhanced object: its own, or the shared one."""
    try:
        frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
        shared = dataset.get("SharedFunctionalGroupsSequence") or []
        groups = [*([frames[frame]] if frame < len(frames) else []), *list(shared)[:1]]
        for group in groups:
            items = group.get(macro)
            if items:
                return items[0]
    except Exception:  # broken sequences say nothing
        return None
    return None


def frame_count(dataset: Dataset) -> int:
    """NumberOfFrames, 1 where it is missing or empty.

    Raises:
        UnreadableImage: it is not a whole positive number.
    """
    raw: Any = None
    try:
        raw = dataset.get("NumberOfFrames")
        count = int(raw) if raw not in (None, "") else 1
    except Exception as error:  # whatever a broken value raises
        stated = raw if raw is not None else dataset.get_item("NumberOfFrames").value
        raise UnreadableImage(f"NumberOfFrames is {stated!r}, which is no whole number") from error
    if count < 1:
        raise UnreadableImage(f"NumberOfFrames is {count}: there is no frame")
    return count


def orientation_of(dataset: Dataset, frame: int = 0) -> list[float]:
    """ImageOrientationPatient, of the frame where the object is enhanced; [] without one."""
    found = numbers(functional(dataset, "PlaneOrientationSequence", frame), "ImageOrientationPatient")
    found = found or numbers(dataset, "ImageOrientationPatient")
    return found if len(found) == 6 else []


def position_of(dataset: Dataset, frame: int = 0) -> list[float]:
    """ImagePositionPatient, of the frame where the object is enhanced; [] without one."""
    found = numbers(functional(dataset, "PlanePositionSequence", frame), "ImagePositionPatient")
    found = found or numbers(dataset, "ImagePositionPatient")
    return found if len(found) == 3 else []


def pixel_spacing(dataset: Dataset) -> tuple[tuple[float, float] | None, str]:
    """(row spacing, column spacing) in mm and which element said so; (None, "") where none is usable."""
    measures = functional(dataset, "PixelMeasuresSequence", 0)
    for source, keyword in (
        (measures, "PixelSpacing"),
        (dataset, "PixelSpacing"),
        (dataset, "ImagerPixelSpacing"),
        (dataset, "NominalScannedPixelSpacing"),
    ):
        found = numbers(source, keyword)
        if len(found) == 2 and min(found) > 0:
            return (found[0], found[1]), keyword
    return None, ""


def age_years(dataset: Dataset) -> float | None:
    """From PatientAge ("045Y", "018M", "003W", "010D"), else from birth date and study date."""
    stated = text(dataset, "PatientAge").upper()
    per_year = {"Y": 1.0, "M": 12.0, "W": 52.1775, "D": 365.2425}
    if len(stated) >= 2 and stated[-1] in per_year and stated[:-1].isdigit():
        return round(int(stated[:-1]) / per_year[stated[-1]], 3)
    birth, study = text(dataset, "PatientBirthDate"), text(dataset, "StudyDate")
    if not (len(birth) == len(study) == 8 and birth.isdigit() and study.isdigit()):
        return None
    years = (int(study[:4]) - int(birth[:4])) + (int(study[4:6]) - int(birth[4:6])) / 12
    return round(years, 2) if 0 <= years < 130 else None


def attributes(dataset: Dataset) -> dict[str, str | float]:
    """Facts worth a column, where stated: age_years, sex, body_part, laterality, manufacturer, kvp."""
    found: dict[str, str | float] = {}
    age, kvp = age_years(dataset), number(dataset, "KVP")
    if age is not None:
        found["age_years"] = age
    for name, keywords in (
        ("sex", ("PatientSex",)),
        ("body_part", ("BodyPartExamined",)),
        ("laterality", ("ImageLaterality", "Laterality")),
        ("manufacturer", ("Manufacturer",)),
    ):
        value = next((value for keyword in keywords if (value := text(dataset, keyword))), "")
        if value:
            found[name] = value
    if kvp is not None and kvp > 0:
        found["kvp"] = kvp
    return found
