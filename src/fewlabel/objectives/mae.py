"""MAE. He, Chen, Xie, Li, Dollar, Girshick 2021, arXiv:2111.06377.

Of the L patches of an image a random 25 % go through the encoder. A light decoder gets their features, and a
learned token in the place of each other patch, and predicts the pixels of these others, the masked ones M:

    L = 1/|M| sum_{i in M} 1/P || y_i - (x_i - mean(x_i)) / sqrt(var(x_i) + eps) ||^2,

x_i the P values of patch i, y_i their prediction, mean and variance those of the patch alone.

Departures: the encoder keeps its own learned position embedding (the paper's is sines and cosines, as that of
the decoder is here); the decoder is half as wide as the encoder and a third as deep, which is the paper's 512
and 8 for ViT-L. Pretraining shows it the views of all others unless told otherwise; the paper crops and flips only.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fewlabel.networks import Encoder
from fewlabel.networks.torchvision_shim import ensure_torchvision
from fewlabel.types import Batch, FewlabelError

EPS = 1e-6
"""Added to the variance of a patch, as in the published code: a patch of one colour has the target 0."""
HEAD_DIM = 32
"""Width of an attention head of the decoder: 16 heads of 32 in the paper."""


def patches_of(x: torch.Tensor, patch_px: tuple[int, int]) -> torch.Tensor:
    """Images (B, C, H, W) -> patches (B, L, P), row by row, P = C times the pixels of a patch."""
    return F.unfold(x, patch_px, stride=patch_px).transpose(1, 2)


def random_masks(count: int, patches: int, mask_ratio: float, device: torch.device) -> torch.Tensor:
    """(count, patches) bool, True = masked, the same number in each row; from torch's global random numbers.

    Raises FewlabelError if all patches or none would be masked.
    """
    visible = round(patches * (1 - mask_ratio))
    if not 0 < visible < patches:
        raise FewlabelError(
            f"Of {patches} patches, {visible} would be visible at mask_ratio {mask_ratio}: at least 1 "
            "must be visible and 1 masked; choose larger images, smaller patches, or another ratio."
        )
    order = torch.rand(count, patches, device=device).argsort(dim=1)
    return torch.ones(count, patches, dtype=torch.bool, device=device).scatter(1, order[:, :visible], False)


def masked_error(y: torch.Tensor, x: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """Mean squared error on the masked patches, whose targets are normalised one by one.

    y: predicted patches, shape (B, L, P). x: the patches as they are, same shape. masked: (B, L) bool.
    Returns a scalar. Source: arXiv:2111.06377, section 3, "Reconstruction target".
    """
    y, x = y[masked].float(), x[masked].float()  # (|M|, P)
    target = (x - x.mean(dim=1, keepdim=True)) / (x.var(dim=1, keepdim=True) + EPS).sqrt()
    return F.mse_loss(y, target)


class MAE(nn.Module):
    """A vision transformer of timm that sees a quarter of the patches, and a decoder, thrown away downstream.

    There is no embedding, so the training loop measures no health: the loss itself cannot collapse.
    encoder: of a `VisionTransformer`; FewlabelError for any other, and for one that pools by attention, which
        would not be trained.
    mask_ratio: share of masked patches, 0.75 in the paper.
    decoder_dim, decoder_depth: width and blocks of the decoder; None = a half and a third of the encoder's.
    """

    name = "mae"
    paper = "He et al. 2021, arXiv:2111.06377"
    view_count = 1
    needs_labels = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        mask_ratio: float = 0.75,
        decoder_dim: int | None = None,
        decoder_depth: int | None = None,
    ) -> None:
        super().__init__()
        network = _transformer_of(encoder)
        self.encoder = encoder
        self.mask_ratio = mask_ratio
        self.patch_px: tuple[int, int] = network.patch_embed.patch_size
        width = decoder_dim or network.embed_dim // 2
        depth = decoder_depth or max(1, len(network.blocks) // 3)
        self.to_decoder = nn.Linear(network.embed_dim, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.decoder = nn.Sequential(*_blocks(width, depth), nn.LayerNorm(width))
        pixels = self.patch_px[0] * self.patch_px[1]
        self.to_pixels = nn.Linear(width, network.in_chans * pixels)
        self._initialise()

    def _initialise(self) -> None:
        """As in the published code: Xavier's uniform weights, no biases, mask tokens of deviation 0.02."""
        for part in (self.to_decoder, self.decoder, self.to_pixels):
            for layer in part.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    nn.init.zeros_(layer.bias)
        nn.init.normal_(self.mask_token, std=0.02)

    def loss(self, batch: Batch) -> torch.Tensor:
        """The scalar loss of a batch with one view (B, C, H, W)."""
        x = (batch.views[0] - self.encoder.mean) / self.encoder.std  # as Encoder.forward sees it
        patches = patches_of(x, self.patch_px)  # (B, L, P)
        masked = random_masks(patches.shape[0], patches.shape[1], self.mask_ratio, x.device)
        return masked_error(self.decode(self.encode(x, masked), masked, x.shape[-2:]), patches, masked)

    def encode(self, x: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        """Features (B, T, F) of the class token, where there is one, and the visible patches in their order.

        x: normalised images (B, C, H, W). masked: (B, L) bool, the same number in each row.
        """
        network: Any = self.encoder.network
        tokens = network._pos_embed(network.patch_embed(x))  # (B, prefix + L, F)
        first, rest = tokens.split([network.num_prefix_tokens, masked.shape[1]], dim=1)
        visible = rest[~masked].view(len(rest), -1, rest.shape[-1])  # (B, V, F)
        tokens = network.blocks(network.norm_pre(torch.cat([first, visible], dim=1)))
        return network.fc_norm(network.norm(tokens))  # one of the two is the identity

    def decode(self, h: torch.Tensor, masked: torch.Tensor, size_px: torch.Size) -> torch.Tensor:
        """Predicted patches (B, L, P) from what `encode` gave. size_px: (H, W) of the images."""
        seen = self.to_decoder(h)  # (B, T, width)
        prefix = seen.shape[1] - int((~masked[0]).sum())
        first, visible = seen[:, :prefix], seen[:, prefix:]
        tokens = self.mask_token.to(seen.dtype).expand(*masked.shape, -1)
        tokens = tokens.masked_scatter(~masked[:, :, None], visible)  # (B, L, width)
        tokens = tokens + self._positions(size_px).to(seen)
        return self.to_pixels(self.decoder(torch.cat([first, tokens], dim=1)))[:, prefix:]

    def _positions(self, size_px: torch.Size) -> torch.Tensor:
        """Sines and cosines of row and column of each patch, (L, width)."""
        from timm.layers import build_sincos2d_pos_embed

        grid = [length // patch for length, patch in zip(size_px, self.patch_px, strict=True)]
        return build_sincos2d_pos_embed(grid, self.mask_token.shape[-1])


def _transformer_of(encoder: Encoder) -> Any:
    """The encoder's network, where it is one that masked patches can be left out of."""
    ensure_torchvision()
    from timm.models.vision_transformer import VisionTransformer

    network = getattr(encoder, "network", None)
    if not isinstance(network, VisionTransformer) or network.attn_pool is not None:
        raise FewlabelError(
            f"MAE got an encoder of the kind {type(network).__name__}: it needs a vision transformer of "
            "timm with a class token or average pooling; choose one such as vit_tiny_patch16_224."
        )
    return network


def _blocks(width: int, depth: int) -> list[nn.Module]:
    """Transformer blocks of the decoder."""
    from timm.models.vision_transformer import Block

    heads = max(1, width // HEAD_DIM)
    if width % heads or width % 4:
        raise FewlabelError(
            f"decoder_dim is {width}: it must be divisible by 4 and by its {heads} heads; take a multiple of "
            f"{HEAD_DIM}."
        )
    return [Block(width, heads, mlp_ratio=4, qkv_bias=True) for _ in range(depth)]
