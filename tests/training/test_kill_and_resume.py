"""Killed or interrupted at any moment, the same call ends with the same weights, bit for bit."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import training_runs
from forked import fork_server
from training_runs import STEPS, Moment, small_objective, train

from fewlabel.objectives import SimCLR
from fewlabel.training import checkpoint, load_tensors, loop, save_tensors
from fewlabel.types import Batch, FewlabelError

LATEST, PREVIOUS = checkpoint.LATEST, checkpoint.PREVIOUS


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows(out: Path) -> list[dict[str, Any]]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return without_times([json.loads(line) for line in lines])


def without_times(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in history]


def test_the_time_of_all_runs_together_is_kept(tmp_path: Path) -> None:
    at = [json.loads(line)["seconds"] for line in (_stopped_at_4(tmp_path) / "metrics.jsonl").open()]
    _, result = training_runs.train(tmp_path)
    assert at == sorted(at)
    assert result.seconds > at[-1] > 0
    assert [row["seconds"] for row in result.history][: len(at)] == at


def _stopped_at_4(out: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        save = loop._Run._save

        def save_and_stop(run: loop._Run) -> None:
            save(run)
            if run.step == 4:
                raise KeyboardInterrupt

        patch.setattr(loop._Run, "_save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            training_runs.train(out)
    return out


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def in_a_process(out: Path, moment: Moment | None = None, at: int = 0) -> int | None:
    """Train in a fresh process; its exit code."""
    process = fork_server().Process(target=training_runs.train_and_save, args=(out, moment, at))
    process.start()
    process.join(120)
    return process.exitcode


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted")
    assert in_a_process(out) == 0
    assert [row["step"] for row in rows(out)] == list(range(1, STEPS + 1))
    return out


KILLS: list[tuple[Moment, int]] = [
    ("step", 1),  # before anything was done
    ("step", 4),  # between two checkpoints
    ("step", 7),
    ("half a file", 1),  # while the first checkpoint is written
    ("half a file", 3),
    ("replace", 1),  # before metrics.jsonl stands
    ("replace", 3),  # a checkpoint complete on disk, not in its place
    ("replace", 5),  # the old one moved away, the new one not there yet
]


@pytest.mark.parametrize(("moment", "at"), KILLS)
def test_killed_and_continued(moment: Moment, at: int, uninterrupted: Path, tmp_path: Path) -> None:
    assert in_a_process(tmp_path, moment, at) == -9
    assert not (tmp_path / "weights.safetensors").exists()
    assert in_a_process(tmp_path) == 0
    for name in ("weights.safetensors", LATEST):
        ours, theirs = load_tensors(tmp_path / name), load_tensors(uninterrupted / name)
        assert same(ours[0], theirs[0])
        assert ours[1] == theirs[1]
    assert rows(tmp_path) == rows(uninterrupted)
    assert not list(tmp_path.glob(".*"))


def test_killed_again_and_again(uninterrupted: Path, tmp_path: Path) -> None:
    for at in (4, 3, 2, 2):
        assert in_a_process(tmp_path, "step", at) == -9
    assert in_a_process(tmp_path) == 0
    weights = [load_tensors(out / "weights.safetensors")[0] for out in (tmp_path, uninterrupted)]
    assert same(*weights)
    assert rows(tmp_path) == rows(uninterrupted)


class Interrupted(Exception):
    pass


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Raise in the loss of the `at`-th step."""
    original, calls = SimCLR.loss, 0

    def loss(self: SimCLR, batch: Batch) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == at:
            raise Interrupted
        return original(self, batch)

    monkeypatch.setattr(SimCLR, "loss", loss)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "lars"])
def test_every_optimizer_continues_bit_for_bit(
    optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = train(tmp_path / "whole", optimizer)
    with monkeypatch.context() as patch:
        interrupt(patch, at=6)
        with pytest.raises(Interrupted):
            train(tmp_path / "parts", optimizer)
    continued, result = train(tmp_path / "parts", optimizer, small_objective(seed=9))
    assert same(whole.state_dict(), continued.state_dict())
    assert result.steps == STEPS
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole") == without_times(result.history)


def test_a_finished_run_is_only_read(tmp_path: Path) -> None:
    done, _ = train(tmp_path)
    before = (tmp_path / LATEST).stat().st_mtime_ns
    again, result = train(tmp_path, objective=small_objective(seed=9))
    assert same(done.state_dict(), again.state_dict())
    assert (tmp_path / LATEST).stat().st_mtime_ns == before
    assert len(result.history) == STEPS


def test_checkpoints_do_not_change_the_training(tmp_path: Path) -> None:
    assert same(train(tmp_path)[0].state_dict(), train(None)[0].state_dict())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_broken_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    done, _ = train(tmp_path)
    cut(tmp_path / LATEST)
    again, result = train(tmp_path, objective=small_objective(seed=9))
    assert same(done.state_dict(), again.state_dict())
    warning = result.warnings[0]
    assert LATEST in warning
    assert "goes on from the checkpoint before it" in warning
    assert [row["step"] for row in rows(tmp_path)] == list(range(1, STEPS + 1))


def test_both_checkpoints_broken(tmp_path: Path) -> None:
    train(tmp_path)
    for name in (LATEST, PREVIOUS):
        cut(tmp_path / name)
    with pytest.raises(FewlabelError, match=r"No checkpoint in .* can be read: .*Remove it") as raised:
        train(tmp_path)
    assert "\n" not in str(raised.value)


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    train(tmp_path)
    expected = r"other settings \(schedule\.batch_size: 8 there, 6 here; schedule\.seed: 0 there, 1 here\)"
    with pytest.raises(FewlabelError, match=expected):
        train(tmp_path, batch_size=6, seed=1)
    with pytest.raises(FewlabelError, match=r"schedule\.optimizer: adamw there, sgd here"):
        train(tmp_path, "sgd")


def test_a_checkpoint_of_another_network(tmp_path: Path) -> None:
    train(tmp_path)
    tensors, about = load_tensors(tmp_path / LATEST)
    first = min(key for key in tensors if key.startswith("model."))
    save_tensors({**tensors, first: torch.zeros(3, 3)}, tmp_path / LATEST, about)
    with pytest.raises(FewlabelError, match="of another network"):
        train(tmp_path)


def test_loss_that_is_no_number_stops_and_the_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = SimCLR.loss, 0

    def loss(self: SimCLR, batch: Batch) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return original(self, batch) * (float("nan") if calls == 6 else 1.0)

    whole, _ = train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(SimCLR, "loss", loss)
        with pytest.raises(
            FewlabelError, match=r"loss became nan at step 6: lower the learning rate .*0\.05"
        ):
            train(tmp_path / "run")
    tensors, about = load_tensors(tmp_path / "run" / LATEST)
    assert about["step"] == "4"
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    assert same(train(tmp_path / "run")[0].state_dict(), whole.state_dict())


def test_weights_that_are_no_numbers_are_never_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of step 4 is finite, its gradient is not: the checkpoint after it must not be written."""
    original, calls = SimCLR.loss, 0

    def loss(self: SimCLR, batch: Batch) -> torch.Tensor:
        nonlocal calls
        calls += 1
        value = original(self, batch)
        return value + (value - value.detach()).abs().sqrt() if calls == 4 else value  # slope 1 / 0

    monkeypatch.setattr(SimCLR, "loss", loss)
    with pytest.raises(FewlabelError, match="weights are no numbers any more after step 4"):
        train(tmp_path)
    tensors, about = load_tensors(tmp_path / LATEST)
    assert about["step"] == "2"
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = train(tmp_path / "whole")
    original, calls = checkpoint.save_file, 0

    def save_file(
        tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None
    ) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        original(tensors, path, metadata)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", save_file)
        with pytest.raises(FewlabelError, match=r"could not be written .*No space left.*free some space"):
            train(out)
    assert sorted(path.name for path in out.iterdir()) == [LATEST, "metrics.jsonl"]
    assert load_tensors(out / LATEST)[1]["step"] == "2"
    assert same(train(out)[0].state_dict(), whole.state_dict())
