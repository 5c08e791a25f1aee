"""Several processes: what they train together is what one process trains on the joint batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from training_runs import SIZE_PX, schedule, small_data, small_objective

from fewlabel import processes
from fewlabel.networks.torchvision_shim import ensure_torchvision
from fewlabel.training import fit, load_tensors, loop, sync_batchnorm
from fewlabel.training.sync_batchnorm import _SYNCED, synchronise_batchnorm
from fewlabel.views import medical_views

HERE = Path(__file__).parent
STEPS, RATE, VIEWS = 6, 0.005, medical_views(SIZE_PX)

SCRIPT = """
    import os, sys
    from dataclasses import replace
    from pathlib import Path
    import torch.distributed as dist
    from fewlabel.training import Compute, fit, loop
    from fewlabel.training.sync_batchnorm import _SYNCED
    from training_runs import schedule, small_data
    from test_processes import RATE, STEPS, VIEWS, objective

    out, stop_after, micro_batch = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) or None
    save = loop._Run._save

    def save_and_stop(run):
        save(run)
        if run.step == stop_after:
            dist.barrier()
            os._exit(0)

    loop._Run._save = save_and_stop
    model = objective()
    plan = schedule("sgd", steps=STEPS, learning_rate=RATE, micro_batch=micro_batch)
    loop.WORTH_MEASURING = 1
    compute = None if stop_after == 0 else Compute("32")
    fit(model, small_data(), VIEWS, plan, out=out, checkpoint_every=2, compute=compute)
    assert dist.get_world_size() == 2
    assert any(type(layer) in _SYNCED.values() for layer in model.modules())
    dist.destroy_process_group()
"""


def objective() -> nn.Module:
    """Without dropout, which each process draws for itself."""
    made = small_objective()
    for layer in made.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return made


@pytest.fixture
def train_in_two(in_two_processes: Callable[..., str]) -> Callable[..., None]:
    """run(out, stop_after=step, micro_batch=images): SCRIPT in two processes."""

    def run(out: Path, *, stop_after: int = -1, micro_batch: int = 0) -> None:
        in_two_processes(SCRIPT, out, stop_after, micro_batch, path=[HERE])

    return run


def train_under_torchrun(out: Path) -> None:
    script = out.with_suffix(".py")
    script.write_text(textwrap.dedent(SCRIPT))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *torchrun, str(script), str(out), "-1", "0"]
    found = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": found}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def train_in_two_slurm_tasks(out: Path) -> None:
    script = out.with_suffix(".py")
    script.write_text(textwrap.dedent(SCRIPT))
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1",
        "SLURM_NTASKS": "2", "SLURM_NNODES": "1", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_NODELIST": "localhost", "SLURM_NODEID": "0", "SLURM_STEP_NUM_TASKS": "2",
    }  # fmt: skip
    command = [sys.executable, str(script), str(out), "-1", "0"]
    ranks = ({"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2))
    tasks = [
        subprocess.Popen(command, env=environment | rank, stderr=subprocess.PIPE, text=True) for rank in ranks
    ]
    try:
        for task in tasks:
            _, errors = task.communicate(timeout=240)
            assert task.returncode == 0, errors
    finally:
        for task in tasks:
            task.kill()


def weights(out: Path) -> dict[str, torch.Tensor]:
    tensors, _ = load_tensors(out / "checkpoint.safetensors")
    return {key: value for key, value in tensors.items() if key.startswith("model.")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    out = tmp_path_factory.mktemp("alone")
    plan = schedule("sgd", steps=STEPS, learning_rate=RATE)
    fit(objective(), small_data(), VIEWS, plan, out=out, checkpoint_every=2)
    return weights(out)


def assert_equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.allclose(found[key].double(), value.double(), atol=1e-5), key


def test_two_processes_train_as_one_on_the_joint_batch(
    alone: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    train_under_torchrun(tmp_path / "two")
    assert_equal(weights(tmp_path / "two"), alone)


def test_two_slurm_tasks_train_as_one_on_the_joint_batch(
    alone: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    train_in_two_slurm_tasks(tmp_path / "two")
    assert_equal(weights(tmp_path / "two"), alone)


def test_two_processes_measure_and_agree(train_in_two: Callable[..., None], tmp_path: Path) -> None:
    train_in_two(tmp_path / "run", stop_after=0)
    assert json.loads((tmp_path / "run" / "compute.json").read_text())["seconds"]


def test_two_processes_with_micro_batches_train_as_one_with_them(
    train_in_two: Callable[..., None], tmp_path: Path
) -> None:
    """Batch-norm sees a piece of each process at a time: 2 images of 2 processes are as 4 of one."""
    train_in_two(tmp_path / "two", micro_batch=4)
    plan = schedule("sgd", steps=STEPS, learning_rate=RATE)
    fit(objective(), small_data(), VIEWS, plan, out=tmp_path / "one", checkpoint_every=2)
    assert_equal(weights(tmp_path / "two"), weights(tmp_path / "one"))


def test_a_run_of_two_processes_is_continued_by_one(
    train_in_two: Callable[..., None], alone: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train_in_two(out, stop_after=4)
    before = weights(out)
    assert not all(torch.equal(before[key], alone[key]) for key in alone)
    fit(
        objective(),
        small_data(),
        VIEWS,
        schedule("sgd", steps=STEPS, learning_rate=RATE),
        out=out,
        checkpoint_every=2,
    )
    assert_equal(weights(out), alone)


def test_a_run_of_one_process_is_continued_by_two(
    train_in_two: Callable[..., None], alone: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    plan = schedule("sgd", steps=STEPS, learning_rate=RATE)
    with pytest.MonkeyPatch.context() as patch:
        _stop_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            fit(objective(), small_data(), VIEWS, plan, out=out, checkpoint_every=2)
    train_in_two(out)
    assert_equal(weights(out), alone)


def _stop_after(patch: pytest.MonkeyPatch, step: int) -> None:
    save = loop._Run._save

    def save_and_stop(run: loop._Run) -> None:
        save(run)
        if run.step == step:
            raise KeyboardInterrupt

    patch.setattr(loop._Run, "_save", save_and_stop)


@pytest.mark.parametrize("shape", [(8, 5), (8, 5, 4, 4), (8, 5, 3, 4, 4)], ids=["1d", "2d", "3d"])
def test_synchronised_batchnorm_is_torchs_own_in_one_process(shape: tuple[int, ...]) -> None:
    kinds = {2: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    plain, ours = kinds[len(shape)](5), kinds[len(shape)](5)
    ours.__class__ = _SYNCED[type(ours)]
    found = []
    for layer in (plain, ours):
        generator = torch.Generator().manual_seed(0)
        x = (torch.randn(shape, generator=generator) * 3 + 1).requires_grad_()
        y = layer(x)
        y.mul(torch.linspace(0, 1, y.numel()).view(shape)).sum().backward()
        layer.eval()
        found.append((y, x.grad, layer.weight.grad, layer.running_mean, layer.running_var, layer(x)))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_synchronised_batchnorm_with_an_activation_is_timms_own_in_one_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ensure_torchvision()
    from timm.layers import BatchNormAct2d

    x = torch.randn(6, 5, 4, 4) * 2 + 1
    plain, ours = BatchNormAct2d(5, inplace=False), nn.Sequential(BatchNormAct2d(5, inplace=False))
    with monkeypatch.context() as patch:
        patch.setattr(sync_batchnorm, "world_size", lambda: 2)
        synchronise_batchnorm(ours, torch.device("cpu"))
    assert type(ours[0]) is not BatchNormAct2d
    assert torch.allclose(ours(x), plain(x), atol=1e-5)
    assert torch.allclose(ours.eval()(x), plain.eval()(x), atol=1e-5)
    assert plain(x).min().item() == 0.0


SIX_TASKS = {"SLURM_NTASKS": "6", "SLURM_PROCID": "0"}


@pytest.mark.parametrize(
    ("environment", "expected", "rank"),
    [
        ({}, (1, 1), 0),
        ({"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "RANK": "5"}, (4, 2), 5),
        (SIX_TASKS | {"SLURM_NNODES": "3", "SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "6"}, (2, 3), 2),
        (SIX_TASKS | {"SLURM_STEP_NUM_TASKS": "6", "SLURM_JOB_NAME": "interactive"}, (1, 1), 0),
        (SIX_TASKS | {"SLURM_JOB_NAME": "train"}, (1, 1), 0),  # a batch script without srun
    ],
)
def test_what_started_the_processes(
    environment: dict[str, str], expected: tuple[int, int], rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith("SLURM_") or name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert processes.launched_processes() == expected
    assert processes.launched_rank() == rank


def test_a_batch_script_without_srun_trains_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (SIX_TASKS | {"SLURM_JOB_NAME": "train", "SLURM_NTASKS_PER_NODE": "6"}).items():
        monkeypatch.setenv(name, value)
    assert fit(objective(), small_data(), VIEWS, schedule(steps=1)).steps == 1
