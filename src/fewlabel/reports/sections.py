"""The sections of a radiology report: where Findings, Impression, Technique and the others begin.

A heading is a known name in capitals or title case: with a colon at the start of a line or after a sentence; in
capitals with a dash at the start of a line; or alone on its line. Names that are not known ("LUNGS:") stay text of the
section that they stand in, so that nothing is lost with them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

DEFAULT_KEEP = ("findings", "impression")
"""What ConVIRT (Zhang et al. 2020, arXiv:2010.00747) trains on."""
UNSECTIONED = ""
BOTH = "findings and impression"
_NAMES: dict[str, str] = {
    UNSECTIONED: "final report|radiology report|final radiology report|narrative",
    "findings": "findings|finding|report|observations|observation|description|results|result|radiological findings|"
    "imaging findings|radiographic findings|significant findings|interpretation of findings",
    "impression": "impression|impressions|conclusion|conclusions|opinion|assessment|interpretation|"
    "final impression|imaging impression|diagnostic impression|radiological diagnosis|imaging diagnosis|"
    "impression and plan|impression/plan|impression and recommendation|impression and recommendations|"
    "impression/recommendation|impression/recommendations",
    BOTH: "findings and impression|findings/impression|findings & impression|impression and findings|"
    "findings and conclusion|findings and conclusions",
    "technique": "technique|techniques|procedure|procedures|procedure comments|protocol|views|technical factors|"
    "exam technique|imaging technique|contrast|medication|medications|radiation dose",
    "comparison": "comparison|comparisons|comparison study|comparison studies|comparison exam|comparison exams|"
    "prior studies|prior study|previous studies|previous examination|previous examinations|prior exams",
    "indication": "indication|indications|history|clinical history|clinical information|clinical indication|"
    "clinical indications|clinical data|clinical details|clinical question|clinical statement|clinical|"
    "indication/history|history/indication|history and indication|patient history|medical history|"
    "past medical history|reason for exam|reason for examination|reason for study|reason for the exam|"
    "reason for this examination|reason for request|reason",
    "examination": "examination|examinations|exam|exams|study|studies|exam type|exam description|type of exam|"
    "type of examination|study type|date|exam date|date of exam|date of study|accession number|accession|modality",
    "recommendation": "recommendation|recommendations|recommended follow-up|recommended follow up",
    "notification": "notification|notifications|communication|critical results|critical result",
    "preliminary": "wet read|preliminary report|preliminary read|preliminary interpretation",
    "addendum": "addendum|addenda",
    "summary": "summary",
    "closing": "end of impression|end of report|signed by|electronically signed by|dictated by|reported by|"
    "transcribed by|attending|signature|disclaimer",
}
_SECTION_OF = {alias: name for name, aliases in _NAMES.items() for alias in aliases.split("|")}
_ALIAS = "|".join(
    re.escape(alias).replace(r"\ ", "[ \t]+") for alias in sorted(_SECTION_OF, key=len, reverse=True)
)
_HEADING = re.compile(
    rf"(?<![\w/-])(?P<name>{_ALIAS})(?P<plural>\(s\))?(?![\w/])"
    r"(?:[ \t]*(?P<mark>:[*_]{0,3})|(?P<dash>[ \t]+[-–—](?=\s))|(?P<end>[ \t]*(?=[\r\n]|\Z)))",
    re.IGNORECASE,
)
_DECORATION = " \t*#_>"


@dataclass(frozen=True)
class Section:
    """One section as it stands in the report: `heading + text`, one section after another, is the whole report.

    name: "findings", "impression", "findings and impression", "technique", "comparison", "indication",
        "examination", "recommendation", ...; "" before any heading and under a title such as FINAL REPORT.
    heading: the heading with its colon as it is written; "" without one. text: what follows, untouched.
    """

    name: str
    heading: str
    text: str


def section_name(heading: str) -> str | None:
    """The section that a heading stands for, whatever its case: "Conclusion" -> "impression"; None if unknown."""
    plain = " ".join(heading.strip(_DECORATION + ":\r\n").lower().removesuffix("(s)").split())
    return _SECTION_OF.get(plain)


def find_sections(text: str) -> list[Section]:
    """The sections of a report in their order, none for an empty one."""
    found = [match for match in _HEADING.finditer(text) if _is_heading(text, match)]
    starts = [match.start() for match in found]
    ends = [*starts, len(text)]
    sections = [Section(UNSECTIONED, "", text[: ends[0]])] if ends[0] else []
    for match, end in zip(found, ends[1:], strict=True):
        name = section_name(match["name"])
        sections.append(Section(name or UNSECTIONED, match[0], text[match.end() : end]))
    return sections


def kept_sections(text: str, keep: Sequence[str] = DEFAULT_KEEP) -> list[Section]:
    """The sections that `keep` names; all where `keep` is empty, and where the report has no heading.

    "findings and impression" is kept where either is. The result is empty where a report has headings and none is
    wanted.
    """
    sections = find_sections(text)
    if not keep or all(section.name == UNSECTIONED for section in sections):
        return sections
    return [s for s in sections if s.name in keep or (s.name == BOTH and set(DEFAULT_KEEP) & set(keep))]


def _is_heading(text: str, match: re.Match[str]) -> bool:
    name = match["name"]
    capitals = name.isupper()
    if not (capitals or name[0].isupper()):
        return False
    before = match.start()
    while before and text[before - 1] in _DECORATION:
        before -= 1
    starts_line = before == 0 or text[before - 1] in "\r\n"
    if match["end"] is not None:
        return starts_line
    if match["dash"] is not None:
        return starts_line and capitals
    follows_sentence = before < match.start() and text[before - 1] in ".!?:;)]"
    return starts_line or follows_sentence or (capitals and before < match.start())
