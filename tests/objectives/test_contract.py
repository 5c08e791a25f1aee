"""What every objective in OBJECTIVES promises. A new one passes by being listed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives import MAE, OBJECTIVES
from fewlabel.training import TrainingSet, channels_last, fit, load_tensors, save_tensors
from fewlabel.types import Batch, Schedule
from fewlabel.views import plain_view

SIZE = 32


def make(cls: Callable[..., nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    name = "test_vit" if cls is MAE else "resnet18"  # MAE is for transformers only
    return cls(Encoder(EncoderSettings(name, channels=1, size_px=SIZE)))


def batch_for(objective: nn.Module, labelled: bool = True) -> Batch:
    generator = torch.Generator().manual_seed(1)
    views = tuple(torch.rand(6, 1, SIZE, SIZE, generator=generator) for _ in range(objective.view_count))
    labels = torch.tensor([0, 1, 0, 1, -1, 0]) if labelled else torch.full((6,), -1)
    return Batch(views=views, labels=labels)


@pytest.fixture(params=OBJECTIVES, ids=lambda cls: cls.name)
def objective_class(request: pytest.FixtureRequest) -> type[nn.Module]:
    return request.param


def test_says_what_it_is(objective_class: type[nn.Module]) -> None:
    assert objective_class.name
    assert objective_class.paper
    assert objective_class.view_count >= 1
    assert isinstance(objective_class.needs_labels, bool)


def test_loss_is_a_finite_scalar_with_gradients_everywhere(objective_class: type[nn.Module]) -> None:
    objective = make(objective_class)
    loss = objective.loss(batch_for(objective))
    assert loss.shape == ()
    assert torch.isfinite(loss)
    loss.backward()
    without = [name for name, p in objective.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_frozen_parameters_get_no_gradient(objective_class: type[nn.Module]) -> None:
    objective = make(objective_class)
    objective.encoder.requires_grad_(False)
    before = [p.clone() for p in objective.encoder.parameters()]
    objective.loss(batch_for(objective)).backward()
    assert all(p.grad is None for p in objective.encoder.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, objective.encoder.parameters(), strict=True))


def test_tolerates_a_batch_without_labels(objective_class: type[nn.Module]) -> None:
    objective = make(objective_class)
    for batch in (batch_for(objective, labelled=False), Batch(views=batch_for(objective).views)):
        loss = objective.loss(batch)
        assert torch.isfinite(loss)
        loss.backward()


def test_same_seed_same_weights_and_survives_saving(objective_class: type[nn.Module], tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 1, SIZE, SIZE), dtype=np.uint8)
    data = TrainingSet((images,), (np.arange(12),), np.array([0, 1] * 6))
    states = []
    for _ in range(2):
        objective = make(objective_class)
        fit(objective, data, plain_view(SIZE), Schedule(2, 6, 1e-3))
        states.append(objective.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    save_tensors(states[0], tmp_path / "objective.safetensors")
    again = make(objective_class, seed=5)
    channels_last(again)  # as fit() leaves a network; another order of sums would differ in the last bit
    again.load_state_dict(load_tensors(tmp_path / "objective.safetensors")[0])
    batch = batch_for(objective)
    again.eval()
    objective.eval()
    losses = []
    for one in (again, objective):
        torch.manual_seed(0)  # a loss may draw random numbers, such as masks
        losses.append(one.loss(batch))
    assert torch.equal(*losses)
