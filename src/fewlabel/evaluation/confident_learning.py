"""Which labels may be wrong: confident learning, from probabilities that were made without the label's own patient.

Northcutt, Jiang, Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels", arXiv:1911.00068,
section 3.1. With p(j; x) the probability of class j for image x, and X_i the images labelled i,

    t_j = mean of p(j; x) over X_j                                              how sure one is of class j on average
    x in X_i counts for j, where j = argmax of p(l; x) over the l with p(l; x) >= t_l

and x is suspected where j is not i: the off-diagonal cells of the confident joint, the paper's method C. They are put
in the order of p(j; x) - p(i; x), its normalised margin. Own thresholds for each class keep a rare class, of which one
is never sure, from being suspected as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewlabel.types import FewlabelError


@dataclass(frozen=True)
class Suspects:
    """positions: (M,) of the suspected, likeliest first. suggested: (M,) classes. margin: (M,) p(j; x) - p(i; x)."""

    positions: np.ndarray
    suggested: np.ndarray
    margin: np.ndarray


def class_thresholds(probabilities: np.ndarray, y: np.ndarray) -> np.ndarray:
    """t_j (K,) from probabilities (N, K) and labels y (N,); infinite for a class that no image is labelled with."""
    of_class = y[:, None] == np.arange(probabilities.shape[1])  # (N, K)
    counts = of_class.sum(axis=0)
    mean = np.where(of_class, probabilities, 0).sum(axis=0) / np.maximum(counts, 1)
    return np.where(counts > 0, mean, np.inf)


def confident_class(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(N,): the likeliest of the classes that reach their threshold; -1 where none does."""
    reached = probabilities >= thresholds
    best = np.where(reached, probabilities, -np.inf).argmax(axis=1)
    return np.where(reached.any(axis=1), best, -1)


def suspected(probabilities: np.ndarray, y: np.ndarray) -> Suspects:
    """The labels that may be wrong.

    probabilities: (N, K), each made without the labels of the image's own patient; rows of NaN take no part, since
    nothing is known of them. y: (N,) labels from 0 to K - 1. Raises FewlabelError for shapes that do not fit.
    """
    if probabilities.ndim != 2 or y.shape != probabilities.shape[:1]:
        raise FewlabelError(
            f"probabilities are {probabilities.shape} and labels {y.shape}: give (N, K) and (N,) of the same images."
        )
    known = np.flatnonzero(~np.isnan(probabilities).any(axis=1))
    p, given = probabilities[known], y[known]
    confident = confident_class(p, class_thresholds(p, given))
    off = np.flatnonzero((confident >= 0) & (confident != given))
    margin = p[off, confident[off]] - p[off, given[off]]
    order = np.argsort(-margin, kind="stable")
    return Suspects(known[off[order]], confident[off[order]], margin[order])
