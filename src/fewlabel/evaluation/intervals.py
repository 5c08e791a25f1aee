"""95 % intervals and paired comparisons by a bootstrap over patients and seeds.

Images of one patient resemble each other, so patients and not images are drawn with replacement (the cluster
bootstrap; Davison and Hinkley 1997, section 3.8). Where a method was run with several seeds (draws of the
labels, initialisations), the seeds are drawn with replacement as well, so an interval holds both kinds of
chance; with only two or three seeds it understates theirs. The drawing is done once, by `draw_resamples`, and
everything computed from the same `Resamples` is paired.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from fewlabel.evaluation.metrics import MetricFunction
from fewlabel.types import FewlabelError, Metric

FEW_PATIENTS = 10
MANY_UNDEFINED = 0.1
LEVEL = 0.95


@dataclass(frozen=True)
class Resamples:
    """R draws of the patients of one test set.

    weights: shape (R, N), uint16: how often each image was drawn. patients: how many there are.
    """

    weights: np.ndarray
    patients: int
    seed: int

    def seed_shares(self, seeds: int) -> np.ndarray:
        """Shape (R, S): the share of each of S seeds in each resample, always the same for S."""
        if seeds == 1:
            return np.ones((len(self.weights), 1))
        rng = np.random.default_rng([self.seed, 1, seeds])
        return rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=len(self.weights)) / seeds


@dataclass(frozen=True)
class Bootstrap:
    """A measure with its resampled distribution.

    value: mean over the seeds on the full test set. seed_values: shape (S,). draws: shape (R,), NaN where the
    resample does not define the measure. n, patients: of the test set. drawn_from: tells which `Resamples`.
    """

    value: float
    seed_values: np.ndarray
    draws: np.ndarray
    n: int
    patients: int
    drawn_from: tuple[int, int, int, int]

    @property
    def undefined(self) -> int:
        """How many resamples do not define the measure (one class only, say)."""
        return int(np.isnan(self.draws).sum())

    def interval(self) -> tuple[float, float]:
        """The percentile 95 % interval of the resamples that define the measure; NaN where none does."""
        return percentile_interval(self.draws)

    def metric(self, name: str, unit: str = "") -> Metric:
        """The measure as a result; warns where more than a tenth of the resamples do not define it."""
        if self.undefined > MANY_UNDEFINED * len(self.draws):
            warnings.warn(
                f"{name}: {self.undefined} of {len(self.draws)} resamples hold too few classes to define it, "
                "so that its interval may be too narrow; test on more patients of the rarer class",
                stacklevel=2,
            )
        return Metric(name, self.value, *self.interval(), n=self.n, patients=self.patients, unit=unit)


@dataclass(frozen=True)
class Difference:
    """Method a minus method b on the same resamples.

    value: on the full test set; low, high: percentile 95 % interval; p: two-sided, as in `paired_difference`.
    undefined: resamples left out because a or b is not defined there.
    """

    value: float
    low: float
    high: float
    p: float
    undefined: int = 0


def patient_weights(patients: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each image comes in each resample when whole patients are drawn with replacement.

    patients: shape (N,), any ids. Returns shape (R, N), uint16. A resample holds as many patients as
    there are, and so not always N images.
    """
    ids, index = np.unique(np.asarray(patients), return_inverse=True)
    drawn = rng.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=resamples).astype(np.uint16)
    return drawn[:, index]


def draw_resamples(patients: np.ndarray, *, resamples: int = 1000, seed: int, warn: bool = True) -> Resamples:
    """Draw the patients `resamples` times. patients: shape (N,), the patient of each test image.

    Warns below 10 patients, where no bootstrap gives an interval to rely on; warn=False leaves that to the caller.
    """
    patients = np.asarray(patients)
    if patients.ndim != 1 or not len(patients) or resamples < 1:
        raise FewlabelError(
            f"patients is {patients.shape}, resamples {resamples}: expected the patient of each test image, "
            "shape (N,) with N at least 1, and at least 1 resample"
        )
    count = len(np.unique(patients))
    if warn and count < FEW_PATIENTS:
        warnings.warn(
            f"the test set holds {count} patient{'' if count == 1 else 's'}: intervals from fewer than "
            f"{FEW_PATIENTS} are too narrow; test on more patients",
            stacklevel=2,
        )
    return Resamples(patient_weights(patients, resamples, np.random.default_rng([seed, 0])), count, seed)


def bootstrap(function: MetricFunction, y: np.ndarray, scores: np.ndarray, resamples: Resamples) -> Bootstrap:
    """Resample a measure over patients and seeds.

    y: shape (N,). scores: shape (S, N) or (S, N, K), one run a seed. In each resample the measure is computed
    for every seed on the patients drawn and averaged over the seeds drawn.
    """
    scores = np.asarray(scores)
    n = resamples.weights.shape[1]
    if scores.ndim < 2 or scores.shape[1] != n or not len(scores):
        raise FewlabelError(
            f"scores are {scores.shape} for {n} test images: expected (S, N) or (S, N, K), one row a seed"
        )
    everybody = np.ones((1, n))
    seed_values = np.array([function(y, score, everybody)[0] for score in scores])
    per_seed = np.stack([function(y, score, resamples.weights) for score in scores], axis=1)  # (R, S)
    shares = resamples.seed_shares(len(scores))
    draws = np.where(shares > 0, per_seed * shares, 0).sum(axis=1)
    source = (resamples.seed, *resamples.weights.shape, resamples.patients)
    return Bootstrap(float(seed_values.mean()), seed_values, draws, n, resamples.patients, source)


def bootstrap_metric(
    function: MetricFunction,
    y: np.ndarray,
    scores: np.ndarray,
    patients: np.ndarray,
    *,
    name: str,
    resamples: int = 1000,
    seed: int,
    unit: str = "",
) -> Metric:
    """A measure with its 95 % interval in one call; `draw_resamples` and `bootstrap` keep the draws."""
    drawn = draw_resamples(patients, resamples=resamples, seed=seed)
    return bootstrap(function, y, scores, drawn).metric(name, unit)


def paired_difference(a: Bootstrap, b: Bootstrap) -> Difference:
    """Method a minus method b, both bootstrapped from the same `Resamples`.

    With as many seeds on both sides, run s of a is paired with run s of b (the same labels); otherwise the
    seeds are drawn apart. p = 2 min(P(d <= 0), P(d >= 0)), at most 1, each share (times + 1) / (R + 1) so
    that it is never 0: the smallest p that R resamples can show is 2 / (R + 1).
    """
    if a.drawn_from != b.drawn_from:
        raise FewlabelError(
            f"the methods were resampled apart (seed, R, N, patients: {a.drawn_from} and {b.drawn_from}): "
            "bootstrap both from the same Resamples"
        )
    d = a.draws - b.draws
    defined = d[~np.isnan(d)]
    low, high = percentile_interval(d)
    below, above = (
        (np.count_nonzero(side) + 1) / (len(defined) + 1) for side in (defined <= 0, defined >= 0)
    )
    p = min(1.0, 2 * min(below, above))
    return Difference(a.value - b.value, low, high, p, undefined=len(d) - len(defined))


def percentile_interval(draws: np.ndarray) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of the draws that are not NaN; (NaN, NaN) where all are."""
    defined = draws[~np.isnan(draws)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
