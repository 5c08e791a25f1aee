"""When to give no answer: risk against coverage, and a confidence threshold whose risk is bounded.

A classifier that may abstain answers where its confidence is above a threshold. Coverage is the share of cases it
answers, risk the share of wrong answers among those (Geifman and El-Yaniv 2017, arXiv:1705.08500). Confidence is the
probability of the class that is called: for two classes max(p, 1 - p), for more the largest of them.

`choose_threshold` is their selection with guaranteed risk: a binomial tail bound, with delta divided by the number of
thresholds looked at (Bonferroni). One departure: their search by bisection lets errors already seen decide where to
look next, so that delta over its steps does not cover all the places where it might have looked. Here the coverages
are laid down beforehand, and all ten bounds hold at once with probability at least 1 - delta (as in Angelopoulos et
al. 2021, arXiv:2110.01052). At a rank that is fixed beforehand the threshold is one of the confidences;
given it, the cases above are independent draws from all that lie above it, so their errors are binomial.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fewlabel.types import FewlabelError

DELTA = 0.05
STEPS = 10
"""Coverages at which a threshold is looked for: a tenth, two tenths, ... and everything."""


@dataclass(frozen=True)
class Cases:
    """Cases with an answer. confidence: (N,), above 0 and at most 1. wrong: (N,) bool.

    chosen_among: from how many classifiers, made without these cases, they chose the one that answers; early stopping
    chooses among the states of the network that it looks at.
    """

    confidence: np.ndarray
    wrong: np.ndarray
    chosen_among: int = 1

    def __post_init__(self) -> None:
        _check(self.wrong, self.confidence)
        if self.chosen_among < 1:
            raise FewlabelError(f"chosen_among is {self.chosen_among}: at least 1 classifier is needed.")

    @staticmethod
    def of(probabilities: np.ndarray, y: np.ndarray, *, chosen_among: int = 1) -> Cases:
        """From probabilities (N, K) and the true classes (N,)."""
        return Cases(probabilities.max(axis=1), called_class(probabilities) != y, chosen_among)


@dataclass(frozen=True)
class Threshold:
    """Answer where the confidence is above `value`; 0 answers everything.

    bound: the risk is at most this, with the probability that was asked for. answered, wrong: of the `cases` that it
    was chosen on.
    """

    value: float
    bound: float
    answered: int
    wrong: int
    cases: int


def called_class(probabilities: np.ndarray) -> np.ndarray:
    """(N, K) -> (N,): the likeliest class; of two, the second from 0.5 on."""
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] >= 0.5).astype(int)
    return probabilities.argmax(axis=1)


def risk_at_coverages(
    wrong: np.ndarray, confidence: np.ndarray, weights: np.ndarray, coverages: np.ndarray
) -> np.ndarray:
    """Share of wrong answers when the most confident cases are answered. Shape (R, G).

    wrong (N,) bool, confidence (N,), weights (R, N) as in `metrics`, coverages (G,) above 0 and at most 1. Where a
    coverage ends among cases of equal confidence, the mean over all their orders is taken. NaN: nothing was drawn.
    """
    risk = _risk_curve(wrong, confidence)
    return np.stack([risk(row, coverages) for row in weights])


def area_under_risk_coverage(wrong: np.ndarray, confidence: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AURC: the mean risk over the coverages 1/N, 2/N, ..., 1; 0 is perfect. Shape (R,)."""
    risk = _risk_curve(wrong, confidence)
    coverages = np.arange(1, len(wrong) + 1) / len(wrong)
    return np.array([risk(row, coverages).mean() for row in weights])


def coverage_above(
    wrong: np.ndarray, confidence: np.ndarray, weights: np.ndarray, threshold: float
) -> np.ndarray:
    """Share of the cases whose confidence (N,) is above `threshold`, wrong or not. Shape (R,)."""
    return _share(weights[:, confidence > threshold], weights)


def risk_above(
    wrong: np.ndarray, confidence: np.ndarray, weights: np.ndarray, threshold: float
) -> np.ndarray:
    """Share of wrong answers among the cases above `threshold`, NaN where there are none. Shape (R,)."""
    above = confidence > threshold
    return _share(weights[:, above & wrong.astype(bool)], weights[:, above])


def upper_bound(wrong: int, answered: int, delta: float) -> float:
    """The b with P(Binomial(answered, b) <= wrong) = delta: the true risk is above it with probability delta at most.

    The exact one-sided bound of Clopper and Pearson (1934), by the quantile of a beta distribution.
    """
    from scipy.stats import beta

    return 1.0 if wrong == answered else float(beta.ppf(1 - delta, wrong + 1, answered - wrong))


def bounded_thresholds(cases: Cases, *, delta: float = DELTA) -> list[Threshold]:
    """The threshold at each tenth of coverage; all bounds hold at once with probability at least 1 - delta.

    Assumes that cases are independent and drawn as the new ones will be, and the classifier was made without them, or
    chosen by them from `chosen_among` such: the bounds of all of these then hold at once.
    """
    n, each = len(cases.wrong), delta / (STEPS * cases.chosen_among)
    descending = np.sort(cases.confidence)[::-1]
    found = []
    for step in range(1, STEPS + 1):
        rank = round(n * step / STEPS)
        value = float(descending[rank]) if rank < n else 0.0
        above = cases.confidence > value
        answered, wrong = int(above.sum()), int(cases.wrong[above].sum())
        found.append(Threshold(value, upper_bound(wrong, answered, each), answered, wrong, n))
    return found


def choose_threshold(cases: Cases, risk: float, *, delta: float = DELTA) -> Threshold | None:
    """The threshold that answers most cases among those whose bound is at most `risk`; None where there is none.

    Raises FewlabelError for a risk that is not above 0 and below 1.
    """
    if not 0 < risk < 1:
        raise FewlabelError(
            f"The risk asked for is {risk:g}: give the share of wrong answers to allow, above 0 and below 1, "
            "such as 0.05."
        )
    allowed = [one for one in bounded_thresholds(cases, delta=delta) if one.bound <= risk]
    return allowed[-1] if allowed else None


def one_image_a_patient(patients: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows of one image of each patient, drawn at random. patients: (N,) any ids.

    Images of one patient are wrong together, which a binomial bound does not know; patients are independent.
    """
    shuffled = rng.permutation(len(patients))
    _, first = np.unique(patients[shuffled], return_index=True)
    return np.sort(shuffled[first])


def _risk_curve(wrong: np.ndarray, confidence: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A function: weights (N,), coverages (G,) -> risks (G,)."""
    _check(wrong, confidence)
    order = np.argsort(-confidence, kind="stable")
    last_of_ties = np.append(np.flatnonzero(np.diff(confidence[order])), len(order) - 1)
    failed = wrong[order].astype(float)

    def risk(row: np.ndarray, coverages: np.ndarray) -> np.ndarray:
        row = row[order].astype(float)
        answered = np.append(0, np.cumsum(row)[last_of_ties])
        errors = np.append(0, np.cumsum(row * failed)[last_of_ties])
        if answered[-1] == 0:
            return np.full(len(coverages), np.nan)
        wanted = coverages * answered[-1]
        return np.interp(wanted, answered, errors) / wanted

    return risk


def _share(some: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Row sums of `some` over row sums of `of`, NaN where those are 0."""
    above, below = some.sum(axis=1).astype(float), of.sum(axis=1).astype(float)
    return np.divide(above, below, out=np.full(len(below), np.nan), where=below > 0)


def _check(wrong: np.ndarray, confidence: np.ndarray) -> None:
    if wrong.ndim != 1 or wrong.shape != confidence.shape or not len(wrong):
        raise FewlabelError(
            f"wrong is {wrong.shape}, confidence is {confidence.shape}: expected (N,) and (N,) with N at least 1"
        )
    if not np.all((confidence > 0) & (confidence <= 1)):
        raise FewlabelError(
            f"confidences span {confidence.min():.3g} to {confidence.max():.3g}: expected above 0 and at most 1; "
            "give the probability of the class that is called"
        )
