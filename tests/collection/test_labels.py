from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabel.collection.labels import combined, multi_label_names, read_label_file, typed_columns
from fewlabel.types import FewlabelError


def table(folder: Path, text: str, encoding: str = "utf-8", name: str = "labels.csv"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return read_label_file(path)


def kinds(folder: Path, text: str, **settings) -> dict:
    return {c.name: (c.kind, c.values) for c in typed_columns(table(folder, text), **settings)}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_delimiters_and_encodings(tmp_path: Path, delimiter: str, encoding: str) -> None:
    text = "file|Größe\na.png|1.5\nb.png|2.5\n".replace("|", delimiter)
    found = table(tmp_path, text, encoding)
    assert found.columns == {"file": ["a.png", "b.png"], "Größe": ["1.5", "2.5"]}


def test_quoted_cells_keep_delimiters_and_line_breaks(tmp_path: Path) -> None:
    found = table(tmp_path, 'file,report\r\na.png,"Heart, normal.\nLungs ""clear""."\r\n')
    assert found.columns["report"] == ['Heart, normal.\nLungs "clear".']


def test_empty_trailing_columns_are_left_out_and_unnamed_ones_get_a_name(tmp_path: Path) -> None:
    found = table(tmp_path, "file,grade,,,\na,1,,x,\nb,2,,,\n")
    assert list(found.columns) == ["file", "grade", "column 4"]


def test_a_name_that_comes_twice_is_kept_apart(tmp_path: Path) -> None:
    assert list(table(tmp_path, "a,a\n1,2\n").columns) == ["a", "a (2)"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("file,label\n", "no rows"),
        ("file,label\na,1,2\n", "line 2 has 3 cells"),
        ("PK\x03\x04", "save the table as CSV"),
        ("file\x00", "no text file"),
    ],
)
def test_files_that_are_no_tables_are_refused_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(FewlabelError, match=said):
        table(tmp_path, text)


def test_a_missing_label_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FewlabelError, match=r"nowhere\.csv cannot be read"):
        read_label_file(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "0", "-1", ""], "binary", [1, 0, -1, -2]),
        (["1.0", "", "", "-1.0"], "binary", [1, -2, -2, -1]),
        (["positive", "Negative", "uncertain", "nan"], "binary", [1, 0, -1, -2]),
        (["yes", "no", "True", "FALSE"], "binary", [1, 0, 1, 0]),
        (["0", "4", "2", ""], "category", ["0", "4", "2", None]),
        (["0.0", "4.0", "2.0", "1"], "category", ["0", "4", "2", "1"]),
        (["36", "42", "61", "17"], "number", [36.0, 42.0, 61.0, 17.0]),
        (["0.25", "1", "0", "0.5"], "number", [0.25, 1.0, 0.0, 0.5]),
        (["058Y", "006M", "060Y", "058Y"], "number", [58.0, 0.5, 60.0, 58.0]),
        (["F", "M", "F", "F"], "category", ["F", "M", "F", "F"]),
        (["f", "f", "f", "f"], "category", ["f", "f", "f", "f"]),
        (["007", "012", "007", "012"], "category", ["007", "012", "007", "012"]),
    ],
)
def test_kinds_of_columns(tmp_path: Path, cells: list[str], kind: str, values: list) -> None:
    text = "n,x\n" + "".join(f"i{n},{c}\n" for n, c in enumerate(cells))
    found = kinds(tmp_path, text)["x"]
    assert found[0] == kind
    assert found[1] == values


def test_decimal_commas_of_semicolon_files(tmp_path: Path) -> None:
    assert kinds(tmp_path, "a;b\n1,5;x\n2,25;y\n")["a"] == ("number", [1.5, 2.25])


def test_ids_and_reports_stay_text(tmp_path: Path) -> None:
    rows = "".join(f"img{n:03d}x,{'The lungs are clear. ' * 8}{n % 3}\n" for n in range(30))
    found = kinds(tmp_path, "id,report\n" + rows)
    assert found["id"][0] == "text"
    assert found["report"][0] == "text"


def test_multi_label_columns_become_one_binary_column_a_name(tmp_path: Path) -> None:
    text = "f,Finding\na,Edema|Effusion\nb,No Finding\nc,\nd,Edema\n"
    found = kinds(tmp_path, text)
    assert found["Edema"] == ("binary", [1, 0, -2, 1])
    assert found["Effusion"] == ("binary", [1, 0, -2, 0])
    assert found["No Finding"] == ("binary", [0, 1, -2, 0])
    assert found["Finding"][0] == "category"
    assert kinds(tmp_path, text, unlisted="not mentioned")["Effusion"] == ("binary", [1, -2, -2, -2])


def test_a_multi_label_name_that_is_also_a_column_is_kept_apart(tmp_path: Path) -> None:
    found = kinds(tmp_path, "f,Finding,Edema\na,Edema|Mass,0\nb,Mass,1\n")
    assert found["Edema"] == ("binary", [0, 1])
    assert found["Finding: Edema"] == ("binary", [1, 0])


def test_classes_come_in_numeric_order(tmp_path: Path) -> None:
    columns = typed_columns(
        table(tmp_path, "f,grade\n" + "".join(f"i{n},{g}\n" for n, g in enumerate([10, 2, 0])))
    )
    described = columns[1].described()
    assert described is not None
    assert described.classes == ("0", "2", "10")


@pytest.mark.parametrize(
    ("kind", "values", "result", "contradicted"),
    [
        ("binary", [1, -2, 1], 1, False),
        ("binary", [1, 0], -1, True),
        ("binary", [-2, -2], -2, False),
        ("category", ["0", "3"], None, True),
        ("category", [None, "3"], "3", False),
        ("number", [math.nan, 2.0], 2.0, False),
        ("text", ["a", "b"], "a", True),
    ],
)
def test_several_rows_on_one_image(kind: str, values: list, result: object, contradicted: bool) -> None:
    assert combined(kind, values) == (result, contradicted)


def test_contradicting_numbers_are_missing() -> None:
    value, contradicted = combined("number", [1.0, 2.0])
    assert math.isnan(value)
    assert contradicted


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=12),
        min_size=1,
        max_size=8,
    )
)
def test_any_text_becomes_some_column_of_full_length(tmp_path_factory, cells: list[str]) -> None:
    import csv

    path = tmp_path_factory.mktemp("any") / "labels.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file", "x"], *([f"i{n}", c] for n, c in enumerate(cells))])
    found = read_label_file(path)
    assert found.columns["x"] == [c.strip() for c in cells] if "x" in found.columns else True
    for column in typed_columns(found):
        assert len(column.values) == len(cells)


@given(st.sets(st.sampled_from(["Edema", "Mass", "No Finding", "Hernia"]), min_size=2))
def test_multi_label_names_are_found_whatever_their_order(names: set[str]) -> None:
    assert multi_label_names(["|".join(names), "Edema", ""]) == tuple(sorted(names | {"Edema"}))
