"""Distillation with unlabelled images. Chen et al. 2020 (SimCLRv2), arXiv:2006.10029, equations 2 and 3.

A teacher's probabilities at temperature tau are what the student is to say; no label is needed:

    L_distil = - sum_x sum_y P_T(y | x; tau) log P_S(y | x; tau),     P(y | x; tau) = softmax(logits / tau)_y,

and with labels    L = (1 - alpha) L_CE + alpha L_distil.

Means are taken over the images instead of sums. For a number, which the paper does not treat, the student's number is
drawn to the teacher's by its squared distance. Several teachers speak with the mean of their probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from fewlabel.objectives.supervised import Supervised
from fewlabel.types import Batch, FewlabelError

Teacher = Callable[[torch.Tensor], torch.Tensor]
"""Views (B, C, H, W) -> logits (B, K), or the standardised number (B, 1)."""


def distillation_loss(
    student: torch.Tensor, teacher: torch.Tensor, *, temperature: float = 1.0
) -> torch.Tensor:
    """Equation 2, as a mean over images.

    student: logits (B, K). teacher: PROBABILITIES at the temperature, (B, K), rows that sum to 1.
    Raises FewlabelError if shapes differ or temperature <= 0.
    """
    if student.shape != teacher.shape:
        raise FewlabelError(
            f"The student gives {tuple(student.shape)} and the teacher {tuple(teacher.shape)}: both need the same "
            "classes in the same order."
        )
    if not temperature > 0:
        raise FewlabelError(f"temperature is {temperature}: it must be above 0; the paper uses 0.1 and 1.")
    return -(teacher * F.log_softmax(student.float() / temperature, dim=1)).sum(dim=1).mean()


def mean_answer(outputs: Sequence[torch.Tensor], classes: int, temperature: float) -> torch.Tensor:
    """Teachers' logits, each (B, K), to their mean probabilities at the temperature; classes 0: the mean of numbers."""
    if classes:
        outputs = [F.softmax(logits / temperature, dim=1) for logits in outputs]
    return torch.stack(list(outputs)).mean(dim=0)


class Distillation(nn.Module):
    """A student learns what teachers say of every image, and the labels there are.

    student: is trained. teachers: are not; they see the same views, in evaluation mode, and stand outside of the
    module's parameters. Without any, the batch's labels (B, K) are what teachers said before: probabilities at the
    temperature, or (B, 1) numbers; that serves where views do not change between steps.
    alpha: share of the distillation; with alpha < 1 the labels' loss has the rest.
    """

    name = "distillation"
    paper = "Chen et al. 2020, arXiv:2006.10029"
    view_count = 1
    needs_labels = False

    def __init__(
        self,
        student: Supervised,
        teachers: Sequence[Teacher] = (),
        *,
        temperature: float = 1.0,
        alpha: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise FewlabelError(f"alpha is {alpha}: a share from 0 to 1 is needed.")
        if alpha < 1 and not teachers:
            raise FewlabelError(
                "alpha is below 1, so that labels count too, and there are no teachers: what teachers said before "
                "takes the labels' place in a batch; give the teachers, or leave alpha at 1."
            )
        self.student = student
        self.teachers = tuple(teachers)  # in a tuple, torch does not count them as part of this module
        self.temperature, self.alpha = temperature, alpha

    @property
    def encoder(self) -> nn.Module:
        """The student's."""
        return self.student.encoder

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """The student's logits (B, K), or number (B, 1)."""
        return self.student.predict(x)

    def loss(self, batch: Batch) -> torch.Tensor:
        """The scalar loss of a batch with one view (B, C, H, W) of each image."""
        view = batch.views[0]
        output = self.student.predict(view).float()
        said = self.said(view) if self.teachers else batch.labels
        if said is None:
            raise FewlabelError("Distillation got neither teachers nor what they said: give one of them.")
        loss = self._distance(output, said.to(output.dtype))
        if self.alpha == 1 or batch.labels is None:
            return loss
        return (1 - self.alpha) * self.student.loss(batch) + self.alpha * loss

    @torch.no_grad()
    def said(self, view: torch.Tensor) -> torch.Tensor:
        """What the teachers say of a view: mean probabilities (B, K) at the temperature, or mean numbers (B, 1)."""
        outputs = [teacher(view).float() for teacher in self.teachers]
        return mean_answer(outputs, self.student.classes, self.temperature)

    def _distance(self, output: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        if self.student.classes:
            return distillation_loss(output, said, temperature=self.temperature)
        return F.mse_loss(output, said)
