"""The recipe "metric": the encoder learns on the labels of each budget which images are alike, and is probed as before.

Hadsell et al. 2006 (Siamese) and Schroff et al. 2015, arXiv:1503.03832 (triplet). Each trained encoder is followed by a
linear probe on its features, and by nearest neighbours in its embedding, which is what it was trained for.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from fewlabel.adaptation.finetune import looks_in
from fewlabel.adaptation.metric_learning import LearnedMetric, MetricObjective, have_alike, learn_metric
from fewlabel.collection import Target
from fewlabel.networks import Encoder
from fewlabel.objectives import Siamese, Triplet
from fewlabel.pipeline.arms import (
    Arm,
    Outputs,
    Task,
    arms_of_one_training,
    labelled_images,
    probe_outputs,
    random_encoder,
    supervised_schedule,
)
from fewlabel.pipeline.kept import begun, put_weights
from fewlabel.pipeline.pretraining import Pretrained
from fewlabel.training import mix_seed, save_tensors
from fewlabel.types import FewlabelError

PRETRAINED_RATE, RANDOM_RATE = 3e-4, 1e-3
"""Peak rates, of an encoder that has learned something already and of one that has not."""
NEIGHBOURS = "-knn"
"""Ends the key of the arm with nearest neighbours."""


@dataclass(frozen=True)
class MetricMethod:
    """One way to train: key: short name in files; label: for people.

    objective: from the encoder that training begins with. pretrained: whether that is the pretrained one, or has random
    weights.
    """

    key: str
    label: str
    objective: Callable[[Encoder], MetricObjective]
    pretrained: bool = True


def usual_methods(title: str) -> tuple[MetricMethod, ...]:
    """Triplet and Siamese on the pretrained encoder, whose objective is called `title`, and triplet from scratch."""
    triplet, siamese = partial(Triplet, other_patient=True), partial(Siamese, other_patient=True)
    return (
        MetricMethod("simclr-triplet", f"{title} + triplet", triplet),
        MetricMethod("simclr-siamese", f"{title} + Siamese", siamese),
        MetricMethod("triplet", "triplet from scratch", triplet, pretrained=False),
    )


class MetricLearning:
    """Trains the encoders of each method, and keeps what they answer.

    methods: the first is the one whose encoder with all labels a run keeps. folder: for networks; None = nowhere.
    """

    def __init__(
        self,
        task: Task,
        pretrained: Sequence[Pretrained],
        folder: Path | None,
        methods: Sequence[MetricMethod] | None = None,
    ) -> None:
        self.task, self.pretrained, self.folder = task, pretrained, folder
        self.methods = tuple(methods or usual_methods(pretrained[0].settings.title))
        self.patients = task.collection.patients()
        self.final: LearnedMetric | None = None

    def arms(self, outputs: Path | None) -> list[Arm]:
        """Two arms a method; outputs: where their outputs are kept, None = in memory."""
        return [arm for method in self.methods for arm in self._arms(method, outputs)]

    def _arms(self, method: MetricMethod, folder: Path | None) -> list[Arm]:
        labels = {
            method.key: f"{method.label}, {self.task.probe_name}",
            method.key + NEIGHBOURS: f"{method.label}, nearest neighbours",
        }
        return arms_of_one_training(labels, folder, partial(self._outputs, method))

    def _outputs(self, method: MetricMethod, rows: np.ndarray, seed: int) -> dict[str, Outputs]:
        learned = self.trained(method, rows, seed)
        features = learned.features(self.task.pixels)
        z = learned.embeddings(features)
        return {
            method.key: probe_outputs(self.task, features, rows, "linear"),
            method.key + NEIGHBOURS: probe_outputs(self.task, z, rows, "neighbours"),
        }

    def final_encoder(self) -> tuple[str, Encoder]:
        """Key of the arm, and encoder, of the first method with all training labels."""
        method = self.methods[0]
        return method.key, self.trained(method, self.task.train, 0).encoder

    @property
    def chosen_among(self) -> int:
        """From how many states of the encoder validation chose that one."""
        return looks_in(supervised_schedule(len(self.task.train), PRETRAINED_RATE, 0).steps)

    def final_embedding(self, features: np.ndarray) -> tuple[str, np.ndarray]:
        """Label of that method, and the embeddings (N, K) of its encoder's features (N, F)."""
        method = self.methods[0]
        return method.label, self.trained(method, self.task.train, 0).embeddings(features)

    def trained(self, method: MetricMethod, rows: np.ndarray, seed: int) -> LearnedMetric:
        """Trained on the labels of `rows`, from where an interrupted training stood; the one that a run keeps once."""
        is_final = method is self.methods[0] and seed == 0 and len(rows) == len(self.task.train)
        if is_final and self.final:
            return self.final
        name = f"{method.key}-{len(rows)}-{seed}"
        objective = self._begun(method, name, seed)
        path = self.folder / f"{name}.safetensors" if self.folder else None
        if path and path.exists():
            put_weights(objective, path)
            learned = LearnedMetric(objective, self.task.size_px)
        else:
            learned = self._train(method, objective, rows, seed, self.folder / name if self.folder else None)
            if path and is_final:
                save_tensors(objective.state_dict(), path)
            if self.folder:
                shutil.rmtree(self.folder / name, ignore_errors=True)
        if is_final:
            self.final = learned
        return learned

    def _begun(self, method: MetricMethod, name: str, seed: int) -> MetricObjective:
        def start() -> MetricObjective:
            if method.pretrained:
                return method.objective(copy.deepcopy(self.pretrained[seed % len(self.pretrained)].encoder))
            return method.objective(random_encoder(self.task.encoder_settings, seed))

        return begun(name, start)

    def _train(
        self,
        method: MetricMethod,
        objective: MetricObjective,
        rows: np.ndarray,
        seed: int,
        out: Path | None,
    ) -> LearnedMetric:
        rate = PRETRAINED_RATE if method.pretrained else RANDOM_RATE
        schedule = supervised_schedule(len(rows), rate, mix_seed(method.key, seed) % 2**31)
        images = labelled_images(self.task, rows)
        return learn_metric(objective, images, schedule, patients=self.patients, out=out)


def check_metric_labels(target: Target, rows: Iterable[np.ndarray], patients: np.ndarray) -> None:
    """Raise FewlabelError for a number, or where some `rows`, of a budget or of validation, hold no two alike
    images.
    """
    if target.kind == "number":
        raise FewlabelError(
            f"The recipe metric needs classes, and {target.name} is a number: compare it with one, such as "
            f"'{target.name}>1', or choose another recipe."
        )
    for some in rows:
        if not have_alike(target.values[some], patients[some]):
            raise FewlabelError(
                f"No two of {len(some)} images with a label share a class and are of two patients, so that "
                "the recipe metric has nothing to learn from them: use larger budgets, or label more images."
            )
