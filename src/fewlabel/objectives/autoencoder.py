"""Autoencoder. Hinton and Salakhutdinov 2006, doi:10.1126/science.1127647; with noise Vincent, Larochelle, Bengio,
Manzagol 2008, doi:10.1145/1390156.1390294; with hidden blocks Pathak et al. 2016, arXiv:1604.07379.

    L = 1/N sum_i || x_i - g(f(c(x_i))) ||^2 / D,

f the encoder with a linear layer to the latent vector, g the decoder, D the number of pixels, and c what corrupts the
image: nothing, added Gaussian noise, or blocks that are hidden. The target is the image before it was corrupted.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fewlabel.networks import Encoder
from fewlabel.networks.decoders import Decoder
from fewlabel.types import Batch, FewlabelError

BLOCK_PX = 8


def reconstruction_error(x: torch.Tensor, reconstructed: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each image: x, reconstructed (B, C, H, W) in [0, 1] -> (B,)."""
    return (x - reconstructed).float().square().flatten(1).mean(1)


def corrupt(x: torch.Tensor, *, noise: float, hidden: float) -> torch.Tensor:
    """Images (B, C, H, W) with Gaussian noise of deviation `noise` added, and a share `hidden` of blocks of 8 x 8 px
    set to 0.5; from torch's global random numbers, clipped to [0, 1].
    """
    if noise:
        x = (x + noise * torch.randn_like(x)).clamp(0, 1)
    if hidden:
        rows, columns = (-(-side // BLOCK_PX) for side in x.shape[-2:])
        covered = (torch.rand(len(x), 1, rows, columns, device=x.device) < hidden).to(x.dtype)
        covered = F.interpolate(covered, scale_factor=BLOCK_PX, mode="nearest")[
            ..., : x.shape[-2], : x.shape[-1]
        ]
        x = x * (1 - covered) + 0.5 * covered
    return x


class Autoencoder(nn.Module):
    """Encoder, linear layer to the latent vector, decoder; downstream the encoder's features are used.

    latent_dim: K. noise: deviation of the noise that the image is to be freed of, in the unit of pixels, [0, 1]; 0.1 to
        0.3 is usual. hidden: share of blocks of 8 px that are hidden, [0, 1). width: of the decoder.
    Raises FewlabelError for values outside, and for a size that 8 does not divide.
    """

    name = "autoencoder"
    paper = "Hinton and Salakhutdinov 2006, doi:10.1126/science.1127647"
    view_count = 1
    needs_labels = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        latent_dim: int = 128,
        noise: float = 0.0,
        hidden: float = 0.0,
        width: int = 32,
    ) -> None:
        super().__init__()
        if noise < 0 or not 0 <= hidden < 1:
            raise FewlabelError(
                f"noise is {noise:g} and hidden is {hidden:g}: a deviation from 0 and a share from 0 to less than 1 "
                "are needed."
            )
        settings = encoder.settings
        self.encoder = encoder
        self.to_latent = nn.Linear(encoder.dim, latent_dim)
        self.decoder = Decoder(latent_dim, channels=settings.channels, size_px=settings.size_px, width=width)
        self.noise, self.hidden = noise, hidden

    def loss(self, batch: Batch) -> torch.Tensor:
        """The scalar loss of a batch with one view (B, C, H, W)."""
        x = batch.views[0]
        self.decoder.check(x)
        seen = corrupt(x, noise=self.noise, hidden=self.hidden)
        return reconstruction_error(x, self.decoder(self.embed(seen))).mean()

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Latent vectors (B, K) of images x (B, C, H, W)."""
        return self.to_latent(self.encoder(x))

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        """Images (B, C, H, W) in (0, 1) as they are after encoding and decoding; nothing is corrupted."""
        return self.decoder(self.embed(x))
