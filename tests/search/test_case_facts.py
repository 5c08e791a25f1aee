"""What an index knows of a case: names that can be relied on, and what has changed since."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from fewlabel.collection.filtering import RowFilter
from fewlabel.search import difference, left_out_mark, shown_labels, unit, without_left_out
from fewlabel.search.cases import _with_friendly
from fewlabel.types import FewlabelError, LabelColumn


def test_view_age_and_sex_are_filled_from_whatever_is_called_so() -> None:
    table = pa.table(
        {
            "view": ["PA", "", None],
            "View Position": ["LL", "AP", None],
            "age_years": [None, 41.0, None],
            "Patient Age": ["70", "x", "50"],
            "Patient Gender": ["F", " ", "M"],
        }
    )
    found = _with_friendly(table)
    assert found["view"].to_pylist() == ["PA", "AP", None]
    assert found["age"].to_pylist() == [70.0, 41.0, 50.0]
    assert found["sex"].to_pylist() == ["F", None, "M"]
    assert found["Patient Age"].to_pylist() == ["70", "x", "50"]


def test_a_column_that_differs_by_its_case_alone_is_left_as_it_is() -> None:
    table = pa.table({"Age": [1.0], "age_years": [2.0], "image": ["x"]})
    assert _with_friendly(table).column_names == ["Age", "age_years", "image"]


def test_difference() -> None:
    facts = pa.table(
        {
            "case_id": ["a", "b", "c", "d"],
            "pixel_hash": ["1", "2", "3", "4"],
            "facts_hash": ["5", "6", "7", "8"],
        }
    )
    known = {"a": ("1", "5"), "b": ("x", "6"), "c": ("3", "x"), "gone": ("1", "1")}
    found = difference(facts, known)
    assert (found.new.tolist(), found.changed.tolist(), found.facts.tolist()) == ([3], [1], [2])
    assert found.gone == ("gone",)


def test_patients_who_are_left_out() -> None:
    facts = pa.table({"case_id": ["a", "b", "c"], "patient_id": ["p", "", "q"]})
    assert without_left_out(facts, frozenset()) is facts
    assert without_left_out(facts, frozenset([left_out_mark("p")]))["case_id"].to_pylist() == ["b", "c"]
    assert "p" not in left_out_mark("p")


def test_labels_in_words() -> None:
    labels = [
        LabelColumn("Mass", "binary"), LabelColumn("Effusion", "binary"), LabelColumn("Edema", "binary"),
        LabelColumn("view", "category", ("PA", "AP")), LabelColumn("ratio", "number"), LabelColumn("size", "number"),
    ]  # fmt: skip
    facts = {
        "Mass": 1,
        "Effusion": -1,
        "Edema": 0,
        "view": "",
        "label:view": "AP",
        "ratio": 0.5,
        "size": None,
    }
    assert shown_labels(facts, labels) == "Mass, Effusion?, view AP, ratio 0.5"


def test_unit_vectors() -> None:
    assert np.allclose(unit(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0, 0]])
    with pytest.raises(FewlabelError, match="NaN or infinity"):
        unit(np.array([[np.nan, 1.0]]))


def test_a_filter_loads_a_column_once() -> None:
    columns = {"view": np.array(["PA", "AP", "PA"], object), "age": np.array([1.0, np.nan, 3.0])}
    loaded = []

    def load(name: str) -> np.ndarray:
        loaded.append(name)
        return columns[name]

    rows = RowFilter(columns, load, 3)
    assert rows.rows("VIEW = 'PA'").tolist() == [0, 2]
    assert rows.rows("view = 'AP'").tolist() == [1]
    assert loaded == ["view"]
    assert rows.rows("age > 2 and view = 'PA'").tolist() == [2]
    assert rows.rows("age IS NULL").tolist() == [1]
    assert loaded == ["view", "view", "age"]  # a new column brings the held ones along, once
    with pytest.raises(FewlabelError, match='no "vew": did you mean "view"'):
        rows.rows("vew = 1")
    assert rows.rows("view = 'AP'").tolist() == [1]
