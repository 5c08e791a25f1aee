"""Probes on frozen features: logistic or ridge regression, and nearest neighbours.

Every strength is chosen on validation patients, and probabilities are calibrated on them; test data are never seen.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fewlabel.types import FewlabelError, TargetKind

STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
NEIGHBOURS = (1, 3, 5, 10, 20, 50)
FOLD_STRENGTH = 1e-2
"""Of probes that doubt labels: a strong fit would believe each label that it is given."""


@dataclass(frozen=True)
class Scaling:
    """Centres features and divides all of them by ONE scale: (x - mean) / scale, mean (F,), scale a number.

    Taken from all unlabelled training images, which cost no label. One scale for all, not one a feature: dividing
    each feature by its own deviation raises the faint, noisy ones, and costs AUROC when labels are few.
    """

    mean: np.ndarray
    scale: float

    @staticmethod
    def of(features: np.ndarray) -> Scaling:
        """From features (N, F); the scale is the mean of their deviations (1 if they are constant)."""
        scale = float(features.std(axis=0).mean())
        return Scaling(features.mean(axis=0), scale if scale > 1e-12 else 1.0)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return (features - self.mean) / self.scale


@dataclass(frozen=True)
class Calibration:
    """Maps raw outputs to calibrated ones; fitted on validation patients.

    binary: Platt scaling of the logit, sigmoid(slope * logit + offset) (Platt 1999).
    category, ordinal: temperature scaling, softmax(slope * logits) (Guo et al. 2017, arXiv:1706.04599); the logits of
    grades are their log-probabilities, and P(y > k) goes on rising with the score.
    """

    slope: float = 1.0
    offset: float = 0.0

    @staticmethod
    def fit(logits: np.ndarray, y: np.ndarray) -> Calibration:
        """logits (N, K), y (N,) classes. Fewer than 10 labels or one class only: the identity."""
        from scipy.optimize import minimize

        if len(y) < 10 or len(np.unique(y)) < 2:
            return Calibration()
        if logits.shape[1] == 2:
            margin = logits[:, 1] - logits[:, 0]
            # Platt's targets: they keep the slope finite when validation is separated perfectly.
            positives, negatives = int((y == 1).sum()), int((y == 0).sum())
            target = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))

            def loss(p: np.ndarray) -> float:
                z = np.exp(p[0]) * margin + p[1]
                return float((np.logaddexp(0, z) - target * z).mean())

            best = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[(-7, 7), (-20, 20)]).x
            return Calibration(float(np.exp(best[0])), float(best[1]))

        def temperature_loss(p: np.ndarray) -> float:
            return float(-np.log(_softmax(np.exp(p[0]) * logits)[np.arange(len(y)), y] + 1e-12).mean())

        best = minimize(temperature_loss, np.zeros(1), method="L-BFGS-B", bounds=[(-7, 7)]).x
        return Calibration(float(np.exp(best[0])))

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Logits (N, K) -> probabilities (N, K)."""
        if logits.shape[1] == 2:
            margin = self.slope * (logits[:, 1] - logits[:, 0]) + self.offset
            return _softmax(np.column_stack([np.zeros_like(margin), margin]))
        return _softmax(self.slope * logits)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class LinearProbe:
    """Logistic regression (classification) or ridge regression (number) on standardised features.

    weights: (F, K), intercept: (K,); K = 1 for a number. strength: the chosen inverse regularisation.
    """

    kind: TargetKind
    scaling: Scaling
    weights: np.ndarray
    intercept: np.ndarray
    calibration: Calibration = field(default_factory=Calibration)
    strength: float = 1.0

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(N, F) -> (N, K)."""
        return self.scaling(features) @ self.weights + self.intercept

    def predict(self, features: np.ndarray) -> np.ndarray:
        """(N, F) -> calibrated probabilities (N, K), or the number (N,)."""
        logits = self.logits(features)
        return logits[:, 0] if self.kind == "number" else self.calibration(logits)


def validation_score(kind: TargetKind, y: np.ndarray, output: np.ndarray) -> float:
    """What is maximised on validation patients: AUROC (macro, one against rest), or minus the squared error.

    output: (N, K) probabilities or logits, or (N,) numbers. With one class only in y, minus the log loss. Of grades,
    whose output are logits: the mean over k of the AUROC by which P(y > k) tells y > k, which needs no cut points yet.
    """
    if kind == "number":
        return -float(np.mean((y - output) ** 2))
    from sklearn.metrics import roc_auc_score

    if kind == "ordinal" and len(np.unique(y)) > 1:
        above = _softmax(output)[:, ::-1].cumsum(axis=1)[:, -2::-1]  # (N, K-1), P(y > k)
        told = [k for k in range(above.shape[1]) if 0 < (y > k).sum() < len(y)]
        return float(np.mean([roc_auc_score(y > k, above[:, k]) for k in told]))
    present = [c for c in range(output.shape[1]) if 0 < (y == c).sum() < len(y)]
    if not present:
        return float(np.log(_softmax(output)[np.arange(len(y)), y] + 1e-12).mean())
    if output.shape[1] == 2:
        return float(roc_auc_score(y == 1, output[:, 1] - output[:, 0]))
    return float(np.mean([roc_auc_score(y == c, output[:, c]) for c in present]))


def fit_linear_probe(
    features: np.ndarray,
    y: np.ndarray,
    val_features: np.ndarray,
    val_y: np.ndarray,
    *,
    kind: TargetKind,
    classes: int,
    scaling: Scaling,
) -> LinearProbe:
    """Fit at each strength, keep the one with the best validation score (the stronger regularisation on a tie).

    features (N, F), y (N,): labelled training images. val_features (V, F), val_y (V,). classes: K, 0 for a number.
    Raises FewlabelError if y holds one class only, or validation is empty.
    """
    check_labels(y, val_y, kind)
    x, val_x = scaling(features), scaling(val_features)
    best: tuple[float, float, np.ndarray, np.ndarray] | None = None
    for strength in STRENGTHS:
        weights, intercept = _fit_linear(x, y, kind, classes, strength)
        output = val_x @ weights + intercept
        score = validation_score(kind, val_y, output[:, 0] if kind == "number" else output)
        if best is None or score > best[0] + 1e-9:
            best = (score, strength, weights, intercept)
    assert best is not None
    _, strength, weights, intercept = best
    calibration = Calibration() if kind == "number" else Calibration.fit(val_x @ weights + intercept, val_y)
    return LinearProbe(kind, scaling, weights, intercept, calibration, strength)


def _fit_linear(
    x: np.ndarray, y: np.ndarray, kind: TargetKind, classes: int, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (F, K) and intercept (K,) at one inverse regularisation strength."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge

    if kind == "number":
        ridge = Ridge(alpha=1 / strength).fit(x, y)
        return ridge.coef_[:, None], np.array([ridge.intercept_])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model: Any = LogisticRegression(C=strength, max_iter=500).fit(x, y)
    weights, intercept = np.zeros((x.shape[1], classes)), np.full(classes, -1e3)
    if len(model.classes_) == 2:
        a, b = model.classes_
        weights[:, a], weights[:, b] = -model.coef_[0] / 2, model.coef_[0] / 2
        intercept[a], intercept[b] = -model.intercept_[0] / 2, model.intercept_[0] / 2
    else:
        weights[:, model.classes_], intercept[model.classes_] = model.coef_.T, model.intercept_
    return weights, intercept


def out_of_fold_probabilities(
    features: np.ndarray, y: np.ndarray, groups: np.ndarray, *, classes: int, folds: int = 5, seed: int = 0
) -> np.ndarray:
    """Probabilities (N, K) of each image by a probe that saw no label of its group; not calibrated.

    features (N, F), y (N,) classes, groups (N,): patients. Folds are stratified and do not cut groups. A row is NaN
    where nobody else has its class, since then the others' labels cannot speak for it.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    probabilities = np.full((len(y), classes), np.nan)
    count = min(folds, len(np.unique(groups)))
    if count < 2:
        return probabilities
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # of classes that have fewer members than there are folds
        cut = list(StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(features, y, groups))
    for rest, fold in cut:
        known = np.isin(y[fold], y[rest])
        if len(np.unique(y[rest])) > 1:
            found = fold_probabilities(features[rest], y[rest], features[fold[known]], classes=classes)
            probabilities[fold[known]] = found
    return probabilities


def fold_probabilities(
    features: np.ndarray, y: np.ndarray, others: np.ndarray, *, classes: int
) -> np.ndarray:
    """Probabilities (M, K) of images (M, F) by a probe on labelled ones (N, F), (N,); not calibrated."""
    scaling = Scaling.of(features)
    weights, intercept = _fit_linear(scaling(features), y, "category", classes, FOLD_STRENGTH)
    return _softmax(scaling(others) @ weights + intercept)


def check_labels(y: np.ndarray, val_y: np.ndarray, kind: TargetKind) -> None:
    """Raise FewlabelError if y (N,) holds one class only, or there is no validation label in val_y (V,)."""
    if kind != "number" and len(np.unique(y)) < 2:
        raise FewlabelError(
            f"The {len(y)} labelled training images hold one class only: a classifier needs at least two. "
            "Label some of the other class, or choose another target."
        )
    if len(val_y) == 0:
        raise FewlabelError("No validation image has a label: settings cannot be chosen. Label some of them.")


@dataclass(frozen=True)
class NeighbourProbe:
    """Nearest labelled images by cosine similarity; votes weighted by similarity. k chosen on validation."""

    kind: TargetKind
    classes: int
    features: np.ndarray
    y: np.ndarray
    k: int
    calibration: Calibration = field(default_factory=Calibration)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """(N, F) -> calibrated probabilities (N, K), or the number (N,)."""
        return _finish(
            _votes(features, self.features, self.y, self.kind, self.classes, self.k),
            self.kind,
            self.calibration,
        )


def _finish(votes: np.ndarray, kind: TargetKind, calibration: Calibration) -> np.ndarray:
    return votes if kind == "number" else calibration(np.log(votes))


def fit_neighbour_probe(
    features: np.ndarray,
    y: np.ndarray,
    val_features: np.ndarray,
    val_y: np.ndarray,
    *,
    kind: TargetKind,
    classes: int,
) -> NeighbourProbe:
    """kNN on L2-normalised features; arguments and errors as in `fit_linear_probe`."""
    check_labels(y, val_y, kind)
    best: tuple[float, int, np.ndarray] | None = None
    for k in [k for k in NEIGHBOURS if k <= len(y)]:
        votes = _votes(val_features, features, y, kind, classes, k)
        score = validation_score(kind, val_y, votes if kind == "number" else np.log(votes))
        if best is None or score > best[0] + 1e-9:
            best = (score, k, votes)
    assert best is not None
    calibration = Calibration() if kind == "number" else Calibration.fit(np.log(best[2]), val_y)
    return NeighbourProbe(kind, classes, features, y, best[1], calibration)


def _votes(
    queries: np.ndarray, features: np.ndarray, y: np.ndarray, kind: TargetKind, classes: int, k: int
) -> np.ndarray:
    """Smoothed class shares (N, K) among the k nearest, or their mean number (N,)."""
    similarity = _normalised(queries) @ _normalised(features).T  # (N, labelled)
    nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    weight = np.clip(np.take_along_axis(similarity, nearest, axis=1), 1e-3, None)
    if kind == "number":
        return (weight * y[nearest]).sum(axis=1) / weight.sum(axis=1)
    votes = np.stack([(weight * (y[nearest] == c)).sum(axis=1) for c in range(classes)], axis=1)
    return (votes + 1e-3) / (votes + 1e-3).sum(axis=1, keepdims=True)


def _normalised(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
