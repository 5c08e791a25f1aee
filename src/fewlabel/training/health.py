"""Is pretraining healthy? Measured without a label."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Health:
    """alignment: mean squared distance of the two views' normalised embeddings; 0 = identical.
    uniformity: log of the mean Gaussian potential of all pairs; lower = spread more evenly over the sphere.
    effective_rank: exp of the entropy of the features' normalised singular values; 1 = collapsed to a line.
    spread: mean deviation of the normalised embedding times sqrt(K); 1 = spread out, 0 = all images alike.
    """

    alignment: float
    uniformity: float
    effective_rank: float
    spread: float

    @property
    def warning(self) -> str:
        """A sentence when the representation has collapsed or nearly so, else ""."""
        if self.spread < 0.1:
            return (
                f"The embeddings have collapsed (spread {self.spread:.3f} of 1): all images look alike to it."
            )
        if self.effective_rank < 2:
            return f"The features have collapsed to effective rank {self.effective_rank:.1f}: lower the learning rate."
        return ""


def measure_health(z1: torch.Tensor, z2: torch.Tensor, h: torch.Tensor) -> Health:
    """z1, z2: embeddings (N, K) of two views; h: features (N, F) of one.

    Sources: alignment and uniformity (t = 2) from Wang and Isola 2020, arXiv:2005.10242, section 4; effective rank
    from Garrido et al. 2023 (RankMe), arXiv:2210.02885, equation 1.
    """
    z1, z2 = F.normalize(z1.float(), dim=1), F.normalize(z2.float(), dim=1)
    alignment = (z1 - z2).pow(2).sum(1).mean()
    uniformity = torch.pdist(z1).pow(2).mul(-2).exp().mean().log()
    singular = torch.linalg.svdvals(h.float())
    p = singular / singular.sum().clamp(min=1e-12) + 1e-7
    rank = torch.exp(-(p * p.log()).sum())
    spread = z1.std(dim=0).mean() * z1.shape[1] ** 0.5
    return Health(float(alignment), float(uniformity), float(rank), float(spread))
