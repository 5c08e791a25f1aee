"""Who is a positive and who a negative: by loops over cells, unknown ones left out, patients kept apart."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_encoders import small_encoder, two_views_of

from fewlabel.objectives import Siamese, Triplet
from fewlabel.objectives.labelled_pairs import label_overlap, positives_and_negatives
from fewlabel.types import Batch, FewlabelError


def overlap_by_loops(a: list[int], b: list[int]) -> float:
    """Labels of both over labels of either, cells that are unknown of one of them left out."""
    both = either = 0
    for x, y in zip(a, b, strict=True):
        if x >= 0 and y >= 0:
            both += x == 1 and y == 1
            either += x == 1 or y == 1
    return both / either if either else math.nan


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.lists(st.sampled_from([-2, -1, 0, 1]), min_size=4, max_size=4), min_size=2, max_size=6)
)
def test_several_labels_by_loops(rows: list[list[int]]) -> None:
    found = label_overlap(torch.tensor(rows))
    wanted = torch.tensor([[overlap_by_loops(a, b) for b in rows] for a in rows])
    assert torch.allclose(found, wanted, equal_nan=True)


def test_several_labels_by_hand() -> None:
    """Effusion and edema; effusion; edema, and effusion unknown; nothing."""
    rows = torch.tensor([[1, 1, 0], [1, 0, 0], [-1, 1, 0], [0, 0, 0]])
    found = label_overlap(rows)
    assert found[0].tolist() == [1.0, 0.5, 1.0, 0.0]
    assert found[1].tolist() == [0.5, 1.0, 0.0, 0.0]
    assert found[3, :3].tolist() == [0.0, 0.0, 0.0]
    assert torch.isnan(found[3, 3])  # both have nothing that is known: not alike for that


def test_classes_patients_and_what_has_no_label() -> None:
    labels, patients = torch.tensor([0, 0, 0, 1, -1, 0]), torch.tensor([7, 7, 8, 7, 8, -1])
    weight, negative = positives_and_negatives(labels)
    assert weight[0].tolist() == [0, 1, 1, 0, 0, 1]
    assert negative[0].tolist() == [False, False, False, True, False, False]
    assert weight[4].sum() == 0
    assert not negative[4].any()
    weight, negative = positives_and_negatives(labels, patients)
    assert weight[0].tolist() == [0, 0, 1, 0, 0, 1]
    assert bool(negative[0, 3])  # the same patient with another class: the difference is that of the class
    assert weight[5].tolist() == [1, 1, 1, 0, 0, 0]
    twice = torch.tensor([-1, -1])
    assert positives_and_negatives(torch.tensor([2, 2]), twice)[0].tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("objective", [Siamese, Triplet])
def test_a_positive_of_another_patient_needs_patients(objective: type[Siamese] | type[Triplet]) -> None:
    made, views = objective(small_encoder(), other_patient=True), two_views_of().views[:1]
    labels, patients = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([1, 1, 1, 2, 2, 2])
    with pytest.raises(FewlabelError, match="names no patients"):
        made.loss(Batch(views, labels))
    alone = made.loss(Batch(views, labels, patients=patients))
    free = objective(small_encoder()).loss(Batch(views, labels, patients=patients))
    assert alone.item() != free.item()
    if objective is Triplet:
        assert alone.item() == 0  # no patient has a positive


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (torch.tensor([0.5, 1.0]), "Numbers are learned with Supervised"),
        (torch.zeros(2, 2, 2, dtype=torch.int64), r"are \(2, 2, 2\)"),
        (torch.tensor([[0, 1], [2, 0]]), "is 2: where an image has several"),
    ],
)
def test_labels_of_another_kind_are_refused(labels: torch.Tensor, said: str) -> None:
    with pytest.raises(FewlabelError, match=said):
        label_overlap(labels)
