"""The recipe "semi-supervised": M2, GAN, Mean Teacher and FixMatch beside the pretrained encoder.

Each starts from random weights, as in its paper, at every budget and seed, and sees the labels of the budget and all
training images without theirs. Where the pretrained encoder comes with a decoder, the three stages are measured beside
them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from fewlabel.adaptation.finetune import TrainedNetwork
from fewlabel.adaptation.semi_supervised import (
    SemiSupervisedObjective,
    SemiSupervisedSettings,
    learn_semi_supervised,
)
from fewlabel.objectives import GAN, M2, FixMatch, MeanTeacher
from fewlabel.pipeline.arms import Arm, Task, labelled_images, random_encoder, trained_arm
from fewlabel.pipeline.kept import begun
from fewlabel.pipeline.three_stages import ThreeStages
from fewlabel.training import mix_seed


@dataclass(frozen=True)
class SemiSupervisedMethod:
    """key: short name in files; label: for people. objective: what makes one of an encoder and `classes`."""

    key: str
    label: str
    objective: Callable[..., SemiSupervisedObjective]


METHODS = (
    SemiSupervisedMethod("m2", "M2", M2),
    SemiSupervisedMethod("gan", "semi-supervised GAN", GAN),
    SemiSupervisedMethod("mean-teacher", "Mean Teacher", MeanTeacher),
    SemiSupervisedMethod("fixmatch", "FixMatch", FixMatch),
)


class SemiSupervised:
    """Trains each method. three_stages: measured beside them, None = not. folder: for checkpoints; None = nowhere."""

    def __init__(
        self,
        task: Task,
        settings: SemiSupervisedSettings,
        three_stages: ThreeStages | None,
        folder: Path | None,
    ) -> None:
        self.task, self.settings, self.three_stages, self.folder = task, settings, three_stages, folder

    def arms(self, outputs: Path | None) -> list[Arm]:
        """One arm a method, and those of the three stages; outputs: as in `trained_arm`."""
        made = [
            trained_arm(method.key, method.label, "method", self.task, outputs, partial(self.trained, method))
            for method in METHODS
        ]
        return made + (self.three_stages.arms(outputs) if self.three_stages else [])

    def trained(self, method: SemiSupervisedMethod, rows: np.ndarray, seed: int) -> TrainedNetwork:
        """Trained on the labels of `rows` and on all training images, from where an interrupted training stood."""
        name = f"{method.key}-{len(rows)}-{seed}"
        task, checkpoints = self.task, self.folder / name if self.folder else None
        objective = begun(
            name, lambda: method.objective(random_encoder(task.encoder_settings, seed), classes=task.classes)
        )
        found = learn_semi_supervised(
            objective,
            labelled_images(task, rows),
            task.split.train,
            self.settings,
            seed=mix_seed(method.key, seed) % 2**31,
            out=checkpoints,
        )
        if checkpoints:
            shutil.rmtree(checkpoints, ignore_errors=True)
        return found
