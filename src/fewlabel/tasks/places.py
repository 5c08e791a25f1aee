"""An image encoder place by place: what it would say of an image that looks everywhere as it does at one place."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fewlabel.networks import Encoder
from fewlabel.types import FewlabelError

MIDDLE_PLACES = 8
"""Along each side, that the coarser of two middle levels has at least."""


def place_features(encoder: Encoder, x: torch.Tensor) -> torch.Tensor:
    """Features (B, h, w, F) of each place of the feature map before pooling; x: (B, C, H, W) in [0, 1].

    The map is what timm's `forward_features` gives: (B, F', h, w) of a convolutional network, or the patch tokens of a
    vision transformer. Each place then goes alone through the encoder's own end (pooling of the one place, and what
    norm or layer comes after it), so that it lies where features h lie. Pixel values are normalised as the encoder
    does. Raises FewlabelError for networks whose map has another form.
    """
    network: Any = encoder.network
    found = network.forward_features((x - encoder.mean) / encoder.std)
    shape = tuple(found.shape) if isinstance(found, torch.Tensor) else ()
    grid = _grid(network, shape[1]) if len(shape) == 3 else None
    if len(shape) == 4 and shape[1] == network.num_features:
        places = found.permute(0, 2, 3, 1)  # (B, h, w, F')
        alone = places.reshape(-1, shape[1], 1, 1)
    elif grid is not None:
        places = found[:, network.num_prefix_tokens :].unflatten(1, grid)  # (B, h, w, F')
        # As often as there are tokens before the first patch, and once more: whichever of them is pooled, it is this.
        alone = places.reshape(-1, 1, shape[2]).expand(-1, network.num_prefix_tokens + 1, -1)
    else:
        raise FewlabelError(
            f"{encoder.settings.name} has a feature map of shape {shape}, and a convolutional network's or a vision "
            "transformer's is needed to tell places: choose such an encoder."
        )
    return network.forward_head(alone).view(*places.shape[:3], -1)


def _grid(network: Any, tokens: int) -> tuple[int, int] | None:
    """Rows and columns of patches of a vision transformer; None where its tokens are something else."""
    grid = getattr(getattr(network, "patch_embed", None), "grid_size", None)
    prefix = getattr(network, "num_prefix_tokens", None)
    if grid is None or prefix is None or tokens != prefix + grid[0] * grid[1]:
        return None
    return int(grid[0]), int(grid[1])


def middle_features(encoder: Encoder, x: torch.Tensor) -> torch.Tensor:
    """Features (B, h, w, F) of the neighbourhood of each place on two middle levels of the network.

    x: (B, C, H, W) in [0, 1]. As in PatchCore (Roth et al. 2022, arXiv:2106.08265, section 3.1): each level is averaged
    over 3 x 3 places, the coarser one is brought to the finer one's size, and both are joined. Levels are what timm's
    `forward_intermediates` gives. The coarser is the deepest but the last one with at least 8 places along each side,
    the finer the one before it: strides of 8 and 16 px of a ResNet at 224 px, as in the paper, and of 4 and 8 at 64 px.
    Raises FewlabelError for networks whose levels cannot be told.
    """
    network: Any = encoder.network
    levels = []
    if hasattr(network, "forward_intermediates"):
        levels = network.forward_intermediates((x - encoder.mean) / encoder.std, intermediates_only=True)[:-1]
    if len(levels) < 2 or any(level.dim() != 4 for level in levels):
        raise FewlabelError(
            f"{encoder.settings.name} does not give two middle levels of its feature maps, and these are needed to "
            "compare places: choose a ResNet, a ConvNeXt or a vision transformer."
        )
    fine_enough = [number for number, level in enumerate(levels) if min(level.shape[-2:]) >= MIDDLE_PLACES]
    deeper = max(1, *fine_enough) if fine_enough else 1
    finer, coarser = (
        F.avg_pool2d(level, 3, stride=1, padding=1, count_include_pad=False)
        for level in levels[deeper - 1 : deeper + 1]
    )
    coarser = F.interpolate(coarser, finer.shape[-2:], mode="bilinear")
    return torch.cat([finer, coarser], dim=1).permute(0, 2, 3, 1)  # (B, h, w, F)


class MiddlePlaces(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> `middle_features` (B, h, w, F)."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return middle_features(self.encoder, x)


class PlaceSimilarity(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> cosines (B, h, w) of each place's embedding with that of a text, (K,)."""

    text: torch.Tensor

    def __init__(self, encoder: Encoder, head: nn.Module, text: torch.Tensor) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.register_buffer("text", text)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = place_features(self.encoder, x)  # (B, h, w, F)
        embeddings = self.head(features.flatten(0, 2))  # (B h w, K)
        cosines = F.cosine_similarity(embeddings, self.text[None].to(embeddings.device), dim=1)
        return cosines.view(features.shape[:3]).clamp(-1.0, 1.0)
