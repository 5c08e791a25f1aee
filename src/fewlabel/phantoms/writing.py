"""Made radiographs as a folder of the kind that a user brings: PNG and DICOM files, and labels.csv."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from fewlabel.files import write_text
from fewlabel.phantoms.notes import NOTE, NOTE_NAME
from fewlabel.phantoms.radiographs import CHEST_WIDTH_MM, Difficulty, MadeRadiographs, radiographs
from fewlabel.phantoms.reports import radiograph_reports
from fewlabel.types import FewlabelError

COLUMNS = (
    "file", "Patient ID", "opacity", "effusion", "reticulation", "View Position", "Patient Age", "side", "made",
    "report",
)  # fmt: skip
DICOM_BITS = 12


def write_radiographs(
    folder: Path | str,
    n: int,
    seed: int = 0,
    *,
    size_px: int = 64,
    bits: int = 8,
    dicom_files: int = 4,
    difficulty: Difficulty | None = None,
) -> Path:
    """Write `n` made radiographs below `folder` and return the path of labels.csv, which is written last.

    images/P00001_1.png ... (patient, number of the image), with `bits` 8 or 16; the first `dicom_files` are
    DICOM of 12 bits instead, every other one MONOCHROME1. labels.csv has one row an image: file (relative to
    `folder`), Patient ID, opacity, effusion, reticulation, View Position, Patient Age, side (of the opacity: left,
    right, none), made, which is 1 in every row, and report, the text of `radiograph_reports` with line breaks.
    MADE_IMAGES.txt says that they are made. The same arguments give the same bytes.
    """
    if bits not in (8, 16):
        raise FewlabelError(f"bits is {bits}: PNG files can be written with 8 or 16")
    made = radiographs(n, size_px=size_px, seed=seed, difficulty=difficulty)
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / NOTE_NAME).write_text(NOTE.format(seed=seed), encoding="utf-8")
    names = _names(made.patients, dicom_files)
    for i, name in enumerate(names):
        if name.endswith(".dcm"):
            _write_dicom(folder / name, made, i, seed, inverted=i % 2 == 0)
        else:
            _write_png(folder / name, made.pixels[i], bits)
    reports = radiograph_reports(made, seed=seed)
    rows = [(*_row(made, i, name), reports[i]) for i, name in enumerate(names)]
    table = io.StringIO(newline="")
    csv.writer(table).writerows([COLUMNS, *rows])
    write_text(folder / "labels.csv", table.getvalue())
    return folder / "labels.csv"


def _names(patients: tuple[str, ...], dicom_files: int) -> list[str]:
    first = {patient: i for i, patient in reversed(list(enumerate(patients)))}
    endings = ["dcm" if i < dicom_files else "png" for i in range(len(patients))]
    return [f"images/{p}_{i - first[p] + 1}.{endings[i]}" for i, p in enumerate(patients)]


def _row(made: MadeRadiographs, i: int, name: str) -> tuple[str | int, ...]:
    findings = int(made.opacity[i]), int(made.effusion[i]), int(made.reticulation[i])
    return name, made.patients[i], *findings, made.views[i], int(made.ages[i]), made.side[i], 1


def _write_png(path: Path, pixels: np.ndarray, bits: int) -> None:
    kind = np.uint8 if bits == 8 else np.uint16
    PillowImage.fromarray(np.round(pixels * (2**bits - 1)).astype(kind)).save(path)


def _write_dicom(path: Path, made: MadeRadiographs, i: int, seed: int, *, inverted: bool) -> None:
    """One Digital X-Ray file; `inverted` stores it as MONOCHROME1 (0 is white), as many machines do."""
    highest = 2**DICOM_BITS - 1
    stored = np.round(made.pixels[i] * highest).astype(np.uint16)
    names = [f"fewlabel made radiograph {seed} {part}" for part in (i, made.patients[i], f"series {i}")]
    image, study, series = (generate_uid(entropy_srcs=[name]) for name in names)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = image
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = DigitalXRayImageStorageForPresentation, image
    file.StudyInstanceUID, file.SeriesInstanceUID = study, series
    file.Modality, file.BodyPartExamined = "DX", "CHEST"
    file.PatientID, file.PatientName = made.patients[i], "MADE^IMAGE"
    file.PatientAge, file.ViewPosition = f"{made.ages[i]:03d}Y", made.views[i]
    file.ImageComments = "made by a computer program, shows no person"
    file.PixelSpacing = [round(CHEST_WIDTH_MM / len(stored), 4)] * 2
    _set_pixels(file, highest - stored if inverted else stored, "MONOCHROME1" if inverted else "MONOCHROME2")
    file.save_as(path, enforce_file_format=True)


def _set_pixels(file: Dataset, stored: np.ndarray, polarity: str) -> None:
    file.Rows, file.Columns = stored.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, polarity
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, DICOM_BITS, DICOM_BITS - 1
    file.PixelRepresentation = 0
    file.PixelData = stored.astype("<u2").tobytes()
