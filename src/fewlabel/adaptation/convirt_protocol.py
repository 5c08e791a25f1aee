"""How ConVIRT measures an encoder on labels: a last layer on the frozen encoder, or the whole network fine-tuned.

Zhang et al. 2020, arXiv:2010.00747. Dropout of 0.2 before the last layer, which is new. Fine-tuned, that layer learns
alone for 200 steps at a rate of 1e-3, then everything at 1e-4. The rate is halved after 3 epochs without a better
validation score, and training ends after 10 of them with the best weights. The paper reports the mean of 5 runs.

Departures. The score is AUROC for every classification (the paper takes accuracy on COVIDx), and the loss is the
cross-entropy over the classes. Views are this package's mild ones. Optimizer (Adam) and weight decay are those of the
paper's pretraining, except that biases and scales of norms do not decay. With the encoder frozen the rate begins at
1e-3, that of the last layer. Probabilities are calibrated on validation patients afterwards, which changes no AUROC of
two classes.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from fewlabel.adaptation.finetune import (
    LabelledImages,
    TrainedNetwork,
    before_training,
    fit_and_calibrate,
    watch_validation,
)
from fewlabel.networks import Encoder
from fewlabel.objectives import Supervised
from fewlabel.training import Compute, TrainingSet, fit, mix_seed
from fewlabel.types import Schedule

DROPOUT = 0.2
HEAD_STEPS, HEAD_RATE, RATE = 200, 1e-3, 1e-4
HALVE_AFTER, PATIENCE = 3, 10
"""Epochs without a better validation score."""
WEIGHT_DECAY = 1e-6


def convirt_protocol(
    encoder: Encoder,
    images: LabelledImages,
    *,
    seed: int,
    frozen: bool = False,
    epochs: int = 100,
    batch_size: int = 64,
    out: Path | None = None,
    compute: Compute | None = None,
) -> TrainedNetwork:
    """One run of the protocol: train on the labels of `images.train`, stop and calibrate on `images.val`.

    encoder: is copied and stays as it is. seed: of the last layer's first weights, batches, views and dropout; the
    paper's figures are the mean of 5 seeds. frozen: True is the paper's linear classification, in which the encoder's
    weights and batch statistics stay to the bit; False its fine-tuning.
    epochs: at most so many, after the steps of the last layer alone; an epoch is the whole batches of `images.train`,
    so that few labels make epochs of one step. batch_size: of that many images, or all there are.
    out: folder for checkpoints, from which the same call goes on. compute, errors: as of `fit`.
    """
    objective = _begun(encoder, images, seed)
    trained, data = before_training(objective, images)
    if frozen:
        objective.freeze_encoder()
    else:
        _warm_up(objective, data, images, batch_size, seed, out / "head" if out else None, compute)
    epoch = max(1, len(data) // max(1, batch_size))  # fit refuses a batch of none
    return fit_and_calibrate(
        trained,
        objective,
        data,
        images.views,
        _schedule(epochs * epoch, HEAD_RATE if frozen else RATE, batch_size, mix_seed("protocol", seed)),
        images,
        out / "all" if out else None,
        compute,
        watch_validation(trained, images, every=epoch, patience=PATIENCE, halve_after=HALVE_AFTER),
    )


def _begun(encoder: Encoder, images: LabelledImages, seed: int) -> Supervised:
    """A copy of the encoder with a new last layer."""
    with torch.random.fork_rng():
        torch.manual_seed(mix_seed("last layer", seed))
        ordinal = images.kind == "ordinal"
        return Supervised(copy.deepcopy(encoder), classes=images.classes, ordinal=ordinal, dropout=DROPOUT)


def _warm_up(
    objective: Supervised,
    data: TrainingSet,
    images: LabelledImages,
    batch_size: int,
    seed: int,
    out: Path | None,
    compute: Compute | None,
) -> None:
    """Train the last layer alone; afterwards the encoder may learn too."""
    objective.freeze_encoder()
    plan = _schedule(HEAD_STEPS, HEAD_RATE, batch_size, mix_seed("warm-up", seed))
    fit(objective, data, images.views, plan, out=out, compute=compute)
    objective.freeze_encoder(False)


def _schedule(steps: int, rate: float, batch_size: int, seed: int) -> Schedule:
    return Schedule(
        steps,
        batch_size,
        rate,
        weight_decay=WEIGHT_DECAY,
        optimizer="adam",
        seed=seed,
        decay="constant",
    )
