"""SimCLR. Chen, Kornblith, Norouzi, Hinton 2020, arXiv:2002.05709.

NT-Xent (equation 1), over the 2N views of N images, for a positive pair (i, j):

    l(i, j) = -log  exp(s_ij / tau) / sum_{k != i} exp(s_ik / tau),     s cosine similarity,

the mean over all 2N ordered positive pairs. The denominator holds all other 2N - 1 views, the views of the other
images from both sides included. InfoNCE between the two views, which keeps only the N cross-view terms, is
another loss: van den Oord et al. 2018, arXiv:1807.03748; it stands beside it as `info_nce`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from fewlabel.networks import Encoder, mlp_head
from fewlabel.objectives.contrast import nt_xent
from fewlabel.objectives.pairs import two_views
from fewlabel.types import Batch


class SimCLR(nn.Module):
    """Encoder f, projection head g (thrown away downstream), contrastive loss on two views.

    encoder: anything with `.dim`, from images to features.
    hidden_dim: width of the head's hidden layer; None = the encoder's width, as in the paper.
    embedding_dim: K, 128 in the paper.
    loss_function: `nt_xent` (the paper's) or `info_nce`.
    """

    name = "simclr"
    paper = "Chen et al. 2020, arXiv:2002.05709"
    view_count = 2
    needs_labels = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden_dim: int | None = None,
        embedding_dim: int = 128,
        head_layers: int = 2,
        temperature: float = 0.5,
        loss_function: Callable[..., torch.Tensor] = nt_xent,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = mlp_head(encoder.dim, hidden_dim or encoder.dim, embedding_dim, layers=head_layers)
        self.temperature = temperature
        self.loss_function = loss_function

    def loss(self, batch: Batch) -> torch.Tensor:
        """The scalar loss of a batch with two views (B, C, [D,] H, W) each."""
        return self.contrast(*self.embed_views(batch))

    def embed_views(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Embeddings (B, K) of each of the two views, in one pass with joint batch statistics."""
        return self.embed(torch.cat(two_views(batch, "SimCLR"))).chunk(2)

    def contrast(self, z1: torch.Tensor, z2: torch.Tensor) -> torch.Tensor:
        """The scalar loss of the embeddings (B, K) of two views."""
        return self.loss_function(z1, z2, temperature=self.temperature)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings z (B, K) of images x (B, C, H, W), before normalisation."""
        return self.head(self.encoder(x))
