"""What a few examples a class are worth: nearest prototypes over many draws of the examples.

An episode draws the same number of examples of each class, each of another patient, from the support; every query is
then called by the nearest prototype (`adaptation.prototypes`; Snell et al. 2017, arXiv:1703.05175). The measure is
balanced accuracy: chance is 1 / K whatever the shares of the classes. Its interval draws the queries' patients and the
episodes with replacement, so it is that of the mean over episodes; how far single draws of examples lie apart is told
beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewlabel.adaptation.prototypes import fit_prototypes
from fewlabel.evaluation.intervals import Bootstrap, Resamples, percentile_interval
from fewlabel.types import FewlabelError

SHOTS = (1, 5, 10)
EPISODES = 200


@dataclass(frozen=True)
class FewShot:
    """shots: examples a class. accuracy: balanced accuracy, its `seed_values` those of the episodes."""

    shots: int
    accuracy: Bootstrap

    def single_draws(self) -> tuple[float, float]:
        """Between what 95 % of the episodes lie, on all queries."""
        return percentile_interval(self.accuracy.seed_values)


def too_few_patients(y: np.ndarray, patients: np.ndarray, *, classes: int, shots: int) -> tuple[int, int]:
    """(class, its patients) of the class with the fewest patients if these are fewer than `shots`; else (-1, 0)."""
    counts = [len(np.unique(patients[y == k])) for k in range(classes)]
    rarest = int(np.argmin(counts))
    return (rarest, counts[rarest]) if counts[rarest] < shots else (-1, 0)


def draw_support(
    y: np.ndarray, patients: np.ndarray, *, classes: int, shots: int, rng: np.random.Generator
) -> np.ndarray:
    """Positions (classes * shots,) of the examples: of each class `shots` images of as many patients.

    Raises FewlabelError where a class has fewer patients.
    """
    code, there = too_few_patients(y, patients, classes=classes, shots=shots)
    if code >= 0:
        raise FewlabelError(
            f"{shots} examples a class were asked for and class {code} has {there} patient(s): ask for fewer."
        )
    drawn = []
    for k in range(classes):
        shuffled = rng.permutation(np.flatnonzero(y == k))
        _, first = np.unique(patients[shuffled], return_index=True)
        drawn.append(shuffled[np.sort(first)[:shots]])
    return np.concatenate(drawn)


def few_shot(
    features: np.ndarray,
    y: np.ndarray,
    patients: np.ndarray,
    support: np.ndarray,
    queries: np.ndarray,
    resamples: Resamples,
    *,
    classes: int,
    shots: int,
    episodes: int = EPISODES,
    seed: int = 0,
) -> FewShot:
    """Balanced accuracy on the queries from `shots` examples a class.

    features: (N, F). y: (N,) classes from 0. patients: (N,) codes. support, queries: row numbers. resamples: of the
    queries' patients. The same seed and support give the same episodes, so encoders are compared on the same examples.
    Raises FewlabelError if a patient is on both sides, or a class has fewer patients than `shots`.
    """
    both = np.intersect1d(patients[support], patients[queries])
    if len(both):
        raise FewlabelError(
            f"{len(both)} patient(s) would be both among the examples and asked about: draw the examples from the "
            "training part and ask about the test part."
        )
    asked = features[queries]
    called = np.empty((episodes, len(queries)), dtype=np.int64)
    for episode in range(episodes):
        rng = np.random.default_rng([seed, shots, episode])
        drawn = support[draw_support(y[support], patients[support], classes=classes, shots=shots, rng=rng)]
        called[episode] = fit_prototypes(features[drawn], y[drawn], classes=classes).nearest(asked)
    return FewShot(shots, _balanced_accuracy(y[queries], called, resamples))


def _balanced_accuracy(y: np.ndarray, called: np.ndarray, resamples: Resamples) -> Bootstrap:
    """As `bootstrap(balanced_accuracy, y, called, resamples)`, in one product a class; called: (E, N)."""
    right = called == y  # (E, N)
    everybody = np.ones((1, len(y)), dtype=np.float32)
    values = _mean_recall(y, right, everybody)[0]  # (E,)
    per_episode = _mean_recall(y, right, resamples.weights)  # (R, E)
    draws = (per_episode * resamples.seed_shares(len(called))).sum(axis=1)
    source = (resamples.seed, *resamples.weights.shape, resamples.patients)
    return Bootstrap(float(values.mean()), values, draws, len(y), resamples.patients, source)


def _mean_recall(y: np.ndarray, right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(R, E): mean over the classes that a resample holds; NaN where it holds fewer than two."""
    total, defined = np.zeros((len(weights), len(right))), np.zeros((len(weights), 1))
    for k in np.unique(y):
        of_class = y == k
        drawn = weights[:, of_class].astype(np.float32)
        count = drawn.sum(axis=1, keepdims=True)
        total += drawn @ right[:, of_class].T.astype(np.float32) / np.maximum(count, 1)
        defined += count > 0
    return np.where(defined >= 2, total / np.maximum(defined, 1), np.nan)


def left_out(classes: Sequence[str], y: np.ndarray, patients: np.ndarray, shots: int) -> str:
    """One sentence where a class has fewer patients than `shots`, else ""; y, patients: of the support."""
    code, there = too_few_patients(y, patients, classes=len(classes), shots=shots)
    if code < 0:
        return ""
    return (
        f"{shots} example{'s' if shots > 1 else ''} a class: left out, since {classes[code]} has {there} training "
        f"patient{'' if there == 1 else 's'}."
    )
