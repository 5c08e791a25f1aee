"""Report text inside DICOM: structured reports (SR) and encapsulated documents; and XML that is parsed with care."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from pydicom.dataset import Dataset

from fewlabel.collection.labels import decode_text
from fewlabel.images.dicom_header import open_dataset
from fewlabel.images.dicom_header import text as element_text
from fewlabel.images.quiet import error_line
from fewlabel.reports.sections import section_name
from fewlabel.types import FewlabelError, UnreadableImage

_SR_CLASSES = "1.2.840.10008.5.1.4.1.1.88."
_DOCUMENT_CLASSES = "1.2.840.10008.5.1.4.1.1.104."
_ASIDE = ("HAS OBS CONTEXT", "HAS CONCEPT MOD", "HAS ACQ CONTEXT", "SELECTED FROM")
_VALUED = ("CODE", "NUM")
_BLOCKS = ("paragraph", "item", "tr", "br", "list", "table")
_DEEPEST = 50


@dataclass(frozen=True)
class DicomText:
    """What a DICOM report says, and of which patient and study (StudyInstanceUID)."""

    text: str
    study_id: str
    patient_id: str


def read_dicom_text(path: Path) -> DicomText | None:
    """The text of a structured report or of an encapsulated text or CDA document; None for any other file.

    Raises:
        UnreadableImage: it is such an object and gives no text: an encapsulated PDF, a broken or empty one.
    """
    try:
        header, _ = open_dataset(path, ["SOPClassUID"])
    except UnreadableImage:
        return None
    kind = element_text(header, "SOPClassUID") or str(header.file_meta.get("MediaStorageSOPClassUID", ""))
    if not kind.startswith((_SR_CLASSES, _DOCUMENT_CLASSES)):
        return None
    dataset, _ = open_dataset(path)
    try:
        text = sr_text(dataset) if kind.startswith(_SR_CLASSES) else encapsulated_text(dataset)
    except UnreadableImage:
        raise
    except Exception as error:  # broken sequences and values may make the parser raise anything
        raise UnreadableImage(f"the DICOM report is broken: {error_line(error)}") from error
    if not text.strip():
        raise UnreadableImage("the DICOM report holds no text: leave it out")
    return DicomText(text, element_text(dataset, "StudyInstanceUID"), element_text(dataset, "PatientID"))


def sr_text(dataset: Dataset) -> str:
    """The content tree of a structured report in its order, one item a paragraph.

    Containers give their concept name as a heading; so do items whose concept is a section ("Impression"). Other codes
    and numbers are "name: value", other texts stand without their name. Who observed, and other context, is left out.
    Source: DICOM PS3.3 C.17.3.
    """
    return "\n\n".join(_items(dataset, "", 0))


def encapsulated_text(dataset: Dataset) -> str:
    """The text of an encapsulated document of type text/plain or CDA (XML). Raises UnreadableImage for any other."""
    kind = element_text(dataset, "MIMETypeOfEncapsulatedDocument").lower()
    data = bytes(dataset.get("EncapsulatedDocument") or b"")
    if kind == "application/pdf" or data.startswith(b"%PDF"):
        raise UnreadableImage("an encapsulated PDF, which is not read: export the report as text")
    text = decode_text(data.rstrip(b"\x00"))
    if text is None or not (kind.startswith("text/") or kind.endswith("xml")):
        raise UnreadableImage(
            f"an encapsulated document of type {kind or 'unknown'}, which is not read: export the report as text"
        )
    return _cda_text(data.rstrip(b"\x00")) if kind.endswith("xml") else text


def parse_xml(data: bytes) -> ElementTree.Element:
    """The root of an XML document. Raises FewlabelError where it is broken or declares a DTD, which may hold bombs."""

    def refuse(*_: object) -> None:
        raise FewlabelError("the XML declares a document type, which is refused: remove the DOCTYPE")

    checker = expat.ParserCreate()
    checker.StartDoctypeDeclHandler = refuse
    try:
        checker.Parse(data, True)
        return ElementTree.fromstring(data)
    except (expat.ExpatError, ElementTree.ParseError, LookupError, ValueError) as error:
        if isinstance(error, FewlabelError):
            raise
        raise FewlabelError(f"the XML is broken ({error_line(error)}): get the file again") from None


def _items(item: Dataset, section: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise UnreadableImage(f"the DICOM report is nested deeper than {_DEEPEST} levels: export it as text")
    for child in item.get("ContentSequence") or []:
        if element_text(child, "RelationshipType").upper() in _ASIDE:
            continue
        name = _meaning(child, "ConceptNameCodeSequence")
        own = section_name(name) or ""
        kind = element_text(child, "ValueType").upper()
        said = (
            element_text(child, "TextValue") if kind == "TEXT" else _value(child) if kind in _VALUED else ""
        )
        if kind == "CONTAINER" and name:
            yield f"{_heading(name)}:"
        elif said and own:
            yield said if own == section else f"{_heading(name)}: {said}"
        elif said:
            yield f"{name}: {said}" if name and kind in _VALUED else said
        yield from _items(child, own or section, depth + 1)


def _heading(name: str) -> str:
    return name.upper() if section_name(name) is not None else name


def _meaning(item: Dataset, keyword: str) -> str:
    codes = item.get(keyword) or []
    return element_text(codes[0], "CodeMeaning") if codes else ""


def _value(item: Dataset) -> str:
    measured = item.get("MeasuredValueSequence") or []
    if not measured:
        return _meaning(item, "ConceptCodeSequence")
    units = measured[0].get("MeasurementUnitsCodeSequence") or []
    unit = element_text(units[0], "CodeValue") if units else ""
    return f"{element_text(measured[0], 'NumericValue')} {unit}".strip()


def _cda_text(data: bytes) -> str:
    """Titles and texts of a CDA document's sections in their order (HL7 Clinical Document Architecture, release 2)."""
    try:
        root = parse_xml(data)
    except FewlabelError as error:
        raise UnreadableImage(str(error)) from None
    parts = []
    for section in root.iter():
        if _tag(section) not in ("section", "nonXMLBody"):
            continue
        for child in section:
            if child.get("representation") == "B64":
                raise UnreadableImage(
                    "an encapsulated CDA that wraps another file: export the report as text"
                )
            said = re.sub(r"[ \t]+", " ", _inner_text(child)).strip()
            if said and _tag(child) in ("title", "text"):
                parts.append(f"{_heading(said.rstrip(':'))}:" if _tag(child) == "title" else said)
    return "\n\n".join(parts)


def _inner_text(element: ElementTree.Element) -> str:
    """All text inside, with a blank line before paragraphs, list items and table rows."""
    text = element.text or ""
    for child in element:
        text += ("\n\n" if _tag(child) in _BLOCKS else "") + _inner_text(child) + (child.tail or "")
    return text


def _tag(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]
