"""Made images beside few labels: their number, size and classes; they are trained on and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import QUICK, SIZE_PX, two_steps

from fewlabel.collection import Collection
from fewlabel.networks.decoders import Decoder
from fewlabel.objectives.generator import Generator
from fewlabel.pipeline import made_images
from fewlabel.pipeline.arms import Task
from fewlabel.pipeline.evaluating import make_task
from fewlabel.pipeline.made_images import MadeImages, as_stored, made_images_arm
from fewlabel.pipeline.pretraining import Pretrained
from fewlabel.splits import nested_budgets
from fewlabel.training import TrainingSet
from fewlabel.types import FewlabelError


@pytest.fixture(autouse=True)
def quick_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_images, "supervised_schedule", two_steps)


@pytest.fixture(scope="module")
def rows(task: Task, chest: Collection) -> np.ndarray:
    drawn = nested_budgets(task.y[task.train], chest.patients()[task.train], [10], seed=0)
    return task.train[drawn[10]]


def _generator(names: tuple[str, ...]) -> Generator:
    torch.manual_seed(0)
    return Generator(Decoder(4 + len(names), channels=1, size_px=SIZE_PX, width=4).eval(), 4, names)


@pytest.mark.parametrize("per_label", [1.0, 2.5])
def test_as_many_are_made_of_each_class_as_are_asked(
    task: Task, pretrained: Pretrained, rows: np.ndarray, per_label: float
) -> None:
    generator = _generator(task.target.classes)
    asked: list[tuple[int, int]] = []

    def generator_of(given: np.ndarray, seed: int) -> Generator:
        asked.append((len(given), seed))
        return generator

    images = MadeImages(task, pretrained.encoder, generator_of, per_label)
    made, codes = images.made(rows, 3)
    assert asked == [(10, 3)]
    expected = [round(per_label * count) for count in np.bincount(task.y[rows].astype(int))]
    assert np.bincount(codes).tolist() == expected
    assert made.dtype == task.pixels.dtype
    assert made.shape == (sum(expected), *task.pixels.shape[1:])
    assert 0.2 < made.mean() / np.iinfo(made.dtype).max < 0.8
    again, _ = images.made(rows, 3)
    assert np.array_equal(again, made)
    assert not np.array_equal(images.made(rows, 4)[0], made)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_get_size_and_type_of_the_store(dtype: type) -> None:
    made = np.array([[[[0, 255], [51, 102]]]], np.uint8)
    same = as_stored(made, np.empty((1, 1, 2, 2), dtype))
    assert same.dtype == dtype
    np.testing.assert_array_equal(same // (np.iinfo(dtype).max // 255), made)
    larger = as_stored(made, np.empty((1, 1, 8, 8), dtype))
    assert larger.shape == (1, 1, 8, 8)


def test_training_sees_them_and_validation_does_not(
    task: Task, pretrained: Pretrained, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TrainingSet] = []
    usual = made_images.fit_and_calibrate

    def watched(trained, objective, data, views, schedule, images, out, compute):  # type: ignore[no-untyped-def]
        seen.append(data)
        assert np.array_equal(images.val, task.val)
        assert images.pixels is task.pixels
        return usual(trained, objective, data, views, schedule, images, out, compute)

    monkeypatch.setattr(made_images, "fit_and_calibrate", watched)
    generator = _generator(task.target.classes)
    images = MadeImages(task, pretrained.encoder, lambda given, seed: generator, 1.0)
    images.train(rows, 0)
    [data] = seen
    made, codes = images.made(rows, 0)
    assert len(data) == 2 * len(rows)
    assert data.labels is not None
    assert data.labels.tolist() == [*task.y[rows].astype(int), *codes]
    both = data.images(np.arange(len(data))).numpy()
    assert np.array_equal(both, np.concatenate([task.pixels[rows], made]))


def test_the_arm_gives_outputs_and_keeps_them(
    task: Task, pretrained: Pretrained, rows: np.ndarray, tmp_path: Path
) -> None:
    generator, calls = _generator(task.target.classes), []

    def generator_of(given: np.ndarray, seed: int) -> Generator:
        calls.append(seed)
        return generator

    arm = made_images_arm(task, generator_of, 1.0, tmp_path, encoder=pretrained.encoder)
    assert (arm.key, arm.label) == ("supervised-made-1", "supervised + made images (1:1)")
    found = arm.outputs(rows, 1)
    assert found.test.shape == (len(task.test), 2)
    np.testing.assert_allclose(found.val.sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(arm.outputs(rows, 1).test, found.test)
    assert calls == [1]


def test_what_cannot_be_made_is_refused(
    task: Task, pretrained: Pretrained, chest: Collection, rows: np.ndarray
) -> None:
    foreign = _generator(("a", "b"))
    images = MadeImages(task, pretrained.encoder, lambda given, seed: foreign, 1.0)
    with pytest.raises(FewlabelError, match="The generator makes a, b, and the classes are"):
        images.made(rows, 0)
    with pytest.raises(FewlabelError, match="made_per_label is 0"):
        made_images_arm(task, lambda given, seed: foreign, 0, None, encoder=pretrained.encoder)
    age = make_task(chest, pretrained, replace(QUICK, target="Patient Age"), features_folder=None)
    with pytest.raises(FewlabelError, match="Patient Age is a number: compare it with one"):
        made_images_arm(age, lambda given, seed: foreign, 1, None, encoder=pretrained.encoder)
