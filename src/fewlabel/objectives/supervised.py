"""Supervised training on labels: from random weights the baseline of every report, from pretrained ones fine-tuning.

Cross-entropy over K classes (labels -1 are left out), or squared error for a number (labels NaN are left out). Grades,
which are classes in an order, get cumulative logits as last layer (see `networks.ordinal`); the cross-entropy of their
log-probabilities is that model's likelihood.

Layers may learn at different rates: with a decay d, the layers that lie k steps below the new last layer learn at
rate * d^k (Howard and Ruder 2018, arXiv:1801.06146, section 3.2; by blocks as in Bao et al. 2021, arXiv:2106.08254).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fewlabel.networks import Encoder, HeadedEncoder, OrdinalHead
from fewlabel.objectives.freezing import FreezableEncoder
from fewlabel.types import Batch, FewlabelError


def labelled_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor | None, *, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean cross-entropy over the rows with a label; exactly 0, with gradients of 0, where there is none.

    logits: (B, K). labels: (B,) int64, -1 = none; None = none at all. weight: (K,) of the classes, None = all equal.
    Returns a scalar. Raises FewlabelError for a label of K or more, and for several labels an image.
    """
    if labels is not None and labels.ndim != 1:
        raise FewlabelError(
            f"Labels have the shape {tuple(labels.shape)}: one class an image, (B,), is needed."
        )
    known = None if labels is None else labels >= 0
    if labels is None or known is None or not known.any():
        return logits.sum() * 0.0
    if int(labels.max()) >= logits.shape[1]:
        raise FewlabelError(
            f"A label is {int(labels.max())}, but there are {logits.shape[1]} classes: labels run from 0."
        )
    return F.cross_entropy(logits[known], labels[known], weight=weight)


class Supervised(FreezableEncoder):
    """An encoder with one linear layer on top.

    encoder: anything with `.dim`, from images to features; an `Encoder`, or one with a part of its projection head.
    classes: number of classes K for classification; 0 for regression of one (standardised) number.
    ordinal: the classes are in an order, three or more.
    class_weights: (K,) weights of the classes in the cross-entropy; None = all equal.
    layer_decay: d above, in (0, 1]. head_warmup_steps: at first only the new layer learns; the encoder's weights stay,
    and its batch statistics follow the images.
    dropout: share of the features that are dropped before the last layer, in training only; in [0, 1).
    Raises FewlabelError for another share, and for fewer than three classes in an order.
    """

    name = "supervised"
    paper = "none: cross-entropy or squared error from random initialisation"
    view_count = 1
    needs_labels = True

    class_weights: torch.Tensor | None

    def __init__(
        self,
        encoder: Encoder | HeadedEncoder,
        *,
        classes: int = 2,
        ordinal: bool = False,
        class_weights: torch.Tensor | None = None,
        layer_decay: float = 1.0,
        head_warmup_steps: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise FewlabelError(f"dropout is {dropout}: a share from 0 to less than 1 is needed.")
        if ordinal and classes < 3:
            raise FewlabelError(f"{classes} classes came with ordinal: an order needs three or more.")
        self.encoder = encoder
        self.classes = classes
        self.dropout = nn.Dropout(dropout)
        self.head: nn.Linear | OrdinalHead
        self.head = OrdinalHead(encoder.dim, classes) if ordinal else nn.Linear(encoder.dim, classes or 1)
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.layer_decay, self.head_warmup_steps = layer_decay, head_warmup_steps

    def loss(self, batch: Batch) -> torch.Tensor:
        """Scalar loss over the labelled rows; exactly 0, with gradients of 0, when the batch has no label."""
        output = self.predict(batch.views[0]).float()  # (B, K) or (B, 1)
        if self.classes:
            return labelled_cross_entropy(output, batch.labels, weight=self.class_weights)
        if batch.labels is None:
            return output.sum() * 0.0
        known = ~torch.isnan(batch.labels)
        if not known.any():
            return output.sum() * 0.0
        return F.mse_loss(output[known, 0], batch.labels[known].float())

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by "head" and by how many layers they lie below it: "1", "2", ...; "all" where rates are equal."""
        if self.layer_decay == 1 and self.head_warmup_steps == 0:
            return {"all": list(self.parameters())}
        groups = {"head": list(self.head.parameters())}
        layers = self.encoder.layers()
        for below, parameters in enumerate(reversed(layers), start=1):
            groups[str(below)] = parameters
        return groups

    def rate_scale(self, group: str, step: int) -> float:
        """What the learning rate of a group is multiplied by at a step."""
        if group in ("head", "all"):
            return 1.0
        return 0.0 if step < self.head_warmup_steps else self.layer_decay ** int(group)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, K), or the standardised number (B, 1), of images x (B, C, H, W).

        Of grades the logits are their log-probabilities.
        """
        return self.head(self.dropout(self.encoder(x)))
