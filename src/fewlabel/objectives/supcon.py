"""SupCon. Khosla, Teterwak, Wang, Sarna, Tian, Isola, Maschinot, Liu, Krishnan 2020, arXiv:2004.11362.

L_out (equation 2), over the 2N views I of N images:

    L = sum_{i in I}  -1/|P(i)|  sum_{p in P(i)}  log  exp(z_i z_p / tau) / sum_{a != i} exp(z_i z_a / tau),

P(i) all other views of images with the label of i. Departures: the mean over I instead of the sum, as in the
authors' published code; and an image without a label has its own other view as its only positive, as in
SimCLR, so that images with and without labels train together and a batch without labels gives NT-Xent.
"""

from __future__ import annotations

import torch
from torch import nn

from fewlabel.networks import Encoder, mlp_head
from fewlabel.objectives.contrast import nt_xent
from fewlabel.objectives.pairs import joint, two_views, unit
from fewlabel.processes import gathered
from fewlabel.types import Batch, FewlabelError


def supcon(
    z1: torch.Tensor, z2: torch.Tensor, labels: torch.Tensor, *, temperature: float = 0.1
) -> torch.Tensor:
    """L_out, the mean over all 2N views; in memory that grows with N, by class sums beside NT-Xent:

        L = NT-Xent + mean_i (z_i z_i' - z_i m_i) / tau,    i' the other view of i, m_i the mean over P(i).

    z1, z2: embeddings of the two views, shape (N, K), before normalisation; row i of both is image i.
    labels: (N,) int64 classes, -1 = no label.
    Returns a scalar. Raises FewlabelError if shapes differ, labels are no whole numbers, N < 2 or
    temperature <= 0.
    Source: arXiv:2004.11362, equation 2.
    """
    loss = nt_xent(z1, z2, temperature=temperature)
    if labels.shape != z1.shape[:1] or labels.is_floating_point():
        raise FewlabelError(
            f"The labels are {tuple(labels.shape)} of {labels.dtype} for {z1.shape[0]} images: one class "
            "(int64) an image is needed. Numbers are learned with Supervised."
        )
    with torch.autocast(z1.device.type, enabled=False):
        z = torch.cat([joint(unit(z1)), joint(unit(z2))])  # (2N, K)
        own = (z * z.roll(z.shape[0] // 2, 0)).sum(1)  # (2N,)
        return loss + (own - _mean_positive(z, gathered(labels))).mean() / temperature


def _mean_positive(z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """z_i m_i for unit rows z (2N, K), first views and then second ones, of images with labels (N,)."""
    alone = labels.max() + 1 + torch.arange(labels.shape[0], device=labels.device)
    _, group = torch.where(labels < 0, alone, labels).unique(return_inverse=True)
    group = group.repeat(2)  # (2N,)
    sums = torch.zeros_like(z).index_add(0, group, z)  # (2N, K); as many rows as there may be groups
    positives = group.bincount()[group] - 1  # (2N,)
    return ((z * sums[group]).sum(1) - (z * z).sum(1)) / positives


class SupCon(nn.Module):
    """Encoder, projection head (thrown away downstream), supervised contrastive loss on two views.

    encoder: anything with `.dim`, from images to features.
    hidden_dim: width of the head's hidden layer; None = the encoder's width, as in the paper.
    embedding_dim: K, 128 in the paper.
    """

    name = "supcon"
    paper = "Khosla et al. 2020, arXiv:2004.11362"
    view_count = 2
    needs_labels = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden_dim: int | None = None,
        embedding_dim: int = 128,
        head_layers: int = 2,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = mlp_head(encoder.dim, hidden_dim or encoder.dim, embedding_dim, layers=head_layers)
        self.temperature = temperature

    def loss(self, batch: Batch) -> torch.Tensor:
        """The scalar loss of a batch with two views (B, C, [D,] H, W) each; NT-Xent if it has no labels."""
        views = two_views(batch, "SupCon")
        z1, z2 = self.embed(torch.cat(views)).chunk(2)  # joint batch statistics
        labels = batch.labels
        if labels is None:
            labels = torch.full((z1.shape[0],), -1, device=z1.device)
        return supcon(z1, z2, labels, temperature=self.temperature)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings z (B, K) of images x (B, C, H, W), before normalisation."""
        return self.head(self.encoder(x))
