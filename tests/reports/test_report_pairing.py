from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fewlabel.reports import Report, Reports
from fewlabel.reports.matching import match_reports
from fewlabel.types import FewlabelError

CLEAR, BIG = "FINDINGS: The lungs are clear. No effusion.", "The heart is big."


def reports(*found: Report) -> Reports:
    return Reports(tuple(found))


def test_images_of_a_study_share_its_text(make_collection) -> None:
    collection = make_collection(
        {
            "a.png": {"patient": "1", "study": "1", "report": CLEAR},
            "b.png": {"patient": "1", "study": "1", "report": ""},
            "c.png": {"patient": "1", "study": "2", "report": BIG},
            "d.png": {"patient": "2", "study": "1", "report": CLEAR},
            "e.png": {"patient": "3", "study": "1", "report": ""},
        }
    )
    pairs = Reports.from_column(collection).pair(collection)
    assert (pairs.by, pairs.rows.tolist(), pairs.text_of.tolist()) == ("case", [0, 1, 2, 3], [0, 0, 1, 2])
    assert pairs.rows.dtype == pairs.text_of.dtype == np.int64
    assert pairs.of_row(1) == ("The lungs are clear.", "No effusion.")
    assert pairs.texts[0] == "The lungs are clear. No effusion."
    assert pairs.counts.without_text == 1
    assert len(pairs) == pairs.counts.paired == 4
    with pytest.raises(FewlabelError, match="row 4 has no text"):
        pairs.of_row(4)


def test_columns_that_hold_no_text(make_collection) -> None:
    collection = make_collection({"a.png": {"label": "1"}, "b.png": {"label": "0"}})
    with pytest.raises(FewlabelError, match="holds numbers"):
        Reports.from_column(collection, "label")
    with pytest.raises(FewlabelError, match="is empty for all 2 images"):
        Reports.from_column(collection)
    with pytest.raises(FewlabelError, match='has no "lable": did you mean "label"'):
        Reports.from_column(collection, "lable")


def test_everything_that_is_left_out_is_counted(make_collection) -> None:
    texts = {
        "kept": "FINDINGS: 1. The lungs are clear.\n2. ___.\nIMPRESSION: Unchanged heart.",
        "blank": " \n",
        "other": "HISTORY: cough.",
        "short": "IMPRESSION: Normal chest",
        "prior": "IMPRESSION: Unchanged since the prior study.",
        "nowhere": BIG,
    }
    collection = make_collection(
        {f"{name}.png": {"study": name} for name in [*texts, "none"] if name != "nowhere"}
    )
    given = reports(*(Report(text, study) for study, text in texts.items()))
    pairs = given.pair(collection, drop_priors=True)
    counts = pairs.counts
    assert pairs.sentences == (("The lungs are clear.",),)
    assert (counts.texts, counts.unused, counts.blank, counts.without_section) == (6, 1, 1, 1)
    assert (counts.short, counts.without_sentence, counts.dropped, counts.without_text) == (1, 1, 4, 1)
    assert (counts.images, counts.paired, counts.wordless, counts.priors) == (6, 1, 1, 2)
    assert counts.paired + counts.dropped + counts.without_text + counts.ambiguous == counts.images
    assert counts.lines()[0] == "1 of 6 images have a text"
    assert "1 matched texts have fewer than 3 tokens and were dropped" in counts.lines()
    everything = given.pair(collection, keep=(), fewest_tokens=1)
    assert everything.counts.paired == 4
    assert [sum(flags) for flags in everything.priors] == [1, 0, 1, 0]


def test_nothing_left(make_collection) -> None:
    collection = make_collection({"a.png": {"study": "1"}})
    with pytest.raises(FewlabelError, match=r"no text is left .*1 matched texts are empty"):
        reports(Report("", "1")).pair(collection)


def test_clauses_on_request(make_collection) -> None:
    collection = make_collection({"a.png": {"study": "1"}})
    given = reports(Report("No effusion or pneumothorax; the heart is enlarged.", "1"))
    assert given.pair(collection).sentences == (("No effusion or pneumothorax; the heart is enlarged.",),)
    assert given.pair(collection, clauses=True).sentences == (
        ("No effusion or pneumothorax", "the heart is enlarged."),
    )


def test_two_texts_of_one_study_are_joined_and_equal_ones_taken_once(make_collection) -> None:
    collection = make_collection({"a.png": {"study": "1"}, "b.png": {"study": "1"}})
    given = reports(Report(CLEAR, "1"), Report(BIG, "1"), Report(CLEAR, "1"))
    pairs = given.pair(collection)
    assert pairs.sentences == (("The lungs are clear.", "No effusion.", "The heart is big."),)


def ways(found: list[Report], collection, by=None) -> tuple[str, list[tuple[int, ...]], int]:
    matching = match_reports(found, collection, by)
    return matching.by, list(matching.of_image), matching.ambiguous


def test_study_ids_count_within_the_patient(make_collection) -> None:
    collection = make_collection(
        {
            "a.png": {"patient": "A", "study": "1"},
            "b.png": {"patient": "B", "study": "1"},
            "c.png": {"patient": "C", "study": "2"},
        }
    )
    assert ways([Report("x", "1", "A")], collection) == ("study", [(0,), (), ()], 0)
    assert ways([Report("x", "2")], collection) == ("study", [(), (), (0,)], 0)
    for report in (Report("x", "2", "other"), Report("x", "1")):
        with pytest.raises(FewlabelError, match="none of the 1 texts"):
            ways([report], collection, "study")


def test_long_study_ids_need_no_patient(make_collection) -> None:
    collection = make_collection({"a.png": {"patient": "A", "study": "1.2.840.1"}})
    assert ways([Report("x", "1.2.840.1", "anonymous")], collection)[1] == [(0,)]


def test_patients_with_one_study_only(make_collection) -> None:
    collection = make_collection(
        {
            "a.png": {"patient": "A", "study": "1"},
            "b.png": {"patient": "A", "study": "2"},
            "c.png": {"patient": "B", "study": "3"},
        }
    )
    assert ways([Report("x", "", "A"), Report("y", "", "B")], collection) == ("patient", [(), (), (1,)], 2)
    assert ways([Report("x", "", "B"), Report("y", "", "B"), Report("z", "3", "B")], collection)[0] == "study"


def test_files_by_as_much_of_the_path_as_agrees(make_collection) -> None:
    names = ["one/a.png", "two/a.png", "two/b.png", "three/c.png"]
    collection = make_collection({name: {} for name in names})
    found = [Report("x", files=("two/a.jpg",)), Report("y", files=("B",)), Report("z", files=("root/c.png",))]
    assert ways(found, collection) == ("file", [(), (2,), (0,), (1,)], 0)
    assert ways([Report("x", files=("a.png",)), Report("y", files=("b.png",))], collection) == (
        "file",
        [(), (), (), (1,)],
        2,
    )


def test_another_patients_file_of_the_same_name_is_not_taken(make_collection) -> None:
    collection = make_collection({"p9/study1/view1.png": {}, "p9/study2/view1.png": {}})
    found = [Report(f"{n}", "study1", f"p{n}", files=(f"train/p{n}/study1/view1.jpg",)) for n in range(3)]
    with pytest.raises(FewlabelError, match="none of the 3 texts"):
        ways(found, collection)


def test_reports_of_several_studies_are_no_images(make_collection) -> None:
    collection = make_collection({"study1/view1.png": {}, "study2/view1.png": {}})
    found = [Report(f"{n}", "study1", f"p{n}", files=(f"p{n}/study1/view1.jpg",)) for n in range(3)]
    found.append(Report("x", "study2", "p1", files=("p1/study2/view1.jpg",)))
    assert ways(found, collection) == ("file", [(), (3,)], 1)


def test_folders_agree_wholly(make_collection) -> None:
    collection = make_collection({"x/p1/s1/series/a.png": {}, "x/p2/s1/a.png": {}, "s3/a.png": {}})
    found = [
        Report("a", "s1", "p1", "p1/s1"),
        Report("b", "s1", "p3", "p3/s1"),
        Report("c", "s3", "p4", "p4/s3"),
    ]
    assert ways(found, collection) == ("folder", [(2,), (0,), ()], 0)


def test_a_folder_name_that_several_patients_have_is_no_ones(make_collection) -> None:
    collection = make_collection({"p1/s1/a.png": {}, "p2/s1/a.png": {}, "p2/s2/a.png": {}})
    assert ways([Report("a", "s1", folder="s1"), Report("b", "s2", folder="s2")], collection) == (
        "folder",
        [(), (), (1,)],
        2,
    )


def test_text_files_beside_images(tmp_path: Path, make_collection) -> None:
    collection = make_collection({"s1/a.png": {}, "s1/b.png": {}, "s2/a.png": {}})
    for name in ("s1/a.txt", "s2/a.txt", "readme.txt"):
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Text of {name} here.")
    pairs = Reports.from_folder(tmp_path / "texts").pair(collection)
    assert (pairs.by, pairs.rows.tolist(), pairs.counts.unused) == ("file", [0, 2], 1)
    assert pairs.of_row(2) == ("Text of s2/a.txt here.",)


def test_a_way_that_is_none(make_collection) -> None:
    collection = make_collection({"a.png": {}})
    with pytest.raises(FewlabelError, match="choose one of case, file, study, folder, patient"):
        match_reports([Report("x", "1")], collection, "series")  # type: ignore[arg-type]
    with pytest.raises(
        FewlabelError, match=r"by study: the texts are of s7, the images are a.png \(study unknown\)"
    ):
        match_reports([Report("x", "s7")], collection, "study")
