"""Batches for metric learning: P classes with K images of each, of as many patients as there are."""

from __future__ import annotations

import numpy as np

from fewlabel.types import FewlabelError

Members = tuple[np.ndarray, ...]
"""Of each class the numbers of its images."""


def members_of_classes(labels: np.ndarray) -> Members:
    """The images of each class that has any.

    labels: (N,) int64 classes, -1 = none; or (N, L) int64 of 0 and 1, negative = unknown: an image is then among
    those of each of its labels, and one without any known label among those that have none. Images without a label
    are in no class. Raises FewlabelError for numbers, and where fewer than two classes have an image.
    """
    if labels.dtype.kind != "i" or labels.ndim not in (1, 2):
        raise FewlabelError(
            f"Batches were to be balanced by labels {labels.shape} of {labels.dtype}: give classes (N,) or "
            "labels (N, L), int64."
        )
    if labels.ndim == 1:
        found = [np.flatnonzero(labels == c) for c in np.unique(labels[labels >= 0])]
    else:
        nothing = (labels == 0).any(axis=1) & (labels != 1).all(axis=1)
        found = [np.flatnonzero(column == 1) for column in labels.T] + [np.flatnonzero(nothing)]
    members = tuple(one for one in found if len(one))
    if len(members) < 2:
        raise FewlabelError(
            f"Batches were to be balanced, and {len(members)} class(es) have an image: label images of two "
            "classes or more."
        )
    return members


def draw_balanced(
    members: Members,
    patients: np.ndarray | None,
    batch_size: int,
    per_class: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Images (B,) of one batch, none of them twice, class by class.

    members: of `members_of_classes`. patients: (N,) codes, negative = unknown; None = each image is of its own patient.
    batch_size // per_class classes are drawn, at least two and at most all, and share the batch equally. A class
    gives one image of each of its patients before it gives a second one of anybody; one with too few images gives all
    it has, so that the batch is smaller.
    """
    classes = min(len(members), max(2, batch_size // per_class))
    each = max(1, batch_size // classes)
    taken: list[np.ndarray] = []
    for place in generator.permutation(len(members))[:classes]:
        free = members[place]
        if taken:
            free = free[~np.isin(free, np.concatenate(taken))]
        shuffled = generator.permutation(free)
        taken.append(shuffled[_first_of_each_patient(shuffled, patients)][:each])
    return np.concatenate(taken)


def _first_of_each_patient(images: np.ndarray, patients: np.ndarray | None) -> np.ndarray:
    """The order that has each patient's first image before anybody's second, and else that of `images`."""
    if patients is None:
        return np.arange(len(images))
    owners = patients[images]
    owners = np.where(owners < 0, owners.max(initial=0) + 1 + np.arange(len(images)), owners)
    by_owner = np.argsort(owners, kind="stable")
    starts = np.searchsorted(owners[by_owner], owners[by_owner])
    earlier = np.empty(len(images), dtype=np.int64)
    earlier[by_owner] = np.arange(len(images)) - starts
    return np.argsort(earlier, kind="stable")
