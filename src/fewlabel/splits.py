"""Splits by patient, nested label budgets, and the leakage check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fewlabel.types import FewlabelError

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Row numbers of the three parts, each sorted, and how they came about.

    origin: a sentence for the report, such as "official" or "drawn by patient, seed 0".
    dropped: rows that were taken out because of leakage.
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    origin: str
    dropped: tuple[int, ...] = ()

    def part(self, name: Part) -> np.ndarray:
        """The rows of one part."""
        return getattr(self, name)

    def within(self, rows: np.ndarray) -> Split:
        """The same split, restricted to some rows."""
        train, val, test = (np.intersect1d(self.part(part), rows) for part in PARTS)
        return replace(self, train=train, val=val, test=test)

    def without(self, rows: np.ndarray) -> Split:
        """The same split after some rows were dropped because of leakage."""
        train, val, test = (np.setdiff1d(self.part(part), rows) for part in PARTS)
        dropped = (*self.dropped, *(int(row) for row in rows))
        return Split(train, val, test, self.origin, dropped)


@dataclass(frozen=True)
class Leak:
    """Two rows in different parts that must not be: the same patient, or the same picture."""

    kind: Literal["patient", "exact duplicate", "near duplicate"]
    row_a: int
    part_a: Part
    row_b: int
    part_b: Part


def linked_groups(*codes: np.ndarray) -> np.ndarray:
    """Groups (N,) of rows that share a value in any of `codes` (N,), directly or through others; -1 links nothing.

    With patients and duplicate groups as codes, no split along these groups can leak.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(codes[0])
    rows, columns, offset = [], [], n
    for code in codes:
        known = np.flatnonzero(code >= 0)
        _, dense = np.unique(code[known], return_inverse=True)
        rows.append(known)
        columns.append(dense + offset)
        offset += len(known)
    row, column = np.concatenate(rows), np.concatenate(columns)
    graph = coo_matrix((np.ones(len(row), dtype=bool), (row, column)), shape=(offset, offset))
    labels = connected_components(graph, directed=False)[1][:n]
    return np.unique(labels, return_inverse=True)[1]


def draw_split(
    groups: np.ndarray,
    *,
    strata: np.ndarray | None = None,
    val: float = 0.1,
    test: float = 0.3,
    seed: int = 0,
) -> Split:
    """Draw train, val and test along groups (patients): no group is in two parts.

    groups: (N,) integer codes. strata: (N,) classes, -1 = none; the rarest class of a group stands for the group.
    val, test: shares of the groups. Raises FewlabelError with fewer than 3 groups.
    """
    names, first = np.unique(groups, return_inverse=True)
    if len(names) < 3:
        raise FewlabelError(
            f"The images come from {len(names)} patient(s): a split into training, validation and test needs at "
            "least 3. Check the patient column."
        )
    group_strata = _group_strata(first, len(names), strata)
    index = np.arange(len(names))

    rest, test_groups = _cut(index, round(test * len(names)), group_strata, seed)
    train_groups, val_groups = _cut(rest, round(val * len(names)), group_strata, seed)
    rows = [np.flatnonzero(np.isin(first, part)) for part in (train_groups, val_groups, test_groups)]
    return Split(rows[0], rows[1], rows[2], origin=f"drawn by patient, seed {seed}")


def _cut(members: np.ndarray, size: int, strata: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Members in two parts, `size` of them in the second, at least one in each; stratified where that can be."""
    from sklearn.model_selection import train_test_split

    size = min(max(1, size), len(members) - 1)
    labels = strata[members]
    counts = np.bincount(labels)
    fits = counts[counts > 0].min() >= 2 and min(size, len(members) - size) >= np.count_nonzero(counts)
    return train_test_split(members, test_size=size, random_state=seed, stratify=labels if fits else None)


def draw_folds(
    groups: np.ndarray,
    rows: np.ndarray,
    *,
    labels: np.ndarray,
    folds: int,
    val: float = 0.1,
    seed: int = 0,
) -> list[Split]:
    """Splits for cross-validation along groups (patients): each group of `rows` is tested in one fold and no group is
    in two parts of a fold.

    groups: (N,) integer codes. labels: (N,) classes, -1 = none, or float with NaN; each class (a quarter of numbers) is
    dealt out evenly, where the rarest class of a group stands for the group. val: share of the groups of `rows` that
    each fold takes for validation, from those that it does not test.
    Raises FewlabelError for fewer than 2 folds, or more than there are groups.
    """
    from sklearn.model_selection import StratifiedKFold

    names, first = np.unique(groups[rows], return_inverse=True)
    if folds < 2 or len(names) < max(4, folds):
        raise FewlabelError(
            f"{folds} folds were asked for, and the images come from {len(names)} patient(s) who share no picture: use "
            "from 2 folds up to as many as there are patients, and at least 4 patients."
        )
    strata = _group_strata(first, len(names), _strata_of(labels[rows]), fewest=folds)
    index = np.arange(len(names))
    drawn = StratifiedKFold(folds, shuffle=True, random_state=seed)
    splits = []
    for number, (rest, test) in enumerate(drawn.split(index, strata), start=1):
        train, held = _cut(index[rest], round(val * len(names)), strata, seed)
        of_train, of_val, of_test = (rows[np.isin(first, part)] for part in (train, held, test))
        origin = f"fold {number} of {folds}, drawn by patient, seed {seed}"
        splits.append(Split(of_train, of_val, of_test, origin))
    return splits


def _group_strata(first: np.ndarray, count: int, strata: np.ndarray | None, fewest: int = 3) -> np.ndarray:
    """For each group its rarest class; classes with fewer than `fewest` groups join the most frequent one."""
    result = np.zeros(count, dtype=np.int64)
    if strata is None:
        return result
    classes, counts = np.unique(strata[strata >= 0], return_counts=True)
    for value in classes[np.argsort(-counts)]:  # the rarest is written last
        result[first[strata == value]] = value + 1
    sizes = np.bincount(result)
    rare = np.flatnonzero((sizes > 0) & (sizes < fewest))
    result[np.isin(result, rare)] = sizes.argmax()
    return result


def official_split(parts: np.ndarray, groups: np.ndarray, *, val: float = 0.1, seed: int = 0) -> Split:
    """Keep the source's own split; where it has no validation part, some training patients are taken for it.

    parts: (N,) of "train", "val" (or "valid", "validation"), "test"; anything else takes no part.
    Raises FewlabelError when training or test images are missing.
    """
    names = np.char.lower(parts.astype(str))
    rows = {
        "train": np.flatnonzero(np.isin(names, ("train", "training"))),
        "val": np.flatnonzero(np.isin(names, ("val", "valid", "validation", "dev"))),
        "test": np.flatnonzero(np.isin(names, ("test", "testing"))),
    }
    for part in ("train", "test"):
        if len(rows[part]) == 0:
            seen = ", ".join(sorted(set(names[:1000]))[:5])
            raise FewlabelError(
                f"The split column names no {part} image (it holds: {seen}): use train, val and test."
            )
    origin = "official"
    if len(rows["val"]) == 0:
        candidates = np.unique(groups[rows["train"]])
        size = max(1, round(val * len(candidates)))
        chosen = np.random.default_rng(seed).permutation(candidates)[:size]
        taken = np.isin(groups[rows["train"]], chosen)
        rows["val"], rows["train"] = rows["train"][taken], rows["train"][~taken]
        origin = f"official; validation drawn from its training patients, seed {seed}"
    return Split(rows["train"], rows["val"], rows["test"], origin=origin)


def find_leaks(split: Split, patients: np.ndarray, exact: np.ndarray, near: np.ndarray) -> list[Leak]:
    """Pairs of rows in different parts that share a patient or a duplicate group; codes (N,), -1 = none.

    One pair a group and pair of parts, with the earliest rows.
    """
    place = np.full(len(patients), -1)
    for i, part in enumerate(PARTS):
        place[split.part(part)] = i
    leaks = []
    seen: set[tuple[int, int]] = set()
    kinds: tuple[tuple[Literal["patient", "exact duplicate", "near duplicate"], np.ndarray], ...] = (
        ("exact duplicate", exact),
        ("patient", patients),
        ("near duplicate", near),
    )
    for kind, codes in kinds:
        for rows in _crossing_groups(codes, place):
            for i in range(3):
                for j in range(i + 1, 3):
                    a, b = rows[place[rows] == i], rows[place[rows] == j]
                    if len(a) and len(b) and (int(a[0]), int(b[0])) not in seen:
                        seen.add((int(a[0]), int(b[0])))
                        leaks.append(Leak(kind, int(a[0]), PARTS[i], int(b[0]), PARTS[j]))
    return leaks


def _crossing_groups(codes: np.ndarray, place: np.ndarray) -> list[np.ndarray]:
    """Rows of each group that lies in more than one part."""
    rows = np.flatnonzero((codes >= 0) & (place >= 0))
    if len(rows) == 0:
        return []
    rows = rows[np.argsort(codes[rows], kind="stable")]
    groups = np.split(rows, np.flatnonzero(np.diff(codes[rows])) + 1)
    return [group for group in groups if len(group) > 1 and len(np.unique(place[group])) > 1]


def drop_leaks(split: Split, patients: np.ndarray, exact: np.ndarray, near: np.ndarray) -> Split:
    """Take leaking rows out of training (and of validation, where they also lie in test); test stays whole."""
    place = np.full(len(patients), -1)
    for i, part in enumerate(PARTS):
        place[split.part(part)] = i
    drop = np.zeros(len(patients), dtype=bool)
    for codes in (patients, exact, near):
        for rows in _crossing_groups(codes, place):
            drop[rows[place[rows] < place[rows].max()]] = True
    return split.without(np.flatnonzero(drop))


def check_leaks(leaks: Sequence[Leak], names: Sequence[str]) -> None:
    """Raise FewlabelError if there are leaks, naming the first five by `names`, one name a row."""
    if not leaks:
        return
    shown = "; ".join(
        f"{leak.kind}: {names[leak.row_a]} ({leak.part_a}) and {names[leak.row_b]} ({leak.part_b})"
        for leak in leaks[:5]
    )
    more = f"; and {len(leaks) - 5} more" if len(leaks) > 5 else ""
    raise FewlabelError(
        f"{len(leaks)} group(s) of images lie in more than one part of the split: {shown}{more}. Results would look "
        "better than they are. Mend the split, or drop them from training (and validation) with --drop-leaks."
    )


def nested_budgets(
    labels: np.ndarray, patients: np.ndarray, budgets: Sequence[int], *, seed: int
) -> dict[int, np.ndarray]:
    """Positions (into `labels`) of the labelled images at each budget; each budget holds the smaller ones.

    labels: (N,) classes, -1 = cannot be used, or float with NaN. Drawn at random, stratified: each prefix follows
    the class shares, but holds every class once from K labels on. Images of new patients come before second images
    of one patient. Raises FewlabelError for a budget above the number of usable labels.
    """
    classes = _strata_of(labels)
    usable = np.flatnonzero(classes >= 0)
    too_large = [budget for budget in budgets if budget > len(usable)]
    if too_large:
        raise FewlabelError(
            f"A budget of {too_large[0]} labels was asked for, but the training part has {len(usable)}: "
            f"use budgets up to {len(usable)}."
        )
    order = _stratified_order(classes, usable, patients, np.random.default_rng(seed))
    return {budget: np.sort(order[:budget]) for budget in budgets}


def _strata_of(labels: np.ndarray) -> np.ndarray:
    """Classes as they are; numbers by quarter; -1 = no label."""
    if labels.dtype.kind != "f":
        return labels
    known = ~np.isnan(labels)
    result = np.full(len(labels), -1)
    if known.any():
        edges = np.quantile(labels[known], (0.25, 0.5, 0.75))
        result[known] = np.searchsorted(edges, labels[known])
    return result


def _stratified_order(
    classes: np.ndarray, usable: np.ndarray, patients: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """All usable positions in an order whose every prefix is stratified.

    The j-th image of a class with share p stands at about (j - 1/2) / p; the first of each class comes first.
    """
    keys = np.empty(len(usable))
    for value in np.unique(classes[usable]):
        members = np.flatnonzero(classes[usable] == value)
        shuffled = rng.permutation(members)
        visit = _visit_number(patients[usable[shuffled]])
        ranked = shuffled[np.argsort(visit, kind="stable")]
        share = len(members) / len(usable)
        position = (np.arange(len(ranked)) + rng.uniform(0, 1)) / share
        position[0] = rng.uniform(-1, 0)
        keys[ranked] = position
    return usable[np.argsort(keys, kind="stable")]


def _visit_number(patients: np.ndarray) -> np.ndarray:
    """For each element how often its patient came before it."""
    order = np.argsort(patients, kind="stable")
    sorted_patients = patients[order]
    starts = np.flatnonzero(np.r_[True, sorted_patients[1:] != sorted_patients[:-1]])
    lengths = np.diff(np.r_[starts, len(patients)])
    visit = np.empty(len(patients), dtype=np.int64)
    visit[order] = np.arange(len(patients)) - np.repeat(starts, lengths)
    return visit
