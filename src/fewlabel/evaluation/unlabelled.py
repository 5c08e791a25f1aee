"""Figures that need no label: how well held-out images are reconstructed, and how likely they are under a model.

The bound is of a density over pixels in [0, 1] (Kingma and Welling 2014, arXiv:1312.6114). In bits a dimension it is

    -ELBO / (D ln 2),

negative where the density exceeds 1. Published figures are of pixels in 0..255 with noise added and lie 8 bits higher
(Theis, van den Oord, Bethge 2016, arXiv:1511.01844, section 3.1); without that noise none is comparable.
"""

from __future__ import annotations

import math

import numpy as np

from fewlabel.evaluation.intervals import bootstrap_metric
from fewlabel.types import Metric


def reconstruction_metrics(
    errors: np.ndarray,
    elbo: np.ndarray | None,
    dimensions: int,
    patients: np.ndarray,
    *,
    resamples: int = 1000,
    seed: int,
) -> list[Metric]:
    """Means over images, with 95 % intervals by patient.

    errors: (N,) mean squared error of each image. elbo: (N,) nats; None where there is no such bound.
    dimensions: D, pixels times channels of an image. patients: (N,).
    """
    measured = {("reconstruction_error", ""): errors}
    if elbo is not None:
        measured["elbo", "nats an image"] = elbo
        measured["bits_a_dimension", ""] = -elbo / (dimensions * math.log(2))
    return [
        bootstrap_metric(
            _mean, values, values[None], patients, name=name, unit=unit, resamples=resamples, seed=seed
        )
        for (name, unit), values in measured.items()
    ]


def _mean(y: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    drawn = weights.astype(np.float64)
    return drawn @ score / drawn.sum(axis=1)
