"""Measures of a cross-validation: the mean of the folds, and all folds pooled.

Each fold has a classifier of its own. A measure that compares outputs of several images with each other (AUROC, average
precision) then also compares what two classifiers say, whose scales need not agree, and pooling moves it (Forman and
Scholz 2010, doi:10.1145/1882471.1882479; Airola et al. 2011, doi:10.1016/j.csda.2010.11.018). So the figure to quote is
the mean of the folds' own; the pooled one stands beside it.

Intervals draw patients with replacement within each fold, and seeds, as `intervals` does. Folds share most of their
training patients, so no interval from one cross-validation holds all the chance there is in who is trained on (Bengio
and Grandvalet 2004, "No Unbiased Estimator of the Variance of K-Fold Cross-Validation").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewlabel.evaluation.intervals import Bootstrap, Resamples, bootstrap
from fewlabel.evaluation.metrics import MetricFunction


@dataclass(frozen=True)
class OverFolds:
    """One measure of one arm: the mean of the folds, the folds, and pooled outputs."""

    mean: Bootstrap
    folds: list[Bootstrap]
    pooled: Bootstrap

    @property
    def spread(self) -> float:
        """Standard deviation of the folds' values, with K - 1."""
        return float(np.std([fold.value for fold in self.folds], ddof=1))


def over_folds(
    function: MetricFunction,
    y: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
    resamples: Sequence[Resamples],
) -> OverFolds:
    """Measure K folds.

    y: K arrays (N_k,). scores: K arrays (S, N_k) or (S, N_k, C), one run a seed; the same S in all. resamples: of the
    test patients of each fold, as many in all; draw them with another seed for each.
    """
    found = [bootstrap(function, *one) for one in zip(y, scores, resamples, strict=True)]
    joint = joined(resamples)
    pooled = bootstrap(function, np.concatenate(y), np.concatenate(scores, axis=1), joint)
    mean = Bootstrap(
        float(np.mean([one.value for one in found])),
        np.mean([one.seed_values for one in found], axis=0),
        np.mean([one.draws for one in found], axis=0),  # NaN where a fold does not define the measure
        pooled.n,
        pooled.patients,
        pooled.drawn_from,
    )
    return OverFolds(mean, found, pooled)


def joined(resamples: Sequence[Resamples]) -> Resamples:
    """Draws within each of several sets of patients as draws of all of them."""
    weights = np.concatenate([one.weights for one in resamples], axis=1)
    return Resamples(weights, sum(one.patients for one in resamples), resamples[0].seed)
