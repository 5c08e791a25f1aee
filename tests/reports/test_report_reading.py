from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from fewlabel.reports import Reports, find_sections
from fewlabel.reports.reading import read_dicom_folder, read_table, read_text, read_text_folder
from fewlabel.reports.structured import encapsulated_text, parse_xml, read_dicom_text
from fewlabel.types import FewlabelError, UnreadableImage

BASIC_TEXT_SR = UID("1.2.840.10008.5.1.4.1.1.88.11")
ENCAPSULATED_PDF = UID("1.2.840.10008.5.1.4.1.1.104.1")
ENCAPSULATED_CDA = UID("1.2.840.10008.5.1.4.1.1.104.2")
TEXT = "FINDINGS: Größe 3 µm.\r\nÉtat."
CDA = """<?xml version="1.0" encoding="UTF-8"?><ClinicalDocument xmlns="urn:hl7-org:v3"><title>Report</title>
<component><structuredBody><component><section><title>Findings</title><text><paragraph>The lungs
are <content>clear</content></paragraph><paragraph>Größe normal</paragraph></text></section></component>
<component><section><title>Impression</title><text>Normal.</text></section></component></structuredBody></component>
</ClinicalDocument>"""


def refusal(function: Callable[[Any], object], argument: object) -> str:
    """What the error says; "" where there is none."""
    try:
        function(argument)
    except FewlabelError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT.encode(encoding))
    assert read_text(tmp_path / "a.txt") == TEXT


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"%PDF-1.4", "a PDF document"),
        (b"{\\rtf1 text}", "an RTF document"),
        (b"PK\x03\x04", "an Office document"),
        (bytes(range(256)), "control characters"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "control characters"),
        (b"\x01\x02\x03", "control characters"),
        (b"\xff\xfe\x00", "control characters"),
    ],
)
def test_what_is_no_text_is_refused_with_its_reason(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "good.txt").write_text("The lungs are clear.")
    (tmp_path / "bad.txt").write_bytes(data)
    reports, ((name, said),) = read_text_folder(tmp_path)
    assert [r.source for r in reports] == ["good.txt"]
    assert name == "bad.txt"
    assert reason in said
    (tmp_path / "good.txt").unlink()
    with pytest.raises(FewlabelError, match="none of 1 files"):
        Reports.from_folder(tmp_path)


@settings(max_examples=50)
@given(st.binary(max_size=300))
def test_any_bytes_give_a_text_or_one_sentence(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "a.txt"
    path.write_bytes(data)
    assert "\n" not in refusal(read_text, path)


def test_a_folder_names_study_and_patient(tmp_path: Path) -> None:
    for name in ("s1.txt", "p1/s.2.TXT", "x/p2/s3.txt", ".hidden.txt", "p1/image.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = [(r.study_id, r.patient_id, r.folder, r.files) for r in Reports.from_folder(tmp_path).reports]
    assert found == [
        ("s.2", "p1", "p1/s.2", ("p1/s.2",)),
        ("s1", "", "s1", ("s1",)),
        ("s3", "p2", "p2/s3", ("x/p2/s3",)),
    ]


def test_folders_without_reports(tmp_path: Path) -> None:
    with pytest.raises(FewlabelError, match=r"holds no \.txt file"):
        Reports.from_folder(tmp_path)
    with pytest.raises(FewlabelError, match="there is no folder"):
        Reports.from_folder(tmp_path / "nowhere")
    with pytest.raises(FewlabelError, match="cannot be read"):
        read_text(tmp_path / "nothing.txt")


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "reports.tsv"
    path.write_text('study\tpatient\timage\treport\n1\tA\ta.png\t"Two\nlines, one cell"\n2\tB\t\tnan\n')
    first, second = read_table(path, text="report", study="study", patient="patient", file="image")
    assert (first.text, first.study_id, first.patient_id, first.files) == (
        "Two\nlines, one cell",
        "1",
        "A",
        ("a.png",),
    )
    assert (second.text, second.files) == ("", ())
    with pytest.raises(FewlabelError, match='has no "reprot": did you mean "report"'):
        Reports.from_table(path, text="reprot", study="study")
    with pytest.raises(FewlabelError, match="name one of study, patient, image, report"):
        Reports.from_table(path, text="report")


def code(meaning: str, value: str = "1") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "99TEST", meaning
    return item


def content(kind: str, name: str = "", said: object = None, relation: str = "CONTAINS", inside=()) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = relation, kind
    if name:
        item.ConceptNameCodeSequence = [code(name)]
    if kind == "TEXT":
        item.TextValue = said
    elif kind == "CODE":
        item.ConceptCodeSequence = [code(str(said))]
    elif kind == "NUM":
        value = Dataset()
        value.NumericValue, value.MeasurementUnitsCodeSequence = said, [code("millimeter", "mm")]
        item.MeasuredValueSequence = [value]
    elif kind == "PNAME":
        item.PersonName = said
    if inside:
        item.ContentSequence = list(inside)
    return item


def document(path: Path, kind: UID, **elements: object) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.StudyInstanceUID, dataset.PatientID = "1.2.3", "P1"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_a_structured_report_in_its_order(tmp_path: Path) -> None:
    tree = [
        content("PNAME", "Person Observer Name", "Secret^Name", "HAS OBS CONTEXT"),
        content("CODE", "Language", "English", "HAS CONCEPT MOD"),
        content("CONTAINER", "History", inside=[content("TEXT", "History", "Cough.")]),
        content(
            "CONTAINER",
            "Findings",
            inside=[
                content(
                    "TEXT", "Finding", "Größe normal.", inside=[content("IMAGE", relation="INFERRED FROM")]
                ),
                content("CODE", "Finding", "Nodule"),
                content("NUM", "Diameter", "3.5"),
                content("CONTAINER", "Lungs", inside=[content("TEXT", "", "No effusion.")]),
            ],
        ),
        content("TEXT", "Conclusion", "Benign nodule."),
    ]
    path = document(tmp_path / "sr.dcm", BASIC_TEXT_SR, ContentSequence=tree, Modality="SR")
    (report,) = Reports.from_dicom(path).reports
    assert (report.study_id, report.patient_id, report.source) == ("1.2.3", "P1", "sr.dcm")
    assert [(s.name, s.text.split()) for s in find_sections(report.text)] == [
        ("indication", ["Cough."]),
        ("findings", ["Größe", "normal.", "Nodule", "Diameter:", "3.5", "mm", "Lungs:", "No", "effusion."]),
        ("impression", ["Benign", "nodule."]),
    ]
    assert "Secret" not in report.text
    assert "English" not in report.text


@pytest.mark.parametrize("name", ["reportsi.dcm", "test-SR.dcm"])
def test_structured_reports_of_other_makers(name: str) -> None:
    path = get_testdata_file(name, download=False)
    assert path is not None
    found = read_dicom_text(Path(str(path)))
    assert found is not None
    assert ("Enter text" in found.text) if name == "reportsi.dcm" else ("Diameter: 3 cm" in found.text)


def test_encapsulated_documents(tmp_path: Path) -> None:
    cda, text = CDA.encode(), "FINDINGS: clear, Größe normal. ".encode()
    document(
        tmp_path / "a.dcm",
        ENCAPSULATED_CDA,
        MIMETypeOfEncapsulatedDocument="text/XML",
        EncapsulatedDocument=cda + b"\0" * (len(cda) % 2),
    )
    document(
        tmp_path / "b.dcm",
        ENCAPSULATED_CDA,
        MIMETypeOfEncapsulatedDocument="text/plain",
        EncapsulatedDocument=text + b"\0" * (len(text) % 2),
    )
    document(
        tmp_path / "c.dcm",
        ENCAPSULATED_PDF,
        MIMETypeOfEncapsulatedDocument="application/pdf",
        EncapsulatedDocument=b"%PDF-1.4",
    )
    document(tmp_path / "d.dcm", BASIC_TEXT_SR, ContentSequence=[content("PNAME", "x", "y")])
    (tmp_path / "notes.txt").write_text("no DICOM")
    reports, refused = read_dicom_folder(tmp_path)
    assert reports[0].text.split("\n\n") == [
        "FINDINGS:",
        "The lungs\nare clear",
        "Größe normal",
        "IMPRESSION:",
        "Normal.",
    ]
    assert reports[1].text.startswith("FINDINGS: clear, Größe")
    assert [name for name, _ in refused] == ["c.dcm", "d.dcm"]
    assert "PDF" in refused[0][1]
    assert "no text" in refused[1][1]


def test_documents_that_are_refused(tmp_path: Path) -> None:
    dataset = Dataset()
    dataset.MIMETypeOfEncapsulatedDocument, dataset.EncapsulatedDocument = "model/stl", b"solid x "
    with pytest.raises(UnreadableImage, match="type model/stl"):
        encapsulated_text(dataset)
    wrapped = CDA.replace("<text>Normal.", '<text representation="B64">Tm9y')
    dataset.MIMETypeOfEncapsulatedDocument, dataset.EncapsulatedDocument = "text/xml", wrapped.encode()
    with pytest.raises(UnreadableImage, match="wraps another file"):
        encapsulated_text(dataset)
    dataset.EncapsulatedDocument = CDA.replace("?><", '?><!DOCTYPE x [<!ENTITY a "b">]><', 1).encode()
    with pytest.raises(UnreadableImage, match="refused"):
        encapsulated_text(dataset)


def test_trees_that_are_too_deep(tmp_path: Path) -> None:
    tree = content("TEXT", "Finding", "deep")
    for _ in range(60):
        tree = content("CONTAINER", "Findings", inside=[tree])
    path = document(tmp_path / "sr.dcm", BASIC_TEXT_SR, ContentSequence=[tree])
    with pytest.raises(UnreadableImage, match="nested deeper"):
        read_dicom_text(path)


def test_a_structured_report_that_is_cut_short(tmp_path: Path) -> None:
    whole = document(
        tmp_path / "sr.dcm", BASIC_TEXT_SR, ContentSequence=[content("TEXT", "Finding", "Normal " * 50)]
    )
    data = whole.read_bytes()
    for length in range(200, len(data), 37):
        whole.write_bytes(data[:length])
        assert "\n" not in refusal(read_dicom_text, whole)


def test_folders_without_dicom_reports(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(FewlabelError, match="holds no DICOM structured report"):
        Reports.from_dicom(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_with_a_document_type_is_refused_in_any_encoding(encoding: str) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a>&c;</a>'
    with pytest.raises(FewlabelError, match="document type"):
        parse_xml(bomb.encode(encoding))


@settings(max_examples=50)
@given(st.binary(max_size=100) | st.text(alphabet="<>/a&;!\"' []?x=", max_size=60).map(str.encode))
def test_broken_xml_is_one_sentence(data: bytes) -> None:
    assert "\n" not in refusal(parse_xml, data)
