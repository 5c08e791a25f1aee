"""VICReg: the paper's loops, one case by hand, and what each of its three terms sees."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_encoders import small_encoder, two_views_of

from fewlabel.objectives import VICReg, vicreg
from fewlabel.objectives.vicreg import covariance_term, variance_term
from fewlabel.types import FewlabelError


def vicreg_by_loops(z1: torch.Tensor, z2: torch.Tensor, lam: float, mu: float, nu: float) -> float:
    """Equations 1 to 6, s divided by d as in algorithm 1."""
    n, d = z1.shape
    total = lam * sum(float((z1[i] - z2[i]).square().sum()) for i in range(n)) / (n * d)
    for z in (z1, z2):
        means = [sum(float(z[i, j]) for i in range(n)) / n for j in range(d)]
        c = [
            [
                sum((float(z[b, i]) - means[i]) * (float(z[b, j]) - means[j]) for b in range(n)) / (n - 1)
                for j in range(d)
            ]
            for i in range(d)
        ]
        total += mu * sum(max(0.0, 1 - math.sqrt(c[j][j] + 1e-4)) for j in range(d)) / d
        total += nu * sum(c[i][j] ** 2 for i in range(d) for j in range(d) if i != j) / d
    return total


@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 6), d=st.integers(1, 4), scale=st.floats(0.1, 2.0), seed=st.integers(0, 999))
def test_loss_equals_the_loops(n: int, d: int, scale: float, seed: int) -> None:
    z1, z2 = scale * torch.randn(2, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert float(vicreg(z1, z2)) == pytest.approx(vicreg_by_loops(z1, z2, 25, 25, 1), abs=1e-8)
    found = vicreg(z1, z2, invariance=2.0, variance=3.0, covariance=5.0)
    assert float(found) == pytest.approx(vicreg_by_loops(z1, z2, 2, 3, 5), abs=1e-8)


def test_by_hand() -> None:
    """Two images at (0, 0) and (1, 1): variances and covariance 1/2, so c = 2 (1/2)^2 / 2 = 1/4."""
    z = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    v = 1 - math.sqrt(0.5001)
    assert float(variance_term(z)) == pytest.approx(v, abs=1e-12)
    assert float(covariance_term(z)) == pytest.approx(0.25, abs=1e-12)
    assert float(vicreg(z, z + 0.1)) == pytest.approx(25 * 0.01 + 50 * v + 2 * 0.25, abs=1e-9)


def test_each_term_sees_its_own_kind_of_failure() -> None:
    z = torch.randn(64, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spread = torch.linalg.qr(z - z.mean(0))[0] * 16  # uncorrelated columns of deviation about 2
    copied = spread[:, :1].repeat(1, 3)
    collapsed = torch.ones(64, 3)
    assert float(vicreg(spread, spread)) == pytest.approx(0, abs=1e-6)
    assert float(variance_term(collapsed)) == pytest.approx(0.99, abs=1e-4)  # 1 - sqrt(eps)
    assert float(covariance_term(collapsed)) == 0
    assert float(variance_term(copied)) == 0
    assert float(covariance_term(copied)) > 1


def test_gradients_lead_out_of_collapse() -> None:
    """Nearly equal embeddings spread, on gradients alone, to a deviation of 1 in every dimension."""
    z = (1 + 0.01 * torch.randn(32, 4, generator=torch.Generator().manual_seed(0))).requires_grad_()
    for _ in range(200):
        (gradient,) = torch.autograd.grad(vicreg(z, z), z)
        z = (z - 0.05 * gradient).detach().requires_grad_()
    assert float(z.std(0).min()) > 0.9


def test_a_collapsed_dimension_has_a_finite_gradient() -> None:
    z = torch.ones(4, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(vicreg(z, z), z)
    assert torch.isfinite(gradient).all()


def test_the_loss_is_computed_in_32_bits_where_the_networks_are_not() -> None:
    z1, z2 = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = vicreg(z1, z2)
    assert mixed.dtype == torch.float32
    assert float(mixed) == pytest.approx(float(vicreg(z1.double(), z2.double())), rel=1e-5)


def test_mistakes_are_named() -> None:
    with pytest.raises(FewlabelError, match="at least 2"):
        vicreg(torch.rand(1, 3), torch.rand(1, 3))


def test_the_expander_has_the_papers_form() -> None:
    encoder = small_encoder()
    objective = VICReg(encoder)
    kinds = [type(layer).__name__ for layer in objective.head]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert objective.embed(two_views_of().views[0]).shape == (6, 4 * encoder.dim)


def test_the_objective_passes_its_weights_on() -> None:
    batch = two_views_of()
    objective = VICReg(small_encoder(), expander_dim=8, invariance=1.0, variance=0.0, covariance=0.0).eval()
    z1, z2 = (objective.embed(view) for view in batch.views)
    assert torch.allclose(objective.loss(batch), (z1 - z2).square().mean(), atol=1e-6)
