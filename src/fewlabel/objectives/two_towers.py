"""Two towers: two views of one thing, each seen by a tower of its own, are drawn together and all others apart.

The loss is ConVIRT's, Zhang, Jiang, Miura, Manning, Langlotz 2020, arXiv:2010.00747, equations 2 to 4, with image and
image in place of image and text: CT and MRI of one patient, two images of one study. `ConVIRT` is the case of image
and text.
"""

from __future__ import annotations

import torch
from torch import nn

from fewlabel.networks import Encoder, mlp_head
from fewlabel.objectives.contrast import check_temperature, info_nce
from fewlabel.objectives.pairs import two_views
from fewlabel.types import Batch


def projection(in_dim: int, hidden_dim: int | None, embedding_dim: int) -> nn.Sequential:
    """ConVIRT's g: W2 relu(W1 h), (B, in_dim) -> (B, embedding_dim). Departure: the hidden layer has a bias.

    hidden_dim: None = in_dim.
    """
    return mlp_head(in_dim, hidden_dim or in_dim, embedding_dim, hidden_norm=False, last_norm=False)


class TwoTowers(nn.Module):
    """An encoder and a projection for each of two views, and InfoNCE between the views in both directions.

    encoder: of the first view; anything with `.dim`, from images to features. This one is kept downstream.
    other: encoder of the second view; None = one tower, encoder and projection, sees both.
    hidden_dim: width of the projections' hidden layer; None = the width of the features.
    weight: of the direction from the first view to the second, in [0, 1].
    """

    name = "two-towers"
    paper = "Zhang et al. 2020, arXiv:2010.00747"
    view_count = 2
    needs_labels = False

    def __init__(
        self,
        encoder: Encoder,
        other: Encoder | None = None,
        *,
        hidden_dim: int | None = None,
        embedding_dim: int = 512,
        temperature: float = 0.1,
        weight: float = 0.5,
    ) -> None:
        super().__init__()
        check_temperature(temperature)
        self.encoder, self.other = encoder, other or encoder
        self.head = projection(encoder.dim, hidden_dim, embedding_dim)
        self.other_head = projection(other.dim, hidden_dim, embedding_dim) if other else self.head
        self.temperature, self.weight = temperature, weight

    def loss(self, batch: Batch) -> torch.Tensor:
        """The scalar loss of a batch with two views (B, C, [D,] H, W) each."""
        return self.contrast(*self.embed_views(batch))

    def embed_views(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Embeddings (B, K) of each of the two views, each by its own batch statistics."""
        x1, x2 = two_views(batch, "TwoTowers")
        return self.embed(x1), self.embed_other(x2)

    def contrast(self, z1: torch.Tensor, z2: torch.Tensor) -> torch.Tensor:
        """The scalar loss of the embeddings (B, K) of two views."""
        return info_nce(z1, z2, temperature=self.temperature, weight=self.weight)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings z (B, K) of first views x (B, C, H, W), before normalisation."""
        return self.head(self.encoder(x))

    def embed_other(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings z (B, K) of second views x (B, C, H, W), before normalisation."""
        return self.other_head(self.other(x))
