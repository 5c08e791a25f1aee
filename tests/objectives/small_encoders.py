"""Small encoders and batches for the tests of objectives."""

from __future__ import annotations

import torch

from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.types import Batch

SIZE_PX = 32


def small_encoder(name: str = "test_resnet", seed: int = 0) -> Encoder:
    """timm's own small network for tests, for grey images of 32 px."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Encoder(EncoderSettings(name, channels=1, size_px=SIZE_PX))


def two_views_of(count: int = 6, seed: int = 0) -> Batch:
    """Two unrelated views (count, 1, 32, 32) of noise."""
    views = torch.rand(2, count, 1, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(seed))
    return Batch(views=(views[0], views[1]))
