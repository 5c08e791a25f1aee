"""Barlow Twins. Zbontar, Jing, Misra, LeCun, Deny 2021, arXiv:2103.03230.

With C the (K, K) cross-correlation, over the batch, of the embeddings of the two views (equations 1 and 2):

    L = sum_i (1 - C_ii)^2 + lambda sum_i sum_{j != i} C_ij^2

    C_ij = sum_b zA_bi zB_bj / ( sqrt(sum_b (zA_bi)^2) sqrt(sum_b (zB_bj)^2) ),    z centred over the batch.

Departure: the paper's lambda, 5e-3, belongs to N = 2048 images and K = 8192 dimensions. Over N images even independent
dimensions have C_ij^2 of about 1/N, so that the second term is about lambda K / N of the first; with 64 images and 2048
dimensions it was eight times as heavy as in the paper, features fell to few directions and views did not come to agree.
Unless lambda is given it is 0.02 N / K, which is the paper's at its own size and keeps that share at any other.
"""

from __future__ import annotations

import torch
from torch import nn

from fewlabel.networks import Encoder, mlp_head
from fewlabel.objectives.pairs import check_pair, in_full, joint, two_views
from fewlabel.types import Batch

EPS = 1e-5
"""Added to variances, as by the published code's batch normalisation: a collapsed dimension gives 0."""


SHARE = 5e-3 * 8192 / 2048
"""lambda K / N in the paper."""


def barlow_twins(z1: torch.Tensor, z2: torch.Tensor, *, redundancy: float | None = None) -> torch.Tensor:
    """Distance of the cross-correlation from the identity.

    redundancy: lambda, weight of the terms off the diagonal; None = 0.02 N / K, N of all processes.
    z1, z2: embeddings of the two views, shape (N, K); row i of both is image i.
    Returns a scalar. Raises FewlabelError if the shapes differ or N < 2.
    Source: arXiv:2103.03230, equations 1 and 2.
    """
    check_pair(z1, z2)
    with torch.autocast(z1.device.type, enabled=False):
        z1, z2 = _standardised(joint(in_full(z1))), _standardised(joint(in_full(z2)))
        correlation = z1.T @ z2 / z1.shape[0]  # (K, K)
        diagonal = correlation.diagonal()
        off = correlation.square().sum() - diagonal.square().sum()
        if redundancy is None:
            redundancy = SHARE * z1.shape[0] / z1.shape[1]
        return (1 - diagonal).square().sum() + redundancy * off


def _standardised(z: torch.Tensor) -> torch.Tensor:
    """Columns of mean 0 and deviation 1 over the batch."""
    centred = z - z.mean(dim=0)
    return centred * torch.rsqrt(centred.square().mean(dim=0) + EPS)


class BarlowTwins(nn.Module):
    """Encoder, projector (thrown away downstream), cross-correlation of the embeddings of two views.

    encoder: anything with `.dim`, from images to features.
    projector_dim: width of the projector's three layers; None = four times the encoder's, which is the
        paper's 8192 for ResNet-50.
    redundancy: see `barlow_twins`.
    """

    name = "barlow"
    paper = "Zbontar et al. 2021, arXiv:2103.03230"
    view_count = 2
    needs_labels = False

    def __init__(
        self, encoder: Encoder, *, projector_dim: int | None = None, redundancy: float | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        width = projector_dim or 4 * encoder.dim
        self.head = mlp_head(encoder.dim, width, width, layers=3, last_norm=False)
        self.redundancy = redundancy

    def loss(self, batch: Batch) -> torch.Tensor:
        """The scalar loss of a batch with two views (B, C, [D,] H, W) each."""
        return self.contrast(*self.embed_views(batch))

    def embed_views(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Embeddings (B, K) of each of the two views, each by its own batch statistics, as in the paper."""
        x1, x2 = two_views(batch, "Barlow Twins")
        return self.embed(x1), self.embed(x2)

    def contrast(self, z1: torch.Tensor, z2: torch.Tensor) -> torch.Tensor:
        """The scalar loss of the embeddings (B, K) of two views."""
        return barlow_twins(z1, z2, redundancy=self.redundancy)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings z (B, K) of images x (B, C, H, W)."""
        return self.head(self.encoder(x))
