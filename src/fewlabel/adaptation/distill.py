"""Distillation of fine-tuned networks into another one, on all training images, labelled or not.

Chen et al. 2020 (SimCLRv2), arXiv:2006.10029, section 2. The student may be of the same kind (self-distillation) or
smaller; several teachers speak with their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fewlabel.adaptation.finetune import LabelledImages, TrainedNetwork, fit_and_calibrate
from fewlabel.objectives import Distillation, Supervised
from fewlabel.objectives.distillation import mean_answer
from fewlabel.training import Compute, TrainingSet
from fewlabel.types import FewlabelError, Schedule
from fewlabel.views import ViewSettings, plain_view


@dataclass(frozen=True)
class DistillSettings:
    """temperature: the paper's 0.1 for a student of the teacher's own kind, 1 for a smaller one.
    alpha: 1 = what the teacher says alone; less = the labels count with 1 - alpha.
    steps, batch_size: of the student's training; learning_rate: its peak.
    """

    temperature: float = 1.0
    alpha: float = 1.0
    steps: int = 400
    batch_size: int = 64
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise FewlabelError(f"temperature is {self.temperature:g}: a number above 0 is needed.")
        if not 0 <= self.alpha <= 1:
            raise FewlabelError(f"alpha is {self.alpha:g}: a share from 0 to 1 is needed.")


def distill(
    student: Supervised,
    teachers: Sequence[TrainedNetwork],
    images: LabelledImages,
    rows: np.ndarray,
    settings: DistillSettings,
    *,
    seed: int,
    views: ViewSettings | None = None,
    out: Path | None = None,
    compute: Compute | None = None,
) -> TrainedNetwork:
    """Train the student, in place, on what the teachers say of the images of `rows`.

    rows: all training images; the labels of `images.train` among them count where alpha < 1.
    views: None = mild random ones, of which the teachers see the same; where each step shows the same views (the plain
    one), what the teachers say is computed once. out: folder for checkpoints. The weights with the best score on
    `images.val` are kept and calibrated there. Raises FewlabelError without a teacher, and if teachers or student
    differ in their classes or numbers.
    """
    _check_teachers(teachers, student)
    first = teachers[0]
    views = views or images.views
    trained = TrainedNetwork(student, images.size_px, centre=first.centre, spread=first.spread)
    once = views == plain_view(images.size_px) and settings.alpha == 1
    networks = [teacher.objective.eval() for teacher in teachers]
    objective = Distillation(
        student,
        [] if once else [network.predict for network in networks],
        temperature=settings.temperature,
        alpha=settings.alpha,
    )
    labels = _said_once(teachers, images, rows, settings) if once else _labels_of(trained, images, rows)
    schedule = Schedule(
        settings.steps,
        settings.batch_size,
        settings.learning_rate,
        warmup_steps=settings.steps // 20,
        weight_decay=0.05,
        seed=seed,
    )
    data = TrainingSet((images.pixels,), (rows,), labels)
    return fit_and_calibrate(trained, objective, data, views, schedule, images, out, compute)


def _check_teachers(teachers: Sequence[TrainedNetwork], student: Supervised) -> None:
    if not teachers:
        raise FewlabelError("No teacher was given to distil: give at least one trained network.")
    counts = sorted({student.classes, *(one.objective.classes for one in teachers)})
    if len(counts) > 1:
        raise FewlabelError(
            f"The student and its teachers tell {' and '.join(map(str, counts))} classes (0 = a number): give networks "
            "of one target."
        )
    if len({(one.centre, one.spread) for one in teachers}) > 1:
        raise FewlabelError(
            "The teachers were trained on different labels: their numbers have no common scale."
        )


def _said_once(
    teachers: Sequence[TrainedNetwork], images: LabelledImages, rows: np.ndarray, settings: DistillSettings
) -> np.ndarray:
    """What the teachers say of the whole images of `rows`: (n, K) probabilities at the temperature, or (n, 1)."""
    outputs = [torch.from_numpy(teacher.logits(images.pixels, rows)) for teacher in teachers]
    return mean_answer(outputs, images.classes, settings.temperature).numpy()


def _labels_of(trained: TrainedNetwork, images: LabelledImages, rows: np.ndarray) -> np.ndarray:
    """(n,) labels of `rows`: those of images.train, and none for all others, whatever the collection knows."""
    known = np.isin(rows, images.train)
    if images.kind == "number":
        standardised = (images.y[rows] - trained.centre) / trained.spread
        return np.where(known, standardised, np.nan).astype(np.float32)
    return np.where(known, images.y[rows], -1).astype(np.int64)
