"""The arms see what they may see: no test label, no test image, no label beyond their budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tiny_runs import QUICK

from fewlabel.collection import Collection
from fewlabel.pipeline.arms import Task, statistics_features
from fewlabel.pipeline.evaluating import make_arms, make_task
from fewlabel.pipeline.pretraining import Pretrained
from fewlabel.splits import nested_budgets

KINDS = {"opacity": 0, "side": 0, "Patient Age": 0.0}


def outputs(task: Task, pretrained: Pretrained, rows: np.ndarray) -> dict[str, Any]:
    arms = make_arms(task, [pretrained], QUICK, None, None)
    return {arm.key: arm.outputs(rows, 1) for arm in arms}


def ten_labels(task: Task, chest: Collection) -> np.ndarray:
    drawn = nested_budgets(task.y[task.train], chest.patients()[task.train], [10], seed=0)
    return task.train[drawn[10]]


@pytest.mark.slow
@pytest.mark.parametrize("target", KINDS)
def test_labels_outside_the_budget_change_nothing(
    target: str, pretrained: Pretrained, chest: Collection
) -> None:
    task = make_task(chest, pretrained, replace(QUICK, target=target), features_folder=None)
    rows = ten_labels(task, chest)
    values = task.y.copy()
    hidden = np.setdiff1d(np.arange(len(chest)), np.concatenate([rows, task.val]))
    values[hidden] = KINDS[target]  # all test labels among them
    assert not np.array_equal(values, task.y)
    other = replace(task, target=replace(task.target, values=values))
    before, after = outputs(task, pretrained, rows), outputs(other, pretrained, rows)
    for key in before:
        assert np.array_equal(before[key].test, after[key].test), key
        assert np.array_equal(before[key].val, after[key].val), key


@pytest.mark.slow
def test_test_images_change_only_their_own_outputs(pretrained: Pretrained, chest: Collection) -> None:
    task = make_task(chest, pretrained, QUICK, features_folder=None)
    rows = ten_labels(task, chest)
    pixels = np.array(task.pixels)
    rng = np.random.default_rng(0)
    pixels[task.test[1:]] = rng.integers(0, 60, pixels[task.test[1:]].shape)
    before = outputs(task, pretrained, rows)
    after = outputs(replace(task, pixels=pixels), pretrained, rows)
    for key in before:
        assert np.allclose(before[key].val, after[key].val, atol=1e-5), key
        assert np.allclose(before[key].test[0], after[key].test[0], atol=1e-5), key
        assert not np.array_equal(before[key].test[1:], after[key].test[1:]), key


def test_image_statistics_are_scaled_by_training_images(pretrained: Pretrained, chest: Collection) -> None:
    task = make_task(chest, pretrained, QUICK, features_folder=None)
    pixels = np.array(task.pixels)
    pixels[task.test] //= 4
    train = task.split.train
    before, after = (statistics_features(one)[train] for one in (task, replace(task, pixels=pixels)))
    assert np.array_equal(before, after)
    assert np.allclose(before.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(before.std(axis=0), 1, atol=1e-5)


def test_outputs_are_probabilities_or_numbers_by_row(pretrained: Pretrained, chest: Collection) -> None:
    for target, shape in (("opacity", (2,)), ("side", (3,)), ("Patient Age", ())):
        task = make_task(chest, pretrained, replace(QUICK, target=target), features_folder=None)
        arms = {arm.key: arm for arm in make_arms(task, [pretrained], QUICK, None, None)}
        for key in ("simclr", "simclr-knn", "supervised", "statistics"):
            made = arms[key].outputs(task.train, 0)
            assert made.val.shape == (len(task.val), *shape)
            assert made.test.shape == (len(task.test), *shape)
            assert np.isfinite(made.test).all()
            if shape:
                assert np.allclose(made.test.sum(axis=1), 1)
