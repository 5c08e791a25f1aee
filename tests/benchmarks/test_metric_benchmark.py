"""The benchmark of metric learning: who is in which part, what is measured, and the small version of each job."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import metric_learning
import numpy as np
import pytest


@pytest.mark.parametrize("name", metric_learning.JOBS)
def test_quick_changes_how_much_and_not_what(name: str) -> None:
    job = metric_learning.JOBS[name]
    quick = metric_learning.quick(job)
    assert (quick.make, quick.target) == (job.make, job.target)
    assert quick.pretraining.steps < 10 < job.pretraining.steps
    assert quick.labels is not None
    assert job.labels is None


def test_parts_are_runs_of_files_with_a_block_between() -> None:
    blocks = [f"{name}-{number:02d}" for name in ("CXR", "Hand") for number in range(16) for _ in range(3)]
    split = metric_learning.split_by_block(blocks)
    numbers = [{int(blocks[row][-2:]) for row in rows} for rows in (split.train, split.val, split.test)]
    for earlier, later in pairwise(numbers):
        assert max(earlier) + 1 < min(later)
    assert [len(one) for one in (split.train, split.val, split.test)] == [48, 12, 24]


def test_every_encoder_is_measured_on_the_same_patients() -> None:
    rng = np.random.default_rng(0)
    y, patients = np.arange(120) % 3, np.arange(120) // 3
    task: Any = SimpleNamespace(
        y=y, test=np.arange(40, 120), collection=SimpleNamespace(patients=lambda: patients)
    )
    noise = rng.normal(size=(120, 4))
    vectors = {"SimCLR": noise, "good": noise + 3 * np.eye(3, 4)[y]}
    rows, differences = metric_learning.measure(task, vectors, asking=30)
    names = {row["name"] for row in rows}
    assert {"precision@5", "recall@1", "r_precision", "map_at_r"} <= names
    assert "precision@50" not in names  # of 80 images
    assert len(rows) == 2 * len(names)
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
    assert {row["n"] for row in rows} == {30}
    (difference,) = differences
    assert (difference["encoder"], difference["reference"]) == ("good", "SimCLR")
    assert difference["low"] > 0


def test_missing_images_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEWLABEL_REAL_DATA", str(tmp_path))
    assert metric_learning.main(["mednist-64", "--work", str(tmp_path / "work")]) == 1
    said = capsys.readouterr().err
    assert "AbdomenCT.tar.gz is missing" in said
    assert said.count("\n") == 1
