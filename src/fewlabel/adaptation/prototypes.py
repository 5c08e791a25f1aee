"""Nearest-prototype classification: a class is the mean of a few examples of it.

Snell, Swersky, Zemel 2017, arXiv:1703.05175. With the examples S_k of class k and an encoder f,

    c_k = 1 / |S_k| sum_{x in S_k} f(x)                                      (equation 1)
    p(y = k | x) = softmax_k( -d(f(x), c_k) ), d squared Euclidean distance  (equation 2)

and an image is called by the nearest c_k. Departure: the paper trains f on episodes of labelled classes; here f is
frozen, whatever it was trained with, so that what is measured is the encoder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewlabel.types import FewlabelError


@dataclass(frozen=True)
class Prototypes:
    """centres: (K, F), c_k by class."""

    centres: np.ndarray

    def nearest(self, features: np.ndarray) -> np.ndarray:
        """Features (N, F) -> class of the nearest centre (N,), the likeliest of equation 2; of equals the first."""
        # |f|^2 is the same for all classes, so it is left out of |f - c|^2.
        squares = (self.centres**2).sum(axis=1)
        return (squares - 2 * features @ self.centres.T).argmin(axis=1)


def fit_prototypes(features: np.ndarray, y: np.ndarray, *, classes: int) -> Prototypes:
    """The mean of each class's examples; features (n, F), y (n,) from 0 to classes - 1.

    Raises FewlabelError for a class without an example.
    """
    missing = sorted(set(range(classes)) - set(y.tolist()))
    if missing:
        raise FewlabelError(
            f"Class {missing[0]} has no example among the {len(y)} given: give at least one of each of the {classes} "
            "classes."
        )
    return Prototypes(np.stack([features[y == k].mean(axis=0) for k in range(classes)]))
