"""fit(): schedules, watching, precision, logs. Killing and continuing has its own file."""

from __future__ import annotations

import json
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from training_runs import SIZE_PX, SmallEncoder, schedule, small_data, small_objective

from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives import SimCLR, Supervised
from fewlabel.training import Compute, FitResult, TrainingSet, Watch, fit, loop
from fewlabel.training.compute import measure_compute
from fewlabel.training.feeding import Ahead
from fewlabel.types import Batch, FewlabelError, Schedule
from fewlabel.views import medical_views, plain_view

VIEWS = plain_view(SIZE_PX)


def bright_or_dark() -> TrainingSet:
    """Sixteen images, the bright ones labelled 1."""
    labels = np.arange(16) % 2
    noise = np.random.default_rng(0).integers(0, 60, (16, 1, SIZE_PX, SIZE_PX))
    return TrainingSet(
        ((noise + 150 * labels[:, None, None, None]).astype(np.uint8),), (np.arange(16),), labels
    )


def supervised() -> Supervised:
    torch.manual_seed(0)
    encoder: Any = SmallEncoder()
    return Supervised(encoder)


def test_training_learns() -> None:
    result = fit(supervised(), bright_or_dark(), VIEWS, Schedule(60, 16, 0.03), log_every=1)
    losses = [row["loss"] for row in result.history]
    assert len(losses) == 60
    assert np.mean(losses[-5:]) < 0.05 < 0.4 < losses[0]
    assert result.steps == 60
    assert result.images_per_second > 0


def test_a_step_takes_the_schedules_rate_and_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = Supervised.loss

    def loss(self: Supervised, batch: Any) -> torch.Tensor:
        seen.append((batch.views[0].shape[0], batch.labels.tolist()))
        return original(self, batch)

    monkeypatch.setattr(Supervised, "loss", loss)
    data = bright_or_dark()
    plan = Schedule(3, 6, 0.4, warmup_steps=2, seed=5)
    result = fit(supervised(), data, VIEWS, plan, log_every=1)
    assert [row["learning_rate"] for row in result.history] == pytest.approx([0.2, 0.4, 0.4])
    assert data.labels is not None
    expected = [data.labels[data.batch_indices(step, 6, 5)[:, 0]].tolist() for step in range(3)]
    assert seen == [(6, labels) for labels in expected]


def test_seeds_decide_everything_and_the_callers_randomness_stays() -> None:
    def trained(seed: int) -> torch.Tensor:
        objective = small_objective()
        fit(objective, small_data(), medical_views(SIZE_PX), schedule(seed=seed))
        return torch.cat([p.flatten() for p in objective.parameters()])

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = trained(0)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(trained(0), first)
    assert not torch.equal(trained(1), first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": 0.0}, r"learning_rate is 0\.0"),
        ({"learning_rate": -1.0}, r"learning_rate is -1\.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
    ],
)
def test_impossible_schedules(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(FewlabelError, match=message):
        fit(small_objective(), small_data(), VIEWS, replace(schedule(), **change), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_image_is_no_contrast() -> None:
    with pytest.raises(FewlabelError, match="at least 2 are needed"):
        fit(small_objective(), small_data(1), VIEWS, schedule())


class Scores:
    """Scores by call; remembers the weights it was called with."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.weights, self.modes = list(scores), [], []

    def __call__(self, objective: nn.Module) -> float:
        self.weights.append({k: v.clone() for k, v in objective.state_dict().items()})
        self.modes.append((objective.training, torch.is_grad_enabled()))
        return self.scores[len(self.weights) - 1]


def test_watch_stops_and_gives_back_the_best_weights() -> None:
    scores = Scores(0.5, 0.9, 0.9, 0.7, 0.99)
    objective = supervised()
    result = fit(
        objective, bright_or_dark(), VIEWS, Schedule(30, 8, 0.05), watch=Watch(scores, 2, patience=2)
    )
    assert len(scores.weights) == 4  # an equal score is no better one
    assert (result.steps, result.best_step, result.best_score) == (8, 4, 0.9)
    assert all(torch.equal(v, scores.weights[1][k]) for k, v in objective.state_dict().items())
    assert not all(torch.equal(v, scores.weights[3][k]) for k, v in objective.state_dict().items())
    assert set(scores.modes) == {(False, False)}


def test_watch_looks_once_more_at_the_end() -> None:
    scores = Scores(0.1, 0.2, 0.3)
    result = fit(
        supervised(), bright_or_dark(), VIEWS, Schedule(5, 8, 0.05), watch=Watch(scores, 2, patience=9)
    )
    assert (result.steps, result.best_step) == (5, 5)


@pytest.mark.parametrize("interrupted_at", [1, 2, 3, 4])
def test_an_interrupted_run_keeps_its_best_weights(interrupted_at: int, tmp_path: Path) -> None:
    told = (0.5, 0.9, 0.9, 0.7, 0.99)

    def train(scores: Scores, out: Path | None) -> tuple[FitResult, dict[str, torch.Tensor]]:
        objective, plan, watch = supervised(), Schedule(30, 8, 0.05), Watch(scores, 2, patience=2)
        result = fit(objective, bright_or_dark(), VIEWS, plan, watch=watch, out=out, checkpoint_every=4)
        return result, objective.state_dict()

    whole, weights = train(Scores(*told), None)
    over = interrupted_at == 4  # looks: there is no next one
    with nullcontext() if over else pytest.raises(IndexError):
        train(Scores(*told[:interrupted_at]), tmp_path)
    looked = interrupted_at // 2 * 2  # up to the last checkpoint
    result, again = train(Scores(*told[looked:]), tmp_path)
    assert (result.steps, result.best_step, result.best_score) == (whole.steps, 4, 0.9)
    assert all(torch.equal(value, weights[key]) for key, value in again.items())


def test_health_and_collapse_are_logged(tmp_path: Path) -> None:
    flat = np.full((12, 1, SIZE_PX, SIZE_PX), 90, dtype=np.uint8)  # all images alike
    data = TrainingSet((flat,), (np.arange(12),))
    result = fit(small_objective(), data, VIEWS, schedule(), out=tmp_path, log_every=2, health_every=4)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6, 7]
    assert ["alignment" in row for row in rows] == [False, True, False, True]
    assert any("collapsed" in warning for warning in result.warnings)


def test_tensorboard_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    fit(
        small_objective(), small_data(), VIEWS, schedule(steps=2), out=tmp_path, tensorboard=True, log_every=1
    )
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_two_steps_in_bf16() -> None:
    torch.manual_seed(0)
    objective = SimCLR(Encoder(EncoderSettings("test_resnet", 1, 48)), embedding_dim=16)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 1, 48, 48), dtype=np.uint8)
    seen = []
    objective.encoder.network.layer2[0].conv1.register_forward_hook(lambda m, i, out: seen.append(out.dtype))
    data = TrainingSet((pixels,), (np.arange(8),))
    result = fit(objective, data, medical_views(48), schedule(steps=2), compute=Compute("bf16"))
    assert result.compute == Compute("bf16")
    assert seen[:2] == [torch.bfloat16, torch.bfloat16]
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in objective.parameters())


def test_the_setting_is_measured_once_and_kept_for_the_run_that_is_continued(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(loop, "WORTH_MEASURING", 3)
    monkeypatch.setattr(loop, "_measured", {})
    result = fit(small_objective(), small_data(), VIEWS, schedule(steps=3), out=tmp_path / "run")
    measured = dict(result.compute.seconds)
    assert {"32", "32, channels last"} <= set(measured)
    assert all(seconds > 0 for seconds in measured.values())
    chosen = measured[result.compute.name]
    assert result.compute.name == "32" or chosen < measured["32"]
    monkeypatch.setattr(loop, "measure_compute", lambda *_: pytest.fail("measured again"))
    assert fit(small_objective(), small_data(), VIEWS, schedule(steps=3)).compute == result.compute
    monkeypatch.setattr(loop, "_measured", {})
    again = fit(small_objective(), small_data(), VIEWS, schedule(steps=3), out=tmp_path / "run")
    assert again.compute == result.compute


def test_measuring_leaves_the_objective_as_it_is() -> None:
    objective = small_objective()
    before = {key: value.clone() for key, value in objective.state_dict().items()}
    views = tuple(torch.rand(2, 4, 1, SIZE_PX, SIZE_PX))
    found = measure_compute(objective, Batch(views), torch.device("cpu"))
    assert found.seconds
    assert all(torch.equal(value, before[key]) for key, value in objective.state_dict().items())
    assert all(p.grad is None for p in objective.parameters())


def test_views_grow_to_full_size_in_strides() -> None:
    plan = schedule(steps=100, start_size_px=32)
    sizes = [plan.size_at(step, 64) for step in range(100)]
    assert sizes[0] == 32
    assert sizes == sorted(sizes)
    assert set(sizes) == {32, 48, 64}
    assert all(size == 64 for size in sizes[75:])
    assert {schedule(steps=9).size_at(step, 64) for step in range(9)} == {64}


def test_training_with_growing_views_sees_their_sizes() -> None:
    seen: list[int] = []
    objective = small_objective()
    objective.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[-1]))
    plan = schedule(steps=8, start_size_px=16)
    fit(objective, small_data(), medical_views(48), plan, health_every=100, compute=Compute("32"))
    assert seen[0] == 16
    assert set(seen) == {16, 32, 48}


@pytest.mark.parametrize("start", [4, 17])
def test_a_start_size_that_cannot_be_is_named(start: int) -> None:
    with pytest.raises(FewlabelError, match="start_size_px"):
        fit(small_objective(), small_data(), VIEWS, schedule(start_size_px=start))


def test_what_fails_in_the_feeding_thread_reaches_the_caller() -> None:
    data = small_data()
    object.__setattr__(data, "sources", (data.sources[0][:4],))  # the store was cut short
    with pytest.raises(IndexError):
        fit(small_objective(), data, VIEWS, schedule(steps=3))
    assert "fewlabel-ahead" not in {thread.name for thread in threading.enumerate()}


def test_items_come_in_order_and_the_thread_ends_with_the_block() -> None:
    with Ahead(iter(range(20))) as items:
        assert list(items) == list(range(20))
    with Ahead(iter(range(10**9))) as endless:
        assert [next(endless), next(endless)] == [0, 1]
    assert not items.thread.is_alive()
    assert not endless.thread.is_alive()


def test_the_thread_computes_on_one_core_and_leaves_the_others_theirs() -> None:
    before = torch.get_num_threads()
    fit(small_objective(), small_data(), VIEWS, schedule(steps=2))
    assert torch.get_num_threads() == before


def test_nothing_is_announced(capfd: pytest.CaptureFixture[str]) -> None:
    fit(small_objective(), small_data(), VIEWS, schedule(steps=1), compute=Compute("bf16"))
    fit(small_objective(), small_data(), VIEWS, schedule(steps=1), compute=Compute("32"))
    assert capfd.readouterr() == ("", "")


def test_a_bar_where_a_title_is_given(capfd: pytest.CaptureFixture[str]) -> None:
    fit(small_objective(), small_data(), VIEWS, schedule(steps=1), progress="pretraining")
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "pretraining" in shown.err
    assert "images/s" in shown.err


def test_a_damaged_choice_of_setting_is_named(tmp_path: Path) -> None:
    (tmp_path / "compute.json").write_text('{"precision": "bf16"')
    with pytest.raises(FewlabelError, match=r"compute\.json is damaged .* delete it"):
        fit(small_objective(), small_data(), medical_views(SIZE_PX), schedule("sgd", steps=1), out=tmp_path)
