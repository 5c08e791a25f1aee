"""The label file of IDRiD's grading set: one row an image that can be trusted, with its part.

Porwal et al. 2018, doi:10.21227/H25W98. Six pairs of files are the same bytes (overlaps.csv, measured on the
originals). Of a pair within training with two grades both are left out, of one with the same grade the second; of the
pair across the parts the training image is left out, and the test part stays whole. A fifth of the training images of
each grade is for validation, drawn with seed 0.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from pathlib import Path

import numpy as np

from fewlabel.files import write_text

TABLES = {
    "train": "a. IDRiD_Disease Grading_Training Labels.csv",
    "test": "b. IDRiD_Disease Grading_Testing Labels.csv",
}
GRADE = "Retinopathy grade"
VALIDATION = 0.2
Name = tuple[str, str]
"""Part and image, such as ("train", "IDRiD_001"): the two parts use the same names."""


def write_labels(data: Path, path: Path) -> Path:
    """Write the label file to `path` and return it: file, Retinopathy grade, split. data: the folder of real images."""
    folder = data / "idrid"
    grades = {(part, name): grade for part in TABLES for name, grade in _grades(folder / TABLES[part])}
    left_out = doubtful(grades, _pairs(folder / "overlaps.csv"))
    kept = {name: grade for name, grade in grades.items() if name not in left_out}
    val = _validation(kept)
    rows = [
        (f"{part}/{image}.jpg", grade, "val" if (part, image) in val else part)
        for (part, image), grade in kept.items()
    ]
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("file", GRADE, "split"), *rows])
    write_text(path, table.getvalue())
    return path


def doubtful(grades: dict[Name, str], pairs: list[tuple[Name, Name]]) -> set[Name]:
    """What is left out of training because the same file comes twice."""
    out: set[Name] = set()
    for a, b in pairs:
        in_training = [name for name in (a, b) if name[0] == "train"]
        one_grade = grades[a] == grades[b]
        out.update(in_training[-1:] if one_grade and len(in_training) == 2 else in_training)
    return out


def _grades(path: Path) -> list[tuple[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [(row["Image name"], row[GRADE]) for row in csv.DictReader(file) if row["Image name"]]


def _pairs(path: Path) -> list[tuple[Name, Name]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [
            ((row["split_a"], row["image_a"]), (row["split_b"], row["image_b"]))
            for row in csv.DictReader(file)
            if row["kind"] == "grading_vs_grading"
        ]


def _validation(grades: dict[Name, str]) -> set[Name]:
    by_grade: dict[str, list[Name]] = defaultdict(list)
    for name, grade in grades.items():
        if name[0] == "train":
            by_grade[grade].append(name)
    rng, drawn = np.random.default_rng(0), set()
    for _, names in sorted(by_grade.items()):
        drawn.update(names[i] for i in rng.permutation(len(names))[: round(VALIDATION * len(names))])
    return drawn
