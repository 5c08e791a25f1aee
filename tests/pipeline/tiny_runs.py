"""Settings that make a whole run take seconds, and names that the tests of the pipeline share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from fewlabel.collection import Collection
from fewlabel.pipeline import EvaluateSettings, PretrainSettings
from fewlabel.types import Schedule

SIZE_PX = 32
TINY = PretrainSettings(encoder="test_resnet", size_px=SIZE_PX, steps=3, batch_size=16)
QUICK = EvaluateSettings("opacity", budgets=(10, 20), seeds=2, resamples=60)
MakeCollection = Callable[..., Collection]
Fewlabel = Callable[..., tuple[int, str, str]]


def two_steps(labels: int, learning_rate: float, seed: int) -> Schedule:
    """Stands for the schedule of training from scratch."""
    return Schedule(2, min(labels, 16), learning_rate, seed=seed)


def check_refused(fewlabel: Fewlabel, wrong: Sequence[tuple[list[object], str]]) -> None:
    """Each call of the command line ends with status 1 and one sentence in which its expression is found."""
    for arguments, expected in wrong:
        status, _, err = fewlabel(*arguments)
        assert status == 1, arguments
        assert len(err.splitlines()) == 1, err
        assert err.startswith("error: ")
        assert re.search(expected, err), err
