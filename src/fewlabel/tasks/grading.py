"""Grades from probabilities: the expected grade and its cut points, and whether an image is referable.

Quadratic weighted kappa (Cohen 1968) punishes a mistake by its squared distance, so the likeliest grade is not the one
to call. Here the expected grade sum_k k P(y = k) is cut at points that make kappa on validation patients as high as it
can be. The optimum is exact: 1 - kappa = N / D, where N and D are sums over the images; so the least N - rho D over all
ascending cuts is found by dynamic programming, and rho by the method of Dinkelbach (1967, On nonlinear fractional
programming, Management Science 13(7):492-498).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewlabel.types import FewlabelError

FEWEST = 10
"""Below so many labels no cut is chosen, as nothing is calibrated."""


@dataclass(frozen=True)
class Cuts:
    """Cut points on the expected grade, K - 1 ascending numbers: the grade is how many of them it reaches."""

    at: tuple[float, ...]

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """(N, K) -> grades (N,) int64. Raises FewlabelError for another number of grades."""
        if probabilities.shape[1] != len(self.at) + 1:
            raise FewlabelError(
                f"{len(self.at)} cuts came with probabilities of {probabilities.shape[1]} grades: one cut fewer than "
                "grades is needed; choose the cuts on the same target."
            )
        return np.searchsorted(np.array(self.at), expected_grade(probabilities), side="right").astype(
            np.int64
        )


def expected_grade(probabilities: np.ndarray) -> np.ndarray:
    """sum_k k P(y = k): (N, K) -> (N,) in [0, K - 1]."""
    return probabilities @ np.arange(probabilities.shape[1])


def likeliest_grade(probabilities: np.ndarray) -> np.ndarray:
    """(N, K) -> (N,): the grade of the largest probability."""
    return probabilities.argmax(axis=1)


def referable_probability(probabilities: np.ndarray, referable: int) -> np.ndarray:
    """P(y >= referable): (..., K) -> (...); referable is the code of a grade."""
    return probabilities[..., referable:].sum(axis=-1)


def halfway_cuts(grades: int) -> Cuts:
    """0.5, 1.5, ...: the expected grade is rounded."""
    return Cuts(tuple(k + 0.5 for k in range(grades - 1)))


def choose_cuts(probabilities: np.ndarray, y: np.ndarray) -> Cuts:
    """The cuts with the highest quadratic weighted kappa on validation images.

    probabilities (V, K), y (V,) grades. Halfway cuts where there are fewer than 10 labels, or one grade only.
    """
    grades = probabilities.shape[1]
    if len(y) < FEWEST or len(np.unique(y)) < 2:
        return halfway_cuts(grades)
    score = expected_grade(probabilities)
    values, place = np.unique(score, return_inverse=True)  # equal scores get one grade
    ends = _best_ends(place, y.astype(float), np.searchsorted(values, halfway_cuts(grades).at))
    return Cuts(tuple(_between(values, int(end), k) for k, end in enumerate(ends)))


def _best_ends(place: np.ndarray, y: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Where each grade but the highest ends, (K-1,), ascending: grade k holds the places from ends[k-1] to ends[k] - 1.

    place (V,): rank of each image's score, from 0, ties alike. y (V,): grades, two different ones at least.
    ends: where to begin.
    """
    called, rows = np.arange(len(ends) + 1), np.arange(len(y))
    distance = (y[:, None] - called) ** 2  # (V, K)
    by_chance = y[:, None] ** 2 + called**2 - 2 * y.mean() * called

    def ratio(tried: np.ndarray) -> float:
        given = np.searchsorted(tried, place, side="right")
        return float(distance[rows, given].sum() / by_chance[rows, given].sum())

    rho = ratio(ends)
    while True:
        cost = np.zeros((place.max() + 2, len(called)))
        np.add.at(cost, place + 1, distance - rho * by_chance)
        found = _cheapest_ends(cost.cumsum(axis=0))
        better = ratio(found)
        if better >= rho - 1e-12:
            return ends
        rho, ends = better, found


def _cheapest_ends(cost: np.ndarray) -> np.ndarray:
    """The ends (K-1,) of least total cost; cost (G + 1, K): the sum over the first places were they of grade k."""
    total, before = cost[:, 0], []
    for k in range(1, cost.shape[1]):
        gain = total - cost[:, k]
        before.append(gain)
        total = cost[:, k] + np.minimum.accumulate(gain)
    ends, end = [], len(cost) - 1
    for gain in reversed(before):
        end = int(np.argmin(gain[: end + 1]))
        ends.append(end)
    return np.array(ends[::-1])


def _between(values: np.ndarray, end: int, k: int) -> float:
    """A cut just below values[end]; where it lies outside of all values, the halfway point if that is outside, too."""
    if end == 0:
        return float(min(k + 0.5, values[0]))
    if end == len(values):
        return float(max(k + 0.5, np.nextafter(values[-1], np.inf)))
    return float((values[end - 1] + values[end]) / 2)
