"""VICReg. Bardes, Ponce, LeCun 2021, arXiv:2105.04906.

Over the embeddings Z, Z' (n, d) of two views (equations 1 to 6):

    L = lambda s(Z, Z') + mu (v(Z) + v(Z')) + nu (c(Z) + c(Z'))

    s(Z, Z') = 1/(n d) sum_i || z_i - z'_i ||^2                    the views of an image are alike,
    v(Z)     = 1/d sum_j max(0, gamma - sqrt(Var(z^j) + eps))      each dimension varies over the batch,
    c(Z)     = 1/d sum_{i != j} C(Z)_ij^2                          no two dimensions say the same,

C(Z) the covariance, gamma = 1. Equation 5 has s without 1/d; algorithm 1 and the published code have it, and
the weights 25, 25, 1 belong to it. The published code halves the variance terms, which neither the equations
nor the algorithm do; here they are not halved.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fewlabel.networks import Encoder, mlp_head
from fewlabel.objectives.pairs import check_pair, in_full, joint, two_views
from fewlabel.types import Batch

EPS = 1e-4
"""Below the square root of the variance: its slope stays finite where a dimension has collapsed."""


def vicreg(
    z1: torch.Tensor,
    z2: torch.Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> torch.Tensor:
    """The weighted sum of the three terms. invariance, variance, covariance: lambda, mu and nu.

    z1, z2: embeddings of the two views, shape (n, d); row i of both is image i.
    Returns a scalar. Raises FewlabelError if the shapes differ or n < 2.
    Source: arXiv:2105.04906, algorithm 1.
    """
    check_pair(z1, z2)
    with torch.autocast(z1.device.type, enabled=False):
        z1, z2 = joint(in_full(z1)), joint(in_full(z2))
        loss = invariance * F.mse_loss(z1, z2)
        loss = loss + variance * (variance_term(z1) + variance_term(z2))
        return loss + covariance * (covariance_term(z1) + covariance_term(z2))


def variance_term(z: torch.Tensor) -> torch.Tensor:
    """v of embeddings (n, d): how far the dimensions' deviations lie below 1, in the mean; in [0, 1]."""
    return F.relu(1 - torch.sqrt(z.var(dim=0) + EPS)).mean()


def covariance_term(z: torch.Tensor) -> torch.Tensor:
    """c of embeddings (n, d): the squared covariances of different dimensions, added up and divided by d."""
    n, d = z.shape
    centred = z - z.mean(dim=0)
    squared = (centred.T @ centred / (n - 1)).square()  # (d, d)
    return (squared.sum() - squared.diagonal().sum()) / d


class VICReg(nn.Module):
    """Encoder, expander (thrown away downstream), three terms on the embeddings of two views.

    encoder: anything with `.dim`, from images to features.
    expander_dim: width of the expander's three layers; None = four times the encoder's, which is the
        paper's 8192 for ResNet-50.
    invariance, variance, covariance: the terms' weights.
    """

    name = "vicreg"
    paper = "Bardes et al. 2021, arXiv:2105.04906"
    view_count = 2
    needs_labels = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        expander_dim: int | None = None,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        width = expander_dim or 4 * encoder.dim
        self.head = mlp_head(encoder.dim, width, width, layers=3, last_norm=False)
        self.weights = {"invariance": invariance, "variance": variance, "covariance": covariance}

    def loss(self, batch: Batch) -> torch.Tensor:
        """The scalar loss of a batch with two views (B, C, [D,] H, W) each."""
        return self.contrast(*self.embed_views(batch))

    def embed_views(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Embeddings (B, K) of each of the two views, each by its own batch statistics, as in the paper."""
        x1, x2 = two_views(batch, "VICReg")
        return self.embed(x1), self.embed(x2)

    def contrast(self, z1: torch.Tensor, z2: torch.Tensor) -> torch.Tensor:
        """The scalar loss of the embeddings (B, K) of two views."""
        return vicreg(z1, z2, **self.weights)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings z (B, K) of images x (B, C, H, W)."""
        return self.head(self.encoder(x))
