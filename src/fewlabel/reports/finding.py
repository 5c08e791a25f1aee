"""The reports of a collection, wherever they lie: one call for a table, a folder of texts, DICOM or a public set."""

from __future__ import annotations

import re
from pathlib import Path

from fewlabel.collection import Collection
from fewlabel.collection.labels import BLANK, LabelTable, read_label_file
from fewlabel.collection.matching import checked_name, match_rows
from fewlabel.reports.reading import Report, joined
from fewlabel.reports.texts import Reports
from fewlabel.types import FewlabelError

COLUMN = "column:"
_TABLES = (".csv", ".tsv")
_TEXT_NAMES = ("report", "report text", "reports", "text", "radiology report", "full report", "caption")
_SECTIONS = ("findings", "impression")
_MIMIC = re.compile(r"p\d+/s\d+\.txt")


def find_reports(source: str | Path, collection: Collection, *, text_column: str | None = None) -> Reports:
    """The reports at `source`.

    source: a CSV or TSV file with one row an image or study; a folder of .txt files named by study or image; a folder
        of DICOM structured reports or encapsulated text; "column:NAME", a column of the collection; or what MIMIC-CXR,
        CheXpert Plus and Open-i hand out, which is known by its names.
    text_column: of a table; None = one that is called report or text, or findings and impression.
    Raises FewlabelError where nothing is there, or no column holds texts.
    """
    if str(source).startswith(COLUMN):
        return Reports.from_column(collection, str(source).removeprefix(COLUMN))
    path = Path(source)
    if path.is_file() and path.suffix.lower() in _TABLES:
        return _from_table(path, collection, text_column)
    if text_column is not None:
        raise FewlabelError(
            f"the text column {text_column} was named and {path} is no CSV or TSV file: give one"
        )
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return Reports.from_dicom(path)
    raise FewlabelError(
        f"there are no reports at {path}: give a CSV file, a folder of .txt files or of DICOM reports, or column:NAME"
    )


def _from_folder(path: Path) -> Reports:
    """By the kind of file that lies there first, texts before XML before all else."""
    text = next((p for p in path.rglob("*.txt") if not p.name.startswith(".")), None)
    if text is not None:
        is_mimic = _MIMIC.fullmatch(f"{text.absolute().parent.name}/{text.name}")
        return Reports.from_mimic_cxr(path) if is_mimic else Reports.from_folder(path)
    if next(path.rglob("*.xml"), None) is not None:
        return Reports.from_openi(path)
    tables = [p for p in path.iterdir() if p.suffix.lower() in _TABLES]
    if len(tables) == 1 and "chexpert_plus" in tables[0].name:
        return Reports.from_chexpert_plus(tables[0])
    return Reports.from_dicom(path)


def _from_table(path: Path, collection: Collection, text_column: str | None) -> Reports:
    table = read_label_file(path)
    if "path_to_image" in table.columns and text_column is None:
        return Reports.from_chexpert_plus(path)
    texts = _texts(table, text_column)
    names, studies = (list(collection.column(f"case:{name}")) for name in ("source", "study_id"))
    found = match_rows(table, names, identities={"study_id": [study or "" for study in studies]})
    ids = collection.column("case:case_id")
    images: dict[int, list[str]] = {}
    for image, rows in enumerate(found.rows):
        for row in rows:
            images.setdefault(row, []).append(str(ids[image]))
    reports = [
        Report(text, cases=tuple(images.get(row, ())), source=f"{path.name}, row {row + 1}")
        for row, text in enumerate(texts)
    ]
    return Reports(tuple(reports))


def _texts(table: LabelTable, column: str | None) -> list[str]:
    """The text of each row, "" where there is none."""
    if column is not None:
        return _cells(table, checked_name(column, table.columns, table.path.name))
    plain = {name.lower().replace("_", " "): name for name in reversed(table.columns)}
    whole = next((plain[name] for name in _TEXT_NAMES if name in plain), None)
    if whole is not None:
        return _cells(table, whole)
    sections = [(name, _cells(table, plain[name])) for name in _SECTIONS if name in plain]
    if not sections:
        raise FewlabelError(
            f"{table.path.name} has no column called report, text, findings or impression: name the column that holds "
            f"the texts (text_column, --text-column), one of {', '.join(table.columns)}"
        )
    rows = range(len(table))
    return [joined((name, cells[row]) for name, cells in sections) for row in rows]


def _cells(table: LabelTable, column: str) -> list[str]:
    return ["" if cell.lower() in BLANK else cell for cell in table.columns[column]]
