"""The Siamese loss: a case by hand, loops over all pairs, labels shared in part."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_encoders import small_encoder, two_views_of

from fewlabel.objectives import Siamese, contrastive_loss, euclidean, manhattan, siamese_loss
from fewlabel.types import FewlabelError


@pytest.mark.parametrize(
    ("d", "same", "loss"), [(0.5, 0.0, 0.125), (1.5, 0.0, 0.0), (0.5, 1.0, 0.125), (1.5, 1.0, 1.125)]
)
def test_by_hand(d: float, same: float, loss: float) -> None:
    """Margin 1: two classes at 0.5 cost 0.5 * 0.5^2, at 1.5 nothing; one class half the square of its distance."""
    assert float(contrastive_loss(torch.tensor([d]), torch.tensor([same]))) == pytest.approx(loss)


def by_loops(z: torch.Tensor, labels: list[int], patients: list[int] | None, margin: float) -> float:
    total, pairs = 0.0, 0
    for i, j in combinations(range(len(z)), 2):
        if labels[i] < 0 or labels[j] < 0:
            continue
        same = labels[i] == labels[j]
        if same and patients is not None and patients[i] == patients[j]:
            continue
        d = math.dist(z[i].tolist(), z[j].tolist())
        total += d**2 if same else max(0.0, margin - d) ** 2
        pairs += 1
    return total / (2 * pairs) if pairs else 0.0


@settings(max_examples=40, deadline=None)
@given(
    labels=st.lists(st.integers(-1, 2), min_size=1, max_size=7),
    with_patients=st.booleans(),
    margin=st.floats(0.1, 3),
    seed=st.integers(0, 999),
)
def test_loss_equals_the_loops(labels: list[int], with_patients: bool, margin: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(len(labels), 3, generator=generator, dtype=torch.float64)
    owners = torch.randint(0, 3, (len(labels),), generator=generator) if with_patients else None
    found = siamese_loss(z, torch.tensor(labels), margin=margin, patients=owners)
    wanted = by_loops(z, labels, None if owners is None else owners.tolist(), margin)
    assert float(found) == pytest.approx(wanted, abs=1e-9)


def test_labels_shared_in_part_ask_for_a_distance_between() -> None:
    """One label of two shared: y = 1/2, and the loss is least at half the margin."""
    labels = torch.tensor([[1, 1, 0], [1, 0, 0]])
    losses = {
        x: float(siamese_loss(torch.tensor([[0.0], [x]], dtype=torch.float64), labels))
        for x in (0.4, 0.5, 0.6)
    }
    assert losses[0.5] == pytest.approx((0.5 * 0.25 + 0.5 * 0.25) / 2)
    assert min(losses, key=losses.__getitem__) == 0.5
    unknown = torch.tensor([[1, -1, 0], [1, 0, 0]])  # what is unknown does not count: both have the one label
    found = siamese_loss(torch.tensor([[0.0], [0.5]]), unknown)
    assert float(found) == pytest.approx(0.125)


def test_another_distance() -> None:
    z, labels = torch.tensor([[0.0, 0.0], [0.3, 0.4]]), torch.tensor([0, 1])
    losses = [float(siamese_loss(z, labels, distance=one)) for one in (euclidean, manhattan)]
    assert losses == pytest.approx([0.125, 0.3**2 / 2])


def test_the_objective_pairs_the_images_of_a_batch() -> None:
    objective, batch = Siamese(small_encoder()).eval(), two_views_of()
    batch = replace(batch, views=batch.views[:1])
    z = objective.embed(batch.views[0])
    assert torch.allclose(z.norm(dim=1), torch.ones(6), atol=1e-5)
    assert objective.loss(batch).item() == 0
    labels = torch.tensor([0, 0, 0, 1, 1, -1])
    assert torch.allclose(objective.loss(replace(batch, labels=labels)), siamese_loss(z, labels))


def test_mistakes_are_named() -> None:
    with pytest.raises(FewlabelError, match=r"d is \(2,\) and same is \(3,\)"):
        contrastive_loss(torch.rand(2), torch.rand(3))
    with pytest.raises(FewlabelError, match="a number above 0"):
        contrastive_loss(torch.rand(2), torch.rand(2), margin=0)
    with pytest.raises(FewlabelError, match="with 2 labels"):
        siamese_loss(torch.rand(3, 2), torch.tensor([0, 1]))
