"""Optimizers and the learning rate over time."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from fewlabel.networks.torchvision_shim import ensure_torchvision
from fewlabel.types import FewlabelError, Schedule


def make_optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """SGD (momentum 0.9), Adam, AdamW or LARS over all parameters that take gradients.

    Biases and the parameters of normalisation layers get no weight decay, and under LARS no trust ratio, as in
    SimCLR's published code. A model with `parameter_groups() -> {name: parameters}` has its groups kept apart, under
    these names. Raises FewlabelError for another optimizer.
    """
    untyped: Any = model
    named = untyped.parameter_groups() if hasattr(model, "parameter_groups") else {"all": model.parameters()}
    groups: list[dict[str, Any]] = []
    for name, parameters in named.items():
        trained = [p for p in parameters if p.requires_grad]
        groups += [
            {
                "name": name,
                "params": [p for p in trained if p.ndim > 1],
                "weight_decay": schedule.weight_decay,
            },
            {"name": name, "params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
    groups = [group for group in groups if group["params"]]
    lr = schedule.learning_rate
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, fused=True)
    if schedule.optimizer == "adam":
        return torch.optim.Adam(groups, lr=lr, fused=True)
    if schedule.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=True)
    if schedule.optimizer == "lars":
        ensure_torchvision()
        from timm.optim.lars import Lars

        for group in groups:  # timm's would follow the weight decay, and be plain SGD where that is 0
            group["always_adapt"] = group["params"][0].ndim > 1
        return Lars(groups, lr=lr, momentum=0.9)
    raise FewlabelError(f"There is no optimizer called {schedule.optimizer!r}: use sgd, adam, adamw or lars.")


def learning_rate(step: int, schedule: Schedule) -> float:
    """Linear warm-up over `warmup_steps`, then a half cosine from the peak to 0 at `steps`, or the peak throughout."""
    if step < schedule.warmup_steps:
        return schedule.learning_rate * (step + 1) / schedule.warmup_steps
    if schedule.decay == "constant":
        return schedule.learning_rate
    done = (step - schedule.warmup_steps) / max(1, schedule.steps - schedule.warmup_steps)
    return schedule.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
