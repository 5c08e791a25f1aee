"""Mean Teacher. Tarvainen and Valpola 2017, arXiv:1703.01780, equations 1 and 2.

    L = mean over labelled of cross-entropy(f(x), y) + w(t) mean over all of || p(x') - p_teacher(x'') ||^2,
    teacher <- alpha teacher + (1 - alpha) student,      w(t) = w exp(-5 (1 - t)^2) over the ramp-up, t from 0 to 1,

p the probabilities, x' and x'' two views of one image, seen by the student and the teacher.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from fewlabel.networks import Encoder
from fewlabel.objectives.momentum import follow, frozen_copy
from fewlabel.objectives.pairs import two_views
from fewlabel.objectives.supervised import labelled_cross_entropy
from fewlabel.types import Batch, FewlabelError


def consistency(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared distance of the probabilities; logits (B, K) each -> scalar, the mean over images and classes."""
    return F.mse_loss(student.float().softmax(1), teacher.float().softmax(1))


def ramp_up(step: int, length: int) -> float:
    """exp(-5 (1 - t)^2), t = step / length, and 1 from there (Laine and Aila 2017, arXiv:1610.02242)."""
    return 1.0 if step >= length else math.exp(-5 * (1 - step / length) ** 2)


class MeanTeacher(nn.Module):
    """Encoder with a linear classifier, and a teacher that follows both; the teacher answers after training.

    classes: K. weight: w, of the consistency, 1 to 100 for probabilities' squares. momentum: alpha. ramp: share of the
    steps of the ramp-up, 0.25. Raises FewlabelError for values outside.
    """

    name = "mean-teacher"
    paper = "Tarvainen and Valpola 2017, arXiv:1703.01780"
    view_count = 2
    needs_labels = True
    strength: torch.Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        classes: int = 2,
        weight: float = 10.0,
        momentum: float = 0.99,
        ramp: float = 0.25,
    ) -> None:
        super().__init__()
        if classes < 2 or weight < 0 or not 0 <= momentum < 1 or not 0 <= ramp <= 1:
            raise FewlabelError(
                f"classes is {classes}, weight {weight:g}, momentum {momentum:g}, ramp {ramp:g}: 2 or more, not "
                "negative, from 0 to less than 1 and from 0 to 1 are needed."
            )
        self.encoder, self.head = encoder, nn.Linear(encoder.dim, classes)
        self.teacher_encoder, self.teacher_head = frozen_copy(encoder), frozen_copy(self.head)
        self.classes, self.weight, self.momentum, self.ramp = classes, weight, momentum, ramp
        self.register_buffer(
            "strength", torch.tensor(ramp_up(0, 1) if ramp else 1.0)
        )  # part of the checkpoint

    def loss(self, batch: Batch) -> torch.Tensor:
        """The scalar loss of a batch with two views (B, C, H, W) each; without labels the consistency alone."""
        x1, x2 = two_views(batch, "Mean Teacher")
        logits = self.head(self.encoder(x1)).float()
        with torch.no_grad():
            said = self.teacher_head(self.teacher_encoder(x2))
        apart = self.weight * self.strength * consistency(logits, said)
        return apart + labelled_cross_entropy(logits, batch.labels)

    def after_step(self, step: int, steps: int) -> None:
        """The teacher follows, early at the mean of all steps so far; the consistency gains weight."""
        momentum = min(self.momentum, 1 - 1 / (step + 1))
        follow(self.teacher_encoder, self.encoder, momentum)
        follow(self.teacher_head, self.head, momentum)
        self.strength.fill_(ramp_up(step + 1, round(self.ramp * steps)))

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """The teacher's logits (B, K) of images x (B, C, H, W)."""
        return self.teacher_head(self.teacher_encoder(x))
