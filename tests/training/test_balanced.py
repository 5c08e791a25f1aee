"""Balanced batches: as many of each class, no image twice, different patients first, by step and seed alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_runs import SIZE_PX, SmallEncoder, check_going_on, schedule

from fewlabel.objectives import Triplet
from fewlabel.training import Compute, TrainingSet, fit
from fewlabel.training.balanced import draw_balanced, members_of_classes
from fewlabel.training.feeding import batches, pieces_of
from fewlabel.types import FewlabelError
from fewlabel.views import light_views, plain_view


def data_of(labels: np.ndarray, patients: np.ndarray | None = None, per_class: int | None = 4) -> TrainingSet:
    """Image i is noise on a grey of brightness i."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 40, (len(labels), 1, SIZE_PX, SIZE_PX))
    pixels = (np.arange(len(labels))[:, None, None, None] % 200 + noise).astype(np.uint8)
    return TrainingSet((pixels,), (np.arange(len(labels)),), labels, patients=patients, per_class=per_class)


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=6),
    batch_size=st.integers(2, 40),
    per_class=st.integers(2, 8),
    step=st.integers(0, 5),
)
def test_every_class_gives_its_share_and_no_image_comes_twice(
    sizes: list[int], batch_size: int, per_class: int, step: int
) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    data = data_of(labels, per_class=per_class)
    drawn = data.batch_indices(step, batch_size, seed=1)
    assert drawn.shape == (len(drawn), 1)
    assert len(np.unique(drawn)) == len(drawn)
    counts = np.bincount(labels[drawn[:, 0]], minlength=len(sizes))
    classes = min(len(sizes), max(2, batch_size // per_class))
    each = max(1, batch_size // classes)
    assert np.count_nonzero(counts) == classes
    assert all(count in (0, min(each, size)) for count, size in zip(counts, sizes, strict=True))
    assert np.array_equal(drawn, data.batch_indices(step, batch_size, seed=1))


def test_steps_and_seeds_differ_and_all_classes_come_up() -> None:
    labels = np.repeat(np.arange(10), 8)
    data = data_of(labels)
    drawn = [data.batch_indices(step, 16, 0) for step in range(40)]
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], data.batch_indices(0, 16, 1))
    assert all(np.array_equal(np.unique(np.bincount(labels[one[:, 0]])), [0, 4]) for one in drawn)
    assert set(np.concatenate(drawn)[:, 0]) == set(range(80))


def test_different_patients_come_first() -> None:
    """Class 0 has six images of one patient and one each of two; class 1 three patients of two images."""
    labels = np.array([0] * 8 + [1] * 6)
    patients = np.array([5, 5, 5, 5, 5, 5, 6, 7, 1, 1, 2, 2, 3, 3])
    members = members_of_classes(labels)
    for seed in range(30):
        drawn = draw_balanced(members, patients, 6, 3, np.random.default_rng(seed))
        for label in (0, 1):
            assert len(set(patients[drawn[labels[drawn] == label]])) == 3
        more = draw_balanced(members, patients, 8, 4, np.random.default_rng(seed))
        assert [len(set(patients[more[labels[more] == label]])) for label in (0, 1)] == [3, 3]
    nobody = draw_balanced(members, np.full(14, -1), 16, 8, np.random.default_rng(0))
    assert sorted(nobody) == list(range(14))


def test_labels_of_which_an_image_has_several() -> None:
    labels = np.array([[1, 1, 0], [1, 0, -1], [0, 1, 0], [0, 0, 0], [0, -1, 0], [-1, -1, -1], [0, 0, 1]])
    members = members_of_classes(labels)
    assert [one.tolist() for one in members] == [[0, 1], [0, 2], [6], [3, 4]]
    for seed in range(20):
        drawn = draw_balanced(members, None, 8, 2, np.random.default_rng(seed))
        assert len(np.unique(drawn)) == len(drawn)
        assert 5 not in drawn  # nothing is known of it
        assert len(drawn) >= 5


def test_a_batch_names_its_patients_and_their_labels() -> None:
    labels, patients = np.repeat(np.arange(3), 6), np.arange(18) // 2
    data, plan = data_of(labels, patients), schedule(batch_size=12)
    pieces = pieces_of(0, data, plan, SIZE_PX)
    batch = next(
        batches(pieces, data, (plain_view(SIZE_PX),), plan, device=torch.device("cpu"), channels_last=False)
    )
    rows = pieces[0].indices[:, 0]
    assert batch.patients is not None
    assert batch.labels is not None
    assert batch.patients.tolist() == patients[rows].tolist()
    assert batch.labels.tolist() == labels[rows].tolist()


def triplet() -> Triplet:
    torch.manual_seed(0)
    encoder: Any = SmallEncoder()
    return Triplet(encoder, embedding_dim=4, other_patient=True)


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of(np.arange(40) % 3, np.arange(40) // 2)
    plan = schedule(batch_size=12, steps=6)

    def train(out: Any) -> dict[str, torch.Tensor]:
        made = triplet()
        fit(made, data, light_views(SIZE_PX), plan, out=out, checkpoint_every=3, compute=Compute("32"))
        return made.state_dict()

    check_going_on(train, tmp_path, monkeypatch)
    other = data_of(np.arange(40) % 3, np.arange(40) // 2, per_class=2)
    with pytest.raises(FewlabelError, match="per_class: 4 there, 2 here"):
        fit(triplet(), other, light_views(SIZE_PX), plan, out=tmp_path / "stopped", compute=Compute("32"))


def test_what_cannot_be_balanced() -> None:
    with pytest.raises(FewlabelError, match="per_class is 1"):
        data_of(np.arange(4), per_class=1)
    with pytest.raises(FewlabelError, match=r"1 class\(es\) have an image"):
        data_of(np.array([2, 2, -1]))
    with pytest.raises(FewlabelError, match="float32"):
        data_of(np.array([0.5, 1.0], dtype=np.float32))
    with pytest.raises(FewlabelError, match="3 patients came with 4 images"):
        data_of(np.arange(4), np.arange(3))
    pixels = (np.zeros((2, 1, 4, 4), np.uint8),)
    with pytest.raises(FewlabelError, match="per_class came without labels"):
        TrainingSet(pixels, (np.arange(2),), per_class=2)
    with pytest.raises(FewlabelError, match="per_class came with groups"):
        TrainingSet(pixels, (np.arange(2),), np.arange(2), groups=np.arange(2), per_class=2)
