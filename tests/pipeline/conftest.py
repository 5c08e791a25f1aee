"""One small collection of made radiographs and one run on it, for all tests of the pipeline."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_runs import QUICK, SIZE_PX, TINY, Fewlabel, MakeCollection, two_steps

from fewlabel.cli import main
from fewlabel.collection import Collection, import_images
from fewlabel.phantoms import write_radiographs
from fewlabel.pipeline import Learned, arms, learn, learning, made_images
from fewlabel.pipeline.arms import Task
from fewlabel.pipeline.evaluating import make_task
from fewlabel.pipeline.pretraining import Pretrained


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def quick_supervised(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (arms, made_images):
        monkeypatch.setattr(module, "supervised_schedule", two_steps)


@pytest.fixture(scope="session")
def make_collection(tmp_path_factory: pytest.TempPathFactory) -> MakeCollection:
    """make_collection(name, n, seed): made radiographs at <tmp>/images, imported to <tmp>/<name>."""

    def make(name: str, n: int, seed: int, **options: Any) -> Collection:
        root = tmp_path_factory.mktemp(name)
        labels = write_radiographs(root / "images", n, seed=seed, size_px=SIZE_PX, dicom_files=2)
        import_images(
            root / "images", root / name, labels=labels, patient_column="Patient ID", workers=1, **options
        )
        return Collection.open(root / name)

    return make


@pytest.fixture(scope="session")
def chest(make_collection: MakeCollection) -> Collection:
    return make_collection("chest", 90, seed=1)


@pytest.fixture(scope="session")
def run(chest: Collection, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    with pytest.MonkeyPatch.context() as patch:
        for module in (arms, made_images):
            patch.setattr(module, "supervised_schedule", two_steps)
        out = tmp_path_factory.mktemp("runs") / "run"
        return learn(chest, "opacity", out, pretraining=TINY, evaluation=QUICK)


@pytest.fixture(scope="session")
def pretrained(run: Learned, chest: Collection) -> Pretrained:
    """The encoder of `run`."""
    return learning._load_pretrained(run.out / "pretrain" / "seed-0", chest, QUICK, False)


@pytest.fixture(scope="session")
def task(pretrained: Pretrained, chest: Collection) -> Task:
    return make_task(chest, pretrained, QUICK, features_folder=None)


@pytest.fixture
def fewlabel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fewlabel:
    """fewlabel("search", ...) -> status, output, errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fewlabel", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        shown = capsys.readouterr()
        return int(stopped.value.code or 0), shown.out, shown.err

    return call
