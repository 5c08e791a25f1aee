"""FixMatch: pseudo-labels by loops, no gradient through them, and views that differ in strength."""

import numpy as np
import pytest
import torch

from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives.fixmatch import FixMatch, pseudo_label_loss
from fewlabel.training import TrainingSet, fit
from fewlabel.types import Batch, FewlabelError, Schedule
from fewlabel.views import light_views, strong_views


def fixmatch(**arguments: float) -> FixMatch:
    torch.manual_seed(0)
    return FixMatch(Encoder(EncoderSettings("test_resnet", channels=1, size_px=16)), **arguments)  # type: ignore[arg-type]


def test_pseudo_labels_by_loops() -> None:
    weak, strong = 3 * torch.randn(2, 9, 3, dtype=torch.float64)
    total, sure = 0.0, 0
    for i in range(9):
        q = torch.softmax(weak[i], 0)
        if q.max() >= 0.8:
            total -= float(torch.log_softmax(strong[i], 0)[int(q.argmax())])
            sure += 1
    assert 0 < sure < 9
    assert float(pseudo_label_loss(weak, strong, threshold=0.8)) == pytest.approx(total / 9, rel=1e-5)


def test_no_gradient_goes_through_the_weak_view() -> None:
    weak = torch.tensor([[5.0, 0.0]], requires_grad=True)
    strong = torch.tensor([[0.0, 0.0]], requires_grad=True)
    pseudo_label_loss(weak, strong, threshold=0.5).backward()
    assert weak.grad is None
    assert strong.grad is not None
    torch.testing.assert_close(strong.grad, torch.tensor([[-0.5, 0.5]]))


def test_the_loss_is_the_sum_of_both() -> None:
    model = fixmatch(threshold=0.5, weight=2.0).eval()
    x1, x2 = torch.rand(2, 4, 1, 16, 16)
    labels = torch.tensor([1, -1, 0, -1])
    weak, strong = model.predict(x1), model.predict(x2)
    p = weak.log_softmax(1)
    wanted = -(p[0, 1] + p[2, 0]) / 2 + 2.0 * pseudo_label_loss(weak, strong, threshold=0.5)
    found = model.loss(Batch(views=(x1, x2), labels=labels))
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)


def test_training_shows_it_a_weak_and_a_strong_view(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = fixmatch(), []
    plain = FixMatch.loss

    def loss(self: FixMatch, batch: Batch) -> torch.Tensor:
        seen.append(batch.views)
        return plain(self, batch)

    monkeypatch.setattr(FixMatch, "loss", loss)
    gradient = np.broadcast_to(np.arange(16, dtype=np.uint8) * 12, (8, 1, 16, 16)).copy()
    data = TrainingSet((gradient,), (np.arange(8),), np.array([0, 1] * 4))
    fit(model, data, light_views(16), Schedule(3, 8, 1e-3))
    original = torch.from_numpy(gradient).float() / 255
    weak, strong = (
        torch.stack([(views[i] - original).abs().mean() for views in seen]).mean() for i in range(2)
    )
    assert strong > 1.5 * weak
    assert strong_views(light_views(16)).size_px == 16


def test_wrong_arguments_are_one_sentence() -> None:
    with pytest.raises(
        FewlabelError, match=r"threshold 0\.3, weight 1: 2 or more, a probability above chance"
    ):
        fixmatch(threshold=0.3)
