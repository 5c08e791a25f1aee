"""Barlow Twins: the paper's loops, one case by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_encoders import small_encoder, two_views_of

from fewlabel.objectives import BarlowTwins, barlow_twins
from fewlabel.types import FewlabelError


def barlow_by_loops(z1: torch.Tensor, z2: torch.Tensor, redundancy: float) -> float:
    """Equations 1 and 2, without anything added to the variances."""
    n, k = z1.shape
    a, b = z1 - z1.mean(0), z2 - z2.mean(0)
    total = 0.0
    for i in range(k):
        for j in range(k):
            dot = sum(float(a[r, i] * b[r, j]) for r in range(n))
            lengths = math.sqrt(sum(float(a[r, i]) ** 2 for r in range(n)))
            lengths *= math.sqrt(sum(float(b[r, j]) ** 2 for r in range(n)))
            c = dot / lengths
            total += (1 - c) ** 2 if i == j else redundancy * c**2
    return total


@settings(max_examples=20, deadline=None)
@given(n=st.integers(3, 6), k=st.integers(1, 4), redundancy=st.floats(0, 1), seed=st.integers(0, 999))
def test_loss_equals_the_loops(n: int, k: int, redundancy: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z1, z2 = 100 * torch.randn(2, n, k, generator=generator, dtype=torch.float64)
    assert float(barlow_twins(z1, z2, redundancy=redundancy)) == pytest.approx(
        barlow_by_loops(z1, z2, redundancy), abs=1e-4
    )


def test_by_hand() -> None:
    """The second dimension is the first with another sign: C = ((1, -1), (-1, 1)), so 0 + lambda (1 + 1)."""
    z = torch.tensor([[100.0, -100.0], [-100.0, 100.0]])
    assert float(barlow_twins(z, z, redundancy=5e-3)) == pytest.approx(0.01, abs=1e-5)
    assert float(barlow_twins(z, -z, redundancy=5e-3)) == pytest.approx(2 * 2**2 + 0.01, abs=1e-5)


def test_lambda_is_the_papers_at_its_size_and_keeps_the_share_of_the_second_term() -> None:
    """Of independent dimensions it is lambda (K^2 - K) / N to K: 2 % of the first term, at any size."""
    for n, k in ((64, 128), (128, 64)):
        z1, z2 = torch.randn(2, n, k, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        assert barlow_twins(z1, z2) == barlow_twins(z1, z2, redundancy=5e-3 * (n / 2048) / (k / 8192))
        second = float(barlow_twins(z1, z2) - barlow_twins(z1, z2, redundancy=0.0))
        assert second / k == pytest.approx(0.02, rel=0.1)


def test_scale_and_shift_of_a_dimension_do_not_matter() -> None:
    z1, z2 = 10 * torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(barlow_twins(z1, z2), barlow_twins(7 * z1 + 3, z2 - 5), atol=1e-5)


def test_a_collapsed_dimension_costs_1_and_has_a_finite_gradient() -> None:
    z = torch.ones(4, 2, requires_grad=True)
    loss = barlow_twins(z, z)
    assert loss.item() == pytest.approx(2.0)
    assert torch.isfinite(torch.autograd.grad(loss, z)[0]).all()


def test_the_loss_is_computed_in_32_bits_where_the_networks_are_not() -> None:
    z1, z2 = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = barlow_twins(z1, z2)
    assert mixed.dtype == torch.float32
    assert float(mixed) == pytest.approx(float(barlow_twins(z1.double(), z2.double())), rel=1e-5)


def test_mistakes_are_named() -> None:
    with pytest.raises(FewlabelError, match="both views need the same batch"):
        barlow_twins(torch.rand(3, 3), torch.rand(3, 2))


def test_the_objective_gives_the_loss_of_its_embeddings() -> None:
    encoder, batch = small_encoder(), two_views_of()
    objective = BarlowTwins(encoder, redundancy=0.1).eval()
    z1, z2 = (objective.embed(view) for view in batch.views)
    assert z1.shape == (6, 4 * encoder.dim)
    assert torch.allclose(objective.loss(batch), barlow_twins(z1, z2, redundancy=0.1))
