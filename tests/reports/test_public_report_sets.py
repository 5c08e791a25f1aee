"""The loading code for public data sets, on folders of their layout that are made here; no real report is in them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from fewlabel.reports import Reports
from fewlabel.types import FewlabelError

OPENI = """<?xml version="1.0" encoding="utf-8"?><eCitation><uId id="CXR{n}"/><MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText><AbstractText Label="INDICATION">XXXX cough</AbstractText>
<AbstractText Label="FINDINGS">{findings}</AbstractText><AbstractText Label="IMPRESSION">Normal chest &amp; heart.
</AbstractText></Abstract></Article></MedlineCitation>
<parentImage id="CXR{n}_1_IM-0001-3001"/><parentImage id="CXR{n}_1_IM-0001-4001"/></eCitation>"""


def test_mimic_cxr(tmp_path: Path, make_collection) -> None:
    tree = tmp_path / "reports"
    texts = {
        "p10/p10000032/s50414267": "clear",
        "p10/p10000032/s53189527": "wide",
        "p11/p11000011/s51029426": "big",
    }
    for name, word in texts.items():
        path = tree / "files" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f" FINAL REPORT\n INDICATION: cough.\n\n FINDINGS: The lungs are\n {word}. No effusion.\n"
        )
    (tree / "LICENSE.txt").write_text("licence")
    images = [
        "p10/p10000032/s50414267/02aa804e.png",
        "p10/p10000032/s50414267/174413ec.png",
        "p10/p10000032/s53189527/2a2277a9.png",
        "p12/p12000012/s50000001/aaaaaaaa.png",
    ]
    reports = Reports.from_mimic_cxr(tree)
    assert [(r.patient_id, r.study_id) for r in reports.reports] == [
        ("10000032", "50414267"),
        ("10000032", "53189527"),
        ("11000011", "51029426"),
    ]
    assert [name for name, _ in reports.refused] == ["LICENSE.txt"]
    pairs = reports.pair(make_collection({f"files/{name}": {} for name in images}))
    assert pairs.by == "folder"
    assert pairs.rows.tolist() == [0, 1, 2]
    assert pairs.text_of.tolist() == [0, 0, 1]
    assert pairs.of_row(2) == ("The lungs are wide.", "No effusion.")
    assert (pairs.counts.unused, pairs.counts.without_text, pairs.counts.refused) == (1, 1, 1)


def test_mimic_cxr_by_the_study_ids_of_a_table(tmp_path: Path, make_collection) -> None:
    path = tmp_path / "p10000032" / "s50414267.txt"
    path.parent.mkdir()
    path.write_text("The lungs are clear.")
    collection = make_collection(
        {"a.png": {"patient": "10000032", "study": "50414267"}, "b.png": {"study": "50414268"}}
    )
    for folder in (tmp_path / "p10000032",):
        pairs = Reports.from_mimic_cxr(folder).pair(collection)
        assert (pairs.by, pairs.rows.tolist()) == ("study", [0])


def test_chexpert_plus(tmp_path: Path, make_collection) -> None:
    rows = [
        (
            "train/patient1/study1/view1_frontal.jpg",
            "NARRATIVE: x",
            "Clear lungs on both sides.",
            "1. Normal chest film.",
        ),
        (
            "train/patient1/study1/view2_lateral.jpg",
            "NARRATIVE: x",
            "Clear lungs on both sides.",
            "1. Normal chest film.",
        ),
        ("train/patient2/study1/view1_frontal.jpg", "FINDINGS:\nThe heart is large.", "", "nan"),
        ("train/patient3/study1/view1_frontal.jpg", "", "", ""),
    ]
    path = tmp_path / "df_chexpert_plus_240401.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path_to_image", "report", "section_findings", "section_impression"])
        writer.writerows(rows)
    reports = Reports.from_chexpert_plus(path)
    assert [(r.patient_id, r.study_id, len(r.files)) for r in reports.reports] == [
        ("patient1", "study1", 2),
        ("patient2", "study1", 1),
        ("patient3", "study1", 1),
    ]
    names = [row[0].replace(".jpg", ".png") for row in rows]
    pairs = reports.pair(
        make_collection({f"PNG/{name}": {} for name in [*names, "train/patient4/study1/view1_frontal.png"]})
    )
    assert pairs.by == "file"
    assert pairs.rows.tolist() == [0, 1, 2]
    assert pairs.of_row(1) == ("Clear lungs on both sides.", "Normal chest film.")
    assert pairs.of_row(2) == ("The heart is large.",)
    assert (pairs.counts.blank, pairs.counts.dropped, pairs.counts.without_text) == (1, 1, 1)


def test_chexpert_plus_with_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("image,report\na,b\n")
    with pytest.raises(FewlabelError, match='has no "path_to_image"'):
        Reports.from_chexpert_plus(path)
    path.write_text("path_to_image,text\na,b\n")
    with pytest.raises(FewlabelError, match='has no "section_findings"'):
        Reports.from_chexpert_plus(path)


def test_openi(tmp_path: Path, make_collection) -> None:
    folder = tmp_path / "ecgen-radiology"
    folder.mkdir()
    for n, findings in ((1, "The lungs are XXXX clear."), (2, "")):
        (folder / f"{n}.xml").write_text(OPENI.format(n=n, findings=findings))
    (folder / "3.xml").write_text("<eCitation/>")
    (folder / "4.xml").write_text('<!DOCTYPE x [<!ENTITY y "z">]><eCitation/>')
    (folder / "5.xml").write_text("<eCitation>")
    reports = Reports.from_openi(folder)
    assert [r.study_id for r in reports.reports] == ["CXR1", "CXR2"]
    assert [name for name, _ in reports.refused] == ["3.xml", "4.xml", "5.xml"]
    images = [
        "CXR1_1_IM-0001-3001.png",
        "CXR1_1_IM-0001-4001.png",
        "CXR2_1_IM-0001-3001.png",
        "CXR9_IM-1.png",
    ]
    pairs = reports.pair(make_collection({name: {} for name in images}))
    assert pairs.by == "file"
    assert pairs.rows.tolist() == [0, 1, 2]
    assert pairs.text_of.tolist() == [0, 0, 1]
    assert pairs.of_row(0) == ("The lungs are XXXX clear.", "Normal chest & heart.")
    assert pairs.of_row(2) == ("Normal chest & heart.",)
    assert pairs.counts.without_text == 1


def test_folders_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(FewlabelError, match="mimic-cxr-reports"):
        Reports.from_mimic_cxr(tmp_path)
    (tmp_path / "a.xml").write_text("<a/>")
    with pytest.raises(FewlabelError, match="none of 1 files gave a text"):
        Reports.from_openi(tmp_path)
