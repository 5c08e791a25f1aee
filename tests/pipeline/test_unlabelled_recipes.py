"""The recipes "three-stage" and "semi-supervised" in one command: arms, classifier, GAN, and going on when stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import QUICK, TINY, two_steps

from fewlabel import pipeline
from fewlabel.adaptation.features import extract_features
from fewlabel.adaptation.semi_supervised import SemiSupervisedSettings
from fewlabel.adaptation.three_stages import ThreeStagesSettings
from fewlabel.cli import main
from fewlabel.collection import Collection
from fewlabel.pipeline import Learned, arms, learn, load_classifier, made_images, three_stages
from fewlabel.pipeline.evaluating import Evaluated, check_evaluation, evaluate_encoders
from fewlabel.pipeline.learning import _load_pretrained
from fewlabel.pipeline.model_card import RunFacts, method_key
from fewlabel.pipeline.pretraining import split_of
from fewlabel.pipeline.runs import read_split
from fewlabel.training.weights import load_generator
from fewlabel.types import FewlabelError

SHORT = SemiSupervisedSettings(steps=2, batch_size=16)
RECIPE = replace(
    QUICK,
    budgets=(10,),
    seeds=1,
    recipe="three-stage",
    semi_supervised=SHORT,
    three_stages=ThreeStagesSettings(frozen_steps=2, joint=SHORT),
)
VAE = replace(TINY, objective="vae")


@pytest.fixture(scope="module")
def whole(chest: Collection, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    with pytest.MonkeyPatch.context() as patch:
        for module in (arms, made_images):
            patch.setattr(module, "supervised_schedule", two_steps)
        out = tmp_path_factory.mktemp("stages") / "run"
        return learn(chest, "opacity", out, pretraining=VAE, evaluation=RECIPE)


@pytest.mark.slow
def test_both_stages_are_arms_and_their_gain_is_told(whole: Learned) -> None:
    keys = [arm["key"] for arm in whole.results["arms"]]
    assert keys[:5] == ["simclr", "three-stage-frozen", "three-stage", "supervised-made-1", "simclr-knn"]
    told = {(row["arm"], row["reference"]) for row in whole.results["differences"]}
    assert {("three-stage-frozen", "simclr"), ("three-stage", "three-stage-frozen")} <= told
    budget = whole.results["budgets"][-1]
    assert sorted(path.name for path in (whole.out / "networks").iterdir()) == [
        "three-stage-10-0-generator.safetensors",
        f"three-stage-{budget}-0-generator.safetensors",
        f"three-stage-{budget}-0.safetensors",
    ]
    assert "VAE + GAN, three stages" in (whole.out / "report.html").read_text()
    facts = RunFacts("onnx", load_classifier(whole.out), {}, {}, whole.results, None)
    assert method_key(facts) == whole.results["final"] == "three-stage"


@pytest.mark.slow
def test_the_classifier_that_is_kept_is_that_of_stage_3(whole: Learned, chest: Collection) -> None:
    classifier, split = load_classifier(whole.out), read_split(whole.out / "split.csv", chest)
    assert split is not None
    pixels = chest.square(classifier.store_px, channels=1)[split.test]
    features = extract_features(classifier.encoder, pixels, size_px=classifier.size_px)
    budget = whole.results["budgets"][-1]
    with np.load(whole.out / "outputs" / f"three-stage-{budget}-0.npz") as kept:
        assert np.allclose(classifier.probe.predict(features), kept["test"], atol=1e-4)


def evaluated(whole: Learned, chest: Collection, folder: Path, **changes: Any) -> Evaluated:
    """The run's encoder, evaluated once more; what lies in the folder is not trained again."""
    settings = replace(RECIPE, supervised=False, **changes)
    encoder = _load_pretrained(whole.out / "pretrain" / "seed-0", chest, settings, False)
    return evaluate_encoders(chest, [encoder], settings, folder=folder)


@pytest.mark.slow
def test_the_gan_of_a_run_is_found_again(
    whole: Learned, chest: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(three_stages, "learn_frozen", lambda *given, **named: pytest.fail("trained again"))
    generator = evaluated(whole, chest, whole.out).generator
    assert generator is not None
    y = torch.tensor([0, 1])
    ours, kept = (
        one.sample(y, torch.Generator().manual_seed(0))
        for one in (generator, load_generator(whole.out / "generator.safetensors"))
    )
    assert torch.equal(ours, kept)
    assert ours.shape == (2, 1, TINY.size_px, TINY.size_px)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["learn_frozen", "learn_jointly"])
def test_an_interrupted_run_goes_on(
    stage: str, whole: Learned, chest: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = getattr(three_stages, stage), []

    def stop_at_the_second(*given: Any, **named: Any) -> Any:
        calls.append(stage)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*given, **named)

    monkeypatch.setattr(three_stages, stage, stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        evaluated(whole, chest, tmp_path)
    evaluated(whole, chest, tmp_path)
    assert len(calls) == 3  # two trainings, of which the second began twice
    for path in (tmp_path / "outputs").iterdir():
        with np.load(path) as ours, np.load(whole.out / "outputs" / path.name) as theirs:
            assert np.array_equal(ours["test"], theirs["test"])


@pytest.mark.slow
def test_the_methods_from_scratch_stand_beside_the_three_stages(
    whole: Learned, chest: Collection, tmp_path: Path
) -> None:
    found = evaluated(whole, chest, tmp_path, recipe="semi-supervised")
    keys = [arm.key for arm in found.arms]
    methods = [
        "m2",
        "gan",
        "mean-teacher",
        "fixmatch",
        "three-stage-frozen",
        "three-stage",
        "supervised-made-1",
    ]
    assert keys[1:8] == methods
    assert (found.final, found.generator) == ("simclr", None)
    networks = [path.name for path in (tmp_path / "networks").iterdir()]
    assert sum("generator" not in name for name in networks) == 1  # the final network of stage 3
    outputs = {path.name for path in (tmp_path / "outputs").iterdir()}
    assert {f"{key}-10-0.npz" for key in methods} <= outputs


def test_what_a_recipe_cannot_do_is_said_before_training(chest: Collection, tmp_path: Path) -> None:
    split = split_of(chest, seed=0)
    for recipe, pretraining, changes, said in (
        ("three-stage", TINY, {}, "SimCLR has none"),
        ("three-stage", VAE, {"target": "Patient Age"}, "the target is a number"),
        ("semi-supervised", TINY, {"target": "Patient Age"}, "recipe semi-supervised learns classes"),
        ("semi-supervised", replace(TINY, size_px=36), {}, "whose side 8 must divide"),
    ):
        settings = replace(RECIPE, recipe=recipe, **changes)  # type: ignore[arg-type]
        with pytest.raises(FewlabelError, match=said):
            check_evaluation(chest, split, settings, pretraining)
        with pytest.raises(FewlabelError, match=said):
            learn(chest, settings.target, tmp_path / "run", pretraining=pretraining, evaluation=settings)
        assert not (tmp_path / "run").exists()


def test_the_short_names_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def learned(*given: Any, pretraining: Any, evaluation: Any, **named: Any) -> Any:
        asked.append((pretraining.objective, evaluation.recipe, evaluation.three_stages.joint.steps))
        raise FewlabelError("enough")

    def said(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["fewlabel", *words])
        with pytest.raises(SystemExit):
            main()
        return capsys.readouterr().err

    monkeypatch.setattr(pipeline, "learn", learned)
    for short in (["--objective", "vae-gan"], ["--objective", "vae", "--recipe", "three-stage"]):
        assert "enough" in said("learn", "c", *short, "--joint-steps", "7")
        assert asked.pop() == ("vae", "three-stage", 7)
    said("learn", "c", "--objective", "autoencoder-gan")
    assert asked.pop()[:2] == ("autoencoder", "three-stage")
    assert "leave one of them out" in said("learn", "c", "--objective", "vae-gan", "--recipe", "metric")
    assert "use it with fewlabel learn" in said("pretrain", "c", "--out", "o", "--objective", "vae-gan")
    assert not asked
