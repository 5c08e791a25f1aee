"""Images made by a GAN's generator, put to use: held against the training images, and added to few labels.

Whatever is written, shown or trained on went through `ImageCheck` first: a sample that lies too close to a training
image is left out, and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from fewlabel.adaptation.features import extract_features
from fewlabel.adaptation.finetune import TrainedNetwork, before_training, fit_and_calibrate
from fewlabel.evaluation.memorisation import CopyCheck, Judged, Looks, Nearness, without_exposure
from fewlabel.networks import Encoder
from fewlabel.objectives.generator import BATCH, Generator
from fewlabel.pipeline.arms import (
    Arm,
    Task,
    encoder_features,
    from_scratch,
    labelled_images,
    small_images,
    supervised_schedule,
    trained_arm,
)
from fewlabel.splits import Split
from fewlabel.training import TrainingSet, mix_seed
from fewlabel.types import FewlabelError
from fewlabel.views import draw_view, plain_view

SIDE_PX = 32
"""Images are compared pixel by pixel at this size."""
DRAWS_A_KEPT_ONE = 4
"""How many samples are drawn at most for each that is wanted."""


@dataclass(frozen=True)
class ImageCheck:
    """Training images as pixels and as features of a run's pretrained encoder, against which made images are held.

    encoder: was trained before the GAN, whose own discriminator would take its generator's side.
    """

    encoder: Encoder
    size_px: int
    copies: CopyCheck

    @staticmethod
    def of(
        encoder: Encoder,
        pixels: np.ndarray,
        features: np.ndarray,
        split: Split,
        patients: np.ndarray,
        *,
        size_px: int,
    ) -> ImageCheck:
        """Samples are held against all training images; validation images say how near one may come.

        pixels (N, C, S, S), features (N, F) by `encoder`, patients (N,) of the whole collection. No test image takes
        part, since what is trained may depend on this.
        """
        looks = [
            {"pixels": without_exposure(small_images(pixels, rows, SIDE_PX)), "features": features[rows]}
            for rows in (split.train, split.val)
        ]
        return ImageCheck(encoder, size_px, CopyCheck.of(looks[0], looks[1], patients[split.val]))

    @staticmethod
    def of_task(task: Task, encoder: Encoder) -> ImageCheck:
        """The same for the images of a task."""
        features = encoder_features(task, [encoder])(0)
        patients = task.collection.patients()
        return ImageCheck.of(encoder, task.pixels, features, task.split, patients, size_px=task.size_px)

    def looks(self, images: np.ndarray) -> Looks:
        """Made images (S, C, H, W) uint8 as pixels and features."""
        return {
            "pixels": without_exposure(small_images(images, np.arange(len(images)), SIDE_PX)),
            "features": extract_features(self.encoder, images, size_px=self.size_px),
        }


@dataclass(frozen=True)
class Drawn:
    """The samples of one class in the order in which they were drawn.

    images: (D, C, H, W) uint8, as they are written. kept: (D,) bool, False where one lies too close to a training
    image. nearness: by space, for each of them.
    """

    images: np.ndarray
    kept: np.ndarray
    nearness: dict[str, Nearness]


def draw_samples(generator: Generator, code: int, count: int, check: ImageCheck, seed: int) -> Drawn:
    """Samples of a class until `count` are kept, or `DRAWS_A_KEPT_ONE` for each wanted one are drawn: a generator that
    repeats training images gives fewer. The same seed gives the same ones, however many are wanted.
    """
    random = torch.Generator().manual_seed(mix_seed("made images", seed, code))
    images: list[np.ndarray] = []
    judged: list[Judged] = []
    kept, drawn, most = 0, 0, DRAWS_A_KEPT_ONE * max(count, BATCH)
    while kept < count and drawn < most:
        images.append(sampled(generator, np.full(BATCH, code), random))
        judged.append(check.copies.judge(check.looks(images[-1])))
        kept, drawn = kept + int((~judged[-1].too_close).sum()), drawn + BATCH
    return _first(np.concatenate(images), judged, count)


def _first(images: np.ndarray, judged: list[Judged], count: int) -> Drawn:
    """All up to the one with which `count` are kept."""
    kept = ~np.concatenate([one.too_close for one in judged])
    last = int(np.searchsorted(np.cumsum(kept), count)) + 1
    nearness = {
        space: Nearness(
            np.concatenate([one.nearness[space].distance for one in judged])[:last],
            np.concatenate([one.nearness[space].relative for one in judged])[:last],
        )
        for space in judged[0].nearness
    }
    return Drawn(images[:last], kept[:last], nearness)


def sampled(generator: Generator, codes: np.ndarray, random: torch.Generator) -> np.ndarray:
    """Samples of classes (S,) with 8 bits, (S, C, H, W) uint8."""
    made = generator.sample(torch.from_numpy(codes), random)
    return (255 * made).round().to(torch.uint8).numpy()


def as_stored(images: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Images (S, C, H, W) uint8 in the size and type of a store (N, C, S', S') of uint8 or uint16."""
    side = like.shape[-1]
    unit = draw_view(torch.from_numpy(images), plain_view(side), torch.Generator())
    return (unit.numpy() * np.iinfo(like.dtype).max).round().astype(like.dtype)


GeneratorOf = Callable[[np.ndarray, int], Generator]
"""From the labelled rows and a seed to a generator that saw no other label."""


class MadeImages:
    """Made images that are added to few labels; fewer than asked for where a generator repeats training images.

    generator_of: what makes them. per_label: how many are made for each label, 1 = as many as labels; each class has
    its share of the labels. Raises FewlabelError for a target without classes, and for no image a label.
    """

    def __init__(self, task: Task, encoder: Encoder, generator_of: GeneratorOf, per_label: float) -> None:
        if task.target.kind == "number":
            raise FewlabelError(
                f"Images are made of classes, and {task.target.name} is a number: compare it with one, such as "
                f"'{task.target.name}>1'."
            )
        if not per_label > 0:
            raise FewlabelError(
                f"made_per_label is {per_label:g}: a number above 0 is needed, such as 1 for as many made images as "
                "labels."
            )
        self.task, self.encoder = task, encoder
        self.generator_of, self.per_label = generator_of, per_label

    @cached_property
    def check(self) -> ImageCheck:
        """What every sample goes through."""
        return ImageCheck.of_task(self.task, self.encoder)

    def made(self, rows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Images (S, C, S', S') as the store of the task has them, and their classes (S,), for the labels of `rows`."""
        generator = self.generator_of(rows, seed)
        if generator.class_names != self.task.target.classes:
            raise FewlabelError(
                f"The generator makes {', '.join(generator.class_names)}, and the classes are "
                f"{', '.join(self.task.target.classes)}: train one on this target."
            )
        counts = np.bincount(self.task.y[rows].astype(int), minlength=self.task.classes)
        wanted = [(code, round(self.per_label * int(count))) for code, count in enumerate(counts)]
        drawn = [
            (code, draw_samples(generator, code, count, self.check, seed)) for code, count in wanted if count
        ]
        drawn = [(code, one) for code, one in drawn if one.kept.any()]
        if not drawn:
            return np.empty((0, *self.task.pixels.shape[1:]), self.task.pixels.dtype), np.empty(0, np.int64)
        images = np.concatenate([one.images[one.kept] for _, one in drawn])
        codes = np.concatenate([np.full(int(one.kept.sum()), code) for code, one in drawn])
        return as_stored(images, self.task.pixels), codes

    def train(self, rows: np.ndarray, seed: int, learning_rate: float = 1e-3) -> TrainedNetwork:
        """The network of training from scratch, with the same first weights, on the labels of `rows` and made images.

        There are as many passes over all of these as that has over the labels. Validation and calibration see real
        images alone.
        """
        images = labelled_images(self.task, rows)
        made, codes = self.made(rows, seed)
        objective = from_scratch(self.task, seed)
        trained, real = before_training(objective, images)
        assert real.labels is not None
        data = TrainingSet(
            (*real.sources, made), (*real.rows, np.arange(len(made))), np.concatenate([real.labels, codes])
        )
        schedule = supervised_schedule(len(data), learning_rate, mix_seed(seed) % 2**31)
        return fit_and_calibrate(trained, objective, data, images.views, schedule, images, None, None)


def made_images_arm(
    task: Task,
    generator_of: GeneratorOf,
    made_per_label: float,
    folder: Path | None,
    *,
    encoder: Encoder,
    learning_rate: float = 1e-3,
) -> Arm:
    """Training from scratch on the labels and on made images of their classes.

    generator_of: trained on the labels of the given rows alone. made_per_label: see `MadeImages`. folder: as in
    `trained_arm`. encoder: pretrained, for telling copies. Errors as of `MadeImages`.
    """
    images = MadeImages(task, encoder, generator_of, made_per_label)
    return trained_arm(
        f"supervised-made-{made_per_label:g}",
        f"supervised + made images ({made_per_label:g}:1)",
        "method",
        task,
        folder,
        lambda rows, seed: images.train(rows, seed, learning_rate),
    )
