"""Batches: every image once an epoch, by step and seed alone; several sources as one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabel.training import TrainingSet, mix_seed
from fewlabel.types import FewlabelError


def constant(count: int, first: int, dtype: type = np.uint8, size: int = 2) -> np.ndarray:
    """Image i is filled with first + i."""
    values = np.arange(first, first + count, dtype=dtype)
    return np.broadcast_to(values[:, None, None, None], (count, 1, size, size)).copy()


def of_size(count: int) -> TrainingSet:
    return TrainingSet((constant(count, 0),), (np.arange(count),))


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 60), batch_size=st.integers(1, 80), seed=st.integers(0, 9))
def test_an_epoch_holds_every_image_once(count: int, batch_size: int, seed: int) -> None:
    data = of_size(count)
    batch = min(batch_size, count)
    steps = count // batch
    for epoch in (0, 3):
        drawn = [data.batch_indices(epoch * steps + i, batch_size, seed) for i in range(steps)]
        assert all(len(indices) == batch for indices in drawn)
        together = np.concatenate(drawn)[:, 0]
        assert len(np.unique(together)) == len(together) == steps * batch
        assert set(together) <= set(range(count))
    # The same again, asked for in another order.
    assert np.array_equal(data.batch_indices(3 * steps, batch_size, seed), drawn[0])


def test_order_differs_between_epochs_and_seeds() -> None:
    data = of_size(50)
    first, next_epoch, other_seed = (data.batch_indices(s, 50, seed) for s, seed in ((0, 0), (1, 0), (0, 1)))
    assert not np.array_equal(first, next_epoch)
    assert not np.array_equal(first, other_seed)
    assert all(sorted(drawn[:, 0]) == list(range(50)) for drawn in (first, next_epoch, other_seed))


def test_sources_are_joined_in_order_through_their_rows() -> None:
    data = TrainingSet((constant(5, 0), constant(5, 100)), (np.array([4, 1]), np.array([0, 3, 2])))
    assert len(data) == 5
    images = data.images(np.array([0, 1, 2, 3, 4, 2]))
    assert images.dtype == torch.uint8
    assert images[:, 0, 0, 0].tolist() == [4, 1, 100, 103, 102, 100]


def test_bytes_beside_words_keep_their_brightness() -> None:
    data = TrainingSet((constant(3, 253), constant(2, 65534, np.uint16)), (np.arange(3), np.arange(2)))
    images = data.images(np.array([4, 2, 0]))
    assert images.dtype == torch.uint16
    assert images.to(torch.int32)[:, 0, 0, 0].tolist() == [65535, 65535, 253 * 257]


def test_only_words_are_not_scaled() -> None:
    data = TrainingSet((constant(3, 7, np.uint16),), (np.arange(3),))
    assert data.images(np.array([2])).to(torch.int32)[0, 0, 0, 0] == 9


def test_an_empty_source_beside_a_full_one() -> None:
    data = TrainingSet((constant(3, 0), constant(2, 50)), (np.array([], dtype=int), np.arange(2)))
    assert data.images(np.array([0, 1]))[:, 0, 0, 0].tolist() == [50, 51]


def test_what_cannot_be_trained_on() -> None:
    with pytest.raises(FewlabelError, match="no image to train on"):
        TrainingSet((constant(3, 0),), (np.array([], dtype=int),))
    with pytest.raises(FewlabelError, match="all need one size"):
        TrainingSet((constant(3, 0), constant(3, 0, size=4)), (np.arange(3), np.arange(3)))
    with pytest.raises(FewlabelError, match="2 labels came with 3 images"):
        TrainingSet((constant(3, 0),), (np.arange(3),), np.array([0, 1]))


def test_seeds_are_the_same_on_every_machine() -> None:
    assert mix_seed("order", 0, 1) == 5646508524910586312
    assert mix_seed("order", 0, 1) != mix_seed("order", 1, 0)
    assert 0 <= mix_seed() < 2**63
