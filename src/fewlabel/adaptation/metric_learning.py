"""Training an encoder on few labels so that images of one class lie close together, and others far apart.

The objective is `Siamese`, `Triplet` or `LibraryLoss`, on an encoder that was pretrained or starts at random. Batches
are balanced, a positive is of another patient, and training is stopped early by MAP@R (Musgrave et al. 2020,
arXiv:2003.08505) of the validation images, which ask for each other; test data are never seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fewlabel.adaptation.features import extract_features
from fewlabel.adaptation.finetune import PATIENCE, LabelledImages, look_every
from fewlabel.networks import Encoder
from fewlabel.objectives import LibraryLoss, Siamese, Triplet
from fewlabel.objectives.labelled_pairs import positives_and_negatives
from fewlabel.objectives.pairs import unit
from fewlabel.training import Compute, FitResult, TrainingSet, Watch, fit
from fewlabel.types import FewlabelError, Schedule

MetricObjective = Siamese | Triplet | LibraryLoss
PER_CLASS = 4
"""Images of a class in a batch; more where there are few classes."""
MOST_ASKED = 2000
"""Validation images that are looked at: their similarities are compared all with all."""


@dataclass(frozen=True)
class LearnedMetric:
    """An encoder with the small head that puts images on the unit sphere.

    objective: as it was trained. size_px: of the views. fit: how training went.
    """

    objective: MetricObjective
    size_px: int
    fit: FitResult = field(default_factory=FitResult)

    @property
    def encoder(self) -> Encoder:
        """From images to features h, for probes."""
        return self.objective.encoder

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Features h (N, F) of the whole images (N, C, S, S)."""
        return extract_features(self.objective.encoder, pixels, size_px=self.size_px)

    @torch.inference_mode()
    def embeddings(self, features: np.ndarray) -> np.ndarray:
        """Embeddings z (N, K) of length 1 of features (N, F), in which near means alike."""
        self.objective.eval()
        device = next(self.objective.parameters()).device
        return unit(self.objective.head(torch.from_numpy(features).to(device))).cpu().numpy()


def learn_metric(
    objective: MetricObjective,
    images: LabelledImages,
    schedule: Schedule,
    *,
    patients: np.ndarray | None = None,
    per_class: int = PER_CLASS,
    out: Path | None = None,
    compute: Compute | None = None,
) -> LearnedMetric:
    """Train on the labels of `images.train` in balanced batches; keep the weights with the best MAP@R on `images.val`.

    objective: is trained in place. images: `y` holds classes (N,), or 0, 1 and -1 for each of several labels (N, L).
    patients: (N,) codes of the whole collection, by which validation leaves out the own patient, and the objective
    too if it was made with `other_patient`; None = unknown. per_class: see `TrainingSet`.
    out: folder for checkpoints, from which the same call goes on. compute, further errors: as of `fit`.
    Raises FewlabelError for numbers instead of classes, and where no two images, of training or of validation, are
    alike.
    """
    check_alike(images, patients)
    rows = images.train
    data = TrainingSet(
        (images.pixels,),
        (rows,),
        images.y[rows].astype(np.int64),
        patients=None if patients is None else patients[rows].astype(np.int64),
        per_class=per_class,
    )
    result = fit(
        objective,
        data,
        images.views,
        schedule,
        out=out,
        watch=_watch(images, patients, look_every(schedule.steps)),
        compute=compute,
        checkpoint_every=100,
    )
    return LearnedMetric(objective, images.size_px, result)


def check_alike(images: LabelledImages, patients: np.ndarray | None) -> None:
    """Raise FewlabelError unless training and validation each hold two images, of two patients, that share a class."""
    if images.kind == "number":
        raise FewlabelError(
            "Metric learning got numbers: it needs classes that images share; make classes of them, such as age>55."
        )
    for rows, part in ((images.train, "training"), (images.val, "validation")):
        if not have_alike(images.y[rows], None if patients is None else patients[rows]):
            raise FewlabelError(
                f"No two of the {len(rows)} labelled {part} images share a class and are of two patients: label more "
                "images of each class."
            )


def have_alike(y: np.ndarray, patients: np.ndarray | None) -> bool:
    """Whether two images, of two patients, share a class; y: (N,) or (N, L), of which the first are looked at."""
    weight, _ = positives_and_negatives(*_tensors(y[:MOST_ASKED], patients))
    return bool(weight.any())


def _tensors(y: np.ndarray, patients: np.ndarray | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    owners = None if patients is None else torch.from_numpy(patients[: len(y)].astype(np.int64))
    return torch.from_numpy(y.astype(np.int64)), owners


def _watch(images: LabelledImages, patients: np.ndarray | None, every: int) -> Watch:
    """Looks at no more than MOST_ASKED validation images, drawn once."""
    rows = np.sort(np.random.default_rng(0).permutation(images.val)[:MOST_ASKED])
    pixels, owners = images.pixels[rows], None if patients is None else patients[rows]

    def score(model: nn.Module) -> float:
        assert isinstance(model, MetricObjective)
        learned = LearnedMetric(model, images.size_px)
        return validation_map_at_r(learned.embeddings(learned.features(pixels)), images.y[rows], owners)

    return Watch(score, every, PATIENCE)


def validation_map_at_r(z: np.ndarray, y: np.ndarray, patients: np.ndarray | None) -> float:
    """MAP@R of images that ask for each other, 0 to 1, NaN if no two are alike; no patient finds himself.

    z: (V, K), near by their scalar product. y: (V,) or (V, L); with several labels right is who shares one.
    `evaluation.retrieval` measures the same with intervals.
    """
    weight, _ = positives_and_negatives(*_tensors(y, patients))
    relevant = weight.numpy() > 0
    own = np.eye(len(z), dtype=bool)
    if patients is not None:
        own |= (patients[:, None] == patients) & (patients >= 0)
    similarity = np.where(own, -np.inf, z.astype(np.float64) @ z.T)
    order = np.argsort(-similarity, axis=1, kind="stable")
    right = np.take_along_axis(relevant, order, axis=1)
    total, places = right.sum(axis=1), np.arange(1, len(z) + 1)
    precisions = np.where(right & (places <= total[:, None]), right.cumsum(axis=1) / places, 0).sum(axis=1)
    asked = total > 0
    return float((precisions[asked] / total[asked]).mean()) if asked.any() else float("nan")
