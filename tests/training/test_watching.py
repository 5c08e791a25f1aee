"""The rate is halved when validation does not get better, and a run that goes on halves it at the same steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from training_runs import SIZE_PX, SmallEncoder

from fewlabel.objectives import Supervised
from fewlabel.training import Compute, FitResult, TrainingSet, Watch, fit, loop
from fewlabel.training.watching import BEST
from fewlabel.types import Batch, FewlabelError, Schedule
from fewlabel.views import light_views

RATE = 0.02
STALLING = (0.5, 0.4, 0.9, 0.8, 0.8, 0.95, 0.7, 0.7)  # at steps 2, 4, 6, ...


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights_of(objective: nn.Module) -> bytes:
    return b"".join(value.numpy().tobytes() for value in objective.state_dict().values())


class Told:
    """Scores in the order of the looks; remembered by the weights, so that a run that goes on gets them again."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.remembered = list(scores), dict[bytes, float]()

    def __call__(self, objective: nn.Module) -> float:
        weights = weights_of(objective)
        if weights not in self.remembered:
            self.remembered[weights] = self.scores.pop(0)  # IndexError: weights that no whole run has had
        return self.remembered[weights]


def train(
    score: Any, halve_after: int | None, out: Path | None = None, *, patience: int = 99, **changes: Any
) -> tuple[Supervised, FitResult]:
    torch.manual_seed(0)
    encoder: Any = SmallEncoder()
    objective = Supervised(encoder)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 1, SIZE_PX, SIZE_PX), dtype=np.uint8)
    data = TrainingSet((pixels,), (np.arange(24),), np.arange(24) % 2)
    plan = Schedule(16, 8, RATE, **{"decay": "constant", **changes})
    result = fit(
        objective,
        data,
        light_views(SIZE_PX),
        plan,
        out=out,
        watch=Watch(score, 2, patience, halve_after),
        compute=Compute("32"),
        checkpoint_every=4,
        log_every=1,
    )
    return objective, result


def rates(result: FitResult) -> list[float]:
    return [row["learning_rate"] for row in result.history]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The rates that the optimizer took, one a step."""
    one_step, found = loop._Run._one_step, list[float]()

    def recorded(run: loop._Run, feeder: Any) -> float:
        loss = one_step(run, feeder)
        found.extend({group["lr"] for group in run.optimizer.param_groups})
        return loss

    monkeypatch.setattr(loop._Run, "_one_step", recorded)
    return found


def test_the_rate_is_halved_after_so_many_looks_without_a_better_score(taken: list[float]) -> None:
    _, result = train(Told(*STALLING), 2)
    expected = [RATE] * 10 + [
        RATE / 2
    ] * 6  # the second stalled look in a row is at step 10; then 0.95; then at 16
    assert taken == rates(result) == expected


def test_it_is_halved_again_after_as_many_more_and_never_raised(taken: list[float]) -> None:
    train(Told(0.9, 0.1, 0.1, 0.1, 0.1, 1.0, 1.1, 0.1), 2)
    assert taken == [RATE] * 6 + [RATE / 2] * 4 + [RATE / 4] * 6


def test_an_equal_score_is_no_better_one(taken: list[float]) -> None:
    train(Told(0.5, 0.5, *np.linspace(0.6, 0.9, 6)), 1)
    assert taken == [RATE] * 4 + [RATE / 2] * 12


def test_without_being_asked_it_is_never_halved(taken: list[float]) -> None:
    train(Told(0.9, *[0.1] * 7), None)
    assert taken == [RATE] * 16


def test_the_cosine_is_halved_too(taken: list[float]) -> None:
    train(Told(*[0.5] * 8), None, decay="cosine")
    plain = list(taken)
    taken.clear()
    train(Told(*[0.5] * 8), 3, decay="cosine")
    assert taken == plain[:8] + [rate / 2 for rate in plain[8:14]] + [rate / 4 for rate in plain[14:]]


def test_patience_and_halving_count_the_same_looks(taken: list[float]) -> None:
    _, result = train(Told(0.9, *[0.1] * 4), 3, patience=4)
    assert taken == [RATE] * 8 + [RATE / 2] * 2
    assert (result.steps, result.best_step) == (10, 2)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("halve_after", [1, 2])
@pytest.mark.parametrize("at", [3, 5, 7, 9, 13])
def test_an_interrupted_run_halves_at_the_same_steps_and_ends_with_the_same_weights(
    at: int, halve_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 5, 9 and 13 a better score was found since the last checkpoint, or the rate was halved before it."""
    score = Told(*STALLING)
    whole, told = train(score, halve_after)
    loss, calls = Supervised.loss, 0

    def stopping(objective: Supervised, batch: Batch) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == at:
            raise Interrupted
        return loss(objective, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Supervised, "loss", stopping)
        with pytest.raises(Interrupted):
            train(score, halve_after, tmp_path)
    again, result = train(score, halve_after, tmp_path)
    assert weights_of(again) == weights_of(whole)
    assert rates(result) == rates(told)
    assert (result.best_step, result.best_score) == (told.best_step, told.best_score) == (12, 0.95)


def test_weights_that_are_gone_are_no_reason_to_end_with_others(tmp_path: Path) -> None:
    train(Told(*STALLING), 1, tmp_path)
    (tmp_path / BEST).unlink()
    with pytest.raises(FewlabelError, match=r"best\.safetensors cannot be read"):
        train(Told(*STALLING), 1, tmp_path)


def test_mistakes() -> None:
    with pytest.raises(FewlabelError, match="halve_after is 0"):
        Watch(lambda objective: 0.0, 1, 1, halve_after=0)
    with pytest.raises(FewlabelError, match="decay is 'linear': choose cosine or constant"):
        train(Told(), None, decay="linear")
