"""The arms of a comparison: each gives outputs on validation and test images from a few labelled ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from fewlabel.adaptation.features import cached_features
from fewlabel.adaptation.finetune import LabelledImages, TrainedNetwork, train_on_labels
from fewlabel.adaptation.ordinal import OrdinalProbe, fit_ordinal_probe
from fewlabel.adaptation.probe import (
    Calibration,
    LinearProbe,
    NeighbourProbe,
    Scaling,
    fit_linear_probe,
    fit_neighbour_probe,
)
from fewlabel.collection import Collection, Target
from fewlabel.files import replacing
from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives import Supervised
from fewlabel.splits import Split
from fewlabel.tasks.grading import Cuts, choose_cuts
from fewlabel.training import channels_last, mix_seed
from fewlabel.types import Schedule
from fewlabel.views import draw_view, plain_view

Role = Literal["method", "control", "reference", "baseline"]


@dataclass(frozen=True)
class Outputs:
    """Calibrated probabilities (n, K), or numbers (n,), of the labelled validation and test images.

    uncalibrated: the probabilities of the test images before calibration; None for numbers.
    called: (n,) grades called on the test images, by cuts that validation chose; None for other targets.
    """

    val: np.ndarray
    test: np.ndarray
    uncalibrated: np.ndarray | None = None
    called: np.ndarray | None = None


@dataclass(frozen=True)
class Task:
    """One target on one collection with its split: all that an arm may see.

    train, val, test: rows with a usable label. train_images: all training rows, labelled or not.
    pixels: (N, C, S, S) of the whole collection. y: (N,) classes or numbers. classes: K, 0 for a number.
    cluster: address of a Ray cluster that takes the features; None = this process.
    """

    collection: Collection
    target: Target
    split: Split
    pixels: np.ndarray
    size_px: int
    encoder_settings: EncoderSettings
    flips: bool
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    features_folder: Path | None = None
    cluster: str | None = None

    @property
    def y(self) -> np.ndarray:
        return self.target.values

    @property
    def classes(self) -> int:
        return 0 if self.target.kind == "number" else len(self.target.classes)

    @property
    def probe_name(self) -> str:
        """What a probe on its labels is called, for people."""
        return "ordinal probe" if self.target.kind == "ordinal" else "linear probe"


@dataclass(frozen=True)
class Arm:
    """key: short name in files; label: for people; outputs(rows, seed): trained on the labels of `rows` alone."""

    key: str
    label: str
    role: Role
    outputs: Callable[[np.ndarray, int], Outputs]


Probe = LinearProbe | OrdinalProbe | NeighbourProbe


def fit_probe(
    task: Task, features: np.ndarray, rows: np.ndarray, probe: Literal["linear", "neighbours"]
) -> Probe:
    """A probe on features (N, F) of the whole collection from the labels of `rows`; settings from validation.

    The linear one of an ordinal target is an `OrdinalProbe`.
    """
    x, y, val_x, val_y = features[rows], task.y[rows], features[task.val], task.y[task.val]
    if probe == "neighbours":
        return fit_neighbour_probe(x, y, val_x, val_y, kind=task.target.kind, classes=task.classes)
    scaling = Scaling.of(features[task.split.train])
    if task.target.kind == "ordinal":
        return fit_ordinal_probe(x, y, val_x, val_y, classes=task.classes, scaling=scaling)
    return fit_linear_probe(x, y, val_x, val_y, kind=task.target.kind, classes=task.classes, scaling=scaling)


def probe_arm(
    key: str,
    label: str,
    role: Role,
    task: Task,
    features: Callable[[int], np.ndarray],
    probe: Literal["linear", "neighbours"] = "linear",
) -> Arm:
    """An arm that probes features(seed) -> (N, F)."""

    return Arm(key, label, role, lambda rows, seed: probe_outputs(task, features(seed), rows, probe))


def probe_outputs(
    task: Task, features: np.ndarray, rows: np.ndarray, probe: Literal["linear", "neighbours"]
) -> Outputs:
    """What `fit_probe` answers on validation and test."""
    fitted = fit_probe(task, features, rows, probe)
    test = features[task.test]
    before = None if task.target.kind == "number" else uncalibrated(fitted).predict(test)
    return Outputs(fitted.predict(features[task.val]), fitted.predict(test), before)


def chosen_cuts(task: Task, val: np.ndarray) -> Cuts:
    """The cuts between grades that suit the probabilities val (n, K) of the validation images."""
    return choose_cuts(val, task.y[task.val])


def graded(task: Task, arm: Arm) -> Arm:
    """The same arm, which also calls grades on the test images."""

    def outputs(rows: np.ndarray, seed: int) -> Outputs:
        found = arm.outputs(rows, seed)
        return replace(found, called=chosen_cuts(task, found.val)(found.test))

    return replace(arm, outputs=outputs)


def uncalibrated(probe: Probe) -> Probe:
    """The same probe without its calibration."""
    return replace(probe, calibration=Calibration())


def encoder_features(task: Task, encoders: Sequence[Encoder]) -> Callable[[int], np.ndarray]:
    """Features by the encoder of a seed, encoders[seed % number], taken once."""
    features = _taken_once(task, lambda index: encoders[index])
    return lambda seed: features(seed % len(encoders))


def random_features(task: Task) -> Callable[[int], np.ndarray]:
    """Features by the same network with random weights, another draw for each seed."""
    return _taken_once(task, lambda seed: random_encoder(task.encoder_settings, seed))


def _taken_once(task: Task, encoder_of: Callable[[int], Encoder]) -> Callable[[int], np.ndarray]:
    """Features (N, F) by encoder_of(key), kept in memory for each key."""
    taken: dict[int, np.ndarray] = {}

    def features(key: int) -> np.ndarray:
        if key not in taken:
            taken[key] = cached_features(
                encoder_of(key),
                task.pixels,
                size_px=task.size_px,
                fingerprint=task.collection.fingerprint,
                folder=task.features_folder,
                cluster=task.cluster,
            )
        return taken[key]

    return features


def random_encoder(settings: EncoderSettings, seed: int) -> Encoder:
    """A new encoder with weights drawn from `seed`."""
    with torch.random.fork_rng():
        torch.manual_seed(mix_seed("random encoder", seed))
        encoder = Encoder(replace(settings, weights=None))
    channels_last(encoder)
    return encoder


def pixel_features(task: Task, side_px: int = 16) -> np.ndarray:
    """The plain non-deep baseline: the image at 16 x 16 pixels, (N, C * 256)."""
    return small_images(task.pixels, np.arange(len(task.pixels)), side_px)


def small_images(pixels: np.ndarray, rows: np.ndarray, side_px: int) -> np.ndarray:
    """Rows of images (N, C, S, S) at side_px x side_px pixels in [0, 1], (n, C * side_px^2)."""
    generator = torch.Generator()
    parts = []
    for start in range(0, len(rows), 1024):
        images = torch.from_numpy(np.array(pixels[rows[start : start + 1024]]))
        parts.append(draw_view(images, plain_view(side_px), generator).flatten(1).numpy())
    return np.concatenate(parts)


def statistics_features(task: Task) -> np.ndarray:
    """Six numbers an image, (N, 6): mean, deviation, and the means of the four borders (an eighth of the side).

    What these alone can tell has nothing to do with anatomy: exposure, collimation, burned-in text.
    """
    small = pixel_features(task, 32).reshape(len(task.pixels), -1, 32, 32).mean(axis=1)
    borders = [small[:, :4], small[:, -4:], small[:, :, :4], small[:, :, -4:]]
    columns = [
        small.mean(axis=(1, 2)),
        small.std(axis=(1, 2)),
        *(border.mean(axis=(1, 2)) for border in borders),
    ]
    stacked = np.stack(columns, axis=1)
    known = stacked[task.split.train]
    return (stacked - known.mean(axis=0)) / np.maximum(known.std(axis=0), 1e-6)


def supervised_schedule(labels: int, learning_rate: float, seed: int) -> Schedule:
    """Batches of 32 (64 from 500 labels on); 30 passes over the labels, no fewer than 150 and no more than 800 steps.

    Training is stopped earlier when validation does not improve.
    """
    batch_size = min(labels, 32 if labels < 500 else 64)
    steps = int(np.clip(30 * labels / batch_size, 150, 800))
    return Schedule(steps, batch_size, learning_rate, warmup_steps=10, weight_decay=0.05, seed=seed)


def labelled_images(task: Task, rows: np.ndarray) -> LabelledImages:
    """What training on the labels of `rows` may see."""
    return LabelledImages(
        task.pixels, task.y, rows, task.val, task.target.kind, task.classes, task.size_px, task.flips
    )


def trained_arm(
    key: str,
    label: str,
    role: Role,
    task: Task,
    folder: Path | None,
    train: Callable[[np.ndarray, int], TrainedNetwork],
) -> Arm:
    """An arm whose network is trained by train(rows, seed); its outputs are kept in `folder`, None = nowhere."""

    def outputs(rows: np.ndarray, seed: int) -> Outputs:
        kept = load_outputs(folder, key, rows, seed)
        if kept:
            return kept
        result = network_outputs(task, train(rows, seed))
        save_outputs(result, folder, key, rows, seed)
        return result

    return Arm(key, label, role, outputs)


def arms_of_one_training(
    labels: dict[str, str], folder: Path | None, outputs: Callable[[np.ndarray, int], dict[str, Outputs]]
) -> list[Arm]:
    """Methods that share a training: whichever is asked for first, outputs(rows, seed) gives those of all by key.

    labels: for people, by key. folder: where outputs are kept, None = in memory alone.
    """
    measured: dict[tuple[str, int, int], Outputs] = {}

    def asked(key: str, rows: np.ndarray, seed: int) -> Outputs:
        kept = measured.get((key, len(rows), seed)) or load_outputs(folder, key, rows, seed)
        if kept:
            return kept
        found = outputs(rows, seed)
        for name, one in found.items():
            measured[name, len(rows), seed] = one
            save_outputs(one, folder, name, rows, seed)
        return found[key]

    return [Arm(key, label, "method", partial(asked, key)) for key, label in labels.items()]


def save_outputs(outputs: Outputs, folder: Path | None, key: str, rows: np.ndarray, seed: int) -> None:
    """Keep what an arm gave for the labels of `rows` and a seed; nothing where folder is None."""
    if folder is None:
        return
    before = np.empty(0) if outputs.uncalibrated is None else outputs.uncalibrated
    with replacing(_outputs_path(folder, key, rows, seed)) as temporary, temporary.open("wb") as file:
        np.savez(file, val=outputs.val, test=outputs.test, uncalibrated=before)


def _outputs_path(folder: Path, key: str, rows: np.ndarray, seed: int) -> Path:
    return folder / f"{key}-{len(rows)}-{seed}.npz"


def load_outputs(folder: Path | None, key: str, rows: np.ndarray, seed: int) -> Outputs | None:
    """What `save_outputs` kept; None where there is no file, or one of an earlier version without `uncalibrated`."""
    path = _outputs_path(folder, key, rows, seed) if folder else None
    if path is None or not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        if "uncalibrated" not in file.files:
            return None
        before = file["uncalibrated"]
        return Outputs(file["val"], file["test"], before if before.size else None)


def network_outputs(task: Task, trained: TrainedNetwork) -> Outputs:
    """What a network answers on validation and test."""
    val, logits = trained.predict(task.pixels, task.val), trained.logits(task.pixels, task.test)
    if task.target.kind == "number":
        return Outputs(val, trained.number(logits))
    return Outputs(val, trained.calibration(logits), Calibration()(logits))


def supervised_arm(task: Task, folder: Path | None, learning_rate: float = 1e-3) -> Arm:
    """The same network from random weights, trained on the labels alone; stopped early on validation patients."""

    def train(rows: np.ndarray, seed: int) -> TrainedNetwork:
        images = labelled_images(task, rows)
        schedule = supervised_schedule(len(rows), learning_rate, mix_seed(seed) % 2**31)
        return train_on_labels(from_scratch(task, seed), images, schedule)

    return trained_arm("supervised", "supervised from scratch", "reference", task, folder, train)


def from_scratch(task: Task, seed: int) -> Supervised:
    """The network of the task with random weights, for training on labels."""
    with torch.random.fork_rng():
        torch.manual_seed(mix_seed("supervised", seed))
        return Supervised(
            random_encoder(task.encoder_settings, seed),
            classes=task.classes,
            ordinal=task.target.kind == "ordinal",
        )
