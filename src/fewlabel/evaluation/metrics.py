"""Measures of quality, weighted and computed for all resamples of a bootstrap at once.

Every measure is a pure function `f(y, score, weights) -> (R,)`:

    y        shape (N,), the truth: 0 or 1, a class index 0..K-1, or a number
    score    shape (N,) or (N, K): a score, a probability in [0, 1], a predicted class, or a predicted number
    weights  shape (R, N), not negative: how often image n was drawn in resample r; ones of shape (1, N) for
             the plain value

A resample in which the measure has no meaning (one class only where two are needed, all targets equal,
nothing drawn) gives NaN for that resample, never a guess. Curves for drawing come from scikit-learn
(`roc_curve`, `precision_recall_curve`, `calibration_curve`), whose conventions are followed here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fewlabel.types import FewlabelError

MetricFunction = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

SPECIFICITY = 0.90
BINS = 10
MEMORY_BYTES = 200_000_000
_ARRAYS_ALIVE = 10  # (rows, N) float64 arrays that one chunk may hold at once


def auroc(y: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve: P(positive scores above negative) + half of P(equal). Shape (R,)."""
    curve = _counts_above(y, score, weights)

    def area(rows: np.ndarray) -> np.ndarray:
        tp, fp = curve(rows)
        under = np.diff(fp, axis=1) * (tp[:, 1:] + tp[:, :-1]) / 2
        return _ratio(under.sum(axis=1), tp[:, -1] * fp[:, -1])

    return _in_chunks(weights, area)


def average_precision(y: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision: sum over thresholds of recall gained x precision, no interpolation. Shape (R,)."""
    curve = _counts_above(y, score, weights)

    def precision(rows: np.ndarray) -> np.ndarray:
        tp, fp = curve(rows)
        called = tp + fp
        at_threshold = np.divide(tp, called, out=np.zeros_like(tp), where=called > 0)
        total = (np.diff(tp, axis=1) * at_threshold[:, 1:]).sum(axis=1)
        both_classes = (tp[:, -1] > 0) & (fp[:, -1] > 0)
        return np.where(both_classes, _ratio(total, tp[:, -1]), np.nan)

    return _in_chunks(weights, precision)


def sensitivity_at_specificity(
    y: np.ndarray, score: np.ndarray, weights: np.ndarray, *, specificity: float = SPECIFICITY
) -> np.ndarray:
    """The highest sensitivity among the thresholds whose specificity is at least `specificity`. Shape (R,).

    Read off the points of the empirical ROC curve without interpolation, so that a threshold which
    exists reaches it; calling nothing positive (sensitivity 0, specificity 1) is one of the points.
    """
    curve = _counts_above(y, score, weights)

    def sensitivity(rows: np.ndarray) -> np.ndarray:
        tp, fp = curve(rows)
        allowed = fp <= (1 - specificity) * fp[:, -1:] + 1e-9
        best = np.where(allowed, tp, 0).max(axis=1)
        return np.where(fp[:, -1] > 0, _ratio(best, tp[:, -1]), np.nan)

    return _in_chunks(weights, sensitivity)


def sensitivity(y: np.ndarray, called: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of the positive images that are called so; called is 0 or 1. Shape (R,)."""
    _need_binary(y)
    y, called, weights = _checked(y, called, weights)
    return _in_chunks(weights, lambda rows: _ratio(rows @ (y * called), rows @ y))


def specificity(y: np.ndarray, called: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of the negative images that are not called positive, as `sensitivity`. Shape (R,)."""
    _need_binary(y)
    return sensitivity(1 - np.asarray(y), 1 - np.asarray(called), weights)


def balanced_accuracy(y: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean recall over the classes that the resample holds; y and predicted are class indices. Shape (R,)."""
    y, predicted, weights = _checked(y, predicted, weights)
    classes = np.unique(y)
    of_class = (y[:, None] == classes).astype(float)  # (N, K)
    right = of_class * (predicted == y)[:, None]

    def recall(rows: np.ndarray) -> np.ndarray:
        return _mean_of_two_or_more(_ratio(rows @ right, rows @ of_class))

    return _in_chunks(weights, recall)


def brier(y: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Brier score, mean of (probability - y)^2: 0 is perfect, 0.25 is a coin (Brier 1950). Shape (R,)."""
    _need_binary(y)
    y, probability, weights = _checked(y, probability, weights)
    _need_probabilities(probability)
    return _weighted_mean((probability - y) ** 2, weights)


def expected_calibration_error(y: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Expected calibration error over 10 bins of equal width (Naeini et al. 2015). Shape (R,).

    Sum over bins of (share of images in the bin) x |share of positives - mean probability in the bin|. A bin
    holds its upper edge and not its lower one, the first bin both, as in sklearn's `calibration_curve`.
    """
    _need_binary(y)
    y, probability, weights = _checked(y, probability, weights)
    _need_probabilities(probability)
    inner_edges = np.linspace(0, 1, BINS + 1)[1:-1]
    in_bin = np.searchsorted(inner_edges, probability)[:, None] == np.arange(BINS)  # (N, BINS)
    gap = in_bin * (y - probability)[:, None]
    return _in_chunks(weights, lambda rows: _ratio(np.abs(rows @ gap).sum(axis=1), rows.sum(axis=1)))


def macro_auroc(y: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over the classes a resample holds of the one-against-rest AUROC. y (N,), scores (N, K) -> (R,)."""
    return _one_against_rest(auroc, y, scores, weights)


def macro_average_precision(y: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over the classes a resample holds of the one-against-rest average precision, as `macro_auroc`."""
    return _one_against_rest(average_precision, y, scores, weights)


def multiclass_brier(y: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Brier's own score for K classes: mean of sum_k (p_k - [y = k])^2, in [0, 2]. (N,), (N, K) -> (R,)."""
    y = _class_indices(y, probabilities)
    _need_probabilities(probabilities)
    truth = y[:, None] == np.arange(probabilities.shape[1])  # (N, K)
    squares = ((probabilities - truth) ** 2).sum(axis=1)
    _, squares, weights = _checked(y, squares, weights)
    return _weighted_mean(squares, weights)


def log_loss(y: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of -ln p(true class), y (N,), probabilities (N, K): 0 is perfect, ln K says nothing. Shape (R,).

    A probability below 1e-12 counts as 1e-12, so that one case never makes the mean infinite.
    """
    y = _class_indices(y, probabilities)
    _need_probabilities(probabilities)
    of_truth = np.maximum(probabilities[np.arange(len(y)), y.astype(int)], 1e-12)
    _, losses, weights = _checked(y, -np.log(of_truth), weights)
    return _weighted_mean(losses, weights)


def top_label_calibration_error(y: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Expected calibration error of the class called: its probability against how often it is right. (R,)."""
    y = _class_indices(y, probabilities)
    right = probabilities.argmax(axis=1) == y
    return expected_calibration_error(right, probabilities.max(axis=1), weights)


def quadratic_weighted_kappa(y: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Cohen's kappa with quadratic weights for ordered classes 0..K-1 (Cohen 1968). Shape (R,).

    1 - E[(y - p)^2] / E'[(y - p)^2], where E' lets y and p vary independently with the same marginals;
    that expectation is E[y^2] + E[p^2] - 2 E[y] E[p], so that no K x K table is needed.
    """
    y, predicted, weights = _checked(y, predicted, weights)
    moments = np.stack([(y - predicted) ** 2, y**2 + predicted**2, y, predicted], axis=1)  # (N, 4)

    def kappa(rows: np.ndarray) -> np.ndarray:
        observed, squares, mean_y, mean_p = _ratio(rows @ moments, rows.sum(axis=1, keepdims=True)).T
        by_chance = squares - 2 * mean_y * mean_p
        return 1 - _ratio(observed, np.where(by_chance > 1e-12, by_chance, 0))

    return _in_chunks(weights, kappa)


def mean_absolute_error(y: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of |predicted - y|, in the unit of y. Shape (R,)."""
    y, predicted, weights = _checked(y, predicted, weights)
    return _weighted_mean(np.abs(predicted - y), weights)


def share_off_by(y: np.ndarray, predicted: np.ndarray, weights: np.ndarray, *, steps: int = 2) -> np.ndarray:
    """Share of images whose predicted grade lies `steps` or more from the true one. Shape (R,)."""
    y, predicted, weights = _checked(y, predicted, weights)
    return _weighted_mean((np.abs(predicted - y) >= steps).astype(float), weights)


def r_squared(y: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """R^2 = 1 - sum (y - predicted)^2 / sum (y - mean of y in the resample)^2. Shape (R,)."""
    y, predicted, weights = _checked(y, predicted, weights)
    centred = y - y.mean()  # keeps the difference of sums below exact to rounding where the mean is large
    moments = np.stack([(y - predicted) ** 2, centred**2, centred], axis=1)  # (N, 3)
    negligible = 1e-12 * max(float(np.square(centred).max(initial=0)), np.finfo(float).tiny)

    def explained(rows: np.ndarray) -> np.ndarray:
        error, square, mean = _ratio(rows @ moments, rows.sum(axis=1, keepdims=True)).T
        variance = square - mean**2
        return 1 - _ratio(error, np.where(variance > negligible, variance, 0))

    return _in_chunks(weights, explained)


def _counts_above(
    y: np.ndarray, score: np.ndarray, weights: np.ndarray
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """A function: rows (r, N) -> true and false positives (r, G + 1) at the G scores, highest first."""
    _need_binary(y)
    y, score, _ = _checked(y, score, weights)
    order = np.argsort(-score, kind="stable")
    sorted_score = score[order]
    last_of_ties = np.append(np.flatnonzero(np.diff(sorted_score)), len(score) - 1)
    positive = y[order]

    def curve(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = rows[:, order]
        called = np.cumsum(rows, axis=1)[:, last_of_ties]
        tp = np.cumsum(rows * positive, axis=1)[:, last_of_ties]
        nobody = np.zeros((len(rows), 1))
        return np.hstack([nobody, tp]), np.hstack([nobody, called - tp])

    return curve


def _one_against_rest(
    function: MetricFunction, y: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    y = _class_indices(y, scores)
    each = [function(y == k, scores[:, k], weights) for k in range(scores.shape[1])]
    return _mean_of_two_or_more(np.stack(each, axis=1))


def _mean_of_two_or_more(per_class: np.ndarray) -> np.ndarray:
    """Mean over the defined entries of each row (R, K); NaN where fewer than two classes are defined."""
    defined = np.isfinite(per_class)
    count = defined.sum(axis=1)
    total = np.where(defined, per_class, 0).sum(axis=1)
    return np.where(count >= 2, _ratio(total, count), np.nan)


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _in_chunks(weights, lambda rows: _ratio(rows @ values, rows.sum(axis=1)))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, NaN where below is 0."""
    shape = np.broadcast_shapes(np.shape(above), np.shape(below))
    return np.divide(above, below, out=np.full(shape, np.nan), where=np.broadcast_to(below != 0, shape))


def _in_chunks(weights: np.ndarray, work: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """work(rows) over blocks of rows as float64, so that memory stays under MEMORY_BYTES."""
    rows = max(1, MEMORY_BYTES // (8 * _ARRAYS_ALIVE * max(1, weights.shape[1])))
    blocks = [work(weights[i : i + rows].astype(np.float64)) for i in range(0, len(weights), rows)]
    return np.concatenate(blocks) if blocks else np.empty(0)


def _checked(
    y: np.ndarray, score: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y and score as float64 of shape (N,), after checking that the three belong together."""
    y, score = np.asarray(y, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if y.ndim != 1 or score.shape != y.shape or weights.ndim != 2 or weights.shape[1] != len(y):
        raise FewlabelError(
            f"y is {y.shape}, score is {score.shape}, weights are {weights.shape}: "
            "expected (N,), (N,) and (R, N) with the same N"
        )
    if not len(y):
        raise FewlabelError("there is no image to measure on: give at least one test image with a label")
    if not (np.isfinite(y).all() and np.isfinite(score).all()):
        raise FewlabelError(
            "y or score holds NaN or infinity: leave out images without a label before measuring"
        )
    return y, score, weights


def _need_binary(y: np.ndarray) -> None:
    if not np.isin(y, (0, 1)).all():
        raise FewlabelError(
            f"y holds {np.unique(y)[:5].tolist()}: expected only 0 and 1; leave out uncertain labels"
        )


def _need_probabilities(probability: np.ndarray) -> None:
    if probability.size and (probability.min() < 0 or probability.max() > 1):
        raise FewlabelError(
            f"probabilities span {probability.min():.3g} to {probability.max():.3g}: expected 0 to 1; "
            "give calibrated probabilities, not raw scores"
        )


def _class_indices(y: np.ndarray, scores: np.ndarray) -> np.ndarray:
    if scores.ndim != 2 or scores.shape[0] != len(y):
        raise FewlabelError(f"y is {np.shape(y)}, scores are {scores.shape}: expected (N,) and (N, K)")
    if len(y) and (np.min(y) < 0 or np.max(y) >= scores.shape[1]):
        raise FewlabelError(
            f"y spans {np.min(y)} to {np.max(y)} but there are {scores.shape[1]} columns of scores: "
            "expected class indices 0 to K - 1"
        )
    return np.asarray(y)
