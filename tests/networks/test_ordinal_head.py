"""Cumulative logits: the likelihood by loops, a case by hand, gradients by finite differences, ordered thresholds."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabel.networks import OrdinalHead
from fewlabel.networks.ordinal import grade_log_probabilities, ordered_thresholds


def looped(scores: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
    """P(y = k) from the definition, one number at a time."""
    table = []
    for f in scores.tolist():
        above = [1.0, *(1 / (1 + math.exp(b - f)) for b in thresholds.tolist()), 0.0]
        table.append([above[k] - above[k + 1] for k in range(len(thresholds) + 1)])
    return torch.tensor(table, dtype=torch.float64)


def test_the_likelihood_is_that_of_the_definition() -> None:
    torch.manual_seed(0)
    scores = 3 * torch.randn(40, dtype=torch.float64)
    thresholds = torch.tensor([-2.0, -0.5, 0.1, 1.7], dtype=torch.float64)
    found = grade_log_probabilities(scores, thresholds)
    torch.testing.assert_close(found.exp(), looped(scores, thresholds), atol=1e-12, rtol=1e-9)


def test_worked_by_hand() -> None:
    """A score of 0 between thresholds -ln 3 and ln 3: P(y > 0) = 3/4 and P(y > 1) = 1/4."""
    thresholds = torch.tensor([-math.log(3), math.log(3)])
    found = grade_log_probabilities(torch.zeros(1), thresholds).exp()
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.5, 0.25]]))


def test_gradients_equal_finite_differences() -> None:
    torch.manual_seed(1)
    scores = torch.randn(6, dtype=torch.float64, requires_grad=True)
    first = torch.randn(1, dtype=torch.float64, requires_grad=True)
    gaps = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda f, b, g: grade_log_probabilities(f, ordered_thresholds(b, g)), (scores, first, gaps)
    )


@settings(max_examples=60, deadline=None)
@given(
    first=st.floats(-50, 50),
    log_gaps=st.lists(st.floats(-6, 3), min_size=1, max_size=6),
    score=st.floats(-90, 90),
)
def test_thresholds_ascend_and_nothing_is_infinite(first: float, log_gaps: list[float], score: float) -> None:
    b = torch.tensor([first], dtype=torch.float64)
    thresholds = ordered_thresholds(b, torch.tensor(log_gaps, dtype=torch.float64))
    assert (thresholds.diff() > 0).all()
    found = grade_log_probabilities(torch.tensor([score], dtype=torch.float64), thresholds)
    assert torch.isfinite(found).all()
    assert found.exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_a_higher_score_never_makes_a_higher_grade_less_likely() -> None:
    scores = torch.linspace(-8, 8, 200)
    p = grade_log_probabilities(scores, torch.tensor([-1.0, 0.0, 2.5])).exp()
    above = p.flip(1).cumsum(1).flip(1)[:, 1:]
    assert (above.diff(dim=0) >= -1e-6).all()


def test_the_heads_cross_entropy_is_the_likelihood_and_thresholds_can_be_put() -> None:
    torch.manual_seed(2)
    head = OrdinalHead(7, 5)
    even = F.softmax(head(torch.zeros(1, 7)), dim=1)
    torch.testing.assert_close(even, torch.full((1, 5), 0.2))
    wanted = torch.tensor([-1.0, -0.9, 2.0, 4.0])
    head.put_thresholds(wanted)
    torch.testing.assert_close(head.thresholds, wanted, atol=1e-5, rtol=1e-5)
    h, y = torch.randn(9, 7), torch.arange(9) % 5
    said = head(h)
    torch.testing.assert_close(F.cross_entropy(said, y), -said[torch.arange(9), y].mean())
    torch.testing.assert_close(
        said.exp().double(), looped(h @ head.score.weight[0], wanted), atol=1e-5, rtol=1e-4
    )
    assert said.dtype == torch.float32


def test_adam_moves_thresholds_as_far_as_scores() -> None:
    """Otherwise the few steps of fine-tuning would leave the thresholds where they were."""
    head = OrdinalHead(4, 4)
    before = head.thresholds.detach().clone()
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    for _ in range(100):
        loss = F.cross_entropy(head(torch.zeros(8, 4)), torch.tensor([0, 0, 0, 0, 0, 1, 2, 3]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (head.thresholds - before).abs().max() > 0.3
