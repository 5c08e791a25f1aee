"""SupCon: the paper's loops, one case by hand, and images without labels."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_encoders import small_encoder, two_views_of

from fewlabel.objectives import SupCon, nt_xent, supcon
from fewlabel.types import FewlabelError


def supcon_by_loops(z1: torch.Tensor, z2: torch.Tensor, labels: list[int], temperature: float) -> float:
    """Equation 2, with -1 as a class of each image's own."""
    z = [row / row.norm() for row in torch.cat([z1, z2]).double()]
    image = list(range(len(z1))) * 2
    total = 0.0
    for i in range(len(z)):
        label = labels[image[i]]
        positives = [
            p
            for p in range(len(z))
            if p != i and (image[p] == image[i] or (label >= 0 and labels[image[p]] == label))
        ]
        denominator = sum(math.exp(float(z[i] @ z[a]) / temperature) for a in range(len(z)) if a != i)
        for p in positives:
            total -= math.log(math.exp(float(z[i] @ z[p]) / temperature) / denominator) / len(positives)
    return total / len(z)


@settings(max_examples=25, deadline=None)
@given(
    labels=st.lists(st.integers(-1, 3), min_size=2, max_size=7),
    temperature=st.floats(0.1, 2.0),
    seed=st.integers(0, 999),
)
def test_loss_equals_the_loops(labels: list[int], temperature: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z1, z2 = torch.randn(2, len(labels), 4, generator=generator, dtype=torch.float64)
    loss = supcon(z1, z2, torch.tensor(labels), temperature=temperature)
    assert float(loss) == pytest.approx(supcon_by_loops(z1, z2, labels, temperature), abs=1e-9)


def test_by_hand() -> None:
    """Two images of one class at right angles, identical views, tau = 1: similarities 1, 0, 0 and three positives."""
    z = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    found = supcon(z, z, torch.tensor([4, 4]), temperature=1.0)
    assert float(found) == pytest.approx(math.log(math.e + 2) - 1 / 3, abs=1e-6)


def test_without_labels_it_is_nt_xent() -> None:
    z = torch.randn(2, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    losses = supcon(*z, torch.full((6,), -1), temperature=0.3), nt_xent(*z, temperature=0.3)
    assert torch.allclose(*losses, atol=1e-12)
    gradients = [torch.autograd.grad(loss, z)[0] for loss in losses]
    assert torch.allclose(*gradients, atol=1e-12)


def test_gradients_equal_those_of_the_whole_matrix() -> None:
    """Autograd through equation 2 as a matrix: a wrong derivative of the class sums would show here."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 6, 4, dtype=torch.float64, generator=generator).requires_grad_()
    labels = torch.tensor([0, 1, 0, -1, 1, -1])
    rows = torch.nn.functional.normalize(torch.cat([*z]), dim=1)
    classes = torch.where(labels < 0, 10 + torch.arange(6), labels).repeat(2)
    itself = torch.eye(12, dtype=torch.bool)
    positive = (classes[:, None] == classes) & ~itself
    logs = (rows @ rows.T / 0.2).masked_fill(itself, -torch.inf).log_softmax(1).masked_fill(itself, 0)
    whole = -((logs * positive).sum(1) / positive.sum(1)).mean()
    ours = supcon(*z, labels, temperature=0.2)
    assert torch.allclose(ours, whole, atol=1e-12)
    assert torch.allclose(torch.autograd.grad(ours, z)[0], torch.autograd.grad(whole, z)[0], atol=1e-12)


@pytest.mark.parametrize("labels", [torch.tensor([0, 1]), torch.tensor([0.0, 1.5, 2.0])])
def test_mistakes_are_named(labels: torch.Tensor) -> None:
    with pytest.raises(FewlabelError, match=r"one class \(int64\) an image"):
        supcon(torch.rand(3, 2), torch.rand(3, 2), labels)


def test_the_loss_is_computed_in_32_bits_where_the_networks_are_not() -> None:
    z1, z2 = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.tensor([0, 0, 1, 1, -1, -1, 2, 2])
    exact = supcon(z1.double(), z2.double(), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = supcon(z1, z2, labels)
    assert mixed.dtype == torch.float32
    assert float(mixed) == pytest.approx(float(exact), rel=1e-5)


def test_the_objective_uses_labels_where_there_are_some() -> None:
    objective, batch = SupCon(small_encoder()).eval(), two_views_of()
    none = objective.loss(batch)
    assert torch.allclose(none, objective.loss(replace(batch, labels=torch.full((6,), -1))))
    assert not torch.allclose(none, objective.loss(replace(batch, labels=torch.tensor([0, 0, 0, 1, 1, -1]))))
