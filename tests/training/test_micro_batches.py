"""Gradient caching: a batch in pieces has the loss and the gradients of the whole one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from training_runs import SIZE_PX, schedule, small_data, small_objective

from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives import Supervised
from fewlabel.training import Compute, fit
from fewlabel.types import FewlabelError
from fewlabel.views import medical_views

VIEWS = medical_views(SIZE_PX)


def trained(micro_batch: int | None, *, normalised: bool, steps: int = 3) -> tuple[nn.Module, list[float]]:
    """normalised: with batch-norm, whose statistics are those of a piece, and dropout."""
    objective: Any = small_objective()
    if not normalised:
        for name, layer in list(objective.named_modules()):
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.Dropout):
                owner, _, place = name.rpartition(".")
                objective.get_submodule(owner)[int(place)] = nn.Identity()
    plan = schedule("sgd", steps=steps, learning_rate=0.005, micro_batch=micro_batch)
    result = fit(objective, small_data(), VIEWS, plan, log_every=1, compute=Compute("32"))
    return objective, [row["loss"] for row in result.history]


@pytest.mark.parametrize("micro_batch", [1, 3, 4, 8, 50])
def test_pieces_of_any_size_give_the_weights_of_the_whole_batch(micro_batch: int) -> None:
    whole, whole_losses = trained(None, normalised=False)
    pieces, losses = trained(micro_batch, normalised=False)
    assert losses == pytest.approx(whole_losses, abs=1e-5)
    for a, b in zip(whole.parameters(), pieces.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_the_gradient_through_batchnorm_and_dropout_is_that_of_the_loss_computed() -> None:
    """By finite differences: the loss of the next step falls as one small step along the gradient says."""
    _, losses = trained(2, normalised=True, steps=1)
    objective: Any = small_objective()
    plan = schedule("sgd", steps=1, learning_rate=1e-5, micro_batch=2, warmup_steps=0, weight_decay=0.0)
    before = [p.detach().clone() for p in objective.parameters()]
    fit(objective, small_data(), VIEWS, plan, compute=Compute("32"))
    slope = sum(float(p.grad.square().sum()) for p in objective.parameters() if p.grad is not None)
    moved = [(p.detach() - b).abs().max().item() for p, b in zip(objective.parameters(), before, strict=True)]
    assert max(moved) > 0
    again = fit(objective, small_data(), VIEWS, plan, log_every=1, compute=Compute("32"))
    assert losses[0] - again.history[0]["loss"] == pytest.approx(1e-5 * slope, rel=0.05)


def test_batchnorm_remembers_each_piece_once() -> None:
    objective, _ = trained(2, normalised=True, steps=1)
    counts = [int(b) for name, b in objective.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts == [4] * len(counts)


def test_an_objective_without_contrast_is_refused() -> None:
    data = small_data()
    labelled = type(data)(data.sources, data.rows, torch.arange(len(data)).remainder(2).numpy())
    encoder = Encoder(EncoderSettings("test_resnet", 1, 32))
    with pytest.raises(FewlabelError, match="micro_batch is for objectives that contrast"):
        fit(Supervised(encoder), labelled, medical_views(32), schedule(steps=1, micro_batch=2))
