"""IDRiD's label file: what is doubtful is out of training, and the test part stays whole."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import idrid
import main_job
import pytest


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A set of the same layout: 20 training and 4 test images, grades 0 and 2, and one pair of each kind."""
    folder = tmp_path / "data" / "idrid"
    folder.mkdir(parents=True)
    for part, count in (("train", 20), ("test", 4)):
        lines = [f"IDRiD_{i:03d},{2 * (i % 2)},0,,," for i in range(1, count + 1)]
        (folder / idrid.TABLES[part]).write_text(
            "\n".join(["Image name,Retinopathy grade,Risk,,,", *lines, ""])
        )
    pairs = [
        ("train", "IDRiD_001", "train", "IDRiD_002"),  # two grades
        ("train", "IDRiD_004", "train", "IDRiD_006"),  # one grade
        ("test", "IDRiD_003", "train", "IDRiD_008"),
    ]
    rows = [f"grading_vs_grading,{','.join(pair)},1.0" for pair in pairs]
    rows.append("seg_vs_grading,train,IDRiD_10,train,IDRiD_009,0.99")
    (folder / "overlaps.csv").write_text("\n".join(["kind,split_a,image_a,split_b,image_b,corr", *rows, ""]))
    return tmp_path / "data"


def test_what_is_doubtful_is_left_out(data: Path, tmp_path: Path) -> None:
    rows = table(idrid.write_labels(data, tmp_path / "labels" / "idrid.csv"))
    kept = {row["file"] for row in rows}
    everything = {
        f"{part}/IDRiD_{i:03d}.jpg" for part, n in (("train", 20), ("test", 4)) for i in range(1, n + 1)
    }
    assert everything - kept == {f"train/IDRiD_{i:03d}.jpg" for i in (1, 2, 6, 8)}
    parts = Counter(row["split"] for row in rows)
    assert parts == {"train": 13, "val": 3, "test": 4}
    assert all(row["file"].startswith("test/") == (row["split"] == "test") for row in rows)
    grades = {row["file"]: row["Retinopathy grade"] for row in rows}
    assert (grades["train/IDRiD_003.jpg"], grades["train/IDRiD_004.jpg"]) == ("2", "0")
    assert {row["Retinopathy grade"] for row in rows if row["split"] == "val"} == {"0", "2"}


@pytest.mark.real
def test_the_real_set(shared_data: Path, tmp_path: Path) -> None:
    if not (shared_data / "idrid").is_dir():
        pytest.skip("no idrid among the real images")
    rows = table(idrid.write_labels(shared_data, tmp_path / "idrid.csv"))
    assert Counter(row["split"] == "test" for row in rows) == {True: 103, False: 413 - 4 - 3 - 1}
    assert all((shared_data / "idrid" / "grading_512px" / row["file"]).exists() for row in rows)
    evaluation = main_job.JOBS["idrid-grading"].evaluation
    assert {row["Retinopathy grade"] for row in rows} == set(evaluation.grades or ())
