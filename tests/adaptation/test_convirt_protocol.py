"""ConVIRT's protocol on labels: what learns when, at which rate, and what stays to the bit."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from fewlabel.adaptation import convirt_protocol as protocol
from fewlabel.adaptation import finetune
from fewlabel.adaptation.convirt_protocol import convirt_protocol
from fewlabel.adaptation.finetune import LabelledImages, TrainedNetwork
from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives import Supervised
from fewlabel.training import Compute, loop
from fewlabel.types import FewlabelError

SIZE, COUNT, BATCH = 16, 60, 10
TRAIN, VAL = np.arange(30), np.arange(30, 60)
EPOCH = 3  # batches of 10 in 30 images
WARM_UP = 5


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(protocol, "HEAD_STEPS", WARM_UP)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(EncoderSettings("test_resnet", 1, SIZE))


def made(kind: Any = "binary") -> LabelledImages:
    """Bright images are class 1; a number is the brightness."""
    rng = np.random.default_rng(0)
    level = rng.uniform(40, 200, COUNT)
    pixels = np.clip(level[:, None, None, None] + rng.normal(0, 20, (COUNT, 1, SIZE, SIZE)), 0, 255)
    y = level if kind == "number" else (level > 120).astype(np.int64)
    classes = 0 if kind == "number" else 2
    return LabelledImages(pixels.astype(np.uint8), y, TRAIN, VAL, kind, classes, SIZE)


def run(encoder: Encoder, kind: Any = "binary", **given: Any) -> TrainedNetwork:
    settings = {"seed": 0, "epochs": 4, "batch_size": BATCH, "compute": Compute("32"), **given}
    return convirt_protocol(encoder, made(kind), **settings)


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class Step(NamedTuple):
    rate: float
    encoder: dict[str, torch.Tensor]  # after it
    head: dict[str, torch.Tensor]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    one_step, found = loop._Run._one_step, list[Step]()

    def recorded(run: loop._Run, feeder: Any) -> float:
        loss = one_step(run, feeder)
        (rate,) = {group["lr"] for group in run.optimizer.param_groups}
        found.append(Step(rate, state(run.objective.encoder), state(run.objective.head)))
        return loss

    monkeypatch.setattr(loop._Run, "_one_step", recorded)
    return found


def has_batch_statistics(encoder: nn.Module) -> bool:
    return any(key.endswith("running_mean") for key in encoder.state_dict())


def test_a_frozen_encoder_stays_to_the_bit_with_its_batch_statistics(
    encoder: Encoder, steps: list[Step]
) -> None:
    assert has_batch_statistics(encoder)
    before = state(encoder)
    trained = run(encoder, frozen=True)
    assert same(state(trained.objective.encoder), before)
    assert all(same(step.encoder, before) for step in steps)
    assert {step.rate for step in steps} == {1e-3}
    heads = [step.head["weight"] for step in steps]
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(heads))
    assert len(steps) == 4 * EPOCH  # there is no warm-up of what learns alone anyway


def test_the_encoder_that_was_given_is_left_alone(encoder: Encoder) -> None:
    before, wanted = state(encoder), [p.requires_grad for p in encoder.parameters()]
    for frozen in (True, False):
        trained = run(encoder, frozen=frozen)
        assert trained.objective.encoder is not encoder
    assert same(state(encoder), before)
    assert [p.requires_grad for p in encoder.parameters()] == wanted
    assert encoder.training


def test_the_last_layer_warms_up_alone_at_its_own_rate_then_everything_learns(
    encoder: Encoder, steps: list[Step]
) -> None:
    before = state(encoder)
    run(encoder)
    assert [step.rate for step in steps] == [1e-3] * WARM_UP + [1e-4] * 4 * EPOCH
    assert all(same(step.encoder, before) for step in steps[:WARM_UP])
    assert not torch.equal(steps[0].head["weight"], steps[WARM_UP - 1].head["weight"])
    first = steps[WARM_UP].encoder
    unmoved = [key for key, _ in encoder.named_parameters() if torch.equal(first[key], before[key])]
    assert unmoved == []
    assert not torch.equal(steps[WARM_UP - 1].head["weight"], steps[WARM_UP].head["weight"])


@pytest.mark.parametrize(("frozen", "rate"), [(True, 1e-3), (False, 1e-4)])
def test_the_rate_is_halved_after_3_stalled_epochs_and_training_ends_after_10(
    encoder: Encoder, steps: list[Step], monkeypatch: pytest.MonkeyPatch, frozen: bool, rate: float
) -> None:
    looks: list[float] = []

    def falling(kind: str, y: np.ndarray, output: np.ndarray) -> float:
        looks.append(-len(looks))
        return looks[-1]

    monkeypatch.setattr(finetune, "validation_score", falling)
    trained = run(encoder, frozen=frozen, epochs=50)
    counted = steps if frozen else steps[WARM_UP:]
    epochs = [rate] * 4 + [rate / 2] * 3 + [rate / 4] * 3 + [rate / 8]
    assert [step.rate for step in counted] == [one for one in epochs for _ in range(EPOCH)]
    assert same(state(trained.objective.head), counted[EPOCH - 1].head)  # of the best epoch, the first


def test_an_epoch_of_few_labels_is_one_step(encoder: Encoder, steps: list[Step]) -> None:
    run(encoder, frozen=True, batch_size=64, epochs=3)
    assert len(steps) == 3


def test_features_are_dropped_in_training_only(encoder: Encoder) -> None:
    torch.manual_seed(0)
    objective = Supervised(copy.deepcopy(encoder), dropout=0.5)
    objective.freeze_encoder()
    x = torch.rand(4, 1, SIZE, SIZE)
    objective.train()
    assert not torch.equal(objective.predict(x), objective.predict(x))
    objective.eval()
    assert torch.equal(objective.predict(x), objective.head(objective.encoder(x)))
    assert run(encoder, epochs=1).objective.dropout.p == 0.2
    assert Supervised(copy.deepcopy(encoder)).dropout.p == 0
    with pytest.raises(FewlabelError, match="dropout is 1"):
        Supervised(encoder, dropout=1)


def test_a_frozen_encoder_stays_in_evaluation_mode_until_it_is_thawed(encoder: Encoder) -> None:
    objective = Supervised(copy.deepcopy(encoder)).train()
    objective.freeze_encoder()
    assert objective.training
    assert not any(module.training for module in objective.train().encoder.modules())
    assert not any(p.requires_grad for p in objective.encoder.parameters())
    objective.freeze_encoder(False)
    assert all(module.training for module in objective.modules())
    assert all(p.requires_grad for p in objective.parameters())
    objective.eval().freeze_encoder()
    assert not any(module.training for module in objective.modules())


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("at", [3, WARM_UP + 2])
def test_an_interrupted_run_ends_with_the_same_weights(
    at: int, encoder: Encoder, tmp_path: Path, steps: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(encoder)
    loss, calls = Supervised.loss, 0

    def stopping(objective: Supervised, batch: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == at:
            raise Interrupted
        return loss(objective, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Supervised, "loss", stopping)
        with pytest.raises(Interrupted):
            run(encoder, out=tmp_path)
    steps.clear()
    again = run(encoder, out=tmp_path)
    assert same(state(again.objective), state(whole.objective))
    assert again.calibration == whole.calibration
    assert len(steps) == 4 * EPOCH + (
        WARM_UP if at < WARM_UP else 0
    )  # a warm-up that was done is not done again


@pytest.mark.parametrize("frozen", [True, False])
def test_mistakes_are_named(encoder: Encoder, frozen: bool) -> None:
    with pytest.raises(FewlabelError, match="batch_size is 0"):
        run(encoder, frozen=frozen, batch_size=0)
    with pytest.raises(FewlabelError, match="steps is 0"):
        run(encoder, frozen=frozen, epochs=0)


@pytest.mark.parametrize("frozen", [True, False])
def test_the_seed_decides_everything(encoder: Encoder, frozen: bool) -> None:
    torch.manual_seed(5)
    first = state(run(encoder, frozen=frozen).objective)
    torch.manual_seed(6)
    assert same(state(run(encoder, frozen=frozen).objective), first)
    other = state(run(encoder, frozen=frozen, seed=1).objective)
    assert not torch.equal(other["head.weight"], first["head.weight"])


@pytest.mark.parametrize("kind", ["binary", "number"])
@pytest.mark.parametrize("frozen", [True, False])
def test_it_learns(encoder: Encoder, frozen: bool, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_STEPS", 60)
    trained = run(encoder, kind, frozen=frozen, epochs=40)
    found = trained.predict(made(kind).pixels, VAL)
    assert np.corrcoef(found[:, 1] if kind == "binary" else found, made(kind).y[VAL])[0, 1] > 0.6
