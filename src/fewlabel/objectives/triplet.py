"""Triplet loss. Schroff, Kalenichenko, Philbin 2015 (FaceNet), arXiv:1503.03832.

For an anchor a, a positive p that shares its label and a negative n that does not (section 3.1):

    L = 1/N sum  max(0, d(a, p) - d(a, n) + m),

d squared Euclidean on the unit sphere, m = 0.2. Which triplets of a batch are taken is called mining (section 3.2):

    semi-hard    all with  d(a, p) < d(a, n) < d(a, p) + m, the paper's choice;
    hard         of each anchor its furthest positive with its nearest negative (Hermans et al. 2017, arXiv:1703.07737);
    all          of the batch.

Departures: the mean is over all semi-hard negatives of a pair, not one of them; the margin may be a function of the two
labels; a positive counts by how many labels it shares where an image has several; and a positive is never the same
image, nor, on request, one of the same patient, who would be found by his anatomy and not by his disease.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from fewlabel.networks import Encoder, mlp_head
from fewlabel.objectives.distances import Distance, squared_euclidean
from fewlabel.objectives.labelled_pairs import check_labelled, joint_with_labels, positives_and_negatives
from fewlabel.objectives.pairs import in_full, unit
from fewlabel.types import Batch, FewlabelError

Margin = float | Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""A number, or a function (labels of anchors, labels of negatives) -> margins.

It is called once with labels (N, 1) and (1, N), or (N, 1, L) and (1, N, L), and gives (N, N).
"""
Triplets = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Row numbers (T,) of anchors, positives and negatives."""
Mining = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], Triplets]
"""Called with (N, N) distances, which pairs are positives (bool), which are negatives (bool), and margins."""


def graded_margin(step: float) -> Margin:
    """step * |grade of the anchor - grade of the negative|: the further two grades lie apart, the further their images.

    So that neighbouring grades keep the margin `step`. Raises FewlabelError for a step that is not above 0.
    """
    if not (math.isfinite(step) and step > 0):
        raise FewlabelError(f"The margin of neighbouring grades is {step}: a number above 0 is needed.")
    return lambda anchors, negatives: step * (anchors - negatives).abs()


def batch_all(
    d: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor, margin: torch.Tensor
) -> Triplets:
    """All triplets of the batch; memory grows with N times the number of positive pairs."""
    return _of_positive_pairs(positive, negative[_anchors(positive)])


def semi_hard(
    d: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor, margin: torch.Tensor
) -> Triplets:
    """All triplets with d(a, p) < d(a, n) < d(a, p) + m; memory as of `batch_all`."""
    a, reach = _anchors(positive), d[positive][:, None]  # (pairs,), (pairs, 1)
    return _of_positive_pairs(positive, negative[a] & (d[a] > reach) & (d[a] < reach + margin[a]))


def hard(d: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor, margin: torch.Tensor) -> Triplets:
    """The furthest positive and the nearest negative of each anchor that has both."""
    a = (positive.any(1) & negative.any(1)).nonzero()[:, 0]
    furthest = d.masked_fill(~positive, -torch.inf)[a].argmax(1)
    nearest = d.masked_fill(~negative, torch.inf)[a].argmin(1)
    return a, furthest, nearest


def _anchors(positive: torch.Tensor) -> torch.Tensor:
    """(pairs,) the anchor of each positive pair."""
    return positive.nonzero()[:, 0]


def _of_positive_pairs(positive: torch.Tensor, chosen: torch.Tensor) -> Triplets:
    """chosen: (pairs, N) bool, which negatives each positive pair is taken with."""
    a, p = positive.nonzero(as_tuple=True)
    pair, n = chosen.nonzero(as_tuple=True)
    return a[pair], p[pair], n


def triplet_loss(
    z: torch.Tensor,
    labels: torch.Tensor,
    *,
    margin: Margin = 0.2,
    distance: Distance = squared_euclidean,
    mining: Mining = semi_hard,
    patients: torch.Tensor | None = None,
) -> torch.Tensor:
    """The mean over the triplets that are mined, each by how much its positive shares; 0 where none is found.

    z: embeddings (N, K), taken as they are: the paper has them on the unit sphere.
    labels: (N,) int64 classes, -1 = no label, or (N, L) int64 of 0 and 1, -1 = unknown, see `label_overlap`.
    margin: m, or a function of the labels of anchor and negative. mining: `semi_hard`, `hard` or `batch_all`.
    patients: (N,) codes; a positive is then of another patient. None = any other image that shares a label.
    Returns a scalar. Raises FewlabelError for shapes that do not belong together and for a margin below 0.
    """
    check_labelled(z, labels, patients)
    with torch.autocast(z.device.type, enabled=False):
        z = in_full(z)
        d = distance(z, z)  # (N, N)
        weight, negative = positives_and_negatives(labels, patients)
        m = _margins(margin, labels, d)
        a, p, n = mining(d.detach(), weight > 0, negative, m)
        if not len(a):
            return z.sum() * 0.0
        share = weight[a, p].to(d.dtype)
        return (share * (d[a, p] - d[a, n] + m[a, n]).clamp(min=0)).sum() / share.sum()


def _margins(margin: Margin, labels: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    """(N, N) margins of anchors with negatives, in the type of the distances."""
    if not callable(margin):
        if not (math.isfinite(margin) and margin >= 0):
            raise FewlabelError(f"margin is {margin}: a number from 0 is needed; the paper uses 0.2.")
        return torch.full_like(d, margin)
    found = margin(labels[:, None], labels[None])
    if found.shape != d.shape:
        raise FewlabelError(
            f"The margin's function gave {tuple(found.shape)} for {len(labels)} labels: it is called with "
            "labels (N, 1) and (1, N) and must give (N, N)."
        )
    return found.to(d.dtype)


class Triplet(nn.Module):
    """Encoder, one linear layer with batch normalisation to the unit sphere, triplet loss on one view of each image.

    encoder: anything with `.dim`, from images to features.
    embedding_dim: K, 128 in the paper.
    margin, distance, mining: see `triplet_loss`.
    other_patient: a positive must be of another patient; the batch then names its patients.
    """

    name = "triplet"
    paper = "Schroff et al. 2015, arXiv:1503.03832"
    view_count = 1
    needs_labels = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        embedding_dim: int = 128,
        margin: Margin = 0.2,
        distance: Distance = squared_euclidean,
        mining: Mining = semi_hard,
        other_patient: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = mlp_head(encoder.dim, encoder.dim, embedding_dim, layers=1)
        self.margin, self.distance, self.mining = margin, distance, mining
        self.other_patient = other_patient

    def loss(self, batch: Batch) -> torch.Tensor:
        """The scalar loss of the first view (B, C, [D,] H, W); exactly 0 where labels make no triplet.

        Raises FewlabelError if patients are needed and missing.
        """
        z = self.embed(batch.views[0])
        z, labels, patients = joint_with_labels(z, batch, other_patient=self.other_patient)
        return triplet_loss(
            z, labels, margin=self.margin, distance=self.distance, mining=self.mining, patients=patients
        )

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings z (B, K) of length 1 of images x (B, C, H, W)."""
        return unit(self.head(self.encoder(x)))
