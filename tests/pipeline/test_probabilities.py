"""Calibration before and after, and abstaining, in results.json and in the model: from whom each figure comes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics as sk
from tiny_runs import QUICK

from fewlabel.adaptation.features import extract_features
from fewlabel.adaptation.probe import Calibration
from fewlabel.collection import Collection
from fewlabel.pipeline import Learned, load_classifier, probabilities
from fewlabel.pipeline.arms import supervised_arm
from fewlabel.pipeline.evaluating import Evaluated, evaluate_encoders
from fewlabel.pipeline.pretraining import Pretrained
from fewlabel.pipeline.probabilities import abstention, calibration_rows, validation_cases
from fewlabel.pipeline.runs import read_split
from fewlabel.training import load_tensors

ONE_ARM = replace(QUICK, budgets=(10,), seeds=1, resamples=30, supervised=False)


@pytest.fixture(scope="module")
def evaluated(pretrained: Pretrained, chest: Collection) -> Evaluated:
    return evaluate_encoders(chest, [pretrained], ONE_ARM)


def with_labels(evaluated: Evaluated, rows: np.ndarray) -> Evaluated:
    """The same evaluation, the labels of some rows turned round."""
    values = evaluated.task.y.copy()
    values[rows] = 1 - values[rows]
    target = replace(evaluated.task.target, values=values)
    return replace(evaluated, task=replace(evaluated.task, target=target))


def kept_answers(run: Learned, chest: Collection) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, and the kept classifier's probabilities before and after calibration, of the test images."""
    classifier, split = load_classifier(run.out), read_split(run.out / "split.csv", chest)
    assert split is not None
    pixels = chest.square(classifier.store_px)[split.test]
    features = extract_features(classifier.encoder, pixels, size_px=classifier.size_px)
    before = replace(classifier.probe, calibration=Calibration())
    y = chest.target("opacity").values[split.test].astype(int)
    return y, before.predict(features), classifier.probe.predict(features)


def test_scores_before_and_after_are_those_of_the_classifier(run: Learned, chest: Collection) -> None:
    """With all labels the linear probe is the kept classifier; scikit-learn measures it."""
    y, before, after = kept_answers(run, chest)
    assert not np.allclose(before, after, atol=0.01)
    everything = run.results["budgets"][-1]
    [row] = [r for r in run.results["calibration"] if (r["arm"], r["budget"]) == ("simclr", everything)]
    scores = {score["name"]: score for score in row["scores"]}
    assert list(scores) == ["calibration_error", "brier", "log_loss"]
    for side, p in (("before", before), ("after", after)):
        assert scores["brier"][side]["value"] == pytest.approx(sk.brier_score_loss(y, p[:, 1]), abs=1e-5)
        assert scores["log_loss"][side]["value"] == pytest.approx(sk.log_loss(y, p[:, 1]), abs=1e-5)
        bins = row if side == "after" else row["before"]
        assert sum(bins["count"]) == len(y)
        mean = np.average(bins["predicted"], weights=bins["count"])
        assert mean == pytest.approx(p[:, 1].mean(), abs=1e-5)
        assert np.average(bins["observed"], weights=bins["count"]) == pytest.approx(y.mean())
    for score in scores.values():
        assert score["before"]["low"] <= score["before"]["value"] <= score["before"]["high"]


def test_every_arm_of_the_diagrams_has_both_sides(run: Learned) -> None:
    rows = run.results["calibration"]
    assert {row["arm"] for row in rows} == {"simclr", "supervised"}
    assert all(row["scores"] and row["before"]["count"] for row in rows)


def test_several_classes_are_judged_by_the_class_called() -> None:
    p = np.array([[[0.7, 0.2, 0.1], [0.15, 0.1, 0.75], [0.3, 0.38, 0.32]]])
    bins = probabilities._bins(p, np.array([0, 1, 1]))
    assert bins["count"] == [1, 2]
    assert bins["predicted"] == pytest.approx([0.38, 0.725])
    assert bins["observed"] == pytest.approx([1.0, 0.5])


def test_the_kept_cases_are_one_of_each_validation_patient(run: Learned, chest: Collection) -> None:
    split = read_split(run.out / "split.csv", chest)
    assert split is not None
    kept = load_tensors(run.out / "model" / "validation.safetensors")[0]
    patients = len(np.unique(chest.patients()[split.val]))
    assert patients < len(split.val)
    assert set(kept) == {"confidence", "wrong"}
    assert kept["confidence"].shape == kept["wrong"].shape == (patients,)
    assert run.results["abstention"]["validation_patients"] == patients


def test_risk_and_coverage_are_those_of_the_classifier(run: Learned, chest: Collection) -> None:
    y, _, after = kept_answers(run, chest)
    wrong, confidence = (after[:, 1] >= 0.5) != y, after.max(axis=1)
    given = run.results["abstention"]
    assert given["error"]["value"] == pytest.approx(wrong.mean())
    assert given["curve"]["coverage"][-1] == 1.0
    assert given["curve"]["risk"][-1] == pytest.approx(wrong.mean())
    surest = wrong[np.argsort(-confidence)]
    aurc = (np.cumsum(surest) / np.arange(1, len(y) + 1)).mean()
    assert given["aurc"]["value"] == pytest.approx(aurc)
    assert (given["n"], given["patients"]) == (len(y), run.results["data"]["test_patients"])
    for low, value, high in zip(*(given["curve"][key] for key in ("low", "risk", "high")), strict=True):
        assert low - 0.2 <= value <= high + 0.2
        assert 0 <= low <= high <= 1


def test_thresholds_come_from_validation_and_never_from_test(
    evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probabilities, "ASKED_RISKS", (0.02, 0.97))
    task = evaluated.task

    def asked(labels: Evaluated) -> tuple[float, float]:
        block = abstention(labels)
        assert block is not None
        none, some = block["asked"]
        assert none == {"risk": 0.02, "threshold": None}
        assert some["bound"] <= 0.97
        return some["bound"], some["achieved"]["value"]

    def kept(labels: Evaluated) -> list[bool]:
        cases = validation_cases(labels)
        assert cases is not None
        return list(cases.wrong)

    bound, achieved = asked(evaluated)
    turned = asked(with_labels(evaluated, task.test))
    assert turned[0] == bound
    assert turned[1] == pytest.approx(1 - achieved)
    assert kept(with_labels(evaluated, task.test)) == kept(evaluated)
    assert kept(with_labels(evaluated, task.val)) == [not wrong for wrong in kept(evaluated)]


def test_a_number_has_neither(evaluated: Evaluated) -> None:
    number = replace(evaluated.task, target=replace(evaluated.task.target, kind="number"))
    curves = replace(evaluated.curves, uncalibrated={})
    without = replace(evaluated, task=number, curves=curves)
    assert abstention(without) is None
    assert validation_cases(without) is None
    assert calibration_rows(without, 10) == []


def test_kept_outputs_of_an_earlier_version_are_made_again(evaluated: Evaluated, tmp_path: Path) -> None:
    """They lack the probabilities before calibration."""
    arm, rows = supervised_arm(evaluated.task, tmp_path), evaluated.task.train[:12]
    first = arm.outputs(rows, 0)
    [path] = tmp_path.glob("*.npz")
    before = path.stat().st_mtime_ns
    again = arm.outputs(rows, 0)
    assert path.stat().st_mtime_ns == before
    assert first.uncalibrated is not None
    assert again.uncalibrated is not None
    assert np.array_equal(first.uncalibrated, again.uncalibrated)
    np.savez(path, val=first.val, test=first.test)
    renewed = arm.outputs(rows, 0)
    assert renewed.uncalibrated is not None
    assert np.array_equal(renewed.test, first.test)
