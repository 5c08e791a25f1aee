"""The protocol of ConVIRT's CheXpert 8x200 (Zhang et al. 2020, arXiv:2010.00747, section 3.2): of each class 10
images to ask with and 200 to find, which have no other class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewlabel.types import FewlabelError


@dataclass(frozen=True)
class Protocol:
    """Who asks and who is to be found, as many of each class.

    queries, candidates: row numbers, class by class; query_classes, candidate_classes: their classes.
    queries_per_class, candidates_per_class: how many there are of each; note: one sentence where these are fewer than
    were asked for, else "".
    """

    queries: np.ndarray
    candidates: np.ndarray
    query_classes: np.ndarray
    candidate_classes: np.ndarray
    queries_per_class: int
    candidates_per_class: int
    note: str = ""


def exclusive_classes(positive: np.ndarray) -> np.ndarray:
    """(N,) the one class of each image, -1 where it has none or several; positive: (N, C) bool.

    What is uncertain or not mentioned is not positive, as in CheXpert 8x200.
    """
    return np.where(positive.sum(axis=1) == 1, positive.argmax(axis=1), -1)


def draw_protocol(
    labels: np.ndarray,
    patients: np.ndarray,
    *,
    candidates_per_class: int = 200,
    queries_per_class: int = 10,
    seed: int,
    names: Sequence[str] = (),
) -> Protocol:
    """Draw queries and candidates, no patient on both sides.

    labels: (N,) class of each image from 0, -1 = not to be used, as of `exclusive_classes`. patients: (N,) codes.
    names: of the classes, by code, for what is said of them; none = their codes.
    Queries are images of different patients, of at most half of a class's patients. Where a class has fewer
    than were asked for, all classes get as few. Raises FewlabelError for fewer than two classes, or a class that has no
    candidate left.
    """
    classes = np.unique(labels[labels >= 0])
    if len(classes) < 2 or labels.shape != patients.shape or min(candidates_per_class, queries_per_class) < 1:
        raise FewlabelError(
            f"{len(classes)} class(es), labels {labels.shape}, patients {patients.shape}, {queries_per_class} queries "
            f"and {candidates_per_class} candidates: give two classes or more, the patient of each image, and numbers "
            "from 1."
        )
    rng = np.random.default_rng(seed)
    owners = [np.unique(patients[labels == c]) for c in classes]
    asking = min(queries_per_class, *(len(own) // 2 for own in owners))
    queries = np.concatenate(
        [
            _of_different_patients(labels == c, patients, own, asking, rng)
            for c, own in zip(classes, owners, strict=True)
        ]
    )
    free = ~np.isin(patients, patients[queries])
    left = [np.flatnonzero((labels == c) & free) for c in classes]
    finding = min(candidates_per_class, *(len(rows) for rows in left))
    candidates = np.concatenate([np.sort(rng.permutation(rows)[:finding]) for rows in left])
    rarest = min(range(len(left)), key=lambda i: (min(queries_per_class, len(owners[i]) // 2), len(left[i])))
    images = np.count_nonzero(labels == classes[rarest])
    called = names[classes[rarest]] if names else classes[rarest]
    there = f"Class {called} has {images} image(s) of {len(owners[rarest])} patient(s)"
    if not asking or not finding:
        raise FewlabelError(
            f"{there}, too few to ask with some and find others: leave this class out, or give more patients."
        )
    asked_for = (asking, finding) == (queries_per_class, candidates_per_class)
    note = (
        ""
        if asked_for
        else (
            f"{there}, so each class has {asking} queries and {finding} candidates instead of {queries_per_class} and "
            f"{candidates_per_class}."
        )
    )
    return Protocol(queries, candidates, labels[queries], labels[candidates], asking, finding, note)


def _of_different_patients(
    of_class: np.ndarray, patients: np.ndarray, owners: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Rows of `count` images of a class, each of another of its patients `owners`. of_class: (N,) bool."""
    asked = np.sort(rng.permutation(owners)[:count])
    drawn = [rng.choice(np.flatnonzero(of_class & (patients == patient))) for patient in asked]
    return np.array(drawn, dtype=np.int64)
