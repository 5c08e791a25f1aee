from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewlabel.reports import find_sections, kept_sections
from fewlabel.reports.sections import section_name

REPORT = """                                 FINAL REPORT
 CHEST, PA AND LATERAL

 HISTORY:  ___-year-old with cough.

 COMPARISON: None.  TECHNIQUE: Two views.

 FINDINGS: The lungs are clear.
 LUNGS: no nodule.

 IMPRESSION:
 1. Normal chest.
"""
HEADINGS = (
    "FINDINGS:",
    "Impression:",
    "Conclusion\n",
    "history: ",
    "IMPRESSION - ",
    "RECOMMENDATION(S):",
    "(s):",
)
BETWEEN = (
    "\r\n",
    "\r",
    "\n\n",
    ". ",
    " ",
    "\t",
    "The lungs",
    "1. ",
    "Findings",
    "FINAL REPORT\n",
    "**",
    "REASON   FOR",
)
PIECES = st.lists(st.sampled_from(HEADINGS + BETWEEN), max_size=12).map("".join)


def found(text: str) -> list[tuple[str, str]]:
    return [(s.name, s.text.strip()) for s in find_sections(text) if s.text.strip()]


def test_a_whole_report_comes_apart() -> None:
    assert found(REPORT) == [
        ("", "CHEST, PA AND LATERAL"),
        ("indication", "___-year-old with cough."),
        ("comparison", "None."),
        ("technique", "Two views."),
        ("findings", "The lungs are clear.\n LUNGS: no nodule."),
        ("impression", "1. Normal chest."),
    ]


def test_windows_and_old_line_ends_change_nothing() -> None:
    for line_end in ("\r\n", "\r"):
        text = REPORT.replace("\n", line_end)
        assert [s.name for s in find_sections(text)] == [s.name for s in find_sections(REPORT)]
        assert "".join(s.heading + s.text for s in find_sections(text)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Findings: a b. Impression: c d.", [("findings", "a b."), ("impression", "c d.")]),
        ("FINDINGS\na b\nOpinion\nc", [("findings", "a b"), ("impression", "c")]),
        ("a b. CONCLUSION: c", [("", "a b."), ("impression", "c")]),
        ("IMPRESSION - no effusion", [("impression", "no effusion")]),
        (
            "Clinical information: cough\nExamination: chest",
            [("indication", "cough"), ("examination", "chest")],
        ),
        ("RECOMMENDATION(S): CT.", [("recommendation", "CT.")]),
        ("**Findings:** clear", [("", "**"), ("findings", "clear")]),
        ("FINDINGS AND IMPRESSION: clear", [("findings and impression", "clear")]),
        ("REASON FOR  EXAMINATION: cough", [("indication", "cough")]),
    ],
)
def test_headings_of_many_kinds(text: str, expected: list[tuple[str, str]]) -> None:
    assert found(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "the findings: they are unchanged",
        "Compared with the findings of the last study",
        "There are the following impression: none",
        "No Findings to report",
        "a long history of cough",
        "Impression of a nodule - none",
        "HEART: normal. BONES: normal.",
        "",
    ],
)
def test_what_is_no_heading(text: str) -> None:
    assert [s for s in find_sections(text) if s.heading] == []


def test_keeping() -> None:
    assert [s.name for s in kept_sections(REPORT)] == ["findings", "impression"]
    assert [s.name for s in kept_sections(REPORT, ("impression", "technique"))] == ["technique", "impression"]
    assert len(kept_sections(REPORT, ())) == len(find_sections(REPORT))
    assert kept_sections("HISTORY: cough.") == []
    assert [s.text for s in kept_sections("The lungs are clear.")] == ["The lungs are clear."]
    assert [s.text for s in kept_sections("FINAL REPORT\nThe lungs are clear.")] == ["\nThe lungs are clear."]
    assert len(kept_sections("FINDINGS/IMPRESSION: clear", ("impression",))) == 1
    assert kept_sections("FINDINGS/IMPRESSION: clear", ("technique",)) == []


def test_only_headings() -> None:
    assert [(s.name, s.text.strip()) for s in kept_sections("FINDINGS:\n\nIMPRESSION:\n")] == [
        ("findings", ""),
        ("impression", ""),
    ]


def test_names_of_headings() -> None:
    assert section_name(" Conclusion: ") == "impression"
    assert section_name("REASON FOR EXAM(S)") == "indication"
    assert section_name("Lungs") is None


@given(PIECES | st.text())
def test_sections_are_the_whole_report_and_stay_what_they_are(text: str) -> None:
    sections = find_sections(text)
    assert "".join(s.heading + s.text for s in sections) == text
    assert all(bool(s.heading) or n == 0 for n, s in enumerate(sections))
    assert find_sections("".join(s.heading + s.text for s in sections)) == sections


def test_long_texts_take_no_more_than_their_length() -> None:
    assert len(find_sections("x" * 10_000_000)) == 1
    assert len(find_sections("FINDINGS" + " " * 300_000 + "x")) == 1
    assert len(find_sections("clinical " * 100_000)) == 1
    assert len(find_sections("FINDINGS: clear. " * 30_000)) == 30_000
