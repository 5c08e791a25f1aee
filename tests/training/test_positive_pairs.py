"""Positives from two images of a patient: who is drawn with whom."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_runs import SIZE_PX, schedule, small_objective

from fewlabel.objectives.micle import draw_pairs
from fewlabel.training import TrainingSet, fit
from fewlabel.training.feeding import batches, pieces_of
from fewlabel.types import FewlabelError
from fewlabel.views import medical_views, plain_view


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=12),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_a_pair_never_leaves_its_patient(sizes: list[int], share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    chosen = rng.permutation(len(sizes))
    pairs = draw_pairs(groups, chosen, rng, share=share)
    assert np.array_equal(groups[pairs[:, 0]], chosen)
    assert np.array_equal(groups[pairs[:, 1]], chosen)
    same = pairs[:, 0] == pairs[:, 1]
    alone = np.array(sizes)[chosen] == 1
    assert np.all(same[alone])
    if share in (0.0, 1.0):
        assert np.all(same[~alone] == (share == 0.0))


def test_all_pairs_of_a_patient_come_up_and_share_is_a_probability() -> None:
    groups, rng = np.array([0, 0, 0, 1]), np.random.default_rng(0)
    drawn = np.concatenate([draw_pairs(groups, np.array([0]), rng) for _ in range(300)])
    assert {tuple(pair) for pair in drawn} == {(a, b) for a in range(3) for b in range(3) if a != b}
    mixed = np.concatenate([draw_pairs(groups, np.array([0]), rng, share=0.3) for _ in range(2000)])
    assert np.mean(mixed[:, 0] != mixed[:, 1]) == pytest.approx(0.3, abs=0.04)


def data_of(groups: list[int], **more: float) -> TrainingSet:
    """Image i is grey of brightness i."""
    pixels = np.arange(len(groups), dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, SIZE_PX, SIZE_PX), np.uint8
    )
    return TrainingSet((pixels,), (np.arange(len(groups)),), groups=np.array(groups), **more)


def test_a_batch_holds_a_patient_once_and_an_epoch_every_patient() -> None:
    groups = [7, 7, 7, 3, 3, 9, 11, 12]
    data = data_of(groups)
    assert data.units == 5
    drawn = [data.batch_indices(step, 2, seed=0) for step in range(2)]
    assert all(indices.shape == (2, 2) for indices in drawn)
    seen = [groups[i] for indices in drawn for i in indices[:, 0]]
    assert len(set(seen)) == 4
    assert np.array_equal(data.batch_indices(1, 2, seed=0), drawn[1])
    assert len(data.batch_indices(0, 100, seed=0)) == 5


def test_each_view_shows_its_own_image() -> None:
    data, plan = data_of([0, 0, 1, 1, 2]), schedule(batch_size=3)
    pieces = pieces_of(0, data, plan, SIZE_PX)
    made = batches(
        pieces, data, (plain_view(SIZE_PX),) * 2, plan, device=torch.device("cpu"), channels_last=False
    )
    first, second = next(made).views
    shown = torch.stack([first[:, 0, 0, 0], second[:, 0, 0, 0]], dim=1) * 255
    assert np.array_equal(shown.round().int().numpy(), pieces[0].indices)


def test_training_with_pairs_differs_from_training_without() -> None:
    losses = []
    for share in (0.0, 1.0):
        data = data_of([0, 0, 1, 1, 2, 2, 3, 3], pair_share=share)
        plan = schedule(steps=2, batch_size=4)
        losses.append(fit(small_objective(), data, medical_views(SIZE_PX), plan).history[-1]["loss"])
    assert losses[0] != losses[1]


def test_mistakes() -> None:
    with pytest.raises(FewlabelError, match=r"pair_share is 1\.5"):
        data_of([0, 0], pair_share=1.5)
    with pytest.raises(FewlabelError, match="3 groups came with 2 images"):
        TrainingSet((np.zeros((2, 1, 4, 4), np.uint8),), (np.arange(2),), groups=np.arange(3))
