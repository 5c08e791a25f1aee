"""BYOL. Grill, Strub, Altche, Tallec, Richemond, Buchatskaya, Doersch, Avila Pires, Guo, Gheshlaghi Azar,
Piot, Kavukcuoglu, Munos, Valko 2020, arXiv:2006.07733.

The online network theta predicts the projection of the target network xi of the other view (equation 2), both
normalised, in both directions:

    L = || q_theta(z_theta) - z'_xi ||^2 = 2 - 2 <q_theta(z_theta), z'_xi> / (||q_theta(z_theta)|| ||z'_xi||).

The target gets no gradient; it follows: xi <- tau xi + (1 - tau) theta, with tau rising from its base value
to 1: tau = 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2 at step k of K.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from fewlabel.networks import Encoder, mlp_head
from fewlabel.objectives.momentum import follow, frozen_copy
from fewlabel.objectives.pairs import check_pair, two_views, unit
from fewlabel.types import Batch


def byol_error(q: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Squared distance of predictions q from projections z, both normalised, the mean over N images.

    q, z: shape (N, K), before normalisation; row i of both is image i.
    Returns a scalar in [0, 4]. Raises FewlabelError if the shapes differ or N < 2.
    Source: arXiv:2006.07733, equation 2.
    """
    check_pair(q, z)
    with torch.autocast(q.device.type, enabled=False):
        return 2 - 2 * (unit(q) * unit(z)).sum(1).mean()


def byol_momentum(step: int, steps: int, base: float) -> float:
    """tau at step `step` (from 0) of `steps`: a half cosine from `base` to 1. Source: section 3.3."""
    return 1 - (1 - base) * (math.cos(math.pi * step / steps) + 1) / 2


class BYOL(nn.Module):
    """Online encoder f, projector g and predictor q; a target encoder and projector that follow them.

    encoder: anything with `.dim`, from images to features.
    hidden_dim, embedding_dim: of projector and predictor, 4096 and 256 in the paper.
    base_momentum: tau_base. The paper takes 0.996 for 1000 epochs and 0.99 for 300; runs here are shorter.
    """

    name = "byol"
    paper = "Grill et al. 2020, arXiv:2006.07733"
    view_count = 2
    needs_labels = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden_dim: int = 4096,
        embedding_dim: int = 256,
        base_momentum: float = 0.99,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = _mlp(encoder.dim, hidden_dim, embedding_dim)
        self.predictor = _mlp(embedding_dim, hidden_dim, embedding_dim)
        self.target_encoder = frozen_copy(encoder)
        self.target_projector = frozen_copy(self.projector)
        self.base_momentum = base_momentum

    def loss(self, batch: Batch) -> torch.Tensor:
        """The scalar loss of a batch with two views (B, C, [D,] H, W) each, both directions added."""
        x1, x2 = two_views(batch, "BYOL")
        q1, q2 = self.predictor(self.embed(x1)), self.predictor(self.embed(x2))
        return byol_error(q1, self.targets(x2)) + byol_error(q2, self.targets(x1))

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """The online network's projections z (B, K) of images x (B, C, H, W), before normalisation."""
        return self.projector(self.encoder(x))

    @torch.no_grad()
    def targets(self, x: torch.Tensor) -> torch.Tensor:
        """The target network's projections z' (B, K) of images x (B, C, H, W), without gradients."""
        return self.target_projector(self.target_encoder(x))

    def after_step(self, step: int, steps: int) -> None:
        """The target network follows the online one. step: from 0; steps: of the whole run."""
        momentum = byol_momentum(step, steps, self.base_momentum)
        follow(self.target_encoder, self.encoder, momentum)
        follow(self.target_projector, self.projector, momentum)


def _mlp(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    return mlp_head(in_dim, hidden_dim, out_dim, last_norm=False, last_bias=True)
