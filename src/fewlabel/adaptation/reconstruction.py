"""What an autoencoder or VAE makes of images that it was not trained on, and the features of what it draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fewlabel.adaptation.features import plain_views
from fewlabel.objectives import VAE, Autoencoder
from fewlabel.training import Ahead, mix_seed

DRAWS = 4


@dataclass(frozen=True)
class Reconstructed:
    """What is known of N images.

    errors: (N,) mean squared error of each, of pixels in [0, 1]. elbo: (N,) the bound on log p(x) in nats; None for an
    autoencoder. features, of_remade: (N, F) of the images and of their reconstructions, by the encoder that was trained
    with the decoder. dimensions: D, the number of pixels times channels.
    """

    errors: np.ndarray
    elbo: np.ndarray | None
    features: np.ndarray
    of_remade: np.ndarray
    dimensions: int


@torch.inference_mode()
def reconstruct_images(
    reconstructor: Autoencoder | VAE, pixels: np.ndarray, *, size_px: int, seed: int, batch_size: int = 256
) -> Reconstructed:
    """Whole images (N, C, S, S) of uint8 or uint16 through encoder and decoder, in evaluation mode.

    seed: of the 4 draws of z that each bound is a mean of; the images after coding come from the posterior's mean.
    """
    reconstructor.eval()
    device = next(reconstructor.parameters()).device
    parts: list[list[np.ndarray]] = []
    shape: tuple[int, ...] = ()
    with torch.random.fork_rng(), Ahead(plain_views(pixels, size_px, batch_size, device)) as views:
        torch.manual_seed(mix_seed("elbo", seed))
        for x in views:
            remade, shape = reconstructor.reconstruct(x), tuple(x.shape[1:])
            found = [
                (x - remade).square().flatten(1).mean(1),
                reconstructor.encoder(x),
                reconstructor.encoder(remade),
            ]
            found += [reconstructor.elbo(x, DRAWS)] if isinstance(reconstructor, VAE) else []
            parts.append([one.float().cpu().numpy() for one in found])
    errors, features, of_remade, *bound = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Reconstructed(errors, bound[0] if bound else None, features, of_remade, int(np.prod(shape)))


@torch.inference_mode()
def prior_features(vae: VAE, count: int, *, seed: int, batch_size: int = 256) -> np.ndarray:
    """Features (count, F), by the VAE's own encoder, of images decoded from z ~ N(0, I)."""
    vae.eval()
    device = next(vae.parameters()).device
    generator = torch.Generator().manual_seed(mix_seed("prior", seed))
    parts = []
    for start in range(0, count, batch_size):
        z = torch.randn(min(batch_size, count - start), vae.decoder.in_dim, generator=generator)
        parts.append(vae.encoder(vae.decoder(z.to(device))).float().cpu().numpy())
    return np.concatenate(parts)
