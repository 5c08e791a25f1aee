"""Optimizers and the learning rate over time."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from fewlabel.training.optimizers import learning_rate, make_optimizer
from fewlabel.types import FewlabelError, Schedule


def test_warm_up_and_cosine_by_hand() -> None:
    schedule = Schedule(steps=10, batch_size=1, learning_rate=4.0, warmup_steps=2)
    rates = [learning_rate(step, schedule) for step in range(11)]
    assert rates[:3] == [2.0, 4.0, 4.0]
    assert rates[4] == pytest.approx(4 * 0.5 * (1 + 2**-0.5))  # a quarter of the way down
    assert rates[6] == pytest.approx(2.0)  # half way
    assert rates[10] == pytest.approx(0.0)
    assert all(a > b for a, b in itertools.pairwise(rates[2:]))


def test_without_warm_up_and_with_nothing_else() -> None:
    assert learning_rate(0, Schedule(4, 1, 1.0)) == 1.0
    only = Schedule(4, 1, 1.0, warmup_steps=4)
    assert [learning_rate(step, only) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_a_constant_rate_is_warmed_up_and_stays() -> None:
    plan = Schedule(6, 1, 4.0, warmup_steps=2, decay="constant")
    assert [learning_rate(step, plan) for step in range(6)] == [2.0, 4.0, 4.0, 4.0, 4.0, 4.0]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lars"])
def test_biases_and_norms_do_not_decay(name: str) -> None:
    model = network()
    model[3].bias.requires_grad_(False)
    decays = {
        id(p): group["weight_decay"]
        for group in make_optimizer(model, Schedule(1, 1, 0.1, weight_decay=0.3, optimizer=name)).param_groups
        for p in group["params"]
    }
    expected = {"0.weight": 0.3, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0, "3.weight": 0.3}
    found = {key: decays.get(id(p)) for key, p in model.named_parameters()}
    assert found == {**expected, "3.bias": None}


def step_lengths(name: str, scale: float) -> list[float]:
    """How far each parameter goes in one step when all gradients are `scale`."""
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = make_optimizer(model, Schedule(1, 1, 0.1, weight_decay=0.0, optimizer=name))
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, scale)
    optimizer.step()
    return [float((p.detach() - b).norm()) for p, b in zip(model.parameters(), before, strict=True)]


def test_lars_adapts_to_the_gradient_and_sgd_does_not() -> None:
    small, large = step_lengths("lars", 1.0), step_lengths("lars", 100.0)
    weights, biases = (0, 4), (1, 3, 5)
    for i in weights:  # the trust ratio |w| / |g| takes the gradient's length out
        assert large[i] == pytest.approx(small[i], rel=1e-3)
    for i in biases:
        assert large[i] == pytest.approx(100 * small[i], rel=1e-3)
    assert step_lengths("sgd", 100.0) == pytest.approx([100 * s for s in step_lengths("sgd", 1.0)], rel=1e-3)


def test_lars_step_follows_the_weights_length() -> None:
    """You, Gitman, Ginsburg 2017, arXiv:1708.03888: the step is lr * trust * |w| long, trust being 0.001."""
    lengths = [float(p.detach().norm()) for p in network().parameters()]
    moved = step_lengths("lars", 5.0)
    for i in (0, 4):
        assert moved[i] == pytest.approx(0.1 * 0.001 * lengths[i], rel=1e-3)


def test_momentum_of_sgd() -> None:
    model = nn.Linear(1, 1, bias=False)
    optimizer = make_optimizer(model, Schedule(1, 1, 0.1, weight_decay=0.0, optimizer="sgd"))
    places = [float(model.weight.detach())]
    for _ in range(2):
        model.weight.grad = torch.ones(1, 1)
        optimizer.step()
        places.append(float(model.weight.detach()))
    assert places[0] - places[1] == pytest.approx(0.1)
    assert places[1] - places[2] == pytest.approx(0.19)


def test_unknown_optimizer() -> None:
    wrong: object = "adagrad"
    with pytest.raises(FewlabelError, match="no optimizer called 'adagrad': use sgd, adam, adamw or lars"):
        make_optimizer(network(), Schedule(1, 1, 0.1, optimizer=wrong))  # type: ignore[arg-type]
