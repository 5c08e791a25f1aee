"""Metric learning: what training makes of an encoder, when it stops, and what it must not see."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewlabel.adaptation import metric_learning
from fewlabel.adaptation.finetune import LabelledImages
from fewlabel.adaptation.metric_learning import (
    LearnedMetric,
    MetricObjective,
    learn_metric,
    validation_map_at_r,
)
from fewlabel.evaluation.retrieval import Search, cosines, rank_measures
from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives import LibraryLoss, Siamese, Triplet
from fewlabel.training import Compute, loop
from fewlabel.types import FewlabelError, Schedule

SIZE, COUNT = 16, 72
ROWS, VAL, REST = np.arange(36), np.arange(36, 54), np.arange(54, 72)
PATIENTS = np.arange(COUNT) // 2


def made(classes: int = 3) -> LabelledImages:
    """A bright spot in one of three corners, on noise; both images of a patient are of one class."""
    rng = np.random.default_rng(0)
    y = PATIENTS % classes
    pixels = rng.integers(0, 120, (COUNT, 1, SIZE, SIZE))
    for image, corner in zip(pixels, y, strict=True):
        top, left = [(2, 2), (2, 9), (9, 2)][corner]
        image[0, top : top + 5, left : left + 5] += 100
    return LabelledImages(pixels.astype(np.uint8), y, ROWS, VAL, "category", classes, SIZE)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(EncoderSettings("test_resnet", 1, SIZE)).eval()


def triplet(encoder: Encoder, seed: int = 0, **more: Any) -> Triplet:
    torch.manual_seed(seed)
    return Triplet(copy.deepcopy(encoder), embedding_dim=16, other_patient=True, **more)


def siamese(encoder: Encoder) -> Siamese:
    torch.manual_seed(0)
    return Siamese(copy.deepcopy(encoder), embedding_dim=16, other_patient=True)


def arcface(encoder: Encoder) -> LibraryLoss:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    torch.manual_seed(0)
    loss = losses.ArcFaceLoss(num_classes=3, embedding_size=16)
    return LibraryLoss(copy.deepcopy(encoder), loss_function=loss, embedding_dim=16)


def map_at_r(learned: LearnedMetric, images: LabelledImages, rows: np.ndarray) -> float:
    z = learned.embeddings(learned.features(images.pixels[rows]))
    return validation_map_at_r(z, images.y[rows], PATIENTS[rows])


PLAN = Schedule(40, 18, 3e-3, warmup_steps=5)


@pytest.mark.parametrize("begin", [triplet, siamese, arcface])
def test_images_of_a_class_come_together_also_those_that_were_not_seen(encoder: Encoder, begin: Any) -> None:
    images = made()
    objective: MetricObjective = begin(encoder)
    before = map_at_r(LearnedMetric(copy.deepcopy(objective), SIZE), images, REST)
    learned = learn_metric(objective, images, PLAN, patients=PATIENTS, compute=Compute("32"))
    after = map_at_r(learned, images, REST)
    assert after > max(0.7, before + 0.2)
    z = learned.embeddings(learned.features(images.pixels))
    assert z.shape == (COUNT, 16)
    assert np.allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    assert learned.fit.best_score == pytest.approx(map_at_r(learned, images, VAL), abs=1e-4)


def test_labels_of_the_test_part_change_nothing(encoder: Encoder) -> None:
    images, found = made(), []
    other = images.y.copy()
    other[REST] = (other[REST] + 1) % 3
    for y in (images.y, other):
        learned = learn_metric(
            triplet(encoder),
            replace(images, y=y),
            replace(PLAN, steps=6),
            patients=PATIENTS,
            compute=Compute("32"),
        )
        found.append(learned.features(images.pixels))
    assert np.array_equal(found[0], found[1])


def test_several_labels_of_an_image(encoder: Encoder) -> None:
    images = made()
    y = np.eye(3, dtype=np.int64)[images.y]
    y[::7, 1] = -1
    several = replace(images, y=y)
    learned = learn_metric(
        triplet(encoder), several, replace(PLAN, steps=10), patients=PATIENTS, compute=Compute("32")
    )
    assert learned.fit.best_score is not None
    assert 0 < learned.fit.best_score <= 1


def test_the_validation_score_is_the_measure_of_the_evaluation() -> None:
    rng = np.random.default_rng(1)
    y, patients = rng.integers(0, 3, 40), rng.integers(0, 15, 40)
    z = rng.normal(size=(40, 5)) + 2 * np.eye(3, 5)[y]
    z = (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)
    search = Search.by_class(y, y, patients, patients, query_rows=np.arange(40))
    wanted = rank_measures(cosines(z, z), search, search.draw(resamples=2, seed=0))["map_at_r"].found.value
    assert validation_map_at_r(z, y, patients) == pytest.approx(wanted, abs=1e-6)
    assert validation_map_at_r(z, y, None) > 0
    assert np.isnan(validation_map_at_r(z[:2], np.array([0, 1]), None))


def test_a_stopped_training_goes_on(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, plan = made(), replace(PLAN, steps=120, batch_size=6)
    monkeypatch.setattr(metric_learning, "PATIENCE", 99)
    save, one_step, steps = loop._Run._save, loop._Run._one_step, []

    def train() -> LearnedMetric:
        begun = triplet(encoder)
        return learn_metric(begun, images, plan, patients=PATIENTS, out=tmp_path, compute=Compute("32"))

    def stop(run: Any) -> None:
        save(run)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_save", stop)
        with pytest.raises(KeyboardInterrupt):
            train()

    def counted(run: Any, feeder: Any) -> float:
        steps.append(run.step)
        return one_step(run, feeder)

    monkeypatch.setattr(loop._Run, "_one_step", counted)
    train()
    assert steps == list(range(100, 120))


def test_what_no_metric_can_be_learned_from(encoder: Encoder) -> None:
    images = made()
    number = replace(images, kind="number", y=images.y.astype(float))
    with pytest.raises(FewlabelError, match="needs classes"):
        learn_metric(triplet(encoder), number, PLAN)
    few = replace(images, train=np.array([0, 1, 2, 4]))  # two of one patient, and one of each other class
    with pytest.raises(FewlabelError, match="No two of the 4 labelled training images"):
        learn_metric(triplet(encoder), few, PLAN, patients=PATIENTS)
    with pytest.raises(FewlabelError, match="No two of the 2 labelled validation images"):
        learn_metric(triplet(encoder), replace(images, val=VAL[1:3]), PLAN, patients=PATIENTS)
