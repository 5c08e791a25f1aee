"""Health without labels, against cases whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from fewlabel.training.health import measure_health


def circle(count: int) -> torch.Tensor:
    angle = torch.arange(count) * (2 * math.pi / count)
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def test_identical_views_are_aligned() -> None:
    z = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    assert measure_health(z, z * 3.0, z).alignment == pytest.approx(0.0, abs=1e-9)  # length does not count
    assert measure_health(z, -z, z).alignment == pytest.approx(4.0, rel=1e-5)


def test_uniformity_of_points_spread_evenly_on_a_circle() -> None:
    """On the circle the mean of exp(-2 |x - y|^2) = exp(-4) exp(4 cos a) is exp(-4) I0(4)."""
    z = circle(400)
    expected = math.log(math.exp(-4) * float(torch.special.i0(torch.tensor(4.0))))
    assert measure_health(z, z, z).uniformity == pytest.approx(expected, abs=0.02)


def test_evenly_spread_is_lower_than_bunched() -> None:
    z = circle(100)
    bunched = z + torch.tensor([3.0, 0.0])
    assert measure_health(z, z, z).uniformity < measure_health(bunched, bunched, z).uniformity - 0.5


def test_collapsed_embeddings_are_said() -> None:
    z = torch.ones(30, 8) + 1e-4 * torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    spread_out = torch.randn(30, 8, generator=torch.Generator().manual_seed(1))
    health = measure_health(z, z, spread_out)
    assert health.uniformity == pytest.approx(0.0, abs=1e-3)
    assert health.spread < 0.01
    assert "embeddings have collapsed" in health.warning
    assert measure_health(spread_out, spread_out, spread_out).warning == ""


def test_effective_rank_counts_the_directions() -> None:
    z = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    three = torch.linalg.qr(torch.randn(40, 3, generator=torch.Generator().manual_seed(1)))[0]
    features = three @ torch.linalg.qr(torch.randn(16, 3, generator=torch.Generator().manual_seed(2)))[0].T
    assert measure_health(z, z, features).effective_rank == pytest.approx(3.0, abs=0.01)
    line = torch.linspace(1, 2, 40)[:, None] * torch.ones(40, 16)
    health = measure_health(z, z, line)
    assert health.effective_rank == pytest.approx(1.0, abs=0.01)
    assert "effective rank 1.0" in health.warning
