"""Nearest labelled cases in a run, its model and its predictions; a few examples a class."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import QUICK

from fewlabel.adaptation.features import extract_features
from fewlabel.collection import Collection
from fewlabel.pipeline import Learned, evaluate, export_model, load_classifier, predict
from fewlabel.pipeline.evidence import NEAREST
from fewlabel.pipeline.predicting import CASES, EVIDENCE_COLUMNS
from fewlabel.pipeline.runs import read_split
from fewlabel.training import load_tensors
from fewlabel.types import FewlabelError


@pytest.fixture(scope="module")
def images(chest: Collection) -> Path:
    return chest.path.parent / "images" / "images"


def _parts(run: Learned, chest: Collection) -> dict[str, str]:
    """Part by case."""
    split = read_split(run.out / "split.csv", chest)
    assert split is not None
    ids = chest.column("case_id")
    return {str(ids[row]): part for part in ("train", "val", "test") for row in split.part(part)}  # type: ignore[arg-type]


def test_the_model_keeps_features_labels_and_ids_and_no_pixels(run: Learned, chest: Collection) -> None:
    tensors, said = load_tensors(run.out / "model" / CASES)
    assert set(tensors) == {"features", "y"}
    assert set(said) == {"cases", "patients"}
    parts, cases = _parts(run, chest), json.loads(said["cases"])
    assert sorted(cases) == sorted(case for case, part in parts.items() if part == "train")
    row = {str(case): i for i, case in enumerate(chest.column("case_id"))}
    rows = [row[case] for case in cases]
    assert json.loads(said["patients"]) == chest.column("patient_id")[rows].tolist()
    assert tensors["y"].tolist() == chest.target("opacity").values[rows].tolist()
    classifier = load_classifier(run.out)
    features = extract_features(
        classifier.encoder, chest.square(classifier.store_px)[rows], size_px=classifier.size_px
    )
    np.testing.assert_allclose(tensors["features"].numpy(), features, atol=1e-5)
    keeps = json.loads((run.out / "model" / "model.json").read_text())["keeps"]
    assert keeps == f"features, labels, case ids and patient ids of {len(rows)} training images, no pixels"


def test_predictions_name_cases_of_other_patients_in_training(
    run: Learned, chest: Collection, images: Path
) -> None:
    parts = _parts(run, chest)
    patient = dict(zip(chest.column("case_id"), chest.column("patient_id"), strict=True))
    label = dict(zip(chest.column("case_id"), chest.target("opacity").values, strict=True))
    rows = predict(run.out, [images]).rows
    assert list(rows[0])[-3:] == list(EVIDENCE_COLUMNS)
    seen = set()
    for row in rows:
        own = "images/" + Path(row["file"]).name
        found = [one.rsplit(": ", 1) for one in row["neighbours"].split("; ")]
        assert len(found) == NEAREST
        for case, said in found:
            assert parts[case] == "train"
            assert patient[case] != patient[own]  # training images too, though a PNG does not say whose it is
            assert said.startswith(("not opacity (", "opacity (")[label[case]])
        names = [said.rsplit(" (", 1)[0] for _, said in found]
        share = names.count(row["prediction"]) / NEAREST
        assert row["agreement"] == f"{share:.2f}"
        assert row["neighbours_disagree"] == ("yes" if share < 0.5 else "no")
        seen.add(parts[own])
    assert seen == {"train", "val", "test"}


def test_unreadable_files_and_abstained_ones(run: Learned, images: Path, tmp_path: Path) -> None:
    good = sorted(images.glob("*.png"))[0]
    (tmp_path / "bad.png").write_bytes(b"nothing")
    bad, fine = predict(run.out, [tmp_path / "bad.png", good]).rows
    assert [bad[name] for name in EVIDENCE_COLUMNS] == ["", "", ""]
    assert all(fine[name] for name in EVIDENCE_COLUMNS)


def test_a_run_of_an_earlier_version_has_no_such_columns(run: Learned, images: Path, tmp_path: Path) -> None:
    shutil.copytree(run.out / "model", tmp_path / "model")
    (tmp_path / "model" / CASES).unlink()
    file = sorted(images.iterdir())[0]
    [old], [new] = predict(tmp_path, [file]).rows, predict(run.out, [file]).rows
    assert old == {name: value for name, value in new.items() if name not in EVIDENCE_COLUMNS}


@pytest.mark.parametrize("damage", ["cut", "another file"])
def test_damaged_cases_are_one_sentence(damage: str, run: Learned, images: Path, tmp_path: Path) -> None:
    shutil.copytree(run.out / "model", tmp_path / "model")
    path = tmp_path / "model" / CASES
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:50])
    else:
        shutil.copy(run.out / "model" / "classifier.safetensors", path)
    with pytest.raises(FewlabelError, match=r"cases\.safetensors (cannot be read|does not hold)") as raised:
        predict(tmp_path, [images])
    assert "\n" not in str(raised.value)


def test_the_report_shows_right_and_wrong_images_with_cases(run: Learned) -> None:
    given = run.results["evidence"]
    assert given["k"] == NEAREST
    assert given["labels"] == run.results["data"]["train"]
    agree, disagree = given["wrong_where"]
    assert agree["n"] + disagree["n"] == run.results["data"]["test"]
    wrong = sum(round(row["value"] * row["n"]) for row in (agree, disagree) if row["n"])
    error = run.results["abstention"]["error"]["value"]
    assert wrong == round(error * run.results["data"]["test"])
    assert 2 <= len(given["cases"]) <= 6
    for case in given["cases"]:
        query = case["query"]
        assert query["right"] == (query["truth"] == query["prediction"])
        assert (run.out / query["figure"]).exists()
        assert len(case["hits"]) == NEAREST
        for hit in case["hits"]:
            assert hit["agrees"] == (hit["truth"] == query["prediction"])
            assert (run.out / hit["figure"]).exists()
        assert case["agreement"] == pytest.approx(np.mean([hit["agrees"] for hit in case["hits"]]))
        assert case["match"] is None
    assert given["note"].startswith("At 32 px the encoder has 1 x 1 places, too few")
    page = run.report.read_text()
    for section in ("few-shot", "evidence", "worth-a-look"):
        assert f'<section aria-labelledby="{section}">' in page


def test_a_few_examples_of_each_encoder(run: Learned) -> None:
    given = run.results["few_shot"]
    assert {(row["arm"], row["shots"]) for row in given["rows"]} == {
        (arm, shots) for arm in ("simclr", "random", "pixels") for shots in given["shots"]
    }
    assert given["chance"] == 0.5
    for row in given["rows"]:
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
        assert row["draw_low"] <= row["value"] <= row["draw_high"]
        assert row["patients"] == run.results["data"]["test_patients"]
    for shots in {1, 5, 10} - set(given["shots"]):
        assert f"{shots} examples a class: left out" in given["note"]


def test_the_model_card_says_what_the_run_keeps(run: Learned, tmp_path: Path) -> None:
    card = export_model(run.out, "torchscript", tmp_path / "shipped").card.read_text()
    labels = run.results["data"]["train"]
    assert f"keeps features, labels, case ids and patient ids of {labels} training images, no pixels" in card
    assert "this export holds none of it" in card
    assert {path.name for path in (tmp_path / "shipped").iterdir()} == {"model.ts", "MODEL_CARD.md"}


def test_a_number_has_no_cases(run: Learned, chest: Collection, images: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    settings = replace(QUICK, target="Patient Age", budgets=(10,), seeds=1, resamples=20, supervised=False)
    ages = evaluate(chest, "Patient Age", run.out, tmp_path / "ages", evaluation=settings)
    assert not (ages.out / "model" / CASES).exists()
    assert "evidence" not in ages.results
    assert "few_shot" not in ages.results
    notes = ages.results["worth_a_look"]["notes"]
    assert notes == ["Patient Age is a number: wrong ones are not looked for, only classes."]
    assert set(predict(ages.out, sorted(images.iterdir())[:1]).rows[0]) == {
        "file", "status", "reason", "prediction",
    }  # fmt: skip
