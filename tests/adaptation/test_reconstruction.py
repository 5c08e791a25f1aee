"""What decoders make of images: errors, bounds and features against the same by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewlabel.adaptation.features import extract_features
from fewlabel.adaptation.reconstruction import prior_features, reconstruct_images
from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives import VAE, Autoencoder

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 1, 16, 16), dtype=np.uint8)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(EncoderSettings("test_resnet", 1, 16)).eval()


def test_errors_bounds_and_features(encoder: Encoder) -> None:
    vae = VAE(encoder, latent_dim=4, width=4).eval()
    found = reconstruct_images(vae, PIXELS, size_px=16, seed=0, batch_size=4)
    x = torch.from_numpy(PIXELS).float() / 255
    with torch.no_grad():
        remade = vae.reconstruct(x)
        np.testing.assert_allclose(found.errors, ((x - remade) ** 2).mean((1, 2, 3)), atol=1e-5)
        np.testing.assert_allclose(found.of_remade, encoder(remade), atol=1e-4)
        assert found.elbo is not None
        np.testing.assert_allclose(found.elbo, vae.elbo(x, 500), atol=3)
    np.testing.assert_allclose(found.features, extract_features(encoder, PIXELS, size_px=16), atol=1e-4)
    assert found.dimensions == 256


def test_the_same_seed_gives_the_same_and_leaves_torchs_own_numbers(encoder: Encoder) -> None:
    vae = VAE(encoder, latent_dim=4, width=4)
    state = torch.random.get_rng_state()
    first, again, other = (reconstruct_images(vae, PIXELS, size_px=16, seed=seed).elbo for seed in (0, 0, 1))
    assert first is not None
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    drawn = [prior_features(vae, 5, seed=seed, batch_size=2) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert drawn[0].shape == (5, encoder.dim)
    assert not np.array_equal(drawn[0], drawn[2])
    assert torch.equal(state, torch.random.get_rng_state())


def test_an_autoencoder_has_no_bound(encoder: Encoder) -> None:
    assert reconstruct_images(Autoencoder(encoder, width=4), PIXELS, size_px=16, seed=0).elbo is None
