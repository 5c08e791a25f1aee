"""A whole run on grades: made fundi, every arm, the report's block, predictions, exports, going on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk
from tiny_runs import SIZE_PX, two_steps

from fewlabel import pipeline
from fewlabel.adaptation.features import extract_features
from fewlabel.adaptation.ordinal import OrdinalProbe
from fewlabel.cli import main
from fewlabel.collection import Collection, import_images
from fewlabel.phantoms import write_fundi
from fewlabel.pipeline import (
    EvaluateSettings,
    Learned,
    PretrainSettings,
    arms,
    export_model,
    learn,
    learning,
    load_classifier,
    metric_learning,
    predict,
    results,
    simclr_v2,
)
from fewlabel.pipeline.evaluating import make_arms, make_task
from fewlabel.pipeline.runs import read_split
from fewlabel.types import FewlabelError

GRADES = ("0", "1", "2", "3", "4")
TINY = PretrainSettings(encoder="test_resnet", size_px=SIZE_PX, steps=3, batch_size=16, flips=True)
QUICK = EvaluateSettings(
    "Retinopathy grade",
    grades=GRADES,
    budgets=(10,),
    headline_budget=10,
    seeds=1,
    resamples=40,
    recipe="grading",
)


@pytest.fixture(scope="module")
def fundi(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    root = tmp_path_factory.mktemp("fundi")
    labels = write_fundi(root / "images", 50, seed=1, size_px=SIZE_PX)
    import_images(root / "images", root / "eyes", labels=labels, patient_column="Patient ID", workers=1)
    return Collection.open(root / "eyes")


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (arms, metric_learning, simclr_v2):
            patch.setattr(module, "supervised_schedule", two_steps)
        yield


@pytest.fixture(scope="module")
def graded(fundi: Collection, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    return learn(
        fundi,
        "Retinopathy grade",
        tmp_path_factory.mktemp("graded") / "run",
        pretraining=TINY,
        evaluation=QUICK,
    )


def test_kappa_is_the_main_measure_of_every_arm(graded: Learned) -> None:
    found = graded.results
    assert found["target"] == {
        "name": "Retinopathy grade",
        "kind": "ordinal",
        "classes": list(GRADES),
        "referable": "2",
        "where": None,
    }
    assert (found["metric"], found["higher_is_better"]) == ("kappa", True)
    keys = {arm["key"] for arm in found["arms"]}
    assert keys >= {
        "simclr", "simclr-knn", "finetune", "simclr-ordinal-triplet", "simclr-ordinal-triplet-knn", "supervised",
        "random", "pixels", "statistics",
    }  # fmt: skip
    rows = {(row["arm"], row["name"]): row for row in found["metrics"] if row["budget"] == 10}
    for arm in keys:
        for name in ("kappa", "mae", "auroc_referable", "sensitivity_at_90_specificity", "two_grades_off"):
            row = rows[arm, name]
            assert row["low"] <= row["value"] <= row["high"]
            assert row["patients"] < row["n"]
    assert len(found["labels_saved"]) == 2
    assert "quadratic weighted kappa" in found["labels_saved"][0]["sentence"]


def test_grades_are_learned_where_they_can_be_told(graded: Learned) -> None:
    """Lesions darken a made fundus, so that six plain numbers tell its grade; thresholds and cuts must find that."""
    everything = graded.results["budgets"][-1]
    found = {
        row["name"]: row["value"]
        for row in graded.results["metrics"]
        if (row["arm"], row["budget"]) == ("statistics", everything)
    }
    assert found["kappa"] > 0.6
    assert found["auroc_referable"] > 0.85
    assert found["mae"] < 1


def test_the_block_of_grades_is_what_the_arms_called(graded: Learned, fundi: Collection) -> None:
    block, split = graded.results["grades"], read_split(graded.out / "split.csv", fundi)
    assert split is not None
    assert (block["classes"], block["referable"]) == (list(GRADES), "2")
    truth = np.bincount(fundi.target("Retinopathy grade", grades=GRADES).values[split.test], minlength=5)
    for row in block["confusion"]:
        counts = np.array(row["counts"])
        assert counts.sum(axis=1).tolist() == truth.tolist()
        shares = np.array(row["shares"], float)
        assert np.allclose(shares[truth > 0].sum(axis=1), 1)
        assert row["off_by"]["1"]["value"] == pytest.approx(1 - np.trace(counts) / counts.sum())
        far = np.abs(np.subtract.outer(range(5), range(5))) >= 2
        assert row["off_by"]["2"]["value"] == pytest.approx(counts[far].sum() / counts.sum())
    assert {row["budget"] for row in block["confusion"]} == {10, graded.results["budgets"][-1]}


def test_the_kept_classifier_calls_grades_as_the_evaluation_does(graded: Learned, fundi: Collection) -> None:
    """With all labels and the first seed the ordinal probe is the kept classifier; scikit-learn measures it."""
    classifier, split = load_classifier(graded.out), read_split(graded.out / "split.csv", fundi)
    assert split is not None
    assert isinstance(classifier.probe, OrdinalProbe)
    pixels = fundi.square(classifier.store_px, channels=3)[split.test]
    p = classifier.probe.predict(extract_features(classifier.encoder, pixels, size_px=classifier.size_px))
    y = fundi.target("Retinopathy grade", grades=GRADES).values[split.test]
    called = classifier.called(p)
    everything = graded.results["budgets"][-1]
    rows = {
        row["name"]: row
        for row in graded.results["metrics"]
        if (row["arm"], row["budget"]) == ("simclr", everything)
    }
    assert rows["kappa"]["per_seed"][0] == pytest.approx(
        sk.cohen_kappa_score(y, called, weights="quadratic", labels=range(5)), abs=1e-6
    )
    referable = sk.roc_auc_score(y >= 2, p[:, 2:].sum(axis=1))
    assert rows["auroc_referable"]["per_seed"][0] == pytest.approx(referable, abs=1e-6)


def test_predictions_name_grade_and_referable(graded: Learned, fundi: Collection) -> None:
    files = sorted((fundi.path.parent / "images" / "images").iterdir())[:4]
    classifier = load_classifier(graded.out)
    for row in predict(graded.out, files).rows:
        p = np.array([float(row[f"probability_{grade}"]) for grade in GRADES])
        assert p.sum() == pytest.approx(1, abs=3e-4)
        assert float(row["probability_2_or_more"]) == pytest.approx(p[2:].sum(), abs=3e-4)
        assert row["prediction"] in GRADES
    assert classifier.cuts is not None
    assert list(classifier.cuts.at) == graded.results["grades"]["cuts"]


@pytest.mark.parametrize("to", ["onnx", "torchscript"])
def test_an_exported_network_gives_the_grades_probabilities(graded: Learned, to: str, tmp_path: Path) -> None:
    if to == "onnx":
        pytest.importorskip("onnxruntime")
    exported = export_model(graded.out, to, tmp_path / "out")
    assert exported.equality.largest < 1e-4
    card = exported.card.read_text()
    assert "an ordinal probe" in card
    assert f"reaches: {', '.join(f'{cut:.6g}' for cut in load_classifier(graded.out).cuts.at)}" in card  # type: ignore[union-attr]
    assert "The probability of 2 or more" in card


def test_the_report_shows_the_grades(graded: Learned) -> None:
    page = graded.report.read_text()
    for words in ("Which grade is taken for which", "The farthest mistakes", "quadratic weighted kappa"):
        assert words in page


def test_labels_of_the_test_part_change_no_grade(graded: Learned, fundi: Collection) -> None:
    encoder = learning._load_pretrained(graded.out / "pretrain" / "seed-0", fundi, QUICK, False)
    task = make_task(fundi, encoder, QUICK, features_folder=None)
    other = task.y.copy()
    other[task.test] = 4 - other[task.test]
    turned = replace(task, target=replace(task.target, values=other))
    found = []
    for one in (task, turned):
        [arm] = [a for a in make_arms(one, [encoder], QUICK, None, None) if a.key == "simclr"]
        found.append(arms.graded(one, arm).outputs(task.train, 0).called)
    assert np.array_equal(found[0], found[1])


def test_other_grades_in_the_same_folder_are_refused(graded: Learned, fundi: Collection) -> None:
    other = replace(QUICK, referable="3")
    with pytest.raises(FewlabelError, match=r"another setting \(evaluation\.referable"):
        learn(fundi, "Retinopathy grade", graded.out, pretraining=TINY, evaluation=other)


def test_without_grades_the_order_counts_for_nothing_and_the_report_says_so(fundi: Collection) -> None:
    plain = fundi.target("Retinopathy grade")
    assert plain.kind == "category"
    [hint] = results._order_not_used(plain)
    assert "--grades 0,1,2,3,4" in hint
    assert results._order_not_used(QUICK.target_in(fundi)) == []
    assert results._order_not_used(fundi.target("eye")) == []


def test_grades_that_are_left_out_are_asked_for() -> None:
    with pytest.raises(FewlabelError, match="There came recipe grading and no grades"):
        EvaluateSettings("Retinopathy grade", recipe="grading")
    with pytest.raises(FewlabelError, match="There came referable '2' and no grades"):
        EvaluateSettings("Retinopathy grade", referable="2")


def test_from_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[EvaluateSettings] = []

    def look(*given: Any, evaluation: EvaluateSettings, **named: Any) -> None:
        seen.append(evaluation)
        raise FewlabelError("seen")

    for command in ("learn", "evaluate"):
        monkeypatch.setattr(pipeline, command, look)
        model = ["--model", "m", "--out", "o"] if command == "evaluate" else []
        grades = ["--grades", "0, 1,2", "--referable", "2", "--recipe", "grading"]
        monkeypatch.setattr("sys.argv", ["fewlabel", command, "c", "--target", "g", *model, *grades])
        with pytest.raises(SystemExit):
            main()
    assert [(one.grades, one.referable, one.recipe) for one in seen] == [
        (("0", "1", "2"), "2", "grading")
    ] * 2
