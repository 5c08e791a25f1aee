"""Grades are asked for by name, from least to most; nothing is guessed and nothing lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fewlabel.collection.targets import NamedColumn, Target, graded_target
from fewlabel.types import FewlabelError

NAMES = ("severity", "grade", "ill", "Age")
COLUMNS: dict[str, NamedColumn] = {
    "severity": NamedColumn(
        "severity", "category", ("mild", "none", "severe"), np.array(["severe", None, "none", "mild"], object)
    ),
    "grade": NamedColumn("grade", "number", (), np.array([0.0, 12.0, np.nan, 3.0])),
    "ill": NamedColumn("ill", "binary", (), np.array([1, 0, -1, -2], np.int8)),
    "Age": NamedColumn("Age", "number", (), np.array([50.5, 1.0, 2.0, 3.0])),
}


def graded(name: str, *grades: str, **named: Any) -> Target:
    return graded_target(name, NAMES, COLUMNS.__getitem__, grades, **named)


def test_the_order_is_the_one_given_and_not_the_alphabets() -> None:
    target = graded("severity", "none", "mild", "severe")
    assert (target.kind, target.classes) == ("ordinal", ("none", "mild", "severe"))
    assert target.values.tolist() == [2, -1, 0, 1]
    assert (target.not_mentioned, target.uncertain) == (1, 0)
    assert target.usable.tolist() == [True, False, True, True]
    assert target.counts == {"none": 1, "mild": 1, "severe": 1}


def test_a_column_of_numbers_and_one_of_yes_and_no() -> None:
    assert graded("grade", "0", "1", "3", "12").values.tolist() == [0, 3, -1, 2]
    two = graded("ill", "0", "1", "2")
    assert two.values.tolist() == [1, 0, -1, -1]
    assert (two.uncertain, two.not_mentioned) == (1, 1)


def test_referable_begins_in_the_middle_or_where_it_is_asked_to() -> None:
    assert graded("grade", "0", "1", "3", "12").referable == 2
    assert graded("severity", "none", "mild", "severe").referable == 1
    assert graded("severity", "none", "mild", "severe", referable="severe").referable == 2
    for wrong in ("none", "awful"):
        with pytest.raises(FewlabelError, match=f"referable from '{wrong}' on: use one of .*mild, severe"):
            graded("severity", "none", "mild", "severe", referable=wrong)


@pytest.mark.parametrize("grades", [("none", "severe"), ("none", "mild", "mild"), ("none", "", "mild"), ()])
def test_grades_are_three_or_more_each_once(grades: tuple[str, ...]) -> None:
    with pytest.raises(FewlabelError, match="name three or more, each once, from least to most"):
        graded("severity", *grades)


def test_a_value_that_is_no_grade_is_named() -> None:
    with pytest.raises(FewlabelError, match="'grade' holds '12' in 1 images, and the grades are 0, 1, 2, 3"):
        graded("grade", "0", "1", "2", "3")
    with pytest.raises(FewlabelError, match=r"holds '50\.5' in 1 images"):
        graded("Age", "1", "2", "3")


def test_grades_are_of_a_column_and_not_of_a_comparison() -> None:
    with pytest.raises(FewlabelError, match="sever"):
        graded("severty", "none", "mild", "severe")
    with pytest.raises(FewlabelError, match="grade>2"):
        graded("grade>2", "0", "1", "2")
