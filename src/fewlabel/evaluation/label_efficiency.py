"""Label efficiency: every arm at every label budget over several seeds, all on the same test patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from fewlabel.evaluation import metrics
from fewlabel.evaluation.intervals import Bootstrap, Resamples, bootstrap
from fewlabel.tasks.grading import referable_probability
from fewlabel.types import TargetKind

Measure = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class MetricSuite:
    """The measures of one kind of target.

    main: the one of curves and headline. measures: name -> function(y, output, weights) -> (R,), where output is
    (N, K) probabilities, or (N,) numbers. labels: name -> words for people.
    of_called: the measures whose output is (N,) classes called, by cut points that validation chose.
    """

    main: str
    higher_is_better: bool
    measures: dict[str, Measure]
    labels: dict[str, str]
    of_called: frozenset[str] = frozenset()


def metric_suite(kind: TargetKind, threshold: float = 0.5, *, referable: int = 1) -> MetricSuite:
    """Measures for a binary, category, number or ordinal target.

    threshold: probability from which a binary case is called positive in the balanced accuracy; probabilities are
    calibrated on validation patients, and 0.5 is never moved on test data. referable: see `Target`.
    """
    if kind == "ordinal":
        return _grading_suite(referable)
    if kind == "binary":
        return MetricSuite(
            "auroc",
            True,
            {
                "auroc": lambda y, p, w: metrics.auroc(y, p[:, 1], w),
                "average_precision": lambda y, p, w: metrics.average_precision(y, p[:, 1], w),
                "balanced_accuracy": lambda y, p, w: metrics.balanced_accuracy(y, p[:, 1] >= threshold, w),
                "sensitivity_at_90_specificity": lambda y, p, w: metrics.sensitivity_at_specificity(
                    y, p[:, 1], w
                ),
                "brier": lambda y, p, w: metrics.brier(y, p[:, 1], w),
                "calibration_error": lambda y, p, w: metrics.expected_calibration_error(y, p[:, 1], w),
            },
            {
                "auroc": "AUROC",
                "average_precision": "average precision",
                "balanced_accuracy": "balanced accuracy",
                "sensitivity_at_90_specificity": "sensitivity at 90 % specificity",
                "brier": "Brier score",
                "calibration_error": "calibration error",
            },
        )
    if kind == "category":
        return MetricSuite(
            "auroc",
            True,
            {
                "auroc": metrics.macro_auroc,
                "average_precision": metrics.macro_average_precision,
                "balanced_accuracy": lambda y, p, w: metrics.balanced_accuracy(y, p.argmax(axis=1), w),
                "brier": metrics.multiclass_brier,
                "calibration_error": metrics.top_label_calibration_error,
            },
            {
                "auroc": "AUROC (macro, one against rest)",
                "average_precision": "average precision (macro)",
                "balanced_accuracy": "balanced accuracy",
                "brier": "Brier score (multi-class)",
                "calibration_error": "calibration error (top label)",
            },
        )
    return MetricSuite(
        "mae",
        False,
        {"mae": metrics.mean_absolute_error, "r2": metrics.r_squared},
        {"mae": "mean absolute error", "r2": "R²"},
    )


def _grading_suite(referable: int) -> MetricSuite:
    """Measures of grades called, and of the probability of `referable` or more."""

    def split(measure: Measure) -> Measure:
        return lambda y, p, w: measure(y >= referable, referable_probability(p, referable), w)

    return MetricSuite(
        "kappa",
        True,
        {
            "kappa": metrics.quadratic_weighted_kappa,
            "mae": metrics.mean_absolute_error,
            "two_grades_off": metrics.share_off_by,
            "balanced_accuracy": metrics.balanced_accuracy,
            "auroc_referable": split(metrics.auroc),
            "sensitivity_at_90_specificity": split(metrics.sensitivity_at_specificity),
            "brier": metrics.multiclass_brier,
            "calibration_error": metrics.top_label_calibration_error,
        },
        {
            "kappa": "quadratic weighted kappa",
            "mae": "mean absolute error in grades",
            "two_grades_off": "share off by two grades or more",
            "balanced_accuracy": "balanced accuracy",
            "auroc_referable": "AUROC, referable",
            "sensitivity_at_90_specificity": "sensitivity at 90 % spec., referable",
            "brier": "Brier score (multi-class)",
            "calibration_error": "calibration error (top label)",
        },
        frozenset({"kappa", "mae", "two_grades_off", "balanced_accuracy"}),
    )


class TrainedOutputs(Protocol):
    """What an arm gives: outputs on the labelled test images, calibrated and (for classes) before calibration; and the
    classes called, where cut points from validation say which."""

    @property
    def test(self) -> np.ndarray: ...

    @property
    def uncalibrated(self) -> np.ndarray | None: ...

    @property
    def called(self) -> np.ndarray | None: ...


class ComparedArm(Protocol):
    """An arm of the comparison."""

    @property
    def key(self) -> str: ...

    @property
    def outputs(self) -> Callable[[np.ndarray, int], TrainedOutputs]: ...


@dataclass
class LabelEfficiency:
    """Test outputs and bootstrapped measures by (arm key, budget).

    outputs: (S, N[, K]) over the seeds. uncalibrated: the same before calibration; empty for a number.
    called: (S, N) classes called by cut points from validation; empty where there are none.
    bootstraps: name of the measure -> `Bootstrap`.
    """

    suite: MetricSuite
    budgets: list[int]
    seeds: list[int]
    outputs: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    uncalibrated: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    called: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    bootstraps: dict[tuple[str, int], dict[str, Bootstrap]] = field(default_factory=dict)

    def main(self, arm: str, budget: int) -> Bootstrap:
        """The main measure of one arm at one budget."""
        return self.bootstraps[arm, budget][self.suite.main]

    def measured(self, name: str, arm: str, budget: int) -> np.ndarray:
        """What the measure `name` looks at: classes called (S, N), or the outputs."""
        return (self.called if name in self.suite.of_called else self.outputs)[arm, budget]


def run_arms(
    arms: Sequence[ComparedArm],
    rows_for: Callable[[int], dict[int, np.ndarray]],
    *,
    suite: MetricSuite,
    budgets: Sequence[int],
    seeds: Sequence[int],
    progress: Callable[[int, int, str], None] | None = None,
) -> LabelEfficiency:
    """Train every arm at every budget and seed and keep its outputs; nothing is measured yet.

    rows_for(seed): budget -> labelled training rows, nested.
    """
    result = LabelEfficiency(suite, list(budgets), list(seeds))
    total, done = len(arms) * len(budgets) * len(seeds), 0
    for arm in arms:
        for budget in budgets:
            by_seed: list[TrainedOutputs] = []
            for seed in seeds:
                if progress:
                    progress(done, total, f"{arm.key}, {budget} labels, seed {seed}")
                by_seed.append(arm.outputs(rows_for(seed)[budget], seed))
                done += 1
            result.outputs[arm.key, budget] = np.stack([outputs.test for outputs in by_seed])
            before = [outputs.uncalibrated for outputs in by_seed if outputs.uncalibrated is not None]
            if before:
                result.uncalibrated[arm.key, budget] = np.stack(before)
            called = [outputs.called for outputs in by_seed if outputs.called is not None]
            if called:
                result.called[arm.key, budget] = np.stack(called)
    if progress:
        progress(total, total, "done")
    return result


def measure(curves: LabelEfficiency, y: np.ndarray, resamples: Resamples) -> None:
    """Bootstrap all measures of all arms on the same resamples; y: (N,) truth of the test images."""
    for arm, budget in curves.outputs:
        curves.bootstraps[arm, budget] = {
            name: bootstrap(one, y, curves.measured(name, arm, budget), resamples)
            for name, one in curves.suite.measures.items()
        }
