"""What a GAN leaves for making images: the moving average of its generator, with the names of its classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fewlabel.networks.decoders import Decoder
from fewlabel.objectives.gan import GAN
from fewlabel.objectives.momentum import frozen_copy
from fewlabel.types import FewlabelError

BATCH = 64
"""Images that are decoded at once."""


@dataclass(frozen=True)
class Generator:
    """Makes images of a class; all that it makes is to be called made.

    decoder: of latent vectors with a one-hot class behind them, in evaluation mode. latent_dim: of z. class_names: by
    code. Raises FewlabelError where these do not fit together.
    """

    decoder: Decoder
    latent_dim: int
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.decoder.in_dim != self.latent_dim + len(self.class_names):
            raise FewlabelError(
                f"The generator takes {self.decoder.in_dim} numbers, and {self.latent_dim} of them with "
                f"{len(self.class_names)} classes were named: name each class of the GAN once."
            )

    @staticmethod
    def of(gan: GAN, class_names: Sequence[str]) -> Generator:
        """A copy of the average of the GAN's generator. Raises FewlabelError for another number of classes."""
        return Generator(frozen_copy(gan.averaged).eval(), gan.latent_dim, tuple(class_names))

    @property
    def size_px(self) -> int:
        """Side of the images."""
        return self.decoder.size_px

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.decoder.channels

    @torch.no_grad()
    def sample(self, y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Images (B, C, H, W) in [0, 1], on the CPU, of classes y (B,).

        generator: on the CPU; all z are drawn from it at once, so that the same seed gives the same images. Raises
        FewlabelError for a code that is no class.
        """
        codes = y.cpu().long()
        if len(codes) and not 0 <= int(codes.min()) <= int(codes.max()) < len(self.class_names):
            raise FewlabelError(
                f"Classes {int(codes.min())} to {int(codes.max())} were asked for, and the generator makes 0 to "
                f"{len(self.class_names) - 1}: {', '.join(self.class_names)}."
            )
        z = torch.randn(len(codes), self.latent_dim, generator=generator)
        told = torch.cat([z, F.one_hot(codes, len(self.class_names)).float()], dim=1)
        device = next(self.decoder.parameters()).device
        made = [self.decoder(part.to(device)).float().cpu() for part in told.split(BATCH)]
        return torch.cat(made)
