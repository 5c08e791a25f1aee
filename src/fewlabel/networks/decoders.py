"""Decoders: latent vectors -> images, for autoencoders and as the generator of a GAN."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fewlabel.types import FewlabelError

DOUBLINGS = 3


class DoublingConv2d(nn.Conv2d):
    """Maps (B, in, H, W) doubled to the nearest, then a 3 x 3 convolution: (B, out, 2 H, 2 W).

    Computed at once: 3 x 3 pixels of the doubled map show no more than 2 x 2 of the map itself, so that both are a
    transposed convolution by 4 x 4 with stride 2, of less than half the products and with no doubled map in memory.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = F.pad(self.weight.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))
        rows = wide[:, :, 1:] + wide[:, :, :-1]
        return F.conv_transpose2d(x, rows[..., 1:] + rows[..., :-1], stride=2, padding=1)


class Decoder(nn.Module):
    """A convolutional decoder: z (B, in_dim) -> images (B, channels, size_px, size_px), in (0, 1).

    A linear layer to a map of an eighth of the side, then three times: doubled to the nearest, 3 x 3 convolution, batch
    normalisation, ReLU. Doubling before a convolution leaves no checkerboard (Odena, Dumoulin, Olah 2016,
    doi:10.23915/distill.00003).

    width: channels of the last map; those below have 2, 4 and 8 times as many.
    Raises FewlabelError for a side that 8 does not divide.
    """

    def __init__(self, in_dim: int, *, channels: int, size_px: int, width: int = 32) -> None:
        super().__init__()
        if size_px < 8 or size_px % 2**DOUBLINGS:
            raise FewlabelError(
                f"Images of {size_px} px were to be decoded: a side that 8 divides is needed, such as "
                f"{max(8, round(size_px / 8) * 8)}."
            )
        self.size_px, self.channels, self.in_dim, self.width = size_px, channels, in_dim, width
        self.lowest = (8 * width, size_px // 8, size_px // 8)
        self.first = nn.Linear(in_dim, 8 * width * (size_px // 8) ** 2)
        layers: list[nn.Module] = [nn.BatchNorm2d(8 * width), nn.ReLU(inplace=True)]
        for doubling in reversed(range(DOUBLINGS)):
            out = width * 2**doubling
            layers += [
                DoublingConv2d(2 * out, out),
                nn.BatchNorm2d(out),
                nn.ReLU(inplace=True),
            ]
        layers += [nn.Conv2d(width, channels, 3, padding=1), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers)

    def check(self, x: torch.Tensor) -> None:
        """Raise FewlabelError unless images x (B, C, H, W) have the shape of what is decoded."""
        wanted = (self.channels, self.size_px, self.size_px)
        if tuple(x.shape[1:]) != wanted:
            raise FewlabelError(
                f"Images are {tuple(x.shape[1:])} and the decoder gives {wanted}: build the encoder for their size and "
                "channels, and do not let views grow."
            )

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.layers(self.first(z).unflatten(1, self.lowest))
