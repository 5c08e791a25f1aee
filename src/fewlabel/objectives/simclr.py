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
import torch.nn.functional as F
from torch import nn

from fewlabel.networks import Encoder, mlp_head
from fewlabel.types import Batch, FewlabelError


def nt_xent(z1: torch.Tensor, z2: torch.Tensor, *, temperature: float = 0.5) -> torch.Tensor:
    """NT-Xent, the mean over both directions of all N positive pairs.

    z1, z2: embeddings of the two views, shape (N, K), before normalisation; row i of both is image i.
    Returns a scalar. Raises FewlabelError if the shapes differ, N < 2 or temperature <= 0.
    Source: arXiv:2002.05709, equation 1 and algorithm 1.
    """
    _check(z1, z2, temperature)
    n = z1.shape[0]
    z = torch.cat([z1, z2])  # (2N, K)
    similarity = _cosines(z, z) / temperature  # (2N, 2N)
    similarity.fill_diagonal_(float("-inf"))
    positive = torch.arange(2 * n, device=z.device).roll(n)  # view i of image k pairs with its other view
    return F.cross_entropy(similarity, positive)


def info_nce(z1: torch.Tensor, z2: torch.Tensor, *, temperature: float = 0.5) -> torch.Tensor:
    """Symmetric InfoNCE between two views: only the N - 1 cross-view negatives stand in the denominator.

    Arguments, result and errors as in `nt_xent`. Source: arXiv:1807.03748, equation 4, in both directions.
    """
    _check(z1, z2, temperature)
    similarity = _cosines(z1, z2) / temperature  # (N, N)
    same = torch.arange(z1.shape[0], device=z1.device)
    return (F.cross_entropy(similarity, same) + F.cross_entropy(similarity.T, same)) / 2


def _cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Cosine similarities (N, M) in 32 bits: in bf16 they would be wrong by 1 % before a temperature divides them."""
    with torch.autocast(a.device.type, enabled=False):
        return F.normalize(a.float(), dim=1) @ F.normalize(b.float(), dim=1).T


def _check(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> None:
    if z1.shape != z2.shape or z1.dim() != 2:
        raise FewlabelError(
            f"z1 is {tuple(z1.shape)}, z2 is {tuple(z2.shape)}: both views need the same batch of shape (N, K). "
            "Set drop_last=True if your own loader leaves a shorter last batch."
        )
    if z1.shape[0] < 2:
        raise FewlabelError(
            f"The batch holds {z1.shape[0]} image: a contrast needs at least 2. Raise the batch size."
        )
    if not temperature > 0:
        raise FewlabelError(f"temperature is {temperature}: it must be above 0; the paper uses 0.1 to 0.5.")


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
        if len(batch.views) != 2:
            raise FewlabelError(f"SimCLR got {len(batch.views)} view(s) of each image: it needs exactly 2.")
        z1, z2 = self.embed(torch.cat(batch.views)).chunk(2)  # (B, K) each; one pass, joint batch statistics
        return self.loss_function(z1, z2, temperature=self.temperature)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings z (B, K) of images x (B, C, H, W), before normalisation."""
        return self.head(self.encoder(x))
