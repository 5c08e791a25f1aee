"""ConVIRT. Zhang, Jiang, Miura, Manning, Langlotz 2020, arXiv:2010.00747.

For N pairs of an image and a text, v_i and u_i their embeddings and <,> the cosine similarity (equations 2 to 4):

    l_i(v->u) = -log  exp(<v_i, u_i> / tau) / sum_k exp(<v_i, u_k> / tau),
    l_i(u->v) = -log  exp(<u_i, v_i> / tau) / sum_k exp(<u_i, v_k> / tau),
    L = 1/N sum_i ( lambda l_i(v->u) + (1 - lambda) l_i(u->v) ),

which is `info_nce` with weight lambda. As in the paper, two studies that say the same count as each other's negatives.
"""

from __future__ import annotations

import torch
from torch import nn

from fewlabel.networks import Encoder, TextEncoder
from fewlabel.objectives.contrast import check_temperature, info_nce
from fewlabel.objectives.two_towers import projection
from fewlabel.types import Batch, FewlabelError


class ConVIRT(nn.Module):
    """Image encoder f_v, text encoder f_u, a projection g_v and g_u on each, contrastive loss of images and texts.

    encoder: anything with `.dim`, from images to features.
    text_encoder: anything with `.dim`, from token ids and mask to features; what it keeps frozen stays so.
    hidden_dim: width of the projections' hidden layer; None = the width of the features.
    embedding_dim: K, 512 in the paper. temperature: tau.
    weight: lambda, of the direction from image to text, in [0, 1].
    """

    name = "convirt"
    paper = "Zhang et al. 2020, arXiv:2010.00747"
    view_count = 1
    needs_labels = False

    def __init__(
        self,
        encoder: Encoder,
        text_encoder: TextEncoder,
        *,
        hidden_dim: int | None = None,
        embedding_dim: int = 512,
        temperature: float = 0.1,
        weight: float = 0.75,
    ) -> None:
        super().__init__()
        check_temperature(temperature)
        self.encoder, self.text_encoder = encoder, text_encoder
        self.head = projection(encoder.dim, hidden_dim, embedding_dim)
        self.text_head = projection(text_encoder.dim, hidden_dim, embedding_dim)
        self.temperature, self.weight = temperature, weight

    def loss(self, batch: Batch) -> torch.Tensor:
        """The scalar loss of a batch with one view (B, C, [D,] H, W) and the text of each image."""
        return self.contrast(*self.embed_views(batch))

    def embed_views(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Embeddings (B, K) of the images and of their texts. Raises FewlabelError for a batch without text."""
        if batch.text is None or len(batch.views) != 1:
            given = "no" if batch.text is None else "a"
            raise FewlabelError(
                f"ConVIRT got {len(batch.views)} view(s) of each image and {given} text: it needs one view and one "
                "text; give the training set its texts."
            )
        return self.embed(batch.views[0]), self.embed_text(batch.text.ids, batch.text.mask)

    def contrast(self, v: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """The scalar loss of the embeddings (B, K) of images and texts."""
        return info_nce(v, u, temperature=self.temperature, weight=self.weight)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings v (B, K) of images x (B, C, H, W), before normalisation."""
        return self.head(self.encoder(x))

    def embed_text(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Embeddings u (B, K) of texts, before normalisation. ids, mask: (B, T), as of `Tokens`."""
        return self.text_head(self.text_encoder(ids, mask))
