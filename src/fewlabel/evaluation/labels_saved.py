"""The headline: how many labels does a reference need to be as good as a method is with b labels?

The reference's curve (quality over number of labels) is made monotone by an isotonic fit and joined by
straight lines over log10(labels); where it first reaches the method's value at b lies the equivalent
number of labels. This is done on the full test set for the value, and in every resample of patients and
seeds for the 95 % interval: both curves must come from the same `Resamples`. The curve is never
extended: beyond the reference's largest budget the answer is "more than N", below its smallest "fewer
than n".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fewlabel.evaluation.intervals import LEVEL, Bootstrap
from fewlabel.types import JSON, FewlabelError

TIE = 1e-9
FEWEST_DEFINED = 0.5

Status = Literal["saved", "none", "cannot be told"]


@dataclass(frozen=True)
class Curve:
    """Quality of one method over its label budgets.

    name: in words that follow "labels", such as "SimCLR" or "training from scratch".
    budgets: increasing, shape (B,). values: on the full test set, shape (B,). draws: shape (R, B), NaN
    allowed.
    """

    name: str
    budgets: tuple[int, ...]
    values: np.ndarray
    draws: np.ndarray

    def __post_init__(self) -> None:
        b = len(self.budgets)
        if not b or self.values.shape != (b,) or self.draws.ndim != 2 or self.draws.shape[1] != b:
            raise FewlabelError(
                f"the curve of {self.name} has {b} budgets, values {self.values.shape} and draws "
                f"{self.draws.shape}: expected at least one budget, (B,) and (R, B)"
            )
        if self.budgets[0] < 1 or any(a >= z for a, z in zip(self.budgets, self.budgets[1:], strict=False)):
            raise FewlabelError(
                f"the budgets of {self.name} are {self.budgets}: expected them to grow from 1 or more"
            )

    @classmethod
    def of(cls, name: str, bootstraps: Mapping[int, Bootstrap]) -> Curve:
        """A curve from the bootstrapped measure at each budget, all of the same `Resamples`."""
        if len({b.drawn_from for b in bootstraps.values()}) > 1:
            raise FewlabelError(f"the budgets of {name} were resampled apart: use one Resamples for all")
        budgets = tuple(sorted(bootstraps))
        values = np.array([bootstraps[b].value for b in budgets])
        return cls(name, budgets, values, np.stack([bootstraps[b].draws for b in budgets], axis=1))


@dataclass(frozen=True)
class LabelsSaved:
    """How many labels the reference needs to be as good as the method with `budget` labels.

    equivalent, low, high: labels, with the 95 % interval. math.inf stands for more than the reference's
    largest budget, 0 for fewer than its smallest (`reference_range`), NaN for not defined.
    saved: equivalent - budget; factor, factor_low, factor_high: equivalent, low and high over budget.
    Where the equivalent is inf or 0 these are inf or 0 too (saved: inf or -inf) and only the texts say
    what is known.
    status: "saved" only where equivalent and interval lie above the budget; "none" only where they lie
    below it, so that the reference needs fewer labels than the method; else "cannot be told".
    sentence: the result in words. undefined: resamples left out because a measure is not defined there.
    """

    budget: int
    equivalent: float
    low: float
    high: float
    saved: float
    factor: float
    factor_low: float
    factor_high: float
    status: Status
    sentence: str
    reference_range: tuple[int, int]
    undefined: int = 0

    def as_json(self) -> JSON:
        """For results.json: numbers are null where they are open or undefined, and the texts say which."""
        return {
            "budget": self.budget,
            "status": self.status,
            "sentence": self.sentence,
            "undefined_resamples": self.undefined,
            "saved": self.saved if math.isfinite(self.saved) else None,
            "equivalent": self._with_texts((self.equivalent, self.low, self.high), _labels_text, 1),
            "factor": self._with_texts(
                (self.factor, self.factor_low, self.factor_high), _factor_text, self.budget
            ),
        }

    def _with_texts(
        self,
        numbers: tuple[float, float, float],
        text: Callable[[float, tuple[float, float]], str],
        divisor: int,
    ) -> JSON | None:
        if math.isnan(numbers[0]):
            return None
        limits = (self.reference_range[0] / divisor, self.reference_range[1] / divisor)
        given: JSON = {}
        for key, number in zip(("", "low", "high"), numbers, strict=True):
            given[key or "value"] = number if 0 < number < math.inf else None
            given[f"{key}_text" if key else "text"] = text(number, limits)
        return given


def labels_saved(
    arm: Curve,
    reference: Curve,
    *,
    metric: str = "an AUROC",
    unit: str = "",
    higher_is_better: bool = True,
) -> list[LabelsSaved]:
    """Labels saved by `arm` against `reference` at each of arm's budgets.

    metric: with its article, for the sentence. Both curves hold the same R resamples, row by row. A
    resample in which the arm at b or the reference anywhere is NaN is left out; where fewer than half
    remain, nothing is told.
    """
    if len(arm.draws) != len(reference.draws):
        raise FewlabelError(
            f"{arm.name} has {len(arm.draws)} resamples, {reference.name} {len(reference.draws)}: "
            "bootstrap both from the same Resamples"
        )
    sign = 1.0 if higher_is_better else -1.0
    fitted_value = _monotone(sign * reference.values[None])
    fitted_draws = _monotone(sign * reference.draws)
    results = []
    for i, budget in enumerate(arm.budgets):
        point = _equivalent(fitted_value, reference.budgets, sign * arm.values[i : i + 1], budget)[0]
        drawn = _equivalent(fitted_draws, reference.budgets, sign * arm.draws[:, i], budget)
        shown = f"{metric} of {arm.values[i]:.3f}" + (f" {unit}" if unit else "")
        results.append(_result(budget, float(point), drawn, arm.name, reference, shown))
    return results


def _monotone(curves: np.ndarray) -> np.ndarray:
    """Least-squares increasing fit of each row, shape (R, B); a row with a NaN stays NaN throughout."""
    from sklearn.isotonic import isotonic_regression

    defined = np.isfinite(curves).all(axis=1)
    fitted = np.where(defined[:, None], curves, np.nan)
    for row in np.flatnonzero(
        defined & (np.diff(curves, axis=1) < 0).any(axis=1)
    ):  # the others fit themselves
        fitted[row] = isotonic_regression(curves[row])
    return fitted


def _equivalent(
    fitted: np.ndarray, budgets: tuple[int, ...], target: np.ndarray, own_budget: int
) -> np.ndarray:
    """Labels at which increasing curves (R, B) reach `target` (R,): inf above, 0 below, NaN undefined.

    Where the curve is as good as the target at `own_budget` itself, that is the answer: on a plateau
    that both methods have reached (an AUROC of 1, say), the first budget of the plateau would be unfair
    to the method.
    """
    x = np.log10(np.asarray(budgets, dtype=float))
    rows = np.arange(len(fitted))
    first = (fitted < target[:, None] - TIE).sum(axis=1)  # budgets that fall short of the target
    right = np.clip(first, 0, len(x) - 1)
    left = np.maximum(right - 1, 0)
    low, high = fitted[rows, left], fitted[rows, right]
    with np.errstate(invalid="ignore"):
        share = np.where(high > low, (target - low) / np.where(high > low, high - low, 1), 1)
        labels = 10 ** (x[left] + np.clip(share, 0, 1) * (x[right] - x[left]))
    labels = np.where(np.abs(high - target) <= TIE, np.asarray(budgets, dtype=float)[right], labels)
    labels = np.where(first == len(x), np.inf, labels)
    labels = np.where((first == 0) & (target < fitted[:, 0] - TIE), 0, labels)
    if budgets[0] <= own_budget <= budgets[-1]:
        at_own = np.array([np.interp(np.log10(own_budget), x, row) for row in fitted])
        labels = np.where(np.abs(at_own - target) <= TIE, own_budget, labels)
    return np.where(np.isnan(target) | np.isnan(fitted[:, 0]), np.nan, labels)


def _result(
    budget: int, point: float, drawn: np.ndarray, name: str, reference: Curve, shown: str
) -> LabelsSaved:
    limits = (reference.budgets[0], reference.budgets[-1])
    defined = np.sort(drawn[~np.isnan(drawn)])
    undefined = len(drawn) - len(defined)
    if math.isnan(point) or len(defined) < max(1, FEWEST_DEFINED * len(drawn)):
        sentence = (
            f"Whether labels are saved at {budget:,} cannot be told from these data: the measure is "
            f"defined in only {len(defined):,} of {len(drawn):,} resamples of the test patients."
        )
        nan = math.nan
        return LabelsSaved(
            budget, nan, nan, nan, nan, nan, nan, nan, "cannot be told", sentence, limits, undefined
        )
    low, high = _outer_interval(defined)
    status = _status(budget, point, low, high, limits)
    saved = point - budget if point > 0 else -math.inf
    factors = point / budget, low / budget, high / budget
    sentence = _sentence(status, budget, (point, low, high), name, reference, shown)
    return LabelsSaved(budget, point, low, high, saved, *factors, status, sentence, limits, undefined)


def _outer_interval(ordered: np.ndarray) -> tuple[float, float]:
    """Percentile interval by order statistics, rounded outwards: open ends cannot be interpolated."""
    last = len(ordered) - 1
    low = math.floor((1 - LEVEL) / 2 * last)
    return float(ordered[low]), float(ordered[last - low])


def _status(budget: int, point: float, low: float, high: float, limits: tuple[int, int]) -> Status:
    """Compare with what is known for certain: inf is at least the largest budget, 0 at most the smallest."""

    def above(labels: float) -> bool:
        return limits[1] >= budget if math.isinf(labels) else labels > budget * (1 + TIE)

    def below(labels: float) -> bool:
        return limits[0] <= budget if labels == 0 else labels < budget * (1 - TIE)

    if above(low) and above(point):
        return "saved"
    if below(high) and below(point):
        return "none"
    return "cannot be told"


def _sentence(
    status: Status,
    budget: int,
    numbers: tuple[float, float, float],
    name: str,
    reference: Curve,
    shown: str,
) -> str:
    limits = (reference.budgets[0], reference.budgets[-1])
    needed, low, high = (_labels_text(number, limits) for number in numbers)
    interval = f"(95 % interval {low} to {high})" if low != high else f"(95 % interval: {low})"
    reaches = f"With {budget:,} labels {name} reaches {shown}"
    if status == "cannot be told":
        return (
            f"Whether labels are saved at {budget:,} cannot be told from these data: {name} reaches {shown} "
            f"there, for which {reference.name} needs {needed} labels {interval}."
        )
    if math.isinf(numbers[0]):
        return f"{reaches}; {reference.name} does not reach that even with {limits[1]:,} labels {interval}."
    if status == "saved":
        return f"{reaches}; {reference.name} needs {needed} labels for that {interval}."
    return f"{reaches}; for that {reference.name} needs {needed} labels {interval}: none are saved."


def _labels_text(labels: float, limits: tuple[float, float]) -> str:
    """A number of labels for people: two digits above 100 (it is interpolated), open ends in words."""
    if math.isinf(labels):
        return f"more than {limits[1]:,.0f}"
    if labels == 0:
        return f"fewer than {limits[0]:,.0f}"
    if labels < 100 or any(math.isclose(labels, limit) for limit in limits):
        return f"{labels:,.0f}"
    digits = math.floor(math.log10(labels)) - 1
    return f"{round(labels / 10**digits) * 10**digits:,}"


def _factor_text(factor: float, limits: tuple[float, float]) -> str:
    """A factor for people: two digits, open ends in words and rounded to the careful side."""
    if math.isinf(factor):
        return (
            f"more than {math.floor(limits[1] * 10) / 10:.1f}"
            if limits[1] < 10
            else f"more than {math.floor(limits[1]):,}"
        )
    if factor == 0:
        return f"less than {math.ceil(limits[0] * 100) / 100:.2f}"
    return f"{factor:,.0f}" if factor >= 10 else f"{factor:.1f}" if factor >= 1 else f"{factor:.2f}"
