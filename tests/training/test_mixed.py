"""Mixed batches: the stated share of labelled images, each as often as any other, some in every part of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_runs import SIZE_PX, SmallEncoder, check_going_on, schedule

from fewlabel.objectives import FixMatch
from fewlabel.training import Compute, TrainingSet, fit
from fewlabel.types import FewlabelError
from fewlabel.views import light_views


def labels_of(labelled: int, unlabelled: int) -> np.ndarray:
    """Classes 0 and 1 in turn, or none, in an order of its own."""
    y = np.concatenate([np.arange(labelled) % 2, np.full(unlabelled, -1)])
    return np.random.default_rng(0).permutation(y)


def data_of(labels: np.ndarray, share: float = 0.25, **more: Any) -> TrainingSet:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (len(labels), 1, SIZE_PX, SIZE_PX), dtype=np.uint8)
    return TrainingSet((pixels,), (np.arange(len(labels)),), labels, labelled_share=share, **more)


@settings(max_examples=60, deadline=None)
@given(
    labelled=st.integers(1, 30),
    unlabelled=st.integers(1, 60),
    batch_size=st.integers(2, 32),
    share=st.floats(0.01, 0.99),
    step=st.integers(0, 40),
)
def test_the_share_is_kept_and_every_part_of_a_batch_gets_some(
    labelled: int, unlabelled: int, batch_size: int, share: float, step: int
) -> None:
    labels = labels_of(labelled, unlabelled)
    data = data_of(labels, share)
    drawn = data.batch_indices(step, batch_size, seed=3)
    batch_size = min(batch_size, len(labels))
    known = labels[drawn[:, 0]] >= 0
    count = min(max(1, round(share * batch_size)), labelled)
    assert known.sum() == count
    assert drawn.shape == (count + min(batch_size - count, unlabelled), 1)
    gaps = np.diff(np.flatnonzero(np.concatenate([known, known])))  # round the corner, too
    assert gaps.max() <= -(-len(drawn) // count)
    assert np.array_equal(drawn, data.batch_indices(step, batch_size, seed=3))


@pytest.mark.parametrize("labelled", [7, 8, 20])
def test_each_image_comes_as_often_as_any_other_of_its_kind(labelled: int) -> None:
    labels = labels_of(labelled, 30)
    data, steps = data_of(labels), 70  # of 4 labelled and 12 others
    drawn = np.concatenate([data.batch_indices(step, 16, seed=0)[:, 0] for step in range(steps)])
    counts = np.bincount(drawn, minlength=len(labels))
    for kind, taken in ((labels >= 0, 4), (labels < 0, 12)):
        assert set(counts[kind]) == {taken * steps // kind.sum()}


def test_steps_and_seeds_differ_and_permutations_are_new() -> None:
    data = data_of(labels_of(8, 40))
    first, second = (data.batch_indices(step, 16, 0) for step in (0, 1))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, data.batch_indices(0, 16, 1))
    labelled = [
        tuple(
            row
            for step in (2 * epoch, 2 * epoch + 1)
            for row in data.batch_indices(step, 16, 0)[:, 0]
            if row in known
        )
        for known in [set(np.flatnonzero(data.labels >= 0))]  # type: ignore[operator]
        for epoch in range(6)
    ]
    assert all(len(set(epoch)) == 8 for epoch in labelled)
    assert len(set(labelled)) > 1


def test_numbers_and_several_labels_have_labelled_images_too() -> None:
    numbers = np.array([0.5, np.nan, np.nan, 2.0, np.nan], dtype=np.float32)
    several = np.array([[1, 0], [-1, -1], [-1, -1], [0, -1], [-1, -1]])
    for labels in (numbers, several):
        for step in range(6):
            drawn = data_of(labels, 0.5).batch_indices(step, 4, 0)[:, 0]
            assert sorted(set(drawn) & {0, 3}) == [0, 3]


def fixmatch() -> FixMatch:
    torch.manual_seed(0)
    encoder: Any = SmallEncoder()
    return FixMatch(encoder, threshold=0.5)


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data, plan = data_of(labels_of(6, 30)), schedule(batch_size=12, steps=6)

    def train(out: Any) -> dict[str, torch.Tensor]:
        made = fixmatch()
        fit(made, data, light_views(SIZE_PX), plan, out=out, checkpoint_every=3, compute=Compute("32"))
        return made.state_dict()

    check_going_on(train, tmp_path, monkeypatch)
    other = data_of(labels_of(6, 30), 0.5)
    with pytest.raises(FewlabelError, match=r"labelled_share: 0\.25 there, 0\.5 here"):
        fit(fixmatch(), other, light_views(SIZE_PX), plan, out=tmp_path / "stopped", compute=Compute("32"))


def test_what_cannot_be_mixed() -> None:
    labels = labels_of(4, 4)
    for share in (0.0, 1.0, -0.5):
        with pytest.raises(FewlabelError, match="a share between 0 and 1"):
            data_of(labels, share)
    for everything, said in (
        (np.zeros(4, int), "4 images with a label and 0"),
        (np.full(4, -1), "0 images with a"),
    ):
        with pytest.raises(FewlabelError, match=said):
            data_of(everything)
    with pytest.raises(FewlabelError, match="came with groups or per_class"):
        data_of(labels, groups=np.arange(8))
    with pytest.raises(FewlabelError, match="came with groups or per_class"):
        data_of(labels, per_class=2)
    pixels = (np.zeros((2, 1, 4, 4), np.uint8),)
    with pytest.raises(FewlabelError, match="labelled_share came without labels"):
        TrainingSet(pixels, (np.arange(2),), labelled_share=0.5)
