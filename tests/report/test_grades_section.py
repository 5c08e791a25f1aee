"""The section on grades: every cell and every interval is there, and a run without grades has none of it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from example import binary, write_run
from grades_example import COUNTS, graded
from parsed_page import Page

from fewlabel.report import facts, write_report
from fewlabel.report.grades import grades
from fewlabel.report.results import Results
from fewlabel.types import FewlabelError


def page_of(folder: Path, results: dict) -> str:
    return write_report(write_run(folder, results)).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(tmp_path_factory.mktemp("graded") / "run", graded())


def test_the_section_says_what_it_shows(page: str) -> None:
    parsed = Page(page)
    assert {"grades", "decisions", "mistakes"} <= set(parsed.ids)
    for words in (
        "Referable is 2 or more.",
        "chosen on 81 validation images",
        "34 %",
        "25 to 43 %",
        "9.7 %",
        "5.0 to 15 %",
        "cuts the expected grade at 0.61, 1.12, 2.40, 3.30",
        "ROC of telling 2 or more from less",
        "The farthest mistakes",
        "agreement by chance",
    ):
        assert words in parsed.text


def test_a_matrix_holds_its_counts_and_shares(page: str) -> None:
    spoken = "Confusion matrix of SimCLR, linear probe with 50 labels. true 0: 88 %, 5.9 %, 5.9 %, 0 %, 0 %;"
    assert spoken in page
    start = page.index("Confusion matrix of SimCLR, linear probe with 50 labels.")
    picture = page[start : page.index("</svg>", start)]
    for line in COUNTS:
        for count in filter(None, line):
            assert f">{count:g}<" in picture
    assert picture.count(">0<") >= sum(count == 0 for line in COUNTS for count in line)


def test_baselines_stand_in_the_table_and_not_in_the_pictures(page: str) -> None:
    parsed = Page(page)
    drawn = [label for _, a in parsed.elements if "Confusion" in (label := str(a.get("aria-label")))]
    assert len(drawn) == 4  # a method and the reference at two numbers of labels
    assert not any("pixels" in label or "neighbours" in label for label in drawn)


def test_a_grade_that_nobody_has_leaves_its_row_empty() -> None:
    results = graded()
    for row in results["grades"]["confusion"]:
        row["counts"] = copy.deepcopy(row["counts"])
        row["counts"][1], row["shares"][1] = [0.0] * 5, [None] * 5
    shown = grades(Results(results))
    assert shown is not None
    assert "true 1: –, –, –, –, –;" in shown["first"][0]["panels"][0]["plot"].wide


def test_other_runs_have_no_such_section() -> None:
    assert grades(Results(binary())) is None
    without = Results(graded() | {"grades": None})
    assert grades(without) is None
    assert ("Grades", "results.json says nothing of them.") in facts.missing(without, {})
    assert "Grades" not in dict(facts.missing(Results(binary()), {}))


def test_a_broken_block_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FewlabelError, match='"grades" that is no dict'):
        page_of(tmp_path / "list", graded() | {"grades": [1]})
    with pytest.raises(FewlabelError, match="cannot be shown in the part 'grades'"):
        page_of(tmp_path / "half", graded() | {"grades": {"classes": []}})
