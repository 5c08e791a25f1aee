"""A small training run with dropout and batch statistics, for the tests of killing and continuing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from fewlabel.objectives import SimCLR
from fewlabel.training import Compute, FitResult, TrainingSet, checkpoint, fit, loop, save_tensors
from fewlabel.types import Schedule
from fewlabel.views import medical_views

STEPS = 7
SIZE_PX = 16
Moment = Literal["step", "half a file", "replace"]


class SmallEncoder(nn.Module):
    """Images (B, 1, H, W) -> features (B, 12)."""

    dim = 12

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 12, 3, stride=2, padding=1),
            nn.Dropout(0.2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def small_objective(seed: int = 0) -> SimCLR:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder: Any = SmallEncoder()
        return SimCLR(encoder, embedding_dim=8)


def small_data(count: int = 30) -> TrainingSet:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 1, SIZE_PX, SIZE_PX), dtype=np.uint8)
    return TrainingSet((pixels,), (np.arange(count),))


def schedule(optimizer: str = "adamw", **changes: Any) -> Schedule:
    named: Any = optimizer
    settings = {"steps": STEPS, "batch_size": 8, "learning_rate": 0.05, "warmup_steps": 2, **changes}
    return Schedule(optimizer=named, **settings)


def train(
    out: Path | None, optimizer: str = "adamw", objective: SimCLR | None = None, **changes: Any
) -> tuple[SimCLR, FitResult]:
    """Train with a checkpoint after every second step; the same call continues."""
    objective = objective or small_objective()
    result = fit(
        objective,
        small_data(),
        medical_views(SIZE_PX),
        schedule(optimizer, **changes),
        out=out,
        checkpoint_every=2,
        log_every=1,
        health_every=3,
        compute=Compute("32"),
    )
    return objective, result


def check_going_on(
    train: Callable[[Path], dict[str, torch.Tensor]], folder: Path, patch: pytest.MonkeyPatch
) -> None:
    """train(out) ends with the same weights if it is interrupted at its first checkpoint and called again.

    The stopped run lies in folder/stopped.
    """
    whole, save = train(folder / "whole"), loop._Run._save

    def stop(run: Any) -> None:
        save(run)
        raise KeyboardInterrupt

    with patch.context() as inner:
        inner.setattr(loop._Run, "_save", stop)
        with pytest.raises(KeyboardInterrupt):
            train(folder / "stopped")
    again = train(folder / "stopped")
    assert all(torch.equal(value, again[key]) for key, value in whole.items())


def train_and_save(out: Path, moment: Moment | None = None, at: int = 0) -> None:
    """Train in this process and leave weights.safetensors; killed by SIGKILL at the `at`-th time of `moment`."""
    torch.set_num_threads(1)
    if moment:
        _arm_the_kill(moment, at)
    objective, _ = train(out)
    save_tensors(objective.state_dict(), out / "weights.safetensors")


def _arm_the_kill(moment: Moment, at: int) -> None:
    places: dict[Moment, tuple[Any, str]] = {
        "step": (loop._Run, "_one_step"),
        "half a file": (checkpoint, "save_file"),
        "replace": (os, "replace"),
    }
    owner, name = places[moment]
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < at:
            return original(*arguments, **named)
        if moment == "half a file":
            original(*arguments, **named)
            path = Path(arguments[1])
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    setattr(owner, name, counted)
