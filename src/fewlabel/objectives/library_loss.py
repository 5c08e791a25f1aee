"""Losses and miners of pytorch-metric-learning, as they are. Musgrave, Belongie, Lim 2020, arXiv:2008.09164.

That library keeps distance, miner, loss and reducer apart: a loss is called with embeddings (N, K), classes (N,) and
what a miner found in them. Some losses have weights of their own, such as the class centres of ArcFace (Deng et al.
2019, arXiv:1801.07698): these are trained, saved and continued with the rest. Nothing is imported from it here; its
parts are given, made by the user (pip install "fewlabel[metric]").
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fewlabel.networks import Encoder, mlp_head
from fewlabel.objectives.labelled_pairs import joint_with_labels
from fewlabel.objectives.pairs import unit
from fewlabel.types import Batch, FewlabelError


class LibraryLoss(nn.Module):
    """Encoder, one linear layer with batch normalisation to the unit sphere, a loss of the library on one view.

    encoder: anything with `.dim`, from images to features.
    loss_function: such as `losses.MultiSimilarityLoss()`, or `losses.ArcFaceLoss(classes, embedding_dim)`.
    miner: such as `miners.TripletMarginMiner()`; None = the loss's own choice of pairs.
    embedding_dim: K, which a loss with weights of its own was made for.
    A positive may be of the same patient: the library knows no patients. Balanced batches make that rare.
    Raises FewlabelError if the loss was made for embeddings of another width.
    """

    name = "pytorch-metric-learning"
    paper = "Musgrave et al. 2020, arXiv:2008.09164"
    view_count = 1
    needs_labels = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        loss_function: nn.Module,
        miner: nn.Module | None = None,
        embedding_dim: int = 128,
    ) -> None:
        super().__init__()
        weights = [tuple(p.shape) for p in loss_function.parameters() if p.dim() == 2]
        if weights and not all(embedding_dim in shape for shape in weights):
            raise FewlabelError(
                f"The weights of {type(loss_function).__name__} are {weights[0]}, and embeddings are "
                f"{embedding_dim} wide: make the loss with the same embedding_size."
            )
        self.encoder = encoder
        self.head = mlp_head(encoder.dim, encoder.dim, embedding_dim, layers=1)
        self.loss_function: Any = loss_function
        self.miner: Any = miner

    def loss(self, batch: Batch) -> torch.Tensor:
        """The scalar loss of the labelled images of the first view; exactly 0 when the batch has no label.

        Raises FewlabelError for labels that are no classes, or classes that the loss was not made for.
        """
        z, labels, _ = joint_with_labels(self.embed(batch.views[0]), batch, other_patient=False)
        if labels.is_floating_point() or labels.dim() != 1:
            raise FewlabelError(
                f"The labels are {tuple(labels.shape)} of {labels.dtype}: pytorch-metric-learning takes one "
                "class (int64) an image; several labels are for Siamese and Triplet."
            )
        classes = getattr(self.loss_function, "num_classes", None)
        if classes is not None and int(labels.max()) >= classes:
            raise FewlabelError(
                f"A label is {int(labels.max())}, but {type(self.loss_function).__name__} was made for "
                f"{classes} classes: labels run from 0."
            )
        known = labels >= 0
        nothing = z.sum() * 0.0 + sum(p.sum() * 0.0 for p in self.loss_function.parameters())
        if not known.any():
            return nothing
        with torch.autocast(z.device.type, enabled=False):
            found = self.miner(z[known], labels[known]) if self.miner else None
            return self.loss_function(z[known], labels[known], found) + nothing

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings z (B, K) of length 1 of images x (B, C, H, W)."""
        return unit(self.head(self.encoder(x)))
