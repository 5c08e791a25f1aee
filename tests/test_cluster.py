"""A Ray cluster on this machine: the same collection, the same features, and training that survives a death."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from fewlabel.adaptation.features import cached_features, extract_features, extract_features_on_cluster
from fewlabel.cluster import map_on_cluster
from fewlabel.collection import Collection, import_images
from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.phantoms import write_radiographs
from fewlabel.pipeline import PretrainSettings, pretrain_on_cluster
from fewlabel.types import FewlabelError

ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]

WAITS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # 2 by default: how often Ray Train looks after its processes
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "1",  # 30: for the process that waits for the one that was killed
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process less
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_TRAIN_V2_ENABLED", "1")
        for name, seconds in WAITS.items():
            patch.setenv(name, seconds)
        context: Any = ray.init(
            num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
        )
        yield context.address_info["address"]
        ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_radiographs(folder, 60, size_px=32)
    return folder


@pytest.fixture(scope="module")
def collection(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    to = tmp_path_factory.mktemp("chest") / "chest"
    import_images(folder, to, labels=folder / "labels.csv", patient_column="Patient ID")
    return Collection.open(to)


def test_an_import_by_the_cluster_gives_the_same_bytes(
    address: str, folder: Path, collection: Collection, tmp_path: Path
) -> None:
    begun: list[int] = []
    import_images(
        folder,
        tmp_path / "chest",
        labels=folder / "labels.csv",
        patient_column="Patient ID",
        cluster=address,
        progress=lambda done, total, what: begun.append(done),
    )
    for kind in ("pixels", "thumbnails"):
        ours = sorted((tmp_path / "chest" / kind).iterdir())
        theirs = sorted((collection.path / kind).iterdir())
        assert [p.name for p in ours] == [p.name for p in theirs]
        assert [p.read_bytes() for p in ours] == [p.read_bytes() for p in theirs]
    assert Collection.open(tmp_path / "chest").fingerprint == collection.fingerprint
    assert max(begun) >= 60


def test_features_by_the_cluster_are_the_same(
    address: str, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewlabel.adaptation.features.SHARD", 25)
    torch.manual_seed(0)
    encoder = Encoder(EncoderSettings("test_resnet", 1, 32))
    pixels: Any = collection.square(32, channels=1)
    found = extract_features_on_cluster(encoder, pixels, address, size_px=32)
    wanted = extract_features(encoder, pixels, size_px=32)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_an_evaluation_takes_its_features_there(
    address: str, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    encoder = Encoder(EncoderSettings("test_resnet", 1, 32))
    pixels = collection.square(32, channels=1)
    wanted = extract_features(encoder, pixels, size_px=32)
    monkeypatch.setattr("fewlabel.adaptation.features.extract_features", None)
    found = cached_features(
        encoder, pixels, size_px=32, fingerprint=collection.fingerprint, folder=None, cluster=address
    )
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_what_a_piece_says_reaches_the_user(address: str) -> None:
    def liked(item: int) -> int:  # inside, so that it is sent whole: the cluster cannot import this file
        if item == 2:
            raise FewlabelError("two is not a number that we like: give another.")
        return item

    assert dict(map_on_cluster(address, liked, [0, 1, 3])) == {0: 0, 1: 1, 2: 3}
    with pytest.raises(FewlabelError, match=r"^two is not a number that we like: give another\.$"):
        list(map_on_cluster(address, liked, [1, 2]))


def test_training_survives_the_death_of_a_process(
    address: str, collection: Collection, tmp_path: Path
) -> None:
    """One of two processes is killed after the first checkpoint; the others start anew and the run is completed."""
    settings = PretrainSettings("test_resnet", size_px=32, steps=40, batch_size=16, learning_rate=1e-3)
    killed: list[int] = []
    watcher = threading.Thread(target=_kill_one, args=(tmp_path / "run", killed))
    watcher.start()
    found = pretrain_on_cluster(
        [collection], tmp_path / "run", settings, address=address, processes=2, checkpoint_every=10
    )
    watcher.join()
    assert len(killed) == 1
    assert found.fit.steps == 40
    steps = [row["step"] for row in found.fit.history]
    assert steps == sorted(set(steps))
    assert steps[-1] == 40
    assert all(np.isfinite(row["loss"]) for row in found.fit.history)
    assert all(bool(torch.isfinite(weight).all()) for weight in found.encoder.parameters())


def _kill_one(out: Path, killed: list[int]) -> None:
    """SIGKILL a training process as soon as there is a checkpoint of an unfinished run."""
    until = time.monotonic() + 240
    while time.monotonic() < until and not (out / "pretrain.json").exists():
        if (out / "checkpoint.safetensors").exists():
            workers = [p for p in psutil.process_iter(["cmdline"]) if _trains(p)]
            if workers:
                killed.append(workers[0].pid)
                workers[0].send_signal(signal.SIGKILL)
                return
        time.sleep(0.02)


def _trains(process: psutil.Process) -> bool:
    command = " ".join(process.info["cmdline"] or ())
    return command.startswith("ray::") and "Train" in command and "Controller" not in command


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379", "host:port"])
def test_a_cluster_that_does_not_answer_is_one_sentence(
    address: str, collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(FewlabelError, match=f"No Ray cluster answers at '{address}'"):
        pretrain_on_cluster([collection], tmp_path / "run", address=address, processes=2)


def test_more_processes_than_cores_is_one_sentence(
    address: str, collection: Collection, tmp_path: Path
) -> None:
    with pytest.raises(FewlabelError, match="99 processes were asked for"):
        pretrain_on_cluster([collection], tmp_path / "run", address=address, processes=99)
