"""Splits: no patient in two parts, budgets nested and stratified, leaks found and named."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabel.splits import (
    PARTS,
    Split,
    check_leaks,
    draw_folds,
    draw_split,
    drop_leaks,
    find_leaks,
    linked_groups,
    nested_budgets,
    official_split,
)
from fewlabel.types import FewlabelError

NONE = np.full(6, -1)


@settings(max_examples=60, deadline=None)
@given(
    patients=st.lists(st.integers(0, 30), min_size=20, max_size=120),
    seed=st.integers(0, 5),
    rare=st.integers(0, 3),
)
def test_drawn_splits_keep_patients_together(patients: list[int], seed: int, rare: int) -> None:
    groups = np.array(patients)
    if len(np.unique(groups)) < 3:
        return
    strata = (np.arange(len(groups)) % 7 < rare).astype(int)
    split = draw_split(groups, strata=strata, seed=seed)
    everyone = np.concatenate([split.part(part) for part in PARTS])
    assert sorted(everyone) == list(range(len(groups)))
    assert find_leaks(split, groups, np.full(len(groups), -1), np.full(len(groups), -1)) == []
    assert all(len(split.part(part)) for part in PARTS)
    again = draw_split(groups, strata=strata, seed=seed)
    assert all(np.array_equal(split.part(part), again.part(part)) for part in PARTS)


def test_drawn_split_is_stratified_and_of_the_asked_size() -> None:
    strata = (np.arange(1000) < 100).astype(int)
    split = draw_split(np.arange(1000), strata=strata, seed=1)
    assert [len(split.part(part)) for part in PARTS] == [600, 100, 300]
    assert [int(strata[split.part(part)].sum()) for part in PARTS] == [60, 10, 30]


@settings(max_examples=40, deadline=None)
@given(
    patients=st.lists(st.integers(0, 30), min_size=20, max_size=120),
    seed=st.integers(0, 5),
    folds=st.integers(2, 6),
)
def test_folds_test_every_patient_once_and_never_train_on_them(
    patients: list[int], seed: int, folds: int
) -> None:
    groups = np.array(patients)
    rows = np.flatnonzero(groups != 3)  # such as an official test part
    if len(np.unique(groups[rows])) < max(4, folds):
        return
    none = np.full(len(groups), -1)
    splits = draw_folds(groups, rows, labels=np.arange(len(groups)) % 3 - 1, folds=folds, seed=seed)
    assert len(splits) == folds
    assert sorted(np.concatenate([split.test for split in splits])) == list(rows)
    for split in splits:
        everyone = np.concatenate([split.part(part) for part in PARTS])
        assert sorted(everyone) == list(rows)
        assert all(len(split.part(part)) for part in PARTS)
        assert find_leaks(split, groups, none, none) == []
    tested = [set(groups[split.test]) for split in splits]
    assert sum(map(len, tested)) == len(set.union(*tested))


def test_folds_are_stratified_by_class_and_by_quarter_of_a_number() -> None:
    rare = (np.arange(300) < 30).astype(int)
    for split in draw_folds(np.arange(300), np.arange(300), labels=rare, folds=5):
        assert (len(split.test), len(split.val), len(split.train)) == (60, 30, 210)
        assert (rare[split.test].sum(), rare[split.val].sum()) == (6, 3)
    number = np.random.default_rng(0).exponential(size=300)
    for split in draw_folds(np.arange(300), np.arange(300), labels=number, folds=3):
        assert np.median(number[split.test]) == pytest.approx(np.median(number), rel=0.15)


@pytest.mark.parametrize("folds", [0, 1, 7])
def test_folds_that_cannot_be_drawn(folds: int) -> None:
    with pytest.raises(FewlabelError, match=rf"{folds} folds were asked for.*6 patient\(s\)"):
        draw_folds(np.arange(6), np.arange(6), labels=np.zeros(6, int), folds=folds)


def test_too_few_patients() -> None:
    with pytest.raises(FewlabelError, match="2 patient"):
        draw_split(np.array([0, 0, 1, 1]))


def test_linked_groups_join_patients_through_duplicates() -> None:
    patients = np.array([0, 0, 1, 2, 3, 4])
    duplicates = np.array([-1, 7, 7, -1, 9, 9])
    groups = linked_groups(patients, duplicates)
    assert groups[0] == groups[1] == groups[2]
    assert groups[4] == groups[5]
    assert len({groups[0], groups[3], groups[4]}) == 3


def test_official_split_is_kept_and_validation_drawn_from_training_patients() -> None:
    parts = np.array(["train", "Test", "train", "train", "valid", "", "test"])
    split = official_split(parts, np.arange(7))
    assert [split.part(part).tolist() for part in PARTS] == [[0, 2, 3], [4], [1, 6]]
    parts = np.array(["train"] * 20 + ["test"] * 5)
    patients = np.repeat(np.arange(5), 5)
    split = official_split(parts, patients, seed=3)
    assert len(split.val) == 5
    assert len(np.unique(patients[split.val])) == 1
    assert split.test.tolist() == list(range(20, 25))
    with pytest.raises(FewlabelError, match="no test image"):
        official_split(np.array(["train", "train"]), np.arange(2))


def leaky() -> Split:
    return Split(np.array([0, 1, 2]), np.array([3]), np.array([4, 5]), origin="official")


def test_leaks_are_found_named_and_dropped_from_training_only() -> None:
    patients = np.array([0, 1, 2, 3, 4, 1])
    exact = np.array([8, -1, -1, -1, 8, -1])
    near = np.array([-1, -1, 5, 5, -1, -1])
    leaks = find_leaks(leaky(), patients, exact, near)
    assert {(leak.kind, leak.row_a, leak.row_b) for leak in leaks} == {
        ("exact duplicate", 0, 4),
        ("patient", 1, 5),
        ("near duplicate", 2, 3),
    }
    with pytest.raises(FewlabelError, match=r"e\.png \(test\).*--drop-leaks"):
        check_leaks(leaks, ["a.png", "b.png", "c.png", "d.png", "e.png", "f.png"])
    mended = drop_leaks(leaky(), patients, exact, near)
    assert mended.train.tolist() == []
    assert mended.val.tolist() == [3]
    assert mended.test.tolist() == [4, 5]
    assert mended.dropped == (0, 1, 2)
    assert find_leaks(mended, patients, exact, near) == []


def test_no_leak_no_error() -> None:
    check_leaks(find_leaks(leaky(), np.arange(6), NONE, NONE), ["x"] * 6)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.sampled_from([-1, 0, 0, 0, 1, 2]), min_size=30, max_size=200),
    seed=st.integers(0, 20),
)
def test_budgets_are_nested_stratified_and_seeded(labels: list[int], seed: int) -> None:
    y = np.array(labels)
    usable = int((y >= 0).sum())
    if usable < 12:
        return
    sizes = [5, 10, usable]
    budgets = nested_budgets(y, np.arange(len(y)) // 2, sizes, seed=seed)
    assert [len(budgets[size]) for size in sizes] == sizes
    assert set(budgets[5]) < set(budgets[10]) <= set(budgets[usable])
    assert np.all(y[budgets[usable]] >= 0)
    classes = np.unique(y[y >= 0])
    assert set(y[budgets[5]]) == set(classes)
    for value in classes:
        expected = 10 * (y == value).sum() / usable
        assert abs((y[budgets[10]] == value).sum() - expected) <= 2
    again = nested_budgets(y, np.arange(len(y)) // 2, sizes, seed=seed)
    assert all(np.array_equal(budgets[size], again[size]) for size in sizes)


def test_budgets_take_new_patients_first() -> None:
    patients = np.repeat(np.arange(10), 4)
    budgets = nested_budgets(np.zeros(40, dtype=int), patients, [10], seed=0)
    assert len(np.unique(patients[budgets[10]])) == 10


def test_number_budgets_leave_out_missing_ones() -> None:
    y = np.array([1.0, np.nan, 3.0, 4.0, np.nan, 6.0])
    assert set(nested_budgets(y, np.arange(6), [4], seed=0)[4]) == {0, 2, 3, 5}


def test_budget_above_the_data() -> None:
    with pytest.raises(FewlabelError, match=r"budget of 50 labels.*has 4"):
        nested_budgets(np.array([0, 1, 0, 1, -1]), np.arange(5), [2, 50], seed=0)
