"""Settings that make a whole run take seconds, and names that the tests of the pipeline share."""

from __future__ import annotations

from collections.abc import Callable

from fewlabel.collection import Collection
from fewlabel.pipeline import EvaluateSettings, PretrainSettings
from fewlabel.types import Schedule

SIZE_PX = 32
TINY = PretrainSettings(encoder="test_resnet", size_px=SIZE_PX, steps=3, batch_size=16)
QUICK = EvaluateSettings("opacity", budgets=(10, 20), seeds=2, resamples=60)
MakeCollection = Callable[..., Collection]


def two_steps(labels: int, learning_rate: float, seed: int) -> Schedule:
    """Stands for the schedule of training from scratch."""
    return Schedule(2, min(labels, 16), learning_rate, seed=seed)
