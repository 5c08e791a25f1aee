"""How unlike normal images an image is, and where. Whatever is fitted here is fitted on normal images alone.

By reconstruction: an autoencoder or VAE that has seen normal images only gives back what it knows, and the error is
large where something else is (Baur et al. 2021, arXiv:2004.03271, compare such methods); -ELBO is a bound on how
unlikely a VAE finds the whole image. By features: the distance of each place to the nearest place of a normal image
(PatchCore, Roth et al. 2022, arXiv:2106.08265), and the Mahalanobis distance of the whole image's features from those
of normal images (Lee et al. 2018, arXiv:1807.03888, with one class as Rippel et al. 2021, arXiv:2005.14140).

A map says where an image is unusual to the network. It is no segmentation, and unusual need not be ill.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import faiss
import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from fewlabel.adaptation.features import extract_features
from fewlabel.networks import Encoder
from fewlabel.objectives import VAE, Autoencoder
from fewlabel.tasks.places import MiddlePlaces
from fewlabel.types import FewlabelError

SMOOTHING = 4 / 224
"""Deviation of the Gaussian over a map, as a share of its side: PatchCore's 4 px of 224."""

PEAK = 0.99
"""The quantile of an error map that stands for its peak: about 40 of 64 x 64 pixels lie above."""

ELBO_DRAWS = 8
LEAST_SPREAD = 0.1
"""Channels that hardly vary over normal places are divided by this share of the median deviation, not by their own."""

PROJECTED = 64
"""Dimensions in which the places of a coreset are compared."""

BLOCK = 512
"""Images whose places lie in memory at once."""


class ErrorMap(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> squared reconstruction error of each pixel, mean over channels, (B, H, W)."""

    def __init__(self, reconstructor: Autoencoder | VAE) -> None:
        super().__init__()
        self.reconstructor = reconstructor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.reconstructor.reconstruct(x)).square().mean(1)


class NegativeELBO(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> -ELBO with beta = 1, (B,) nats, by draws that are the same for all images.

    So an image's score is its own, whatever lies beside it in the batch. seed: of the draws.
    """

    noise: torch.Tensor

    def __init__(self, vae: VAE, *, draws: int = ELBO_DRAWS, seed: int = 0) -> None:
        super().__init__()
        self.vae = vae
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("noise", torch.randn(draws, vae.decoder.in_dim, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -self.vae.elbo(x, noise=self.noise)


def smoothed(maps: np.ndarray, share: float = SMOOTHING) -> np.ndarray:
    """Maps (N, H, W) under a Gaussian whose deviation is `share` of their width; at the border the map is mirrored."""
    sigma_px = share * maps.shape[-1]
    return gaussian_filter(maps, (0, sigma_px, sigma_px), mode="reflect")


def peak(maps: np.ndarray, quantile: float = PEAK) -> np.ndarray:
    """The quantile of each map (N, H, W), (N,); 1 gives the maximum."""
    return np.quantile(maps.reshape(len(maps), -1), quantile, axis=1)


@dataclass(frozen=True)
class UsualMap:
    """What a map usually is at each pixel of normal images: mean (H, W), spread (H, W).

    Where normal images differ, at burned-in letters and borders, a high value tells less than where they agree.
    """

    mean: np.ndarray
    spread: np.ndarray

    @staticmethod
    def of(maps: np.ndarray) -> UsualMap:
        """Of normal images' maps (N, H, W); a tenth of the median deviation is added to each pixel's own."""
        deviation = maps.std(axis=0)
        spread = deviation + max(LEAST_SPREAD * float(np.median(deviation)), 1e-12)
        return UsualMap(maps.mean(axis=0), spread)

    def __call__(self, maps: np.ndarray) -> np.ndarray:
        """Maps (N, H, W) as deviations from what is usual at their pixels, (N, H, W)."""
        return (maps - self.mean) / self.spread


@dataclass(frozen=True)
class Mahalanobis:
    """Distance from the mean of normal images in the metric of their covariance. mean (F,), precision (F, F)."""

    mean: np.ndarray
    precision: np.ndarray

    @staticmethod
    def of(features: np.ndarray) -> Mahalanobis:
        """Of normal images' features (N, F); the covariance is shrunk as Ledoit and Wolf (2004) do, so N may be < F.

        Raises FewlabelError for fewer than two images.
        """
        from sklearn.covariance import LedoitWolf

        if len(features) < 2:
            raise FewlabelError(
                f"{len(features)} normal image(s) came to fit a covariance to: at least two are needed."
            )
        fitted = LedoitWolf().fit(features.astype(np.float64))
        return Mahalanobis(fitted.location_, fitted.precision_)

    def distances(self, features: np.ndarray) -> np.ndarray:
        """sqrt((x - mean)^T precision (x - mean)) of features (N, F), (N,)."""
        apart = features.astype(np.float64) - self.mean
        return np.sqrt(np.maximum(np.einsum("nf,fg,ng->n", apart, self.precision, apart, optimize=True), 0))


@dataclass(frozen=True)
class PatchMemory:
    """Normal places to compare with. centre, spread: (F,) of each channel over them; bank: (M, F) in that unit.

    Departures from PatchCore: channels are brought to one unit, since levels of a network that was trained here need
    not have one scale; and an image's score is not weighed by the neighbours of its nearest place.
    """

    centre: np.ndarray
    spread: np.ndarray
    bank: np.ndarray

    @staticmethod
    def of(patches: np.ndarray, *, count: int | None = None, seed: int = 0) -> PatchMemory:
        """Of normal places' features (N, F); count: how many of them make the bank, a `coreset`; None = all.

        Raises FewlabelError for none.
        """
        if not len(patches):
            raise FewlabelError("No normal place came to compare with: at least one normal image is needed.")
        centre, spread = patches.mean(axis=0), patches.std(axis=0)
        spread = np.maximum(spread, max(LEAST_SPREAD * float(np.median(spread)), 1e-6))
        bank = ((patches - centre) / spread).astype(np.float32)
        if count is not None and count < len(bank):
            bank = bank[coreset(bank, count, seed=seed)]
        return PatchMemory(centre.astype(np.float32), spread.astype(np.float32), bank)

    def distances(self, places: np.ndarray) -> np.ndarray:
        """Of places (N, h, w, F) to their nearest in the bank, (N, h, w).

        Unit: root mean square over the channels, in standard deviations of normal places.
        """
        asked = ((places.reshape(-1, places.shape[-1]) - self.centre) / self.spread).astype(np.float32)
        squares, _ = self._index.search(np.ascontiguousarray(asked), 1)
        found = np.sqrt(np.maximum(squares[:, 0], 0) / places.shape[-1])
        return found.reshape(places.shape[:3])

    @cached_property
    def _index(self) -> Any:
        index = faiss.IndexFlatL2(self.bank.shape[1])
        index.add(np.ascontiguousarray(self.bank))
        return index


def coreset(places: np.ndarray, count: int, *, seed: int = 0) -> np.ndarray:
    """Rows (count,) of places (N, F), ascending, that lie near all the others: PatchCore's algorithm 1.

    Greedy: from a first one, drawn, always the place that is farthest from those chosen so far, so that a rare normal
    place (a burned-in letter, say) has one near it too. Distances are those of a random projection, as in the paper.
    """
    from sklearn.random_projection import GaussianRandomProjection

    if places.shape[1] > PROJECTED:
        places = GaussianRandomProjection(PROJECTED, random_state=seed).fit_transform(places)
    places = np.ascontiguousarray(places, np.float32)
    squares = (places**2).sum(axis=1)
    chosen = np.empty(count, np.int64)
    newest = int(np.random.default_rng(seed).integers(len(places)))
    nearest = np.full(len(places), np.inf, np.float32)  # squared distance to the chosen ones
    for place in range(count):
        chosen[place] = newest
        np.minimum(nearest, squares - 2 * (places @ places[newest]) + squares[newest], out=nearest)
        nearest[newest] = -np.inf
        newest = int(nearest.argmax())
    return np.sort(chosen)


def draw_patches(
    encoder: Encoder, pixels: np.ndarray, *, size_px: int, count: int, seed: int = 0
) -> np.ndarray:
    """`middle_features` (M, F) of at most `count` places of images (N, C, S, S): as many of each image, by chance."""
    generator, parts = np.random.default_rng(seed), []
    each = -(-count // len(pixels))
    for start in range(0, len(pixels), BLOCK):
        places = extract_features(MiddlePlaces(encoder), pixels[start : start + BLOCK], size_px=size_px)
        for one in places.reshape(len(places), -1, places.shape[-1]):  # (h w, F)
            parts.append(one[generator.permutation(len(one))[:each]])
    patches = np.concatenate(parts)
    return patches[np.sort(generator.permutation(len(patches))[:count])]
