"""Semi-supervised training: what is learned, what is kept, what must not be seen, and going on after a stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_images import (
    ROWS,
    TEST,
    UNLABELLED,
    VAL,
    checkpoints_every,
    made,
    small_encoder,
    stop_at_checkpoint,
)

from fewlabel.adaptation.finetune import TrainedNetwork
from fewlabel.adaptation.probe import validation_score
from fewlabel.adaptation.semi_supervised import (
    SemiSupervisedObjective,
    SemiSupervisedSettings,
    learn_semi_supervised,
)
from fewlabel.objectives import GAN, M2, FixMatch, MeanTeacher
from fewlabel.training import Compute, load_tensors
from fewlabel.types import FewlabelError

PLAN = SemiSupervisedSettings(steps=30, batch_size=16, learning_rate=3e-3)
KINDS = ["m2", "gan", "mean-teacher", "fixmatch"]


def objective(kind: str) -> SemiSupervisedObjective:
    torch.manual_seed(0)
    encoder = small_encoder()
    found: dict[str, Any] = {
        "m2": lambda: M2(encoder, latent_dim=4, hidden_dim=16, width=8),
        "gan": lambda: GAN(encoder, latent_dim=4, width=8),
        "mean-teacher": lambda: MeanTeacher(encoder, momentum=0.9),
        "fixmatch": lambda: FixMatch(encoder, threshold=0.8),
    }
    return found[kind]()


def learned(
    kind: str, out: Path | None = None, plan: SemiSupervisedSettings = PLAN, **more: Any
) -> TrainedNetwork:
    images = replace(made(), **more)
    return learn_semi_supervised(
        objective(kind), images, UNLABELLED, plan, seed=0, out=out, compute=Compute("32")
    )


def state(trained: TrainedNetwork) -> dict[str, torch.Tensor]:
    untyped: Any = trained.objective
    return untyped.state_dict()


def same(one: TrainedNetwork, other: TrainedNetwork) -> bool:
    return all(torch.equal(value, state(other)[key]) for key, value in state(one).items())


@pytest.mark.parametrize("kind", KINDS)
def test_each_method_learns_and_its_answers_are_calibrated(kind: str) -> None:
    images, trained = made(), learned(kind)
    assert validation_score("binary", images.y[TEST], trained.logits(images.pixels, TEST)) > 0.9
    probabilities = trained.predict(images.pixels, TEST)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert trained.calibration.slope != 1.0


@pytest.mark.parametrize("kind", ["m2", "fixmatch"])
def test_labels_of_unlabelled_and_test_images_change_nothing(kind: str) -> None:
    images, short = made(), replace(PLAN, steps=4)
    y = images.y.copy()
    hidden = np.setdiff1d(np.arange(len(y)), np.concatenate([ROWS, VAL]))
    y[hidden] = 1 - y[hidden]
    assert same(learned(kind, plan=short), learned(kind, plan=short, y=y))


def test_the_unlabelled_images_take_part() -> None:
    images, short = made(), replace(PLAN, steps=4)
    pixels = images.pixels.copy()
    pixels[np.setdiff1d(UNLABELLED, ROWS)] //= 2
    assert not same(learned("fixmatch", plan=short), learned("fixmatch", plan=short, pixels=pixels))


@pytest.mark.parametrize("kind", ["gan", "mean-teacher"])
def test_a_stopped_training_goes_on(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(PLAN, steps=12)
    checkpoints_every(5, monkeypatch)
    whole = learned(kind, tmp_path / "whole", plan)
    with monkeypatch.context() as patch:
        stop_at_checkpoint(2, patch)
        with pytest.raises(KeyboardInterrupt):
            learned(kind, tmp_path / "run", plan)
    again = learned(kind, tmp_path / "run", plan)
    assert same(whole, again)
    assert whole.calibration == again.calibration
    assert same(learned(kind, tmp_path / "run", plan), again)  # which only reads


def test_a_gan_keeps_its_best_classifier_and_its_last_generator(tmp_path: Path) -> None:
    trained = learned("gan", tmp_path)
    best, about = load_tensors(tmp_path / "best.safetensors")
    last, _ = load_tensors(tmp_path / "checkpoint.safetensors")
    assert int(about["step"]) < PLAN.steps  # else this test says nothing
    assert {key.split(".")[0] for key in best} == {"encoder", "head"}
    for key, value in state(trained).items():
        assert torch.equal(value, best[key] if key in best else last[f"model.{key}"])
    assert not torch.equal(best["head.bias"], last["model.head.bias"])


@pytest.mark.parametrize(("kind", "said"), [("number", "is a number"), ("ordinal", "the target has grades")])
def test_only_plain_classes_are_learned(kind: Any, said: str) -> None:
    with pytest.raises(FewlabelError, match=said):
        learn_semi_supervised(objective("fixmatch"), replace(made(), kind=kind), UNLABELLED, PLAN, seed=0)


def test_a_share_of_labels_lies_between_0_and_1() -> None:
    with pytest.raises(FewlabelError, match="labelled_share is 1"):
        SemiSupervisedSettings(labelled_share=1.0)
