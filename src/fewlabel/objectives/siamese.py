"""Siamese networks. Hadsell, Chopra, LeCun 2006, Dimensionality reduction by learning an invariant mapping, CVPR.

For N pairs at the distances d, with y = 1 for a pair of one class and 0 for two (equation 4, where Y = 1 - y):

    L = 1/(2N) sum  y d^2 + (1 - y) max(0, m - d)^2.

Departures: the pairs are all pairs of a batch instead of a list made beforehand; and where images have several labels,
y is how much two of them share (Jaccard), from 0 to 1, which makes (1 - y) m the distance that the loss asks for.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from fewlabel.networks import Encoder, mlp_head
from fewlabel.objectives.distances import Distance, euclidean
from fewlabel.objectives.labelled_pairs import check_labelled, joint_with_labels, positives_and_negatives
from fewlabel.objectives.pairs import in_full, unit
from fewlabel.types import Batch, FewlabelError


def contrastive_loss(d: torch.Tensor, same: torch.Tensor, *, margin: float = 1.0) -> torch.Tensor:
    """L of the distances d (N,) of N pairs; 0 for no pair.

    same: (N,) y, 1 for one class and 0 for two, or anything between. margin: m, from which on two classes are far
    enough. Returns a scalar. Raises FewlabelError if the shapes differ or the margin is not above 0.
    """
    if d.shape != same.shape or d.dim() != 1:
        raise FewlabelError(
            f"d is {tuple(d.shape)} and same is {tuple(same.shape)}: give one of each for every pair, both (N,)."
        )
    if not (math.isfinite(margin) and margin > 0):
        raise FewlabelError(f"margin is {margin}: a number above 0 is needed, such as 1.")
    if not len(d):
        return d.sum()
    y = same.to(d.dtype)
    return (y * d.square() + (1 - y) * (margin - d).clamp(min=0).square()).mean() / 2


def siamese_loss(
    z: torch.Tensor,
    labels: torch.Tensor,
    *,
    margin: float = 1.0,
    distance: Distance = euclidean,
    patients: torch.Tensor | None = None,
) -> torch.Tensor:
    """L of all pairs of a batch whose labels are known; 0 where there is none.

    z: embeddings (N, K), taken as they are. labels: (N,) int64 classes, -1 = no label, or (N, L) int64 of 0 and 1,
        -1 = unknown, see `label_overlap`.
    patients: (N,) codes; two images of one patient are then no positive pair. None = any two images are a pair.
    Returns a scalar. Raises FewlabelError for shapes that do not belong together.
    """
    check_labelled(z, labels, patients)
    with torch.autocast(z.device.type, enabled=False):
        z = in_full(z)
        share, negative = positives_and_negatives(labels, patients)
        pairs = ((share > 0) | negative).triu(diagonal=1)  # each pair once
        if not pairs.any():
            return z.sum() * 0.0
        return contrastive_loss(distance(z, z)[pairs], share[pairs], margin=margin)


class Siamese(nn.Module):
    """Encoder, one linear layer with batch normalisation to the unit sphere, contrastive loss on pairs of a batch.

    encoder: anything with `.dim`, from images to features.
    embedding_dim: K. margin: of distances, which on the unit sphere go up to 2 with `euclidean` and `cosine_distance`.
    distance: `euclidean` as in the paper, `manhattan` or `cosine_distance`.
    other_patient: a positive pair must be of two patients; the batch then names its patients.
    """

    name = "siamese"
    paper = "Hadsell et al. 2006, CVPR"
    view_count = 1
    needs_labels = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        embedding_dim: int = 128,
        margin: float = 1.0,
        distance: Distance = euclidean,
        other_patient: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = mlp_head(encoder.dim, encoder.dim, embedding_dim, layers=1)
        self.margin, self.distance, self.other_patient = margin, distance, other_patient

    def loss(self, batch: Batch) -> torch.Tensor:
        """The scalar loss of the first view (B, C, [D,] H, W); exactly 0 where labels make no pair.

        Raises FewlabelError if patients are needed and missing.
        """
        z = self.embed(batch.views[0])
        z, labels, patients = joint_with_labels(z, batch, other_patient=self.other_patient)
        return siamese_loss(z, labels, margin=self.margin, distance=self.distance, patients=patients)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings z (B, K) of length 1 of images x (B, C, H, W)."""
        return unit(self.head(self.encoder(x)))
