"""Autoencoder or VAE, then GAN: where stage 2 begins, what stays frozen in it, and going on in every stage."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_images import (
    ROWS,
    SIZE,
    TEST,
    UNLABELLED,
    checkpoints_every,
    made,
    small_encoder,
    stop_at_checkpoint,
)

from fewlabel.adaptation.features import extract_features
from fewlabel.adaptation.finetune import TrainedNetwork
from fewlabel.adaptation.semi_supervised import SemiSupervisedSettings
from fewlabel.adaptation.three_stages import (
    ThreeStagesSettings,
    begun_gan,
    learn_frozen,
    learn_jointly,
    plain_network,
)
from fewlabel.objectives import GAN, VAE, Autoencoder
from fewlabel.pipeline.simclr_v2 import as_probe
from fewlabel.training import Compute, TrainingSet, fit
from fewlabel.types import FewlabelError, Schedule

FULL = Compute("32")
PLAN = ThreeStagesSettings(
    frozen_steps=12,
    frozen_batch_size=8,
    joint=SemiSupervisedSettings(steps=12, batch_size=12),
)


def stage_1(kind: Any) -> Any:
    """A short one."""
    torch.manual_seed(0)
    found = kind(small_encoder(), latent_dim=6, width=8)
    images = made()
    data = TrainingSet((images.pixels,), (UNLABELLED,))
    fit(found, data, images.views, Schedule(12, 16, 1e-3), compute=FULL)
    return found.eval()


@pytest.fixture(scope="module")
def reconstructor() -> VAE:
    return stage_1(VAE)


def begun(reconstructor: Any) -> GAN:
    features = extract_features(reconstructor.encoder, made().pixels[UNLABELLED], size_px=SIZE)
    torch.manual_seed(1)
    return begun_gan(reconstructor, 2, features)


def test_the_extractor_says_at_first_what_it_said(reconstructor: Any) -> None:
    gan, x = begun(reconstructor).eval(), torch.rand(5, 1, SIZE, SIZE)
    torch.testing.assert_close(gan.encoder(x), reconstructor.encoder(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gan.plain_encoder()(x), reconstructor.encoder(x), rtol=1e-4, atol=1e-5)
    assert any("parametrizations" in name for name, _ in gan.encoder.named_parameters())


def test_the_norms_of_its_layers_cannot_grow(reconstructor: Any) -> None:
    gan = begun(reconstructor)
    before = {name: layer.weight.detach().clone() for name, layer in convolutions(gan)}
    with torch.no_grad():
        for name, parameter in gan.encoder.named_parameters():
            if name.endswith("original"):
                parameter.mul_(3.0)
    gan.eval()
    for name, layer in convolutions(gan):
        torch.testing.assert_close(layer.weight, before[name], rtol=1e-3, atol=1e-5)


def convolutions(gan: GAN) -> list[tuple[str, Any]]:
    return [(name, m) for name, m in gan.encoder.named_modules() if isinstance(m, torch.nn.Conv2d)]


@pytest.mark.parametrize("kind", [Autoencoder, VAE])
def test_the_generator_begins_as_the_decoder(kind: Any) -> None:
    reconstructor = stage_1(kind)
    gan = begun(reconstructor).eval()
    images = torch.from_numpy(made().pixels[UNLABELLED]) / 255
    with torch.no_grad():
        z = torch.randn(400, 6)
        y = torch.randint(2, (400,))
        for generator in (gan.generator, gan.averaged):
            one, other = (
                generator(torch.cat([z, torch.nn.functional.one_hot(k, 2).float()], dim=1))
                for k in (y, 1 - y)
            )
            assert torch.equal(one, other)  # whatever the class
            if isinstance(reconstructor, VAE):
                torch.testing.assert_close(one, reconstructor.decoder(z))
            else:
                latents = reconstructor.embed(images)
                root = torch.linalg.cholesky(torch.cov(latents.T.double())).float()
                torch.testing.assert_close(
                    one, reconstructor.decoder(latents.mean(0) + z @ root.T), rtol=1e-2, atol=1e-2
                )


def test_in_stage_2_nothing_of_the_extractor_moves_and_the_rest_does(reconstructor: Any) -> None:
    gan = begun(reconstructor)
    before = copy.deepcopy(gan.state_dict())
    learn_frozen(gan, made(), PLAN, seed=0, compute=FULL)
    after = gan.state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert not [key for key in moved if key.startswith("encoder.")]
    assert {key.split(".")[0] for key in moved} == {"head", "generator", "averaged"}


def test_stage_2_sees_the_labelled_images_alone(reconstructor: Any) -> None:
    images, found = made(), []
    pixels = images.pixels.copy()
    pixels[np.setdiff1d(UNLABELLED, ROWS)] //= 2
    for one in (images, replace(images, pixels=pixels)):
        gan = begun(reconstructor)
        learn_frozen(gan, one, PLAN, seed=0, compute=FULL)
        found.append(gan.state_dict())
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_in_stage_3_all_of_it_moves(reconstructor: Any) -> None:
    gan = begun(reconstructor)
    learn_frozen(gan, made(), PLAN, seed=0, compute=FULL)
    before = copy.deepcopy(gan.state_dict())
    learn_jointly(gan, made(), UNLABELLED, PLAN, seed=0, compute=FULL)
    moved = {name.split(".")[0] for name, p in gan.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"encoder", "head", "generator", "averaged"}


def both(reconstructor: Any, out: Path) -> tuple[TrainedNetwork, TrainedNetwork, dict[str, torch.Tensor]]:
    gan = begun(reconstructor)
    frozen = learn_frozen(gan, made(), PLAN, seed=0, out=out / "frozen", compute=FULL)
    joint = learn_jointly(gan, made(), UNLABELLED, PLAN, seed=0, out=out / "joint", compute=FULL)
    return frozen, joint, gan.state_dict()


@pytest.mark.parametrize("at", [2, 3, 5], ids=["in stage 2", "at its end", "in stage 3"])
def test_stopped_in_a_stage_it_ends_with_the_same_weights(
    at: int, reconstructor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints_every(5, monkeypatch)  # three in a stage
    *whole, weights = both(reconstructor, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at_checkpoint(at, patch)
        with pytest.raises(KeyboardInterrupt):
            both(reconstructor, tmp_path / "run")
    assert (tmp_path / "run" / "joint").exists() == (at == 5)
    *again, found = both(reconstructor, tmp_path / "run")
    assert all(torch.equal(weights[key], found[key]) for key in weights)
    assert [one.calibration for one in whole] == [one.calibration for one in again]


def test_the_kept_classifier_says_the_same_with_plain_weights(reconstructor: Any) -> None:
    images, gan = made(), begun(reconstructor)
    trained = learn_frozen(gan, images, PLAN, seed=0, compute=FULL)
    encoder, probe = as_probe(plain_network(trained))
    features = extract_features(encoder, images.pixels[TEST], size_px=SIZE)
    assert np.allclose(probe.predict(features), trained.predict(images.pixels, TEST), atol=1e-4)
    assert not any("parametrizations" in name for name in encoder.state_dict())


def test_what_is_no_class_is_refused(reconstructor: Any) -> None:
    with pytest.raises(FewlabelError, match="Training in three stages learns classes"):
        learn_frozen(begun(reconstructor), replace(made(), kind="number"), PLAN, seed=0)
