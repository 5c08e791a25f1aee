"""Report texts of public data sets, read from the folders and files as they are handed out."""

from __future__ import annotations

import re
from pathlib import Path

from fewlabel.collection.labels import BLANK, read_label_file
from fewlabel.collection.matching import checked_name
from fewlabel.reports.reading import Refused, Report, files_below, joined, read_text
from fewlabel.reports.structured import parse_xml
from fewlabel.types import FewlabelError

_MIMIC = re.compile(r"p(\d+)/s(\d+)\.txt")
_CHEXPERT_SECTIONS = ("history", "clinical_history", "comparison", "technique", "findings", "impression")


def read_mimic_cxr(folder: str | Path) -> tuple[list[Report], list[Refused]]:
    """MIMIC-CXR (Johnson et al. 2019, Sci Data 6:317): files/p10/p10000032/s50414267.txt, from its folder or one above.

    The images of a study lie in p10000032/s50414267/. Other .txt files are listed as refused.
    """
    root = Path(folder)
    reports, refused = [], []
    for path in files_below(root, (".txt",)):
        name = path.relative_to(root).as_posix()
        tail = _MIMIC.fullmatch(f"{path.absolute().parent.name}/{path.name}")
        try:
            if tail is None:
                raise FewlabelError(f"{name} is not named p<patient>/s<study>.txt: leave it out")
            reports.append(Report(read_text(path), tail[2], tail[1], tail[0][: -len(".txt")], source=name))
        except FewlabelError as error:
            refused.append((name, str(error)))
    if not reports:
        raise FewlabelError(
            f"{root} holds no p<patient>/s<study>.txt: unpack mimic-cxr-reports.zip and give the folder it makes"
        )
    return reports, refused


def read_chexpert_plus(path: str | Path) -> list[Report]:
    """CheXpert Plus (Chambon et al. 2024, arXiv:2405.19538): df_chexpert_plus_240401.csv, one row an image.

    The text is made of the section_* columns; where they have none, it is the column report. Rows of one study are one
    report, that names their images by path_to_image ("train/patient42142/study5/view1_frontal.jpg").
    """
    table = read_label_file(path)
    cells = table.columns
    images = cells[checked_name("path_to_image", cells, table.path.name)]
    names = [n for n in _CHEXPERT_SECTIONS if f"section_{n}" in cells]
    if not names and "report" not in cells:
        checked_name("section_findings", cells, table.path.name)
    studies: dict[tuple[str, str], list[str]] = {}
    for row, image in enumerate(images):
        said = [(n.replace("_", " "), _plain(cells[f"section_{n}"][row])) for n in names]
        text = joined(said) or _plain(cells["report"][row] if "report" in cells else "")
        studies.setdefault((str(Path(image).parent), text), []).append(image)
    return [
        Report(
            text,
            study_id=Path(study).name,
            patient_id=Path(study).parent.name,
            files=tuple(files),
            source=f"{table.path.name}: {study}",
        )
        for (study, text), files in studies.items()
    ]


def read_openi(folder: str | Path) -> tuple[list[Report], list[Refused]]:
    """Indiana University chest X-rays of Open-i (Demner-Fushman et al. 2016, JAMIA 23:304): ecgen-radiology/*.xml.

    Images are named by the ids of parentImage ("CXR1_1_IM-0001-4001"), studies by uId; there are no patient ids.
    """
    root = Path(folder)
    reports, refused = [], []
    for path in files_below(root, (".xml",)):
        name = path.relative_to(root).as_posix()
        try:
            tree = parse_xml(path.read_bytes())
        except FewlabelError as error:
            refused.append((name, str(error)))
            continue
        parts = [(p.get("Label", ""), "".join(p.itertext())) for p in tree.iter("AbstractText")]
        uid = next((u.get("id", "") for u in tree.iter("uId")), "")
        images = tuple(i for image in tree.iter("parentImage") if (i := image.get("id", "")))
        if not parts:
            refused.append((name, f"{name} has no AbstractText: it is no report of Open-i, leave it out"))
            continue
        reports.append(Report(joined(parts), uid or path.stem, files=images, source=name))
    return reports, refused


def _plain(cell: str) -> str:
    return "" if cell.lower() in BLANK else cell
