"""SimCLRv2's steps after pretraining: fine-tune on few labels, then distil with all images.

Chen et al. 2020, arXiv:2006.10029. As there (section 3.3), a smaller student's teacher is the student of the big
network's own kind. What departs from the paper: the small networks and few images here are trained with AdamW and fewer
steps; a student of the teacher's own kind starts from the pretrained encoder, a smaller one from random weights.
"""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from fewlabel.adaptation.distill import DistillSettings, distill
from fewlabel.adaptation.finetune import (
    FineTuneSettings,
    TrainedNetwork,
    looks_in,
    train_on_labels,
    tuned_start,
)
from fewlabel.adaptation.ordinal import OrdinalProbe
from fewlabel.adaptation.probe import LinearProbe, Scaling
from fewlabel.networks import Encoder, EncoderSettings, OrdinalHead
from fewlabel.objectives import Supervised
from fewlabel.pipeline.arms import (
    Arm,
    Task,
    encoder_features,
    fit_probe,
    labelled_images,
    random_encoder,
    supervised_schedule,
    trained_arm,
)
from fewlabel.pipeline.kept import begun, read_network, write_network
from fewlabel.pipeline.pretraining import Pretrained
from fewlabel.pipeline.settings import HEADED, PretrainSettings
from fewlabel.training import mix_seed
from fewlabel.types import FewlabelError

SIMCLR_V2_HEAD_LAYERS = 3
"""Of the projection head (arXiv:2006.10029, section 2)."""
KeptArm = Literal["finetune", "self-distilled", "distilled"]


@dataclass(frozen=True)
class SimCLRv2Settings:
    """from_output, from_head: the two starting points of fine-tuning; the second is the teacher.
    student: network of the small student; one of the teacher's own kind is always trained.
    of_own_kind, smaller: how the two students are trained.
    keep: the arm whose classifier a run keeps, for `predict` and `export`; "distilled" is the small student.
    """

    from_output: FineTuneSettings = field(default_factory=FineTuneSettings)
    from_head: FineTuneSettings = field(default_factory=lambda: FineTuneSettings(keep_head_layers=1))
    student: str = "resnet18"
    of_own_kind: DistillSettings = field(default_factory=lambda: DistillSettings(temperature=0.1))
    smaller: DistillSettings = field(default_factory=lambda: DistillSettings(temperature=1.0))
    keep: KeptArm = "self-distilled"


def check_simclr_v2(settings: SimCLRv2Settings, pretraining: PretrainSettings) -> None:
    """Raise FewlabelError for what would stop the recipe, before anything is trained; pretraining: resolved."""
    if pretraining.objective not in HEADED:
        raise FewlabelError(
            f"The recipe simclr-v2 fine-tunes from inside the projection head, and {pretraining.title} leaves none: "
            f"pretrain with the objective {' or '.join(HEADED)}, or choose another recipe."
        )
    kept, there = settings.from_head.keep_head_layers, pretraining.projection_layers
    if kept >= there:
        raise FewlabelError(
            f"The recipe simclr-v2 keeps {kept} layer(s) of the projection head and throws the last one away, and the "
            f"head has {there}: pretrain with head_layers {kept + 1} or more; the paper has {SIMCLR_V2_HEAD_LAYERS}."
        )
    if settings.student != pretraining.encoder:
        # A mistake in the student's name, or a size that it cannot take, shows here.
        Encoder(_of_student(settings, pretraining.encoder_settings))
    elif settings.keep == "distilled":
        raise FewlabelError(
            f"The smaller student's classifier was to be kept, and the student is a {settings.student} as its teacher: "
            "name a smaller student, or keep self-distilled."
        )


def _of_student(settings: SimCLRv2Settings, big: EncoderSettings) -> EncoderSettings:
    return replace(big, name=settings.student, weights=None)


class SimCLRv2:
    """Trains and keeps the networks of each step; what is in `folder` is not trained again."""

    def __init__(
        self, task: Task, pretrained: Sequence[Pretrained], settings: SimCLRv2Settings, folder: Path | None
    ) -> None:
        self.task, self.pretrained, self.settings, self.folder = task, pretrained, settings, folder
        self.features = encoder_features(task, [one.encoder for one in pretrained])
        self.kept: dict[str, TrainedNetwork] = {}

    def arms(self, outputs: Path | None) -> list[Arm]:
        """One arm a step, in the order of the steps; `outputs` as in `trained_arm`."""
        made = [
            self.finetune_arm(outputs),
            self._arm("finetune-head", "fine-tuned from the head's first layer", outputs, self.tuned),
            self._arm("self-distilled", "distilled into its own kind", outputs, self.distilled),
        ]
        if self.settings.student != self.task.encoder_settings.name:
            label = f"distilled into {self.settings.student}"
            made.append(self._arm("distilled", label, outputs, self.distilled))
        return made

    def finetune_arm(self, outputs: Path | None) -> Arm:
        """The step that needs no head and no student; `outputs` as in `trained_arm`."""
        return self._arm("finetune", "fine-tuned from the encoder's output", outputs, self.tuned)

    def _arm(
        self,
        key: str,
        label: str,
        outputs: Path | None,
        train: Callable[[str, np.ndarray, int], TrainedNetwork],
    ) -> Arm:
        return trained_arm(
            key, label, "method", self.task, outputs, lambda rows, seed: train(key, rows, seed)
        )

    def tuned(self, key: str, rows: np.ndarray, seed: int) -> TrainedNetwork:
        """Fine-tuned on the labels of `rows`: "finetune" or "finetune-head"."""
        chosen = self.settings.from_head if key == "finetune-head" else self.settings.from_output
        images = labelled_images(self.task, rows)
        schedule = supervised_schedule(len(rows), chosen.learning_rate, mix_seed(key, seed) % 2**31)

        def start() -> Supervised:
            from_run = self.pretrained[seed % len(self.pretrained)]
            probe = None
            if chosen.start_from_probe:
                found = fit_probe(self.task, self.features(seed), rows, "linear")
                assert isinstance(found, LinearProbe | OrdinalProbe)
                probe = found
            return tuned_start(
                copy.deepcopy(from_run.encoder),
                copy.deepcopy(from_run.head),
                images,
                chosen,
                steps=schedule.steps,
                probe=probe,
            )

        return self._kept(
            key,
            rows,
            seed,
            start,
            lambda objective, out: train_on_labels(objective, images, schedule, out=out),
        )

    def distilled(self, key: str, rows: np.ndarray, seed: int) -> TrainedNetwork:
        """A student: "self-distilled", of the network fine-tuned from inside the head, or "distilled", of that one."""
        own = key == "self-distilled"
        chosen = self.settings.of_own_kind if own else self.settings.smaller
        images = labelled_images(self.task, rows)

        def start() -> Supervised:
            if own:
                encoder = copy.deepcopy(self.pretrained[seed % len(self.pretrained)].encoder)
            else:
                encoder = random_encoder(_of_student(self.settings, self.task.encoder_settings), seed)
            return Supervised(encoder, classes=self.task.classes, ordinal=images.kind == "ordinal")

        def train(student: Supervised, out: Path | None) -> TrainedNetwork:
            teacher = (
                self.tuned("finetune-head", rows, seed)
                if own
                else self.distilled("self-distilled", rows, seed)
            )
            every = self.task.split.train
            return distill(
                student, [teacher], images, every, chosen, seed=mix_seed(key, seed) % 2**31, out=out
            )

        return self._kept(key, rows, seed, start, train)

    def final_classifier(self) -> tuple[str, Encoder, LinearProbe | OrdinalProbe]:
        """Key of the arm whose classifier a run keeps; with all training labels its encoder, and its last layer."""
        key = self.settings.keep
        train = self.tuned if key == "finetune" else self.distilled
        return key, *as_probe(train(key, self.task.train, 0))

    @property
    def chosen_among(self) -> int:
        """From how many networks validation chose that classifier: the states it looked at, of all its teachers too."""
        settings = self.settings
        tuned = settings.from_output if settings.keep == "finetune" else settings.from_head
        steps = [supervised_schedule(len(self.task.train), tuned.learning_rate, 0).steps]
        if settings.keep != "finetune":
            steps.append(settings.of_own_kind.steps)
        if settings.keep == "distilled":
            steps.append(settings.smaller.steps)
        return math.prod(looks_in(one) for one in steps)

    def _kept(
        self,
        key: str,
        rows: np.ndarray,
        seed: int,
        start: Callable[[], Supervised],
        train: Callable[[Supervised, Path | None], TrainedNetwork],
    ) -> TrainedNetwork:
        """The network of this name; trained where it is not kept yet, from where an interrupted training stood."""
        name = f"{key}-{len(rows)}-{seed}"
        if name in self.kept:
            return self.kept[name]
        objective = begun(name, start)
        path = self.folder / f"{name}.safetensors" if self.folder else None
        if path and path.exists():
            trained = read_network(path, objective, self.task.size_px)
        else:
            unfinished = self.folder / name if self.folder else None
            trained = train(objective, unfinished)
            if path:
                write_network(path, trained)
            if unfinished:
                shutil.rmtree(unfinished, ignore_errors=True)
        self.kept = {name: trained}  # the last one only: it may be the next one's teacher
        return trained


def as_probe(trained: TrainedNetwork) -> tuple[Encoder, LinearProbe | OrdinalProbe]:
    """The same answers as an encoder with a linear probe, the form in which a run keeps its classifier.

    trained: a network whose last layer lies on the encoder's output.
    """
    objective = trained.objective
    assert isinstance(objective, Supervised)
    encoder = objective.encoder
    assert isinstance(encoder, Encoder)
    head, scaling = objective.head, Scaling(np.zeros(encoder.dim), 1.0)
    if isinstance(head, OrdinalHead):
        score, thresholds = (
            t.detach().double().cpu().numpy() for t in (head.score.weight[0], head.thresholds)
        )
        return encoder, OrdinalProbe(scaling, score, thresholds, trained.calibration)
    weights = head.weight.detach().double().cpu().numpy().T  # (F, K)
    intercept = head.bias.detach().double().cpu().numpy()
    if not objective.classes:
        weights, intercept = weights * trained.spread, intercept * trained.spread + trained.centre
        return encoder, LinearProbe("number", scaling, weights, intercept)
    kind: Literal["binary", "category"] = "binary" if objective.classes == 2 else "category"
    return encoder, LinearProbe(kind, scaling, weights, intercept, trained.calibration)
