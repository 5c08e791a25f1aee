"""The main job from end to end: what results.json holds, who is where, and that it answers at once when done."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import QUICK, TINY, MakeCollection

from fewlabel.collection import Collection, find_duplicates, import_images
from fewlabel.pipeline import (
    EvaluateSettings,
    Learned,
    PretrainSettings,
    arms,
    evaluate,
    learn,
    learning,
    pretrain,
)
from fewlabel.pipeline import evaluating as evaluating_module
from fewlabel.pipeline.evaluating import check_evaluation, evaluate_encoders
from fewlabel.pipeline.pretraining import Pretrained, split_of
from fewlabel.pipeline.runs import read_split
from fewlabel.pipeline.settings import resolve_settings
from fewlabel.report import write_report
from fewlabel.splits import Split
from fewlabel.types import FewlabelError

ARMS = ["simclr", "simclr-knn", "supervised", "random", "pixels", "statistics"]
CLASS_METRICS = [
    "auroc", "average_precision", "balanced_accuracy", "sensitivity_at_90_specificity", "brier", "calibration_error",
]  # fmt: skip


def test_every_arm_has_every_metric_with_an_interval_around_it(run: Learned) -> None:
    results = run.results
    assert [arm["key"] for arm in results["arms"]] == ARMS
    assert results["budgets"][:2] == [10, 20]
    assert results["budgets"][2] == results["data"]["train"]
    cells = {(row["arm"], row["budget"], row["name"]): row for row in results["metrics"]}
    assert set(cells) == {(a, b, m) for a in ARMS for b in results["budgets"] for m in CLASS_METRICS}
    for row in results["metrics"]:
        assert row["low"] - 1e-9 <= row["value"] <= row["high"] + 1e-9
        assert row["n"] == results["data"]["test"]
        assert row["patients"] == results["data"]["test_patients"]
        assert len(row["per_seed"]) == 2
        assert row["value"] == pytest.approx(np.mean(row["per_seed"]))


def test_differences_are_those_of_the_values(run: Learned) -> None:
    value = {(r["arm"], r["budget"]): r["value"] for r in run.results["metrics"] if r["name"] == "auroc"}
    rows = run.results["differences"]
    assert {(r["reference"], r["budget"]) for r in rows} == {(a, b) for a, b in value if a != "simclr"}
    for row in rows:
        expected = value["simclr", row["budget"]] - value[row["reference"], row["budget"]]
        assert row["value"] == pytest.approx(expected)
        assert row["low"] <= row["value"] <= row["high"]
        assert 0 < row["p"] <= 1


def test_the_headline_is_of_the_budget_fixed_before(run: Learned) -> None:
    headline = run.results["headline"]
    assert headline["budget"] == min(run.results["budgets"], key=lambda budget: abs(budget - 50))
    assert headline["reference"] == "supervised"
    assert run.headline == headline["sentence"]


def test_the_files_of_a_run(run: Learned) -> None:
    names = {path.name for path in run.out.iterdir()}
    assert {"results.json", "run.json", "report.html", "split.csv", "model", "pretrain", "figures"} <= names
    assert [path.name for path in run.out.rglob(".*")] == [".lock"]
    assert json.loads((run.out / "results.json").read_text())["metrics"] == run.results["metrics"]
    page = run.report.read_text()
    assert run.headline in page
    assert "not a medical device" in page.lower()
    settings = json.loads((run.out / "run.json").read_text())
    assert settings["pretraining"]["encoder"] == "test_resnet"
    assert settings["evaluation"]["budgets"] == [10, 20]
    assert settings["versions"]["torch"] == torch.__version__


def test_warnings_are_honest(run: Learned) -> None:
    together = " ".join(run.results["warnings"])
    assert "images are made by a program" in together
    assert "patients: the intervals are rough" in together
    assert run.results["made_images"] is True
    assert len(run.results["warnings"]) == len(set(run.results["warnings"]))


def parts_of(run: Learned) -> dict[str, set[str]]:
    with (run.out / "split.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        part: {row["case_id"] for row in rows if row["part"] == part} for part in ("train", "val", "test")
    }


def test_no_patient_is_in_two_parts(run: Learned, chest: Collection) -> None:
    parts = parts_of(run)
    patient = dict(zip(chest.column("case_id"), chest.column("patient_id"), strict=True))
    patients = {part: {patient[case] for case in cases} for part, cases in parts.items()}
    assert sum(len(cases) for cases in parts.values()) == len(chest) == 90
    assert not patients["train"] & patients["test"]
    assert not patients["train"] & patients["val"]
    assert not patients["val"] & patients["test"]
    facts = run.results["data"]
    assert (facts["train"], facts["val"], facts["test"]) == tuple(len(c) for c in parts.values())
    assert (facts["images"], facts["patients"]) == (90, len(set(patient.values())))


def test_test_patients_took_no_part_in_pretraining(run: Learned, chest: Collection) -> None:
    thumbnails = np.load(run.out / "pretrain" / "seed-0" / "thumbnails.npy", allow_pickle=False)
    rows = {part: np.isin(chest.column("case_id"), list(cases)) for part, cases in parts_of(run).items()}
    assert len(thumbnails) == rows["train"].sum() == run.results["data"]["pretraining_images"]
    assert np.array_equal(thumbnails, chest.thumbnails()[rows["train"]])
    assert len(find_duplicates(chest.thumbnails()[rows["test"]], thumbnails)[0]) == 0


def test_label_budgets_are_nested_and_of_training_patients(
    run: Learned, pretrained: Pretrained, chest: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, dict[int, np.ndarray]] = {}

    def look(arms: Any, rows_for: Any, **named: Any) -> Any:
        seen.update({seed: rows_for(seed) for seed in (0, 1)})
        raise InterruptedError

    monkeypatch.setattr(evaluating_module, "run_arms", look)
    with pytest.raises(InterruptedError):
        evaluate_encoders(chest, [pretrained], QUICK)
    train = np.flatnonzero(np.isin(chest.column("case_id"), list(parts_of(run)["train"])))
    for rows in seen.values():
        assert set(rows[10]) < set(rows[20]) < set(rows[len(train)]) == set(train)
        assert (len(rows[10]), len(rows[20])) == (10, 20)
    assert set(seen[0][10]) != set(seen[1][10])


def test_a_finished_run_answers_at_once(
    run: Learned, chest: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pretrain", "evaluate_encoders"):
        monkeypatch.setattr(learning, name, lambda *a, **k: pytest.fail("worked again"))
    before = (run.out / "results.json").read_bytes()
    again = learn(chest, "opacity", run.out, pretraining=TINY, evaluation=QUICK)
    assert again.headline == run.headline
    assert (run.out / "results.json").read_bytes() == before


def test_an_interrupted_run_continues_with_the_same_result(
    run: Learned, chest: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in its last supervised training: nothing that was finished is done again."""
    original, trained = arms.train_on_labels, []

    def stop_at_the_last(*arguments: Any) -> Any:
        trained.append(len(arguments[1].train))
        if len(trained) == 6:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(arms, "train_on_labels", stop_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        learn(chest, "opacity", tmp_path / "run", pretraining=TINY, evaluation=QUICK)
    again = learn(chest, "opacity", tmp_path / "run", pretraining=TINY, evaluation=QUICK)
    assert len(trained) == 7
    assert again.results["metrics"] == run.results["metrics"]
    assert again.headline == run.headline


def test_two_at_a_time_in_one_folder_are_refused(
    chest: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first one pretrains, the same command is given again."""
    out = tmp_path / "run"

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        with pytest.raises(FewlabelError, match=r"another run is writing to .*run: wait until it has ended"):
            learn(chest, "opacity", out, pretraining=TINY, evaluation=QUICK)
        raise KeyboardInterrupt

    monkeypatch.setattr(learning, "pretrain", meanwhile)
    with pytest.raises(KeyboardInterrupt):
        learn(chest, "opacity", out, pretraining=TINY, evaluation=QUICK)


def test_another_setting_in_the_same_folder_is_refused(run: Learned, chest: Collection) -> None:
    with pytest.raises(FewlabelError, match=r"another setting \(pretraining\.steps: 3 there, 4 here\)"):
        learn(chest, "opacity", run.out, pretraining=replace(TINY, steps=4), evaluation=QUICK)
    with pytest.raises(FewlabelError, match=r"evaluation\.target: opacity there, effusion here"):
        learn(chest, "effusion", run.out, pretraining=TINY, evaluation=QUICK)


def test_a_collection_that_grew_is_another_run(run: Learned, make_collection: MakeCollection) -> None:
    other = make_collection("chest", 90, seed=2)
    with pytest.raises(FewlabelError, match="another setting"):
        learn(other, "opacity", run.out, pretraining=TINY, evaluation=QUICK)


@pytest.mark.parametrize(
    ("target", "changes", "message"),
    [
        ("opacty", {}, 'did you mean "opacity"'),
        ("View Position=XY", {}, "PA"),
        ("made", {}, "labelled training images are made = made"),
        ("opacity", {"budgets": (10, 500)}, r"budget of 500 labels .* has \d+ usable"),
        ("opacity", {"budgets": (1,)}, "use budgets from 2"),
        ("opacity", {"where": '"Patient Age" > 900'}, "No image fulfils"),
        ("opacity", {"where": '"View Pos" = 1'}, "View Position"),
        ("opacity", {"where": "opacity = 1"}, "at least two classes are needed"),
    ],
)
def test_mistakes_in_the_question_come_before_any_training(
    target: str, changes: dict[str, Any], message: str, chest: Collection, tmp_path: Path
) -> None:
    with pytest.raises(FewlabelError, match=message) as raised:
        learn(chest, target, tmp_path / "run", pretraining=TINY, evaluation=replace(QUICK, **changes))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "resnet81"}, "Did you mean"),
        ({"encoder": "inception_v3"}, "cannot take images of 32 px"),
        ({"weights": "nowhere.safetensors"}, "no weights file"),
        ({"weights": "model.pth"}, "not a .safetensors file"),
    ],
)
def test_mistakes_in_the_encoder_come_before_any_training(
    changes: dict[str, Any], message: str, chest: Collection, tmp_path: Path
) -> None:
    with pytest.raises(FewlabelError, match=message):
        learn(chest, "opacity", tmp_path / "run", pretraining=replace(TINY, **changes), evaluation=QUICK)
    assert not (tmp_path / "run").exists()
    with pytest.raises(FewlabelError, match=message):
        pretrain([chest], tmp_path / "encoder", replace(TINY, **changes))
    assert not (tmp_path / "encoder").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0), ("batch_size", 1), ("size_px", 0), ("size_px", -5), ("head_layers", 0), ("seed", -1),
        ("learning_rate", 0.0), ("learning_rate", float("nan")), ("temperature", 0.0), ("temperature", float("inf")),
    ],
)  # fmt: skip
def test_impossible_pretraining_settings(field: str, value: float) -> None:
    with pytest.raises(FewlabelError, match=f"^{field} is "):
        replace(TINY, **{field: value})


@pytest.mark.parametrize(("field", "value"), [("seeds", 0), ("validation_labels", 1), ("resamples", 0)])
def test_impossible_evaluation_settings(field: str, value: int) -> None:
    with pytest.raises(FewlabelError, match=f"^{field} is {value}: at least"):
        replace(QUICK, **{field: value})


def test_no_encoder_and_no_collection(chest: Collection, tmp_path: Path) -> None:
    with pytest.raises(FewlabelError, match="pretraining_seeds is 0"):
        learn(chest, "opacity", tmp_path / "run", pretraining_seeds=0)
    with pytest.raises(FewlabelError, match="No collection was given"):
        pretrain([], tmp_path / "run")
    with pytest.raises(FewlabelError, match="no collection at"):
        learn(tmp_path / "nowhere", "opacity", tmp_path / "run")


def test_a_folder_with_something_else_in_it(chest: Collection, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(FewlabelError, match="is not empty and holds no run"):
        learn(chest, "opacity", tmp_path, pretraining=TINY, evaluation=QUICK)
    with pytest.raises(FewlabelError, match="is not empty and holds no run"):
        learn(chest, "opacity", tmp_path / "thesis.txt", pretraining=TINY, evaluation=QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_is_left_out_is_chosen_from_the_images(chest: Collection) -> None:
    chosen = resolve_settings(PretrainSettings(), [chest])
    assert (chosen.size_px, chosen.channels, chosen.small_stem) == (64, 1, False)


class OnePatient:
    """A collection of which only the patients matter."""

    def __init__(self, collection: Collection, patients: np.ndarray) -> None:
        self.collection, self.codes = collection, patients

    def patients(self) -> np.ndarray:
        return self.codes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.collection, name)


def test_one_patient_only(chest: Collection) -> None:
    one: Any = OnePatient(chest, np.zeros(len(chest), dtype=int))
    with pytest.raises(FewlabelError, match=r"1 patient\(s\): a split .* needs at least 3"):
        split_of(one, seed=0)


def test_parts_without_labels_are_named(chest: Collection) -> None:
    nobody = np.array([], dtype=int)
    whole = np.arange(len(chest))
    for split, part in (
        (Split(nobody, whole[:40], whole[40:], ""), "training"),
        (Split(whole[:40], nobody, whole[40:], ""), "validation"),
        (Split(whole[:40], whole[40:], nobody, ""), "test"),
    ):
        with pytest.raises(FewlabelError, match=f"No {part} image has a usable label for 'opacity'"):
            check_evaluation(chest, split, QUICK, TINY)
    numbers: Any = OnePatient(chest, whole)
    numbers.target = lambda name, **_: replace(chest.target("Patient Age"), values=np.ones(len(chest)))
    with pytest.raises(FewlabelError, match="All training values of 'Patient Age' are the same"):
        check_evaluation(numbers, Split(whole[:40], whole[40:60], whole[60:], ""), QUICK, TINY)


@pytest.mark.slow
def test_official_parts_are_kept(make_collection: MakeCollection, tmp_path: Path) -> None:
    """The column `side` of made radiographs is none, left or right; here it stands for the source's own parts."""
    chest = make_collection("source", 60, seed=5)
    images = chest.path.parent / "images"
    with (images / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    patients = sorted({row["Patient ID"] for row in rows})
    part = {patient: ("Training", "TEST")[i % 3 == 0] for i, patient in enumerate(patients)}
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "part"])
        writer.writeheader()
        writer.writerows({**row, "part": part[row["Patient ID"]]} for row in rows)
    import_images(
        images,
        tmp_path / "official",
        labels=tmp_path / "labels.csv",
        patient_column="Patient ID",
        split_column="part",
        workers=1,
    )
    official = Collection.open(tmp_path / "official")
    split = split_of(official, seed=0)
    assert split.origin.startswith("official; validation drawn from its training patients")
    asked = np.array([part[patient] for patient in official.column("patient_id")])
    assert np.array_equal(split.test, np.flatnonzero(asked == "TEST"))
    assert np.array_equal(
        np.sort(np.concatenate([split.train, split.val])), np.flatnonzero(asked == "Training")
    )
    made = learn(
        official, "opacity", tmp_path / "run", pretraining=TINY, evaluation=replace(QUICK, supervised=False)
    )
    assert made.results["data"]["split"] == split.origin
    assert made.results["headline"] is None
    assert "labels saved are not measured" in made.headline


def on_the_same_encoder(run: Learned, chest: Collection, target: str, out: Path, **changes: Any) -> Learned:
    chosen = {"budgets": (10,), "seeds": 1, "resamples": 40, "supervised": False, **changes}
    settings = EvaluateSettings(target, **chosen)
    return evaluate(chest, target, run.out, out, evaluation=settings)


@pytest.mark.slow
def test_another_target_on_the_same_encoder_keeps_the_split(
    run: Learned, chest: Collection, tmp_path: Path
) -> None:
    made = on_the_same_encoder(run, chest, "View Position=AP", tmp_path / "view")
    assert parts_of(made) == parts_of(run)
    assert made.results["target"]["kind"] == "binary"
    assert made.results["data"]["split"] == run.results["data"]["split"]
    assert "pretrained on test images" not in " ".join(made.results["warnings"])
    again = on_the_same_encoder(run, chest, "View Position=AP", tmp_path / "view")
    assert again.results["metrics"] == made.results["metrics"]


@pytest.mark.slow
def test_a_number_as_target(run: Learned, chest: Collection, tmp_path: Path) -> None:
    made = on_the_same_encoder(run, chest, "Patient Age", tmp_path / "age", supervised=True)
    results = made.results
    assert results["target"]["kind"] == "number"
    assert (results["metric"], results["higher_is_better"]) == ("mae", False)
    assert {row["name"] for row in results["metrics"]} == {"mae", "r2"}
    assert all(row["value"] > 0 for row in results["metrics"] if row["name"] == "mae")
    assert len(results["scatter"]["truth"]) == results["data"]["test"]
    assert results["roc"] == []
    assert "Patient Age" in made.report.read_text()


@pytest.mark.slow
def test_three_classes(run: Learned, chest: Collection, tmp_path: Path) -> None:
    made = on_the_same_encoder(run, chest, "side", tmp_path / "side", supervised=True)
    assert made.results["target"]["classes"] == ["left", "none", "right"]
    counts = made.results["data"]["label_counts"]["test"]
    assert sum(counts.values()) == made.results["data"]["test"]
    truth = Counter(chest.column("side"))
    total = {
        name: sum(part[name] for part in made.results["data"]["label_counts"].values()) for name in truth
    }
    assert total == truth


@pytest.mark.slow
def test_only_where_it_holds(run: Learned, chest: Collection, tmp_path: Path) -> None:
    where = "\"View Position\" = 'PA'"
    made = on_the_same_encoder(run, chest, "opacity", tmp_path / "pa", where=where)
    kept = set(chest.column("case_id")[chest.where(where)])
    expected = {part: len(cases & kept) for part, cases in parts_of(run).items()}
    assert {part: made.results["data"][part] for part in expected} == expected
    assert made.results["target"]["where"] == where
    assert made.results["budgets"] == [10, expected["train"]]


@pytest.mark.slow
def test_few_validation_labels(run: Learned, chest: Collection, tmp_path: Path) -> None:
    made = on_the_same_encoder(run, chest, "effusion", tmp_path / "few", validation_labels=4)
    assert made.results["data"]["validation_labels"] == 4


@pytest.mark.slow
def test_two_encoders_share_the_seeds(chest: Collection, tmp_path: Path) -> None:
    settings = replace(QUICK, supervised=False, budgets=(10,), resamples=20)
    made = learn(
        chest, "opacity", tmp_path / "run", pretraining=TINY, evaluation=settings, pretraining_seeds=2
    )
    encoders = [(made.out / "pretrain" / f"seed-{seed}" / "encoder.safetensors") for seed in (0, 1)]
    assert encoders[0].read_bytes() != encoders[1].read_bytes()
    simclr = next(r for r in made.results["metrics"] if (r["arm"], r["name"]) == ("simclr", "auroc"))
    assert len(simclr["per_seed"]) == 2
    splits = [read_split(path.parent / "split.csv", chest) for path in encoders]
    assert splits[0] is not None
    assert splits[1] is not None
    assert np.array_equal(splits[0].test, splits[1].test)


def test_a_report_can_be_written_again(run: Learned) -> None:
    before = re.sub(r"\d\d:\d\d", "", run.report.read_text())
    assert re.sub(r"\d\d:\d\d", "", write_report(run.out).read_text()) == before


@pytest.mark.parametrize("name", ["run.json", "results.json"])
def test_a_damaged_run(name: str, run: Learned, chest: Collection, tmp_path: Path) -> None:
    for each in ("run.json", "results.json"):
        (tmp_path / each).write_bytes((run.out / each).read_bytes())
    (tmp_path / name).write_text('{"half": ')
    with pytest.raises(FewlabelError, match=f"{name} cannot be read .* damaged"):
        learn(chest, "opacity", tmp_path, pretraining=TINY, evaluation=QUICK)


def test_growing_views_need_a_network_that_takes_any_size() -> None:
    with pytest.raises(FewlabelError, match="one size only"):
        PretrainSettings("vit_tiny_patch16_224", start_size_px=32)


def test_learn_is_one_process(chest: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(FewlabelError, match="only pretraining is shared out"):
        learn(chest, "opacity", tmp_path / "run", pretraining=TINY, evaluation=QUICK)
