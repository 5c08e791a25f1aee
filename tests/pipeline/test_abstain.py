"""`fewlabel predict --abstain-above-risk`: who gets an answer, what file and summary say, and when it cannot."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import QUICK

from fewlabel.cli import main
from fewlabel.collection import Collection
from fewlabel.pipeline import Learned, evaluate, predict
from fewlabel.pipeline.predicting import abstention_threshold
from fewlabel.training import save_tensors
from fewlabel.types import FewlabelError

FILES = 16


@pytest.fixture(scope="module")
def files(chest: Collection) -> list[Path]:
    return sorted((chest.path.parent / "images" / "images").iterdir())[:FILES]


def confidences(rows: list[dict[str, str]]) -> np.ndarray:
    p = np.array([float(row["probability_opacity"]) for row in rows])
    return np.maximum(p, 1 - p)


@pytest.fixture(scope="module")
def sharp(run: Learned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with another calibration: three steps of training leave probabilities that are all alike."""
    folder = tmp_path_factory.mktemp("sharp")
    shutil.copytree(run.out / "model", folder / "model")
    path = folder / "model" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"calibration": {"slope": 8.0, "offset": 7.4}}))
    return folder


@pytest.fixture(scope="module")
def middle(sharp: Path, files: list[Path]) -> float:
    """A confidence that about half of the files have, and that none is near."""
    found = np.sort(confidences(predict(sharp, files).rows))
    gaps = np.diff(found)[FILES // 4 : -FILES // 4]
    place = FILES // 4 + int(gaps.argmax())
    assert gaps.max() > 4e-4
    return float(found[place] + found[place + 1]) / 2


@pytest.fixture
def trusted(sharp: Path, middle: float, tmp_path: Path) -> Path:
    """The run as if it had 400 validation patients, right in the 200 above `middle` and wrong below."""
    shutil.copytree(sharp, tmp_path / "run")
    confidence = np.concatenate([np.linspace(0.999, middle + 1e-4, 200), np.linspace(middle, 0.5, 200)])
    save(tmp_path / "run", confidence, np.arange(400) >= 200)
    return tmp_path / "run"


def save(run: Path, confidence: np.ndarray, wrong: np.ndarray, chosen_among: int = 1) -> None:
    tensors = {"confidence": torch.from_numpy(confidence), "wrong": torch.from_numpy(wrong)}
    told = {"chosen_among": str(chosen_among)}
    save_tensors(tensors, run / "model" / "validation.safetensors", told)


def test_what_early_stopping_chose_among_is_counted(trusted: Path) -> None:
    confidence, wrong = np.linspace(0.6, 0.999, 120), np.zeros(120, bool)
    save(trusted, confidence, wrong)
    assert abstention_threshold(trusted, "binary", 0.05).answered == 120
    save(trusted, confidence, wrong, chosen_among=400)
    with pytest.raises(
        FewlabelError, match=r"120 validation patients of .*, who also chose among 400 networks, is"
    ):
        abstention_threshold(trusted, "binary", 0.05)


def test_who_is_unsure_gets_no_answer(
    trusted: Path, middle: float, files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"nothing")
    out = tmp_path / "predictions.csv"
    made = predict(trusted, [*files, tmp_path / "broken.png"], abstain_above_risk=0.05, out=out)
    plain = predict(trusted, files).rows
    *read, broken = made.rows
    assert made.threshold is not None
    assert made.threshold.value == pytest.approx(middle)
    unsure = confidences(plain) < middle
    assert made.abstained == unsure.sum()
    assert 0 < made.abstained < FILES
    for row, before, abstained in zip(read, plain, unsure, strict=True):
        assert row["abstained"] == ("yes" if abstained else "no")
        assert row["prediction"] == ("" if abstained else before["prediction"])
        assert row["probability_opacity"] == before["probability_opacity"]
    assert (broken["status"], broken["abstained"], broken["prediction"]) == ("unreadable", "", "")
    with out.open(newline="") as file:
        assert list(csv.DictReader(file)) == made.rows
    assert list(made.rows[0])[3:5] == ["prediction", "abstained"]
    assert "abstained" not in plain[0]


def test_everything_is_answered_where_all_were_right(trusted: Path, files: list[Path]) -> None:
    save(trusted, np.linspace(0.5, 1, 300), np.zeros(300, dtype=bool))
    made = predict(trusted, files, abstain_above_risk=0.05)
    assert made.threshold is not None
    assert (made.threshold.value, made.abstained) == (0.0, 0)
    assert all(row["abstained"] == "no" and row["prediction"] for row in made.rows)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["fewlabel", "predict", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_the_command_says_how_many_and_how_sure(
    trusted: Path,
    files: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "predictions.csv"
    assert command(monkeypatch, trusted, *files, "--out", out, "--abstain-above-risk", "0.05") == 0
    with out.open(newline="") as file:
        abstained = sum(row["abstained"] == "yes" for row in csv.DictReader(file))
    bound = 100 * (1 - 0.005 ** (1 / 200))  # no error in 200, a tenth of 5 %
    assert capsys.readouterr().out == (
        f"{FILES} of {FILES} files read, {FILES - abstained} answered, {abstained} abstained; at most {bound:.1f} % "
        f"of answers are wrong with 95 % confidence, for patients like the 400 of validation: {out}\n"
    )


def refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    run: Path,
    files: list[Path],
    risk: str,
    expected: str,
) -> None:
    out = run / "none.csv"
    assert command(monkeypatch, run, *files, "--out", out, "--abstain-above-risk", risk) == 1
    shown = capsys.readouterr()
    [line] = shown.err.splitlines()
    assert re.search(expected, line), line
    assert not out.exists()


def test_what_cannot_be_promised_is_one_sentence(
    trusted: Path,
    files: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = trusted / "model" / "validation.safetensors"
    cases = [
        ("0.01", r"^error: No confidence threshold keeps the risk at 0\.01 or below .* 400 .* is 0\.0261"),
        ("1.5", r"^error: The risk asked for is 1\.5: .* such as 0\.05"),
    ]
    for risk, expected in cases:
        refused(monkeypatch, capsys, trusted, files, risk, expected)
    save_tensors({"confidence": torch.ones(3)}, path)
    refused(monkeypatch, capsys, trusted, files, "0.05", "does not hold the validation cases .* damaged")
    save(trusted, np.array([0.5, 7.0]), np.array([True, False]))
    refused(monkeypatch, capsys, trusted, files, "0.05", "does not hold the validation cases .* damaged")
    path.write_bytes(b"half")
    refused(monkeypatch, capsys, trusted, files, "0.05", "cannot be read as safetensors")
    path.unlink()
    refused(monkeypatch, capsys, trusted, files, "0.05", "made before abstaining .*fewlabel evaluate")
    assert predict(trusted, files).unreadable == 0  # all else works as before


@pytest.mark.slow
def test_a_number_is_never_abstained_from(
    run: Learned, chest: Collection, files: list[Path], tmp_path: Path
) -> None:
    settings = replace(QUICK, target="Patient Age", budgets=(10,), seeds=1, resamples=20, supervised=False)
    made = evaluate(chest, "Patient Age", run.out, tmp_path / "age", evaluation=settings)
    assert made.results["abstention"] is None
    assert not (made.out / "model" / "validation.safetensors").exists()
    with pytest.raises(FewlabelError, match="predicts a number: abstaining is there for"):
        predict(made.out, files, abstain_above_risk=0.05)


@pytest.mark.slow
def test_several_classes(run: Learned, chest: Collection, files: list[Path], tmp_path: Path) -> None:
    settings = replace(QUICK, target="side", budgets=(10,), seeds=1, resamples=20, supervised=False)
    made = evaluate(chest, "side", run.out, tmp_path / "side", evaluation=settings)
    assert made.results["calibration"][0]["before"]["count"]
    assert "Answering only when sure" in made.report.read_text()
    plain = predict(made.out, files).rows
    surest = np.array(
        [max(float(row[f"probability_{name}"]) for name in ("left", "none", "right")) for row in plain]
    )
    middle = float(np.median(surest)) + 3e-5
    confidence = np.concatenate([np.linspace(0.999, middle + 1e-5, 200), np.linspace(middle, 0.34, 200)])
    save(made.out, confidence, np.arange(400) >= 200)
    answered = predict(made.out, files, abstain_above_risk=0.05).rows
    clear = np.abs(surest - middle) > 1e-4
    for row, sure, told in zip(answered, surest > middle, clear, strict=True):
        assert not told or row["abstained"] == ("no" if sure else "yes")
