"""The benchmark of semi-supervised learning: its small version, its plan of steps, and the page made of its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import semi_supervised
from semi_supervised_page import MEASURES
from semi_supervised_page import semi_supervised as page

from fewlabel.pipeline.semi_supervised import METHODS


@pytest.mark.parametrize("name", semi_supervised.JOBS)
def test_quick_changes_how_much_and_not_what(name: str) -> None:
    job = semi_supervised.JOBS[name]
    quick = semi_supervised.quick(job)
    assert (quick.data, quick.target) == (job.data, job.target)
    assert job.budgets == (25, 50, 100, 250)
    assert (job.seeds, quick.seeds) == (5, 1)
    assert quick.seconds < 1 < job.seconds
    trainings = len(job.budgets) * job.seeds * (len(METHODS) + 1)
    assert trainings * job.seconds + 3 * job.pretraining_seconds < 7200  # two hours of one core


def test_steps_fit_into_the_seconds_and_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, trained = [0.0], []

    def train(steps: int) -> None:
        trained.append(steps)
        now[0] += 0.5 * steps

    monkeypatch.setattr(semi_supervised.time, "process_time", lambda: now[0])
    monkeypatch.setattr(semi_supervised.torch.cuda, "is_available", lambda: False)
    path = tmp_path / "steps.json"
    assert semi_supervised.Plan.of(path).steps_of("m2", 50, 20, train) == 100
    assert trained == [20, 20]
    again = semi_supervised.Plan.of(path)
    assert again.steps_of("m2", 50, 20, train) == 100
    assert len(trained) == 2
    assert again.steps_of("gan", 1, 20, train) == 20  # no fewer than those it was timed with


def made() -> dict[str, Any]:
    rows = [
        {
            "arm": arm, "label": f"way {arm}", "budget": budget, "name": name, "value": value + budget / 1000,
            "low": value - 0.01, "high": value + 0.3, "difference": value - 0.5, "difference_low": value - 0.6,
            "difference_high": value - 0.4, "p": 0.2, "n": 624, "patients": 624,
        }
        for arm, value in (("supervised", 0.5), ("m2", 0.617))
        for budget in (25, 50)
        for name in MEASURES
    ]  # fmt: skip
    return {
        "data": "pneumoniamnist", "about": "chests", "groups": "", "seeds": 5, "budgets": [25, 50], "rows": rows,
        "images": {"train": 4708, "val": 524, "test": 624}, "seconds": 50, "pretraining_seconds": 240,
        "steps": {"m2": 123}, "settings": {"encoder": "resnet10t", "size_px": 32},
    }  # fmt: skip


def test_the_page_tells_every_method_with_its_gain() -> None:
    text = page(made())
    assert "| way m2 | 0.642 (0.607 to 0.917) | 0.667 (" in text
    assert "| way m2 | +0.117 (+0.017 to +0.217) |" in text
    assert "| way supervised | 0.525" in text
    assert "| way supervised | +0.000" not in text
    for said in (
        "Test AUROC:",
        "Test accuracy, minus way supervised:",
        "5 draws",
        "resnet10t, 32 px",
        "624 images",
        "m2 123",
    ):
        assert said in text


def test_it_is_said_plainly_which_help() -> None:
    content = made()
    assert "- way m2: helps with 25 / 50 labels" in page(content)
    m2 = {row["budget"]: row for row in content["rows"] if (row["arm"], row["name"]) == ("m2", "auroc")}
    m2[25] |= {"difference_low": 0.01, "difference_high": 0.2}
    m2[50] |= {"difference_low": -0.01, "difference_high": 0.2}
    assert "- way m2: helps with 25; not told from 0 with 50 labels" in page(content)
    m2[50] |= {"difference_low": -0.2, "difference_high": -0.01}
    assert "- way m2: helps with 25; harms with 50 labels" in page(content)


def test_missing_images_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEWLABEL_REAL_DATA", str(tmp_path))
    assert semi_supervised.main(["pneumoniamnist", "--work", str(tmp_path / "work")]) == 1
    said = capsys.readouterr().err
    assert "holds no pneumoniamnist/pneumoniamnist.npz" in said
    assert said.count("\n") == 1
