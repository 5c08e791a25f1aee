"""Distances of all rows with all: loops in float64, and which of them are metrics."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fewlabel.objectives import cosine_distance, euclidean, manhattan, squared_euclidean
from fewlabel.objectives.distances import Distance
from fewlabel.types import FewlabelError

ALL = [euclidean, squared_euclidean, manhattan, cosine_distance]
METRICS = [euclidean, manhattan]
POINTS = arrays.arrays("float64", (3, 4), elements=st.floats(-5, 5, width=32)).map(torch.from_numpy)
CLOSE = 1e-9


def by_loops(distance: Distance, a: list[float], b: list[float]) -> float:
    """The distance of two points."""
    if distance is manhattan:
        return sum(abs(x - y) for x, y in zip(a, b, strict=True))
    if distance is cosine_distance:
        lengths = math.hypot(*a) * math.hypot(*b)
        return 1 - (sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0)
    square = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    return square if distance is squared_euclidean else math.sqrt(square)


@pytest.mark.parametrize("distance", ALL)
def test_all_pairs_as_by_loops(distance: Distance) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    b = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    found = distance(a, b)
    assert found.shape == (5, 3)
    wanted = [[by_loops(distance, x, y) for y in b.tolist()] for x in a.tolist()]
    assert torch.allclose(found, torch.tensor(wanted, dtype=torch.float64), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(points=POINTS)
@pytest.mark.parametrize("distance", ALL)
def test_symmetric_not_negative_and_zero_from_a_point_to_itself(
    distance: Distance, points: torch.Tensor
) -> None:
    d = distance(points, points)
    assert torch.allclose(d, d.T, atol=CLOSE)
    assert (d >= -CLOSE).all()
    long = points.norm(dim=1) > 1e-6  # a vector of zeros has no direction
    assert d.diagonal()[long].abs().max() < CLOSE if long.any() else True


@settings(max_examples=60, deadline=None)
@given(points=POINTS)
@pytest.mark.parametrize("distance", METRICS)
def test_no_detour_is_shorter_and_only_equal_points_are_at_zero(
    distance: Distance, points: torch.Tensor
) -> None:
    d = distance(points, points)
    for i, j, k in [(0, 1, 2), (1, 2, 0), (2, 0, 1)]:
        assert d[i, k] <= d[i, j] + d[j, k] + CLOSE
        assert (d[i, j] == 0) == torch.equal(points[i], points[j])


def test_what_is_no_metric_is_seen_to_be_none() -> None:
    line = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    d = squared_euclidean(line, line)
    assert d[0, 2] > d[0, 1] + d[1, 2]
    turn = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    d = cosine_distance(turn, turn)
    assert float(d[0, 1] + d[1, 2]) == pytest.approx(2 - math.sqrt(2))  # the docstring's 0.59
    assert d[0, 2] > d[0, 1] + d[1, 2]
    assert abs(float(cosine_distance(turn[:1], 3 * turn[:1]))) < CLOSE


def test_on_the_unit_sphere_the_square_is_twice_the_cosine_distance() -> None:
    z = torch.nn.functional.normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).double())
    assert torch.allclose(squared_euclidean(z, z), 2 * cosine_distance(z, z), atol=1e-12)


@pytest.mark.parametrize("distance", ALL)
def test_gradients_are_numbers_where_points_meet(distance: Distance) -> None:
    z = torch.ones(3, 4, requires_grad=True)
    distance(z, z).sum().backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("distance", ALL)
def test_what_cannot_be_compared(distance: Distance) -> None:
    with pytest.raises(FewlabelError, match=r"between \(3, 4\) and \(3, 5\)"):
        distance(torch.rand(3, 4), torch.rand(3, 5))
