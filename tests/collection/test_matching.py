from __future__ import annotations

from pathlib import Path

import pytest

from fewlabel.collection.labels import LabelTable
from fewlabel.collection.matching import checked_name, match_rows, path_parts
from fewlabel.types import FewlabelError


def table(**columns: list[str]) -> LabelTable:
    return LabelTable(Path("labels.csv"), columns)


def test_the_column_that_fits_most_images_is_the_file_column() -> None:
    found = match_rows(
        table(grade=["1", "2", "a"], image=["a.png", "b.png", "c.png"]), ["x/a.jpg", "x/b.jpg", "x/c.jpg"]
    )
    assert found.column == "image"
    assert found.rows == [[0], [1], [2]]


@pytest.mark.parametrize(
    "cell", ["a.png", "a", "A.PNG", "set/a.png", "set\\a.png", "/data/set/a.png", "a.jpg"]
)
def test_names_paths_and_stems_all_name_an_image(cell: str) -> None:
    found = match_rows(table(f=[cell, "other"]), ["set/a.png", "set/b.png"])
    assert found.rows == [[0], []]
    assert found.unmatched == [1]


def test_of_equal_names_the_longer_path_decides() -> None:
    names = ["train/001.png", "test/001.png"]
    assert match_rows(table(f=["test/001.png", "train/001"]), names).rows == [[1], [0]]


def test_names_that_fit_several_images_are_used_for_none_and_told() -> None:
    found = match_rows(table(f=["001", "002"]), ["train/001.png", "test/001.png", "test/002.png"])
    assert found.rows == [[], [], [1]]
    assert found.ambiguous == ("001",)


def test_an_exact_name_wins_over_the_same_stem() -> None:
    assert match_rows(table(f=["a.png"]), ["a.jpg", "a.png"]).rows == [[], [0]]


def test_dots_in_ids_are_no_suffix() -> None:
    names = ["1.2.840.11", "1.2.840.12"]
    assert match_rows(table(uid=["1.2.840.12", "1.2.840.11"]), names).rows == [[1], [0]]


def test_rows_on_a_volume_or_folder_are_for_all_that_lies_in_it() -> None:
    names = ["p1/v.nii.gz#00000", "p1/v.nii.gz#00001", "p2/w.nii.gz#00000"]
    assert match_rows(table(scan=["v", "w"]), names).rows == [[0], [0], [1]]
    assert match_rows(table(patient=["p2", "p1"]), names).rows == [[1], [1], [0]]


def test_where_no_name_fits_dicom_identities_do() -> None:
    found = match_rows(
        table(pid=["7", "8"], x=["1", "0"]),
        ["a.dcm", "b.dcm", "c.dcm"],
        identities={"patient_id": ["8", "", "8"]},
    )
    assert (found.column, found.by) == ("pid", "patient id")
    assert found.rows == [[1], [], [1]]


def test_no_match_shows_three_examples_of_each_side() -> None:
    with pytest.raises(FewlabelError) as error:
        match_rows(table(f=["u", "v", "w", "x"]), ["1.png", "2.png", "3.png", "4.png"])
    for example in ('"u", "v", "w"', '"1.png", "2.png", "3.png"'):
        assert example in str(error.value)
    assert '"x"' not in str(error.value)


def test_a_wrong_file_column_is_answered_with_close_names() -> None:
    with pytest.raises(FewlabelError, match='did you mean "Image Index"'):
        match_rows(table(**{"Image Index": ["a"]}), ["a.png"], file_column="image_index")


def test_unknown_names_without_close_ones_list_what_there_is() -> None:
    with pytest.raises(FewlabelError, match='there is "alpha", "beta"'):
        checked_name("zzz", ["alpha", "beta"], "it")


def test_path_parts_look_into_containers() -> None:
    assert path_parts("x.tar.gz!/CXR/0.jpg") == ["x.tar.gz", "CXR", "0.jpg"]
    assert path_parts("p.npz#train/00012") == ["p.npz", "train", "00012"]
