"""The recipe of SimCLRv2 in one command: its arms, its classifier, and going on after an interruption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import QUICK, SIZE_PX, TINY

from fewlabel.adaptation.distill import DistillSettings
from fewlabel.adaptation.features import extract_features
from fewlabel.adaptation.finetune import TrainedNetwork
from fewlabel.collection import Collection
from fewlabel.networks import Encoder, HeadedEncoder
from fewlabel.objectives import Supervised
from fewlabel.pipeline import Learned, SimCLRv2Settings, learn, load_classifier, pretrain, simclr_v2
from fewlabel.pipeline.evaluating import make_task
from fewlabel.pipeline.pretraining import positive_groups
from fewlabel.pipeline.runs import read_split
from fewlabel.pipeline.settings import ObjectiveName
from fewlabel.training.weights import load_head
from fewlabel.types import FewlabelError

SHORT = DistillSettings(temperature=1.0, steps=2, batch_size=16)
RECIPE = replace(
    QUICK,
    budgets=(10,),
    recipe="simclr-v2",
    simclr_v2=SimCLRv2Settings(student="resnet10t", of_own_kind=SHORT, smaller=SHORT, keep="distilled"),
)
STEPS = ["simclr", "finetune", "finetune-head", "self-distilled", "distilled"]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    from tiny_runs import two_steps

    monkeypatch.setattr(simclr_v2, "supervised_schedule", two_steps)


@pytest.fixture(scope="module")
def whole(chest: Collection, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    from tiny_runs import two_steps

    from fewlabel.pipeline import arms

    with pytest.MonkeyPatch.context() as patch:
        for module in (arms, simclr_v2):
            patch.setattr(module, "supervised_schedule", two_steps)
        return learn(
            chest, "opacity", tmp_path_factory.mktemp("v2") / "run", pretraining=TINY, evaluation=RECIPE
        )


@pytest.mark.slow
def test_every_step_is_an_arm_and_its_gain_is_told(whole: Learned) -> None:
    assert [arm["key"] for arm in whole.results["arms"]][:5] == STEPS
    told = {(row["arm"], row["reference"]) for row in whole.results["differences"]}
    assert {("finetune", "simclr"), ("finetune-head", "simclr"), ("distilled", "self-distilled")} <= told
    assert ("simclr", "finetune") not in told
    page = (whole.out / "report.html").read_text()
    assert "fine-tuned from the head" in page
    assert whole.results["abstention"]["arm"] == "distilled"  # the classifier that predict uses
    assert "distilled" in {row["arm"] for row in whole.results["calibration"]}
    assert not list((whole.out / "networks").glob("*/"))  # what was for continuing is gone


@pytest.mark.slow
def test_the_classifier_that_is_kept_is_the_small_student(whole: Learned, chest: Collection) -> None:
    classifier, split = load_classifier(whole.out), read_split(whole.out / "split.csv", chest)
    assert split is not None
    pixels = chest.square(classifier.store_px, channels=1)[split.test]
    features = extract_features(classifier.encoder, pixels, size_px=classifier.size_px)
    budget = whole.results["budgets"][-1]
    assert classifier.encoder.settings.name == "resnet10t"
    with np.load(whole.out / "outputs" / f"distilled-{budget}-0.npz") as kept:
        assert np.allclose(classifier.probe.predict(features), kept["test"], atol=1e-4)


@pytest.mark.slow
def test_an_interrupted_recipe_goes_on(
    whole: Learned, chest: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    original = simclr_v2.distill

    def stop_at_the_second(*arguments: Any, **named: Any) -> Any:
        done.append("distilled")
        if len(done) == 2:
            raise KeyboardInterrupt
        return original(*arguments, **named)

    tuned: list[int] = []
    train = simclr_v2.train_on_labels
    monkeypatch.setattr(simclr_v2, "distill", stop_at_the_second)
    monkeypatch.setattr(simclr_v2, "train_on_labels", lambda *a, **k: (tuned.append(1), train(*a, **k))[1])
    with pytest.raises(KeyboardInterrupt):
        learn(chest, "opacity", tmp_path / "run", pretraining=TINY, evaluation=RECIPE)
    finished = len(tuned)
    again = learn(chest, "opacity", tmp_path / "run", pretraining=TINY, evaluation=RECIPE)
    assert len(tuned) == finished  # every teacher was kept
    assert again.results["metrics"] == whole.results["metrics"]


def test_who_teaches_whom_and_how_many_networks_validation_chose_among(
    chest: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[tuple[str, type]] = []

    def no_training(
        student: Supervised, teachers: list[TrainedNetwork], *_: Any, **__: Any
    ) -> TrainedNetwork:
        teacher = teachers[0].objective
        assert isinstance(teacher, Supervised)
        taught.append((student.encoder.settings.name, type(teacher.encoder)))
        return TrainedNetwork(student, SIZE_PX)

    monkeypatch.setattr(simclr_v2, "distill", no_training)
    monkeypatch.setattr(simclr_v2, "train_on_labels", lambda one, *_, **__: TrainedNetwork(one, SIZE_PX))
    pretrained = pretrain([chest], tmp_path, TINY)
    task = make_task(chest, pretrained, RECIPE, features_folder=None)
    for keep, usual in (("finetune", 1), ("self-distilled", 20), ("distilled", 20 * 11)):
        settings = SimCLRv2Settings(student="resnet10t", smaller=DistillSettings(steps=105), keep=keep)
        recipe = simclr_v2.SimCLRv2(task, [pretrained], settings, None)
        assert recipe.chosen_among == usual
        key, encoder, _ = recipe.final_classifier()
        assert key == keep
        assert encoder.settings.name == ("resnet10t" if keep == "distilled" else "test_resnet")
    assert taught == [("test_resnet", HeadedEncoder), ("test_resnet", HeadedEncoder), ("resnet10t", Encoder)]


@pytest.mark.parametrize(
    ("pretraining", "settings", "expected"),
    [
        ({"objective": "byol"}, {}, "BYOL leaves none: pretrain with the objective simclr or moco"),
        ({"head_layers": 1}, {}, "the head has 1: pretrain with head_layers 2 or more; the paper has 3"),
        ({}, {"student": "resnet99"}, "no encoder called 'resnet99'"),
        (
            {},
            {"student": "test_resnet", "keep": "distilled"},
            "name a smaller student, or keep self-distilled",
        ),
    ],
)
def test_mistakes_show_before_anything_is_trained(
    pretraining: dict[str, Any], settings: dict[str, Any], expected: str, chest: Collection, tmp_path: Path
) -> None:
    wrong = replace(RECIPE, simclr_v2=replace(SimCLRv2Settings(), **settings))
    with pytest.raises(FewlabelError, match=expected):
        learn(chest, "opacity", tmp_path / "run", pretraining=replace(TINY, **pretraining), evaluation=wrong)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("objective", ["simclr", "moco"])
def test_the_head_is_kept_with_the_run(objective: ObjectiveName, chest: Collection, tmp_path: Path) -> None:
    settings = replace(TINY, head_layers=3, objective=objective)
    made = pretrain([chest], tmp_path, settings)
    kept, again = load_head(tmp_path / "head.safetensors"), pretrain([chest], tmp_path, settings).head
    assert made.head is not None
    assert again is not None
    for one in (kept, again):
        assert all(
            np.allclose(a.numpy(), b.numpy())
            for a, b in zip(made.head.state_dict().values(), one.state_dict().values(), strict=True)
        )


def test_patients_as_positives(chest: Collection, tmp_path: Path) -> None:
    rows = (np.arange(len(chest)), np.arange(0, len(chest), 2))
    groups = positive_groups([chest, chest], rows, "patient")
    patients = chest.patients()
    assert groups is not None
    first, second = groups[: len(chest)], groups[len(chest) :]
    assert np.array_equal(first[:, None] == first, patients[:, None] == patients)
    assert not set(first) & set(second)
    assert positive_groups([chest], rows[:1], "views") is None
    made = pretrain([chest], tmp_path, replace(TINY, positives="patient"))
    plain = pretrain([chest], tmp_path / "plain", TINY)
    assert made.fit.history[-1]["loss"] != plain.fit.history[-1]["loss"]


def test_no_two_images_of_a_study_is_said(chest: Collection) -> None:
    one_each = np.unique(chest.patients(), return_index=True)[1]
    with pytest.raises(FewlabelError, match="no patient has more than one image"):
        positive_groups([chest], (one_each,), "patient")
    assert TINY.size_px == SIZE_PX
