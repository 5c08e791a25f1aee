"""Towers small enough to be worked by hand: blocks of pixels on one side, known vectors of texts on the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.tasks import ImageText
from fewlabel.types import Tokens

SIZE_PX, BLOCK_PX = 16, 8


class Blocks(nn.Module):
    """What an `Encoder` asks of a network: a map (B, 2, H/8, W/8) of each block's mean and a 1, pooled by its mean."""

    num_features = 2

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        means = self.scale * nn.functional.avg_pool2d(x, BLOCK_PX)  # (B, 1, h, w)
        return torch.cat([means, torch.ones_like(means)], dim=1)

    def forward_head(self, found: torch.Tensor) -> torch.Tensor:
        return found.mean(dim=(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))


class KnownTexts(nn.Module):
    """What `ImageText` asks of a text encoder: each known text has a vector of its own."""

    longest = 8

    def __init__(self, vectors: Mapping[str, Sequence[float]]) -> None:
        super().__init__()
        self.number = {text: i for i, text in enumerate(vectors)}
        self.table = nn.Embedding.from_pretrained(torch.tensor([list(one) for one in vectors.values()]))
        self.dim = self.table.embedding_dim

    def tokenise(self, texts: Sequence[str]) -> Tokens:
        ids = torch.tensor([[self.number[text]] for text in texts])
        return Tokens(ids, torch.ones_like(ids, dtype=torch.bool), sum(len(text) > 100 for text in texts))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.table(ids[:, 0])


def known_model(vectors: Mapping[str, Sequence[float]], *, temperature: float = 0.1) -> ImageText:
    """A model whose image embedding is (mean pixel, as the encoder normalises it, and 1); texts as given, (2,)."""
    encoder: Any = Encoder(EncoderSettings("test_resnet", 1, SIZE_PX))
    encoder.network, encoder.dim = Blocks(), 2
    texts: Any = KnownTexts(vectors)
    return ImageText(encoder, nn.Sequential(), texts, nn.Sequential(), SIZE_PX, temperature)
