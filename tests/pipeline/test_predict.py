"""Predictions on files: those of the evaluation, with a reason for what cannot be read."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import QUICK

from fewlabel.adaptation.features import extract_features
from fewlabel.cli import main
from fewlabel.collection import Collection
from fewlabel.pipeline import Learned, evaluate, load_classifier, predict
from fewlabel.training.weights import load_encoder
from fewlabel.types import FewlabelError


@pytest.fixture(scope="module")
def images(chest: Collection) -> Path:
    return chest.path.parent / "images" / "images"


def test_a_collections_own_files_get_the_probabilities_of_the_evaluation(
    run: Learned, chest: Collection, images: Path
) -> None:
    classifier = load_classifier(run.out)
    features = extract_features(
        classifier.encoder, chest.square(classifier.store_px), size_px=classifier.size_px
    )
    expected = dict(zip(chest.column("case_id"), classifier.probe.predict(features)[:, 1], strict=True))
    predictions = predict(run.out, [images])
    assert predictions.unreadable == 0
    assert len(predictions.rows) == len(chest)  # PNG and DICOM files alike
    for row in predictions.rows:
        p = float(row["probability_opacity"])
        assert p == pytest.approx(expected["images/" + Path(row["file"]).name], abs=0.01)
        assert row["prediction"] == ("opacity" if p >= 0.5 else "not opacity")


def test_the_kept_classifier_is_the_one_that_was_evaluated(run: Learned, chest: Collection) -> None:
    """With all labels the linear probe is fitted on the same rows as the classifier that predicts."""
    from sklearn.metrics import roc_auc_score

    classifier = load_classifier(run.out)
    pixels = chest.square(classifier.store_px)
    p = classifier.probe.predict(extract_features(classifier.encoder, pixels, size_px=classifier.size_px))
    with (run.out / "split.csv").open(newline="") as file:
        test = {row["case_id"] for row in csv.DictReader(file) if row["part"] == "test"}
    rows = np.isin(chest.column("case_id"), list(test))
    found = roc_auc_score(chest.column("opacity")[rows], p[rows, 1])
    budget = run.results["budgets"][-1]
    [row] = [
        r for r in run.results["metrics"] if (r["arm"], r["budget"], r["name"]) == ("simclr", budget, "auroc")
    ]
    assert found == pytest.approx(row["value"], abs=1e-6)


def test_a_folder_with_something_unreadable(run: Learned, images: Path, tmp_path: Path) -> None:
    good = sorted(images.iterdir())[:3]
    for path in good:
        shutil.copy(path, tmp_path)
    (tmp_path / "broken.png").write_bytes(good[-1].read_bytes()[:40])
    (tmp_path / "notes.txt").write_text("no image")
    predictions = predict(
        run.out, [tmp_path, tmp_path / good[0].name], out=tmp_path / "out" / "predictions.csv"
    )
    assert predictions.unreadable == 2
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == predictions.rows
    assert len(rows) == 5  # a file that is named twice counts once
    for row in rows:
        broken = Path(row["file"]).name in ("broken.png", "notes.txt")
        assert row["status"] == ("unreadable" if broken else "ok")
        assert bool(row["reason"]) is broken
        assert (row["prediction"] == "") is broken
        assert (row["probability_opacity"] == "") is broken


def test_batches_make_no_difference(run: Learned, images: Path) -> None:
    files = sorted(images.iterdir())[:7]
    assert predict(run.out, files, batch_size=3).rows == predict(run.out, files).rows


@pytest.mark.slow
def test_numbers_and_several_classes(run: Learned, chest: Collection, images: Path, tmp_path: Path) -> None:
    files = sorted(images.iterdir())[:4]
    for target in ("Patient Age", "side"):
        settings = replace(QUICK, target=target, budgets=(10,), seeds=1, resamples=20, supervised=False)
        evaluate(chest, target, run.out, tmp_path / target, evaluation=settings)
    ages = predict(tmp_path / "Patient Age", files).rows
    assert set(ages[0]) == {"file", "status", "reason", "prediction"}
    assert all(0 < float(row["prediction"]) < 120 for row in ages)
    sides = predict(tmp_path / "side", files).rows
    assert set(sides[0]) >= {"probability_left", "probability_none", "probability_right"}
    for row in sides:
        p = {name: float(row[f"probability_{name}"]) for name in ("left", "none", "right")}
        assert sum(p.values()) == pytest.approx(1, abs=2e-4)
        assert row["prediction"] == max(p, key=lambda name: p[name])


def test_no_files_and_no_run(run: Learned, images: Path, tmp_path: Path) -> None:
    with pytest.raises(FewlabelError, match=r"no file or folder .*nowhere"):
        predict(run.out, [tmp_path / "nowhere.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FewlabelError, match="No file was found"):
        predict(run.out, [tmp_path / "empty"])
    with pytest.raises(FewlabelError, match="is no finished run"):
        predict(tmp_path, [images])
    (tmp_path / "is a folder").mkdir()
    with pytest.raises(FewlabelError, match="could not be written"):
        predict(run.out, sorted(images.iterdir())[:1], out=tmp_path / "is a folder")


@pytest.mark.parametrize("name", ["encoder.safetensors", "classifier.safetensors", "model.json"])
def test_a_damaged_model(name: str, run: Learned, images: Path, tmp_path: Path) -> None:
    shutil.copytree(run.out / "model", tmp_path / "model")
    path = tmp_path / "model" / name
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(FewlabelError, match=f"{name} cannot be read"):
        predict(tmp_path, [images])


def test_something_that_is_no_encoder(run: Learned, tmp_path: Path) -> None:
    with pytest.raises(FewlabelError, match="holds no Fewlabel encoder"):
        load_encoder(run.out / "model" / "classifier.safetensors")


@pytest.mark.parametrize(
    ("names", "status"), [(["good.png"], 0), (["good.png", "bad.png"], 3), (["bad.png"], 1)]
)
def test_exit_status_of_the_command(
    names: list[str],
    status: int,
    run: Learned,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(sorted(images.glob("*.png"))[0], tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    files = [str(tmp_path / name) for name in names]
    out = tmp_path / "predictions.csv"
    monkeypatch.setattr("sys.argv", ["fewlabel", "predict", str(run.out), *files, "--out", str(out)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert (stopped.value.code or 0) == status
    shown = capsys.readouterr()
    assert f"{len(names) - names.count('bad.png')} of {len(names)} files predicted" in shown.out
    lines = shown.err.splitlines()
    assert len(lines) == names.count("bad.png")
    assert all(line.startswith("unreadable: ") and "bad.png: " in line for line in lines)
    assert len(out.read_text().splitlines()) == len(names) + 1
