"""A probe for grades on frozen features: cumulative logits (see `networks.ordinal`) with L2 regularisation.

Its strength is chosen on validation patients, and its probabilities are calibrated on them, as of the other probes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from fewlabel.adaptation.probe import (
    STRENGTHS,
    Calibration,
    Scaling,
    check_labels,
    validation_score,
)
from fewlabel.networks.ordinal import grade_log_probabilities, ordered_thresholds

PSEUDO = 0.01
"""How much of a label each grade counts at a score of 0: it keeps thresholds finite where a grade has no label."""


@dataclass(frozen=True)
class OrdinalProbe:
    """One score f = <scaled features, weights> and ascending thresholds; the greater f, the higher the grade.

    weights: (F,). thresholds: (K-1,). strength: the chosen inverse regularisation.
    """

    scaling: Scaling
    weights: np.ndarray
    thresholds: np.ndarray
    calibration: Calibration = field(default_factory=Calibration)
    strength: float = 1.0

    @property
    def kind(self) -> Literal["ordinal"]:
        """What it predicts."""
        return "ordinal"

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(N, F) -> log-probabilities (N, K) before calibration."""
        score = self.scaling(features.astype(np.float64)) @ self.weights
        return grade_log_probabilities(torch.from_numpy(score), torch.from_numpy(self.thresholds)).numpy()

    def predict(self, features: np.ndarray) -> np.ndarray:
        """(N, F) -> calibrated probabilities (N, K)."""
        return self.calibration(self.logits(features))


def fit_ordinal_probe(
    features: np.ndarray,
    y: np.ndarray,
    val_features: np.ndarray,
    val_y: np.ndarray,
    *,
    classes: int,
    scaling: Scaling,
) -> OrdinalProbe:
    """Fit at each strength, keep the one with the best validation score (the stronger regularisation on a tie).

    features (N, F), y (N,) grades 0 to K - 1. val_features (V, F), val_y (V,). classes: K, at least 3.
    Raises FewlabelError if y holds one grade only, or validation is empty.
    """
    check_labels(y, val_y, "ordinal")
    x = scaling(features.astype(np.float64))
    best: tuple[float, OrdinalProbe] | None = None
    start = np.concatenate([np.zeros(x.shape[1]), _even_start(classes)])
    for strength in STRENGTHS:
        start = fit_cumulative(x, y, strength, start)
        probe = _probe(start, scaling, strength, x.shape[1])
        score = validation_score("ordinal", val_y, probe.logits(val_features))
        if best is None or score > best[0] + 1e-9:
            best = (score, probe)
    assert best is not None
    found = best[1]
    calibration = Calibration.fit(found.logits(val_features), val_y)
    return OrdinalProbe(scaling, found.weights, found.thresholds, calibration, found.strength)


def _even_start(classes: int) -> np.ndarray:
    """Parameters of thresholds at which all grades are equally likely at a score of 0."""
    thresholds = np.log(np.arange(1, classes) / np.arange(classes - 1, 0, -1))
    return np.concatenate([thresholds[:1], np.log(np.diff(thresholds))])


def _probe(parameters: np.ndarray, scaling: Scaling, strength: float, width: int) -> OrdinalProbe:
    first, log_gaps = torch.from_numpy(parameters[width:]).split([1, len(parameters) - width - 1])
    return OrdinalProbe(
        scaling, parameters[:width], ordered_thresholds(first, log_gaps).numpy(), strength=strength
    )


def fit_cumulative(x: np.ndarray, y: np.ndarray, strength: float, start: np.ndarray) -> np.ndarray:
    """Parameters (F + K - 1,) that minimise -sum log P(y | x) + |w|^2 / (2 strength), thresholds not regularised.

    x (N, F) scaled features, y (N,) grades. The parameters are w (F,), the least threshold, and the logarithms of the
    gaps above it. start: where to begin. The search is over v = w / sqrt(strength), in which a strong and a weak
    regularisation are equally easy.
    """
    from scipy.optimize import minimize

    width, root = x.shape[1], np.sqrt(strength)
    inputs, grades = torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        p = torch.tensor(parameters, requires_grad=True)
        v, first, log_gaps = p.split([width, 1, len(parameters) - width - 1])
        thresholds = ordered_thresholds(first, log_gaps)
        said = grade_log_probabilities(inputs @ v * root, thresholds)
        seen = said.gather(1, grades[:, None]).sum()
        prior = PSEUDO * grade_log_probabilities(torch.zeros(1, dtype=p.dtype), thresholds).sum()
        total = v.square().sum() / 2 - seen - prior
        total.backward()
        assert p.grad is not None
        return float(total.detach()), p.grad.numpy()

    begin = np.concatenate([start[:width] / root, start[width:]])
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", options={"maxiter": 1000, "ftol": 1e-10}).x
    return np.concatenate([found[:width] * root, found[width:]])
