"""An image encoder place by place: what it would say of an image that looks everywhere as it does at one place."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fewlabel.networks import Encoder
from fewlabel.types import FewlabelError


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
