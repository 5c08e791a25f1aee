"""A network that is trained on grades: its loss is the likelihood, and an order is learned."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from small_encoders import SIZE_PX, small_encoder

from fewlabel.networks import OrdinalHead
from fewlabel.objectives import Supervised
from fewlabel.types import Batch, FewlabelError


def batch(labels: list[int], seed: int = 0) -> Batch:
    views = torch.rand(len(labels), 1, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(seed))
    return Batch(views=(views,), labels=torch.tensor(labels))


def test_the_loss_is_minus_the_log_likelihood_of_the_labelled_rows() -> None:
    torch.manual_seed(0)
    objective = Supervised(small_encoder(), classes=4, ordinal=True).double().eval()
    assert isinstance(objective.head, OrdinalHead)
    given = batch([0, 3, -1, 1])
    given = Batch(views=(given.views[0].double(),), labels=given.labels)
    with torch.no_grad():
        score = objective.head.score(objective.encoder(given.views[0]))[:, 0]
        loss = objective.loss(given)
    thresholds = objective.head.thresholds.detach()
    total = 0.0
    for f, y in zip(score.tolist(), [0, 3, -1, 1], strict=True):
        if y < 0:
            continue
        above = np.r_[1.0, 1 / (1 + np.exp(thresholds.numpy() - f)), 0.0]
        total -= np.log(above[y] - above[y + 1])
    assert loss.item() == pytest.approx(total / 3, rel=1e-6)  # it is taken in float32


def test_weights_of_classes_count() -> None:
    torch.manual_seed(0)
    plain = Supervised(small_encoder(), classes=3, ordinal=True).eval()
    heavy = Supervised(
        copy.deepcopy(plain.encoder), classes=3, ordinal=True, class_weights=torch.tensor([1.0, 1.0, 9.0])
    ).eval()
    heavy.head.load_state_dict(plain.head.state_dict())
    one, two = batch([0, 2]), batch([2, 2])
    assert plain.loss(one).item() != pytest.approx(heavy.loss(one).item())
    assert plain.loss(two).item() == pytest.approx(heavy.loss(two).item())


def test_brightness_is_learned_as_an_order() -> None:
    """Grades by brightness; afterwards the score rises with it, also between the grades that were shown."""
    torch.manual_seed(0)
    objective = Supervised(small_encoder(), classes=4, ordinal=True).train()
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(40):
        y = torch.randint(0, 4, (24,), generator=generator)
        noise = 0.05 * torch.rand(24, 1, SIZE_PX, SIZE_PX, generator=generator)
        loss = objective.loss(Batch(views=((y / 4)[:, None, None, None] + noise,), labels=y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1.0
    levels = torch.linspace(0, 0.78, 8)[:, None, None, None].expand(-1, 1, SIZE_PX, SIZE_PX)
    p = objective.eval().predict(levels).exp()
    expected = (p * torch.arange(4)).sum(dim=1)
    assert np.corrcoef(expected.detach().numpy(), np.arange(8))[0, 1] > 0.9


def test_two_classes_have_no_order() -> None:
    with pytest.raises(FewlabelError, match="an order needs three or more"):
        Supervised(small_encoder(), classes=2, ordinal=True)
