"""Stages two and three of autoencoder or VAE with GAN: few labels with a frozen extractor, then all of it jointly.

Stage 1 is the pretraining of an autoencoder or VAE on all images. In stage 2 its encoder is the frozen extractor of a
semi-supervised GAN (Salimans et al. 2016, arXiv:1606.03498), and its decoder the generator that training begins with:
generator and classifier learn from the labelled images alone. In stage 3 generator, discriminator and extractor learn
together, on labelled and unlabelled images.

The extractor's layers are under spectral normalisation from stage 2 on, at the norms that they had after stage 1, so
that it says at first exactly what it said then. No norm may grow after that.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from fewlabel.adaptation.finetune import (
    LabelledImages,
    TrainedNetwork,
    before_training,
    fit_and_calibrate,
)
from fewlabel.adaptation.semi_supervised import (
    SemiSupervisedSettings,
    check_plain_classes,
    learn_semi_supervised,
    watch_classifier,
)
from fewlabel.objectives import GAN, VAE, Autoencoder, Supervised
from fewlabel.training import Compute, channels_last
from fewlabel.types import Schedule

WHO = "Training in three stages"


@dataclass(frozen=True)
class ThreeStagesSettings:
    """How to train after stage 1.

    frozen_steps of frozen_batch_size labelled images (or all there are), at the peak rate frozen_learning_rate: of
    stage 2. Its classifier is one linear layer with a norm of 1, which turns slowly: it learns at head_rate times that
    rate, at which a generator would collapse.
    joint: stage 3. made_per_label: how many images of the trained generator are added to each label, for a training
    from scratch beside stage 3; above 0.
    """

    frozen_steps: int = 200
    frozen_batch_size: int = 32
    frozen_learning_rate: float = 1e-3
    head_rate: float = 10.0
    made_per_label: float = 1.0
    joint: SemiSupervisedSettings = field(default_factory=lambda: SemiSupervisedSettings(learning_rate=3e-4))


def begun_gan(reconstructor: Autoencoder | VAE, classes: int, features: np.ndarray) -> GAN:
    """The GAN of stage 2: a copy of the encoder, a new classifier, and the decoder as generator.

    features: (N, F) of training images, by that encoder: the vectors that an autoencoder decodes are not standard
    normal, and the generator maps its noise to their mean and covariance. A VAE's prior is standard normal.
    """
    decoder, latents = reconstructor.decoder, None
    gan = GAN(
        copy.deepcopy(reconstructor.encoder),
        classes=classes,
        latent_dim=decoder.in_dim,
        hold_norms=True,
        width=decoder.width,
    )
    if isinstance(reconstructor, Autoencoder):
        with torch.no_grad():
            device = next(reconstructor.parameters()).device
            latents = reconstructor.to_latent(torch.from_numpy(features).to(device)).cpu()
    gan.start_generator(decoder, latents)
    return gan


def learn_frozen(
    gan: GAN,
    images: LabelledImages,
    settings: ThreeStagesSettings | None = None,
    *,
    seed: int,
    out: Path | None = None,
    compute: Compute | None = None,
) -> TrainedNetwork:
    """Stage 2: generator and classifier learn from the labelled images of `images.train`; the extractor stays as it is.

    gan: of `begun_gan`, is trained in place. Other arguments, what is kept, and errors as in `learn_semi_supervised`.
    """
    settings = settings or ThreeStagesSettings()
    check_plain_classes(images.kind, WHO)
    gan.freeze_encoder()
    gan.head_rate = settings.head_rate
    trained, data = before_training(gan, images)
    schedule = Schedule(
        settings.frozen_steps,
        min(settings.frozen_batch_size, len(images.train)),
        settings.frozen_learning_rate,
        warmup_steps=settings.frozen_steps // 20,
        weight_decay=settings.joint.weight_decay,
        seed=seed,
    )
    watch = watch_classifier(trained, images, schedule.steps)
    return fit_and_calibrate(trained, gan, data, images.views, schedule, images, out, compute, watch)


def learn_jointly(
    gan: GAN,
    images: LabelledImages,
    unlabelled: np.ndarray,
    settings: ThreeStagesSettings | None = None,
    *,
    seed: int,
    out: Path | None = None,
    compute: Compute | None = None,
) -> TrainedNetwork:
    """Stage 3: all of the GAN learns, in place, from where stage 2 left it; arguments as of `learn_semi_supervised`."""
    gan.freeze_encoder(False)
    gan.head_rate = 1.0
    joint = (settings or ThreeStagesSettings()).joint
    return learn_semi_supervised(gan, images, unlabelled, joint, seed=seed, out=out, compute=compute)


def plain_network(trained: TrainedNetwork) -> TrainedNetwork:
    """The same answers by an encoder and a linear layer with plain weights; trained: one whose objective is a GAN."""
    gan = trained.objective
    assert isinstance(gan, GAN)
    plain = Supervised(gan.plain_encoder(), classes=gan.classes)
    with torch.no_grad():
        plain.head.load_state_dict({"weight": gan.head.weight, "bias": gan.head.bias})
    channels_last(plain)
    return replace(trained, objective=plain.to(gan.head.bias.device).eval())
