"""Training a whole network on labels: from random weights, or from pretrained ones (fine-tuning).

Stopped early on validation patients, whose labels also calibrate the outputs; test data are never seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import nn

from fewlabel.adaptation.ordinal import OrdinalProbe
from fewlabel.adaptation.probe import Calibration, LinearProbe, validation_score
from fewlabel.networks import Encoder, HeadedEncoder, OrdinalHead, first_layers
from fewlabel.objectives import Supervised
from fewlabel.training import Compute, TrainingSet, Watch, fit
from fewlabel.types import FewlabelError, Schedule, TargetKind
from fewlabel.views import ViewSettings, draw_view, light_views, plain_view

LOOKS, PATIENCE = 20, 6
"""How often training looks at validation patients, and for how many looks it goes on without a better score."""


def look_every(steps: int) -> int:
    """Steps between two looks of a training of so many steps."""
    return max(10, steps // LOOKS)


def looks_in(steps: int) -> int:
    """At most so many looks: among as many states of the network validation patients choose the best."""
    return math.ceil(steps / look_every(steps))


@dataclass(frozen=True)
class FineTuneSettings:
    """How to fine-tune.

    keep_head_layers: 0 = from the encoder's output; 1 = from the first layer of the projection head, as SimCLRv2 does
        with few labels.
    learning_rate: peak, of the new layer; layer_decay, d: layers k below it learn at d^k times that.
    head_warmup: share of the steps in which the new layer learns alone; below it batch statistics alone move.
    start_from_probe: the new layer starts as a linear probe of the same labels (Kumar et al. 2022, arXiv:2202.10054)
        instead of at random; only with keep_head_layers = 0.
    balanced: classes count the same in the loss, however many images each has.
    """

    keep_head_layers: int = 0
    learning_rate: float = 1e-3
    layer_decay: float = 0.8
    head_warmup: float = 0.1
    start_from_probe: bool = False
    balanced: bool = False

    def __post_init__(self) -> None:
        for name, low, high in (("layer_decay", 0.0, 1.0), ("head_warmup", 0.0, 1.0)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise FewlabelError(f"{name} is {value}: a number from {low:g} to {high:g} is needed.")
        if self.start_from_probe and self.keep_head_layers:
            raise FewlabelError(
                "start_from_probe is for fine-tuning from the encoder's output: leave keep_head_layers at 0 with it."
            )


@dataclass(frozen=True)
class LabelledImages:
    """What training on labels reads.

    pixels: (N, C, S, S) of a whole collection. y: (N,) classes or numbers. train, val: rows with a label.
    classes: K, 0 for a number. size_px: of the views. flips: left-right flips are allowed.
    """

    pixels: np.ndarray
    y: np.ndarray
    train: np.ndarray
    val: np.ndarray
    kind: TargetKind
    classes: int
    size_px: int
    flips: bool = False

    def __post_init__(self) -> None:
        if self.kind != "number" and len(np.unique(self.y[self.train])) < 2:
            raise FewlabelError(
                f"The {len(self.train)} labelled training images hold one class only: at least two are needed."
            )

    @property
    def views(self) -> ViewSettings:
        """Mild views, for training with labels."""
        return light_views(self.size_px, flips=self.flips)


class Answering(Protocol):
    """What training on labels leaves. It gives logits (B, K) of K classes, or a standardised number (B, 1) where K
    is 0, of images (B, C, H, W).
    """

    @property
    def classes(self) -> int: ...

    def predict(self, x: torch.Tensor) -> torch.Tensor: ...

    def eval(self) -> Self: ...


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with what turns its outputs into answers.

    centre, spread: of the numbers it was trained on.
    """

    objective: Answering
    size_px: int
    calibration: Calibration = field(default_factory=Calibration)
    centre: float = 0.0
    spread: float = 1.0

    def logits(self, pixels: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Logits (n, K), or the standardised number (n, 1), of rows of pixels (N, C, S, S)."""
        return network_outputs(self.objective, pixels, rows, self.size_px)

    def predict(self, pixels: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (n, K), or numbers (n,)."""
        logits = self.logits(pixels, rows)
        return self.calibration(logits) if self.objective.classes else self.number(logits)

    def number(self, standardised: np.ndarray) -> np.ndarray:
        """(n, 1) -> (n,) in the target's own unit."""
        return standardised[:, 0] * self.spread + self.centre


@torch.no_grad()
def network_outputs(objective: Any, pixels: np.ndarray, rows: np.ndarray, size_px: int) -> np.ndarray:
    """`objective.predict` (n, K) on the whole images of `rows`, in evaluation mode, which it is left in."""
    objective.eval()
    generator = torch.Generator()
    device = next(objective.parameters()).device
    parts = []
    for chunk in np.array_split(rows, max(1, len(rows) // 256)):
        view = draw_view(torch.from_numpy(pixels[chunk]), plain_view(size_px), generator)
        view = view.to(device).contiguous(memory_format=torch.channels_last)
        parts.append(objective.predict(view).float().cpu().numpy())
    return np.concatenate(parts)


def tuned_start(
    encoder: Encoder,
    head: nn.Sequential | None,
    images: LabelledImages,
    settings: FineTuneSettings,
    *,
    steps: int,
    probe: LinearProbe | OrdinalProbe | None = None,
) -> Supervised:
    """The network that fine-tuning begins with: pretrained weights, and a new last layer.

    encoder, head: are used as they are, not copied; head may be None where no layer of it is kept.
    probe: on the encoder's features, for `start_from_probe`. Raises FewlabelError if something that is asked for is
    missing.
    """
    body: Encoder | HeadedEncoder = encoder
    if settings.keep_head_layers:
        if head is None:
            raise FewlabelError(
                "The projection head was not kept with this encoder, and fine-tuning was to start inside it: "
                "pretrain again, or fine-tune with keep_head_layers=0."
            )
        body = HeadedEncoder(encoder, first_layers(head, settings.keep_head_layers))
    weights = None
    if settings.balanced and images.classes:
        counts = np.bincount(images.y[images.train].astype(int), minlength=images.classes)
        weights = torch.from_numpy(len(images.train) / (images.classes * np.maximum(counts, 1))).float()
    objective = Supervised(
        body,
        classes=images.classes,
        ordinal=images.kind == "ordinal",
        class_weights=weights,
        layer_decay=settings.layer_decay,
        head_warmup_steps=round(settings.head_warmup * steps),
    )
    if settings.start_from_probe:
        if probe is None:
            raise FewlabelError("start_from_probe needs a linear probe of the same labels: give one.")
        _start_from(objective.head, probe)
    else:
        _start_small(objective.head)
    return objective


@torch.no_grad()
def _start_small(head: nn.Linear | OrdinalHead) -> None:
    """Small weights, so that at first the features hardly count."""
    if isinstance(head, OrdinalHead):
        head.score.weight.mul_(0.1)
    else:
        head.weight.mul_(0.1)
        head.bias.zero_()


@torch.no_grad()
def _start_from(head: nn.Linear | OrdinalHead, probe: LinearProbe | OrdinalProbe) -> None:
    """Weights with which the first answers are the probe's, before its calibration."""
    slope = torch.from_numpy(probe.weights / probe.scaling.scale).float()  # (F, K), or (F,)
    shift = probe.scaling.mean @ probe.weights / probe.scaling.scale
    if isinstance(probe, OrdinalProbe):
        assert isinstance(head, OrdinalHead)
        head.score.weight.copy_(slope[None])
        head.put_thresholds(torch.from_numpy(probe.thresholds + shift).float())
    else:
        assert isinstance(head, nn.Linear)
        head.weight.copy_(slope.T)
        head.bias.copy_(torch.from_numpy(probe.intercept - shift).float().clamp(min=-30))


def train_on_labels(
    objective: Supervised,
    images: LabelledImages,
    schedule: Schedule,
    *,
    out: Path | None = None,
    compute: Compute | None = None,
) -> TrainedNetwork:
    """Train on the labels of `images.train`, keep the best weights on `images.val`, calibrate there.

    objective: is trained in place. out: folder for checkpoints, from which the same call goes on.
    Raises FewlabelError as `fit` does.
    """
    trained, data = before_training(objective, images)
    return fit_and_calibrate(trained, objective, data, images.views, schedule, images, out, compute)


def before_training(objective: Answering, images: LabelledImages) -> tuple[TrainedNetwork, TrainingSet]:
    """The objective with the scale of the numbers it will learn, and the images of `images.train` with their labels.

    Numbers are standardised by mean and deviation of those in `images.train`.
    """
    number = images.kind == "number"
    y = images.y[images.train]
    centre, spread = (float(y.mean()), max(float(y.std()), 1e-6)) if number else (0.0, 1.0)
    labels = ((y - centre) / spread).astype(np.float32) if number else y.astype(np.int64)
    trained = TrainedNetwork(objective, images.size_px, centre=centre, spread=spread)
    return trained, TrainingSet((images.pixels,), (images.train,), labels)


def fit_and_calibrate(
    trained: TrainedNetwork,
    objective: nn.Module,
    data: TrainingSet,
    views: ViewSettings,
    schedule: Schedule,
    images: LabelledImages,
    out: Path | None,
    compute: Compute | None,
    watch: Watch | None = None,
) -> TrainedNetwork:
    """Train `objective`, of which the network in `trained` is a part; keep the weights that are best on `images.val`,
    and calibrate there. watch: None = LOOKS looks, of which PATIENCE may pass without a better score. Other arguments
    and errors as in `fit`.
    """
    fit(
        objective,
        data,
        views,
        schedule,
        out=out,
        watch=watch or _usual_watch(trained, images, schedule),
        compute=compute,
        checkpoint_every=100,
    )
    calibration = Calibration()
    if images.kind != "number":
        logits = trained.logits(images.pixels, images.val)
        calibration = Calibration.fit(logits, images.y[images.val].astype(int))
    return replace(trained, calibration=calibration)


def _usual_watch(trained: TrainedNetwork, images: LabelledImages, schedule: Schedule) -> Watch:
    return watch_validation(trained, images, every=look_every(schedule.steps), patience=PATIENCE)


def watch_validation(
    trained: TrainedNetwork,
    images: LabelledImages,
    *,
    every: int,
    patience: int,
    halve_after: int | None = None,
    parts: tuple[str, ...] | None = None,
) -> Watch:
    """A watch over the network in `trained` by `validation_score` on `images.val`; other arguments as of `Watch`."""

    def score(model: nn.Module) -> float:
        output = trained.logits(images.pixels, images.val)
        answers = trained.number(output) if images.kind == "number" else output
        return validation_score(images.kind, images.y[images.val], answers)

    return Watch(score, every, patience, halve_after, parts)
