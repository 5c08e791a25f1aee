"""Report texts from text files, tables and the folder trees of DICOM objects: one `Report` a document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewlabel.collection.labels import BLANK, LabelTable, decode_text, read_label_file
from fewlabel.collection.matching import checked_name
from fewlabel.reports.structured import read_dicom_text
from fewlabel.types import FewlabelError, UnreadableImage

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x19\x1c-\x1f]")
_OTHER_FORMATS = {
    b"%PDF": "a PDF document",
    b"{\\rtf": "an RTF document",
    b"PK\x03\x04": "an Office document or archive",
    b"\xd0\xcf\x11\xe0": "an old Office document",
}
Refused = tuple[str, str]
"""A file's name and why it gave no report, in one sentence."""


@dataclass(frozen=True)
class Report:
    """The text of one study as its source has it, and what the source says of whom and what it is about.

    study_id, patient_id: "" if unknown. source: the file or row it came from.
    folder: where the images of the study lie, as the layout says it ("p10000032/s50414267"). files: names of image
    files, as much of the path as is known, any suffix. cases: `case_id` of images in a collection.
    """

    text: str
    study_id: str = ""
    patient_id: str = ""
    folder: str = ""
    files: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    source: str = ""


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8, UTF-16 with BOM or Latin-1. Raises FewlabelError where it holds no text."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FewlabelError(f"the report {path} cannot be read: {error.strerror}") from None
    kind = next((what for magic, what in _OTHER_FORMATS.items() if data.startswith(magic)), None)
    if kind:
        raise FewlabelError(f"{path.name} is {kind} and not plain text: save the report as .txt")
    text = decode_text(data)
    if text is None or _CONTROL.search(text):
        raise FewlabelError(
            f"{path.name} is no text file: it holds control characters; save the report as .txt"
        )
    return text


def read_text_folder(folder: str | Path) -> tuple[list[Report], list[Refused]]:
    """Every .txt file below a folder, by name: the file is named by its study or image, the folder by its patient.

    study.txt gives study; patient/study.txt gives both. Raises FewlabelError where there is no .txt file.
    """
    root = Path(folder)
    reports, refused = [], []
    for path in files_below(root, (".txt",)):
        name = path.relative_to(root).as_posix()[: -len(path.suffix)]
        patient, _, study = name.rpartition("/")
        try:
            text = read_text(path)
        except FewlabelError as error:
            refused.append((f"{name}{path.suffix}", str(error)))
            continue
        patient = patient.rpartition("/")[2]
        folder = f"{patient}/{study}" if patient else study
        reports.append(Report(text, study, patient, folder, (name,), source=f"{name}{path.suffix}"))
    return reports, refused


def read_table(
    path: str | Path,
    *,
    text: str,
    study: str | None = None,
    patient: str | None = None,
    file: str | None = None,
) -> list[Report]:
    """One report a row of a CSV or TSV file, from the columns that are named; rows keep their order.

    file: the column of image file names. Raises FewlabelError for unknown columns, and where none says whose text it
    is.
    """
    table = read_label_file(path)
    if study is None and patient is None and file is None:
        raise FewlabelError(
            f"{table.path.name} was given without a study, patient or file column: name one of "
            f"{', '.join(table.columns)}, so that the texts find their images"
        )
    texts = _cells(table, text)
    studies, patients, files = (_cells(table, name) for name in (study, patient, file))
    return [
        Report(
            said,
            studies[row],
            patients[row],
            files=(files[row],) if files[row] else (),
            source=f"{table.path.name}, row {row + 1}",
        )
        for row, said in enumerate(texts)
    ]


def read_dicom_folder(path: str | Path) -> tuple[list[Report], list[Refused]]:
    """Structured reports and encapsulated documents in a file, or in all files below a folder; images are passed over.

    Raises FewlabelError where nothing of that kind is there.
    """
    root = Path(path)
    reports, refused = [], []
    for file in [root] if root.is_file() else files_below(root, ()):
        name = file.name if file == root else file.relative_to(root).as_posix()
        try:
            found = read_dicom_text(file)
        except UnreadableImage as error:
            refused.append((name, str(error)))
            continue
        if found is not None:
            reports.append(Report(found.text, found.study_id, found.patient_id, source=name))
    if not reports and not refused:
        raise FewlabelError(
            f"{root} holds no DICOM structured report and no encapsulated document: give the folder of the reports"
        )
    return reports, refused


def files_below(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """All files of these suffixes (any, where none is given) below a folder, by name; hidden ones are left out.

    Raises FewlabelError where the folder is missing or holds none.
    """
    if not folder.is_dir():
        raise FewlabelError(f"there is no folder {folder}: give the folder that holds the reports")
    found = [p for p in folder.rglob("*") if not suffixes or p.suffix.lower() in suffixes]
    files = sorted(p for p in found if not p.name.startswith(".") and p.is_file())
    if not files:
        what = " or ".join(suffixes) or "any"
        raise FewlabelError(f"{folder} holds no {what} file: give the folder that holds the reports")
    return files


def joined(parts: Iterable[tuple[str, str]]) -> str:
    """One text from (heading, section text), blank ones left out."""
    return "\n\n".join(f"{name.upper()}: {text.strip()}" for name, text in parts if text.strip())


def _cells(table: LabelTable, column: str | None) -> list[str]:
    """The cells of a column, "" for blank ones; all "" where no column is named."""
    if column is None:
        return [""] * len(table)
    cells = table.columns[checked_name(column, table.columns, table.path.name)]
    return ["" if cell.lower() in BLANK else cell for cell in cells]
