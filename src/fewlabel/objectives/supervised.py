"""Supervised training from scratch on the labels alone: the baseline of every report.

Cross-entropy over K classes (labels -1 are left out), or squared error for a number (labels NaN are left out).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fewlabel.networks import Encoder
from fewlabel.types import Batch, FewlabelError


class Supervised(nn.Module):
    """An encoder with one linear layer on top.

    classes: number of classes K for classification; 0 for regression of one (standardised) number.
    class_weights: (K,) weights of the classes in the cross-entropy; None = all equal.
    """

    name = "supervised"
    paper = "none: cross-entropy or squared error from random initialisation"
    view_count = 1
    needs_labels = True

    class_weights: torch.Tensor | None

    def __init__(
        self, encoder: Encoder, *, classes: int = 2, class_weights: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.classes = classes
        self.head = nn.Linear(encoder.dim, classes or 1)
        self.register_buffer("class_weights", class_weights, persistent=False)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Scalar loss over the labelled rows; exactly 0, with gradients of 0, when the batch has no label."""
        if batch.labels is None:
            return self.predict(batch.views[0]).sum() * 0.0
        output = self.predict(batch.views[0]).float()  # (B, K) or (B, 1)
        if self.classes:
            known = batch.labels >= 0
            if not known.any():
                return output.sum() * 0.0
            if int(batch.labels.max()) >= self.classes:
                raise FewlabelError(
                    f"A label is {int(batch.labels.max())}, but there are {self.classes} classes: labels run from 0."
                )
            return F.cross_entropy(output[known], batch.labels[known], weight=self.class_weights)
        known = ~torch.isnan(batch.labels)
        if not known.any():
            return output.sum() * 0.0
        return F.mse_loss(output[known, 0], batch.labels[known].float())

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, K), or the standardised number (B, 1), of images x (B, C, H, W)."""
        return self.head(self.encoder(x))
