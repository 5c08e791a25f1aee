"""Makes the files that the tests of reading need: nothing here decides what is right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, generate_uid

AXIAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def dicom(pixels: np.ndarray, *, bits: int = 0, colour: bool = False, **elements: object) -> FileDataset:
    """A DICOM data set of ([F,] H, W) or, in colour, ([F,] H, W, 3) integer pixels; `elements` by keyword."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    plane = pixels.shape[:-1] if colour else pixels.shape
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    dataset.Modality, dataset.PatientID = "MR", "P1"
    dataset.Rows, dataset.Columns = plane[-2:]
    if len(plane) == 3:
        dataset.NumberOfFrames = plane[0]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    data = pixels.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def save(dataset: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    big = dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    dataset._read_little = not big  # so that pydicom does not believe that it has to swap bytes
    dataset.save_as(path, enforce_file_format=True)
    return path


def ct_series(
    folder: Path,
    heights: list[float],
    *,
    name: Callable[[int], str] = lambda number: f"{number:03d}.dcm",
    tilt_deg: float = 0.0,
    **elements: object,
) -> list[Path]:
    """One CT slice a height (mm along the table); all pixels of a slice are its rounded height in HU."""
    angle = np.radians(tilt_deg)
    orientation = [1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(-np.sin(angle))]
    paths = []
    for number, height in enumerate(heights):
        pixels = np.full((4, 5), round(height) + 1024, np.int16)
        slice_elements = {
            "Modality": "CT",
            "ImagePositionPatient": [-10.0, -20.0, height],
            "ImageOrientationPatient": orientation if tilt_deg else AXIAL,
            "PixelSpacing": [0.5, 0.75],
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
            "InstanceNumber": number + 1,
            **elements,
        }
        paths.append(save(dicom(pixels, **slice_elements), folder / name(number)))
    return paths
