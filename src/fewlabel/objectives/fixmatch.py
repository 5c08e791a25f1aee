"""FixMatch. Sohn, Berthelot, Li, Zhang, Carlini, Cubuk, Kurakin, Zhang, Raffel 2020, arXiv:2001.07685, equations 3, 4.

    L = mean over labelled of cross-entropy(f(weak(x)), y)
      + lambda_u mean over all of [max_k q_k >= tau] cross-entropy(f(strong(x)), argmax_k q_k),

q = softmax f(weak(x)), with no gradient through it. The mean of the second term is over all images, sure or not.
Departures: strong views have smaller crops, larger turns and changes of exposure than the weak ones; the colours of
RandAugment have no meaning for grey images. The mean is over labelled and unlabelled images of one batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fewlabel.networks import Encoder
from fewlabel.objectives.pairs import two_views
from fewlabel.objectives.supervised import labelled_cross_entropy
from fewlabel.types import Batch, FewlabelError
from fewlabel.views import ViewSettings, strong_views


def pseudo_label_loss(weak: torch.Tensor, strong: torch.Tensor, *, threshold: float) -> torch.Tensor:
    """The second term without lambda_u: logits (B, K) of weak and strong views -> scalar."""
    sure, said = weak.detach().float().softmax(1).max(1)
    return (F.cross_entropy(strong.float(), said, reduction="none") * (sure >= threshold)).mean()


class FixMatch(nn.Module):
    """Encoder with a linear classifier, taught by its own answers on weak views where it is sure.

    classes: K. threshold: tau. weight: lambda_u. Raises FewlabelError for values outside.
    """

    name = "fixmatch"
    paper = "Sohn et al. 2020, arXiv:2001.07685"
    view_count = 2
    needs_labels = True

    def __init__(
        self, encoder: Encoder, *, classes: int = 2, threshold: float = 0.95, weight: float = 1.0
    ) -> None:
        super().__init__()
        if classes < 2 or not 1 / classes <= threshold <= 1 or weight < 0:
            raise FewlabelError(
                f"classes is {classes}, threshold {threshold:g}, weight {weight:g}: 2 or more, a probability above "
                "chance, and a weight that is not negative are needed."
            )
        self.encoder, self.head = encoder, nn.Linear(encoder.dim, classes)
        self.classes, self.threshold, self.weight = classes, threshold, weight

    def views_of(self, views: ViewSettings) -> tuple[ViewSettings, ViewSettings]:
        """Weak views as they are given, and strong ones."""
        return views, strong_views(views)

    def loss(self, batch: Batch) -> torch.Tensor:
        """The scalar loss of a batch with a weak and a strong view (B, C, H, W); without labels its second term."""
        weak, strong = self.predict(torch.cat(two_views(batch, "FixMatch"))).chunk(
            2
        )  # joint batch statistics
        loss = self.weight * pseudo_label_loss(weak, strong, threshold=self.threshold)
        return loss + labelled_cross_entropy(weak.float(), batch.labels)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, K) of images x (B, C, H, W)."""
        return self.head(self.encoder(x))
