"""Triplets: loss and mining by the paper's loops, one case by hand, margins that depend on the labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_encoders import small_encoder, two_views_of

from fewlabel.objectives import (
    Triplet,
    batch_all,
    euclidean,
    hard,
    semi_hard,
    squared_euclidean,
    triplet_loss,
)
from fewlabel.objectives.triplet import Margin, Mining, graded_margin
from fewlabel.types import FewlabelError

MININGS = [batch_all, semi_hard, hard]
Triple = tuple[int, int, int]


def grades(anchor: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """A margin that grows with the difference of two grades."""
    return 0.1 * (anchor - negative).abs()


def share(a: int | list[int], b: int | list[int]) -> float | None:
    """How much two labels share; None where it is not known."""
    if isinstance(a, int) or isinstance(b, int):
        return None if a < 0 or b < 0 else float(a == b)  # type: ignore[operator]
    known = [(x, y) for x, y in zip(a, b, strict=True) if x >= 0 and y >= 0]
    either = sum(x == 1 or y == 1 for x, y in known)
    return sum(x == y == 1 for x, y in known) / either if either else None


def triplets_by_loops(
    d: list[list[float]],
    labels: list,
    patients: list[int] | None,
    margin: Callable[[int, int], float],
    mining: Mining,
) -> list[tuple[int, int, int, float]]:
    """(anchor, positive, negative, weight) as the paper picks them."""
    n = len(d)
    valid = []
    for a, p, k in product(range(n), repeat=3):
        weight, apart = share(labels[a], labels[p]), share(labels[a], labels[k])
        own = patients is not None and patients[a] == patients[p]
        if a != p and not own and weight and apart == 0:
            valid.append((a, p, k, weight))
    if mining is batch_all:
        return valid
    if mining is semi_hard:
        return [t for t in valid if d[t[0]][t[1]] < d[t[0]][t[2]] < d[t[0]][t[1]] + margin(t[0], t[2])]
    chosen = []
    for a in range(n):
        mine = [t for t in valid if t[0] == a]
        if mine:
            furthest = max(d[a][t[1]] for t in mine)
            nearest = min(d[a][t[2]] for t in mine)
            chosen.append(next(t for t in mine if d[a][t[1]] == furthest and d[a][t[2]] == nearest))
    return chosen


def loss_by_loops(
    z: torch.Tensor, labels: list, patients: list[int] | None, margin: Margin, mining: Mining
) -> float:
    d = [[float((x - y).square().sum()) for y in z] for x in z]

    def m(a: int, n: int) -> float:
        return float(margin(torch.tensor(labels[a]), torch.tensor(labels[n]))) if callable(margin) else margin

    total = weights = 0.0
    for a, p, n, weight in triplets_by_loops(d, labels, patients, m, mining):
        total += weight * max(0.0, d[a][p] - d[a][n] + m(a, n))
        weights += weight
    return total / weights if weights else 0.0


@settings(max_examples=25, deadline=None)
@given(
    labels=st.lists(st.integers(-1, 2), min_size=2, max_size=8),
    with_patients=st.booleans(),
    margin=st.sampled_from([0.2, 1.5, grades]),
    seed=st.integers(0, 999),
)
@pytest.mark.parametrize("mining", MININGS)
def test_loss_equals_the_loops(
    mining: Mining, labels: list[int], with_patients: bool, margin: Margin, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(len(labels), 3, generator=generator, dtype=torch.float64)
    owners = torch.randint(0, 4, (len(labels),), generator=generator) if with_patients else None
    found = triplet_loss(z, torch.tensor(labels), margin=margin, mining=mining, patients=owners)
    wanted = loss_by_loops(z, labels, None if owners is None else owners.tolist(), margin, mining)
    assert float(found) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("mining", MININGS)
def test_several_labels_weigh_their_positives(mining: Mining) -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(-1, 2, (9, 3), generator=generator)
    z = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    found = triplet_loss(z, labels, margin=1.5, mining=mining)
    assert float(found) == pytest.approx(loss_by_loops(z, labels.tolist(), None, 1.5, mining), abs=1e-9)
    assert float(found) > 0


LINE = torch.tensor([[0.0], [0.3], [0.5], [2.0]], dtype=torch.float64)


def test_by_hand() -> None:
    """Points 0 and 0.3 of one class, 0.5 and 2 of another; squared distances, margin 0.2.

    From 0: to its positive 0.09, to the negatives 0.25 and 4; the first lies inside the margin: 0.09 - 0.25 + 0.2.
    From 0.3: 0.09, and 0.04 is nearer than it, so not semi-hard; hard gives 0.09 - 0.04 + 0.2.
    From 0.5: 2.25 to its positive; both negatives, 0.25 and 0.04, are nearer. From 2: 2.25; 4 and 2.89 too far.
    """
    labels = torch.tensor([0, 0, 1, 1])
    assert float(triplet_loss(LINE, labels)) == pytest.approx(0.04)
    nearest = (0.04 + 0.25 + (2.25 - 0.04 + 0.2) + 0.0) / 4
    assert float(triplet_loss(LINE, labels, mining=hard)) == pytest.approx(nearest)
    everything = (0.04 + 0 + 0.25 + 0 + (2.25 - 0.25 + 0.2) + (2.25 - 0.04 + 0.2) + 0 + 0) / 8
    assert float(triplet_loss(LINE, labels, mining=batch_all)) == pytest.approx(everything)
    plain = triplet_loss(LINE, labels, distance=euclidean)  # 0.3 < 0.5 = 0.3 + 0.2 is not inside
    assert float(plain) == pytest.approx(0.0, abs=1e-12)


def test_a_margin_may_grow_with_the_difference_of_grades() -> None:
    """An anchor of grade 0 keeps 0.1 from grade 1 and 0.3 from grade 3."""
    z, labels = torch.zeros(4, 2, dtype=torch.float64), torch.tensor([0, 0, 1, 3])
    found = triplet_loss(z, labels, margin=grades, mining=batch_all)
    assert float(found) == pytest.approx((0.1 + 0.3) / 2)
    asked: list[torch.Size] = []

    def margin(anchor: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        asked.extend([anchor.shape, negative.shape])
        return grades(anchor, negative)

    triplet_loss(z, labels, margin=margin)
    assert asked == [(4, 1), (1, 4)]


def test_a_positive_is_never_the_same_image_or_on_request_the_same_patient() -> None:
    for mining in MININGS:
        alone = triplet_loss(LINE, torch.tensor([0, 1, 2, 3]), mining=mining)
        assert float(alone) == 0  # each image is alone in its class
    labels, patients = torch.tensor([0, 0, 1, 1]), torch.tensor([4, 4, 5, 6])
    found = triplet_loss(LINE, labels, mining=hard, patients=patients)
    assert float(found) == pytest.approx((2.25 - 0.04 + 0.2 + 0.0) / 2)


def test_gradients_are_those_of_the_triplets_that_were_taken() -> None:
    z = LINE.clone().requires_grad_()
    triplet_loss(z, torch.tensor([0, 0, 1, 1])).backward()
    assert z.grad is not None
    # of (0 - 0.3)^2 - (0 - 0.5)^2: 2 (0 - 0.3) - 2 (0 - 0.5), -2 (0 - 0.3), 2 (0 - 0.5)
    assert torch.allclose(z.grad[:, 0], torch.tensor([0.4, 0.6, -1.0, 0.0], dtype=torch.float64))
    none = LINE.clone().requires_grad_()
    triplet_loss(none, torch.full((4,), -1)).backward()
    assert none.grad is not None
    assert not none.grad.any()


def test_the_loss_is_computed_in_32_bits_where_the_networks_are_not() -> None:
    z = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.arange(12) % 3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = triplet_loss(z, labels, mining=batch_all)
    assert found.dtype == torch.float32
    exact = triplet_loss(z.double(), labels, mining=batch_all)
    assert float(found) == pytest.approx(float(exact), rel=1e-5)


def test_the_objective_has_unit_embeddings_and_learns_from_labels() -> None:
    objective, batch = Triplet(small_encoder(), mining=batch_all).eval(), two_views_of()
    batch = replace(batch, views=batch.views[:1])
    z = objective.embed(batch.views[0])
    assert torch.allclose(z.norm(dim=1), torch.ones(6), atol=1e-5)
    assert objective.loss(batch).item() == 0
    labels = torch.tensor([0, 0, 0, 1, 1, -1])
    loss = objective.loss(replace(batch, labels=labels))
    assert torch.allclose(loss, triplet_loss(z, labels, distance=squared_euclidean, mining=batch_all))


def test_mistakes_are_named() -> None:
    z, labels = torch.rand(3, 2), torch.tensor([0, 0, 1])
    with pytest.raises(FewlabelError, match=r"z is \(3, 2\) with 2 labels"):
        triplet_loss(z, labels[:2])
    with pytest.raises(FewlabelError, match="and 1 patients"):
        triplet_loss(z, labels, patients=labels[:1])
    for margin in (-0.1, math.nan):
        with pytest.raises(FewlabelError, match="a number from 0 is needed"):
            triplet_loss(z, labels, margin=margin)
    with pytest.raises(FewlabelError, match=r"gave \(3, 1\) for 3 labels"):
        triplet_loss(z, labels, margin=lambda anchor, negative: anchor * 0.1)


def test_the_margin_grows_with_the_distance_between_grades() -> None:
    """By loops: max(0, d(a, p) - d(a, n) + step |grade a - grade n|), over all triplets."""
    torch.manual_seed(4)
    z, grades = torch.randn(9, 5, dtype=torch.float64), torch.tensor([0, 0, 1, 1, 2, 4, 4, 2, 0])
    found = triplet_loss(z, grades, margin=graded_margin(0.3), mining=batch_all)
    terms = []
    for a in range(9):
        for p in range(9):
            for n in range(9):
                if a != p and grades[a] == grades[p] != grades[n]:
                    m = 0.3 * abs(int(grades[a]) - int(grades[n]))
                    d_p, d_n = ((z[a] - z[other]).square().sum() for other in (p, n))
                    terms.append(max(0.0, float(d_p - d_n) + m))
    assert found.item() == pytest.approx(sum(terms) / len(terms), rel=1e-6)
    assert found.item() != pytest.approx(triplet_loss(z, grades, margin=0.3, mining=batch_all).item())


def test_worked_by_hand_with_grades() -> None:
    """d(a, p) = 0 and d(a, n) = 0.5: grades 0 and 1 are apart enough for a step of 0.2, grades 0 and 4 are not."""
    z = torch.tensor([[0.0], [0.0], [0.5**0.5]], dtype=torch.float64)
    losses = [
        triplet_loss(z, torch.tensor([0, 0, other]), margin=graded_margin(0.2), mining=batch_all).item()
        for other in (1, 4)
    ]
    assert losses == pytest.approx([0.0, 0.8 - 0.5])


def test_neighbouring_grades_need_a_margin() -> None:
    for step in (0.0, -1.0, float("nan")):
        with pytest.raises(FewlabelError, match="margin of neighbouring grades"):
            graded_margin(step)
