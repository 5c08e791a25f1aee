"""Mean Teacher: consistency by hand, the ramp-up, a teacher that follows, and what labels change."""

import math

import pytest
import torch

from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives.mean_teacher import MeanTeacher, consistency, ramp_up
from fewlabel.types import Batch, FewlabelError


def mean_teacher(**arguments: float) -> MeanTeacher:
    torch.manual_seed(0)
    return MeanTeacher(Encoder(EncoderSettings("test_resnet", channels=1, size_px=16)), **arguments)  # type: ignore[arg-type]


def views(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = torch.rand(2, count, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    return first, second


def test_consistency_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
    assert float(consistency(student, teacher)) == pytest.approx((0.5 - 0.75) ** 2)


def test_ramp_up() -> None:
    assert ramp_up(0, 10) == pytest.approx(math.exp(-5))
    assert ramp_up(5, 10) == pytest.approx(math.exp(-1.25))
    assert ramp_up(10, 10) == ramp_up(3, 0) == 1.0


def test_the_loss_is_the_sum_of_both() -> None:
    model = mean_teacher(weight=3.0, ramp=0.0).eval()
    x1, x2 = views()
    labels = torch.tensor([1, -1, 0, -1])
    found = model.loss(Batch(views=(x1, x2), labels=labels))
    logits, said = model.head(model.encoder(x1)), model.predict(x2)
    p = logits.log_softmax(1)
    wanted = -(p[0, 1] + p[2, 0]) / 2 + 3.0 * consistency(logits, said)
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)


def test_the_teacher_takes_no_gradient_and_follows() -> None:
    model = mean_teacher(momentum=0.9)
    model.loss(Batch(views=views())).backward()
    assert all(
        p.grad is None for p in [*model.teacher_encoder.parameters(), *model.teacher_head.parameters()]
    )
    with torch.no_grad():
        model.head.weight.add_(1.0)
    before = model.teacher_head.weight.clone()
    model.after_step(100, 200)
    torch.testing.assert_close(model.teacher_head.weight, before + 0.1)
    assert float(model.strength) == 1.0
    model.after_step(0, 200)  # at first the teacher is the student
    torch.testing.assert_close(model.teacher_head.weight, model.head.weight)
    assert float(model.strength) < 0.01


def test_wrong_arguments_are_one_sentence() -> None:
    with pytest.raises(FewlabelError, match=r"momentum 1, ramp 0\.25: 2 or more"):
        mean_teacher(momentum=1.0)
