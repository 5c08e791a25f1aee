"""Distillation: the paper's sums by loops, one case by hand, and what a student learns of a fixed teacher."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fewlabel.objectives import Distillation, Supervised, distillation_loss
from fewlabel.training import TrainingSet, fit
from fewlabel.types import Batch, FewlabelError, Schedule
from fewlabel.views import plain_view


class Flat(nn.Module):
    """Images (B, 1, 4, 4) -> (B, 16)."""

    dim = 16

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


def network(seed: int, classes: int = 3) -> Supervised:
    torch.manual_seed(seed)
    encoder: Any = Flat()
    return Supervised(encoder, classes=classes)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0])
def test_the_loss_is_the_papers(temperature: float) -> None:
    student, teacher = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p_t = [math.exp(v / temperature) / sum(math.exp(w / temperature) for w in t) for v in t]
        p_s = [math.exp(v / temperature) / sum(math.exp(w / temperature) for w in s) for v in s]
        total -= sum(a * math.log(b) for a, b in zip(p_t, p_s, strict=True))
    found = distillation_loss(student, torch.softmax(teacher / temperature, dim=1), temperature=temperature)
    assert float(found) == pytest.approx(total / 5, rel=1e-5)


def test_by_hand() -> None:
    """The teacher is sure of class 0, the student knows nothing of two classes: log 2."""
    found = distillation_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    assert float(found) == pytest.approx(math.log(2))


def test_with_labels_the_two_losses_are_mixed() -> None:
    student, teacher = network(0), network(1)
    batch = Batch((torch.rand(6, 1, 4, 4),), torch.tensor([0, 1, 2, -1, -1, 0]))
    alone = Distillation(student, [teacher.predict]).loss(batch)
    mixed = Distillation(student, [teacher.predict], alpha=0.25).loss(batch)
    wanted = 0.75 * student.loss(batch).item() + 0.25 * alone.item()
    assert mixed.item() == pytest.approx(wanted, rel=1e-6)


def test_several_teachers_speak_with_their_mean() -> None:
    teachers, view = [network(1), network(2)], torch.rand(4, 1, 4, 4)
    said = Distillation(network(0), [one.predict for one in teachers], temperature=0.5).said(view)
    wanted = sum(torch.softmax(one.predict(view) / 0.5, dim=1) for one in teachers) / 2
    assert torch.allclose(said, wanted)


def test_teachers_stand_outside() -> None:
    student, teacher = network(0), network(1)
    objective = Distillation(student, [teacher.predict])
    assert {id(p) for p in objective.parameters()} == {id(p) for p in student.parameters()}
    objective.loss(Batch((torch.rand(4, 1, 4, 4),))).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in student.parameters())


@pytest.mark.parametrize("classes", [3, 0], ids=["classes", "a number"])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_a_student_of_a_fixed_teacher_reaches_its_outputs(classes: int, temperature: float) -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, 1, 4, 4), dtype=np.uint8)
    student, teacher = network(0, classes), network(1, classes).eval()
    objective = Distillation(student, [teacher.predict], temperature=temperature)
    fit(
        objective,
        TrainingSet((images,), (np.arange(64),)),
        plain_view(4),
        Schedule(400, 64, 0.03, weight_decay=0.0),
    )
    view = torch.from_numpy(images).float() / 255
    with torch.no_grad():
        found, wanted = student.predict(view), teacher.predict(view)
        if classes:
            found, wanted = (torch.softmax(logits, dim=1) for logits in (found, wanted))
    assert (found - wanted).abs().max() < 0.03


def test_mistakes() -> None:
    with pytest.raises(FewlabelError, match="same classes in the same order"):
        distillation_loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(FewlabelError, match="temperature is 0"):
        distillation_loss(torch.zeros(2, 3), torch.zeros(2, 3), temperature=0)
    with pytest.raises(FewlabelError, match="alpha is 2"):
        Distillation(network(0), alpha=2)
    with pytest.raises(FewlabelError, match="there are no teachers"):
        Distillation(network(0), alpha=0.5)
    with pytest.raises(FewlabelError, match="neither teachers nor what they said"):
        Distillation(network(0)).loss(Batch((torch.rand(2, 1, 4, 4),)))
