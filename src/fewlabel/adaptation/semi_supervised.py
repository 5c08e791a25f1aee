"""Semi-supervised training: a few images with a label and many without, in the same batches.

For M2, the semi-supervised GAN, Mean Teacher and FixMatch. The classifier's weights with the best score on validation
patients are kept, whose labels also calibrate it; test data are never seen. All of these papers start from random
weights, and the unlabelled images are all training images: those with a label are among them without it, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewlabel.adaptation.finetune import (
    LabelledImages,
    TrainedNetwork,
    fit_and_calibrate,
    look_every,
    watch_validation,
)
from fewlabel.objectives import GAN, M2, FixMatch, MeanTeacher
from fewlabel.training import Compute, TrainingSet, Watch
from fewlabel.types import FewlabelError, Schedule, TargetKind

SemiSupervisedObjective = M2 | GAN | MeanTeacher | FixMatch
"""Those of the package; any module that `fit` trains, with `classes` and `predict`, does as well."""


@dataclass(frozen=True)
class SemiSupervisedSettings:
    """How to train on labelled and unlabelled images together.

    steps of batch_size images, of which labelled_share have a label (at least one, at most all labels that there are).
    learning_rate: peak, reached after 5 % of the steps. Raises FewlabelError for a share that is not between 0 and 1.
    """

    steps: int = 400
    batch_size: int = 64
    labelled_share: float = 0.25
    learning_rate: float = 1e-3
    weight_decay: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.labelled_share < 1:
            raise FewlabelError(
                f"labelled_share is {self.labelled_share:g}: a share between 0 and 1 is needed."
            )

    def schedule(self, seed: int) -> Schedule:
        """The training schedule."""
        return Schedule(
            self.steps,
            self.batch_size,
            self.learning_rate,
            warmup_steps=self.steps // 20,
            weight_decay=self.weight_decay,
            seed=seed,
        )


def learn_semi_supervised(
    objective: SemiSupervisedObjective,
    images: LabelledImages,
    unlabelled: np.ndarray,
    settings: SemiSupervisedSettings | None = None,
    *,
    seed: int,
    out: Path | None = None,
    compute: Compute | None = None,
) -> TrainedNetwork:
    """Train on the labels of `images.train` and on the images of `unlabelled` without theirs.

    objective: is trained in place. unlabelled: rows of images.pixels; no label of theirs is looked at. Labelled images
    get the mild views of `images`, and so do the others, unless the objective says otherwise (`views_of`).
    The weights with the best score on `images.val` are kept and calibrated there, and training goes on to its last
    step, since a consistency term gains weight late. Of a GAN these are the weights of extractor and classifier; the
    generator, of which that score says nothing, is that of the last step.
    out: folder for checkpoints, from which the same call goes on. Raises FewlabelError for a number or grades instead
    of classes, without unlabelled images, and as `fit` does.
    """
    settings = settings or SemiSupervisedSettings()
    check_plain_classes(images.kind, "Semi-supervised training")
    schedule, trained = settings.schedule(seed), TrainedNetwork(objective, images.size_px)
    labels = np.concatenate([images.y[images.train].astype(np.int64), np.full(len(unlabelled), -1)])
    rows = np.concatenate([images.train, unlabelled])
    data = TrainingSet((images.pixels,), (rows,), labels, labelled_share=settings.labelled_share)
    watch = watch_classifier(trained, images, schedule.steps)
    return fit_and_calibrate(trained, objective, data, images.views, schedule, images, out, compute, watch)


def watch_classifier(trained: TrainedNetwork, images: LabelledImages, steps: int) -> Watch:
    """A look at validation every 5 % of the steps, never an early end; of a GAN the classifier alone is restored."""
    parts = ("encoder.", "head.") if isinstance(trained.objective, GAN) else None
    return watch_validation(
        trained, images, every=look_every(steps), patience=steps, halve_after=None, parts=parts
    )


def check_plain_classes(kind: TargetKind, what: str) -> None:
    """Raise FewlabelError for a target that is a number, or has grades. what: who asks, for the sentence."""
    if kind == "number":
        raise FewlabelError(
            f"{what} learns classes, and the target is a number: compare it with one, such as 'age>55', or choose "
            "another recipe."
        )
    if kind == "ordinal":
        raise FewlabelError(
            f"{what} knows no order of classes, and the target has grades: leave the grades out, so that they are "
            "classes like any others, or choose another recipe."
        )
