"""Blocks of results.json about probabilities: calibration before and after, and abstaining; nothing for numbers."""

from __future__ import annotations

from functools import partial

import numpy as np

from fewlabel.evaluation.intervals import Bootstrap, bootstrap, percentile_interval
from fewlabel.evaluation.metrics import MetricFunction, log_loss
from fewlabel.evaluation.selective import (
    DELTA,
    Cases,
    area_under_risk_coverage,
    choose_threshold,
    coverage_above,
    one_image_a_patient,
    risk_above,
    risk_at_coverages,
)
from fewlabel.pipeline.evaluating import Evaluated
from fewlabel.types import JSON

ASKED_RISKS = (0.01, 0.05, 0.10)
COVERAGES = np.linspace(0.05, 1, 96)


def calibration_rows(evaluated: Evaluated, budget: int) -> list[JSON]:
    """Reliability on test, before and after calibration, of two or three arms at `budget` and with all labels."""
    task, curves = evaluated.task, evaluated.curves
    y, rows = task.y[task.test], []
    for arm in dict.fromkeys(("simclr", evaluated.final, "supervised")):
        for at in sorted({budget, curves.budgets[-1]}):
            if (arm, at) not in curves.uncalibrated:
                continue
            after, before = curves.outputs[arm, at], curves.uncalibrated[arm, at]
            rows.append(
                {
                    "arm": arm,
                    "budget": at,
                    **_bins(after, y),
                    "before": _bins(before, y),
                    "scores": _scores(evaluated, arm, at),
                }
            )
    return rows


def _bins(probabilities: np.ndarray, y: np.ndarray) -> JSON:
    """Ten bins over all seeds: of the finding's probability, or with several classes of that of the class called.

    probabilities: (S, N, K), y: (N,). count: images a bin holds, a mean over the seeds.
    """
    seeds, _, classes = probabilities.shape
    each, truth = probabilities.reshape(-1, classes), np.tile(y, seeds)
    if classes == 2:
        p, happened = each[:, 1], truth == 1
    else:
        p, happened = each.max(axis=1), each.argmax(axis=1) == truth
    place = np.clip((p * 10).astype(int), 0, 9)
    filled = [b for b in range(10) if np.any(place == b)]
    return {
        "predicted": [p[place == b].mean() for b in filled],
        "observed": [happened[place == b].mean() for b in filled],
        "count": [round(float((place == b).sum()) / seeds) for b in filled],
    }


def _scores(evaluated: Evaluated, arm: str, budget: int) -> list[JSON]:
    """Calibration error, Brier score and log loss, before and after, on the same resamples."""
    curves, y = evaluated.curves, evaluated.task.y[evaluated.task.test]
    known = curves.suite.measures
    measures: dict[str, MetricFunction] = {
        "calibration_error": known["calibration_error"],
        "brier": known["brier"],
        "log_loss": log_loss,
    }
    sides = {"before": curves.uncalibrated[arm, budget], "after": curves.outputs[arm, budget]}
    return [
        {
            "name": name,
            **{
                side: _with_interval(bootstrap(measure, y, p, evaluated.resamples))
                for side, p in sides.items()
            },
        }
        for name, measure in measures.items()
    ]


def _with_interval(measured: Bootstrap) -> JSON:
    low, high = measured.interval()
    return {"value": measured.value, "low": low, "high": high}


def validation_cases(evaluated: Evaluated) -> Cases | None:
    """What a threshold is chosen on: the final classifier's answers on one image of each validation patient.

    None for a number.
    """
    task = evaluated.task
    if task.target.kind == "number":
        return None
    drawn = one_image_a_patient(task.collection.patients()[task.val], np.random.default_rng(0))
    return _cases(evaluated, task.val[drawn])


def _cases(evaluated: Evaluated, rows: np.ndarray) -> Cases:
    """Whether the classifier is right on some rows, and how sure it is of the class that it calls."""
    probabilities, y = evaluated.predicted(rows), evaluated.task.y[rows]
    if evaluated.cuts is None:
        return Cases.of(probabilities, y, chosen_among=evaluated.chosen_among)
    called = evaluated.cuts(probabilities)
    return Cases(probabilities[np.arange(len(rows)), called], called != y, evaluated.chosen_among)


def abstention(evaluated: Evaluated) -> JSON | None:
    """Risk against coverage of the final classifier on test, and what thresholds from validation achieve there."""
    chosen_on, task = validation_cases(evaluated), evaluated.task
    if chosen_on is None:
        return None
    resamples = evaluated.resamples
    tested = _cases(evaluated, task.test)
    everybody = np.ones((1, len(tested.wrong)))
    at = partial(risk_at_coverages, tested.wrong, tested.confidence, coverages=COVERAGES)
    low, high = np.transpose([percentile_interval(draws) for draws in at(resamples.weights).T])
    return {
        "arm": evaluated.final,
        "budget": len(task.train),
        "n": len(tested.wrong),
        "patients": resamples.patients,
        "error": _measured(evaluated, tested, partial(risk_above, threshold=0.0)),
        "aurc": _measured(evaluated, tested, area_under_risk_coverage),
        "curve": {"coverage": COVERAGES, "risk": at(everybody)[0], "low": low, "high": high},
        "delta": DELTA,
        "validation_patients": len(chosen_on.wrong),
        "chosen_among": evaluated.chosen_among,
        "asked": [_asked(evaluated, tested, chosen_on, risk) for risk in ASKED_RISKS],
    }


def _measured(evaluated: Evaluated, tested: Cases, function: MetricFunction) -> JSON:
    return _with_interval(bootstrap(function, tested.wrong, tested.confidence[None], evaluated.resamples))


def _asked(evaluated: Evaluated, tested: Cases, chosen_on: Cases, risk: float) -> JSON:
    """One risk that might be asked for: the threshold from validation, and risk and coverage on test."""
    threshold = choose_threshold(chosen_on, risk)
    if threshold is None:
        return {"risk": risk, "threshold": None}
    return {
        "risk": risk,
        "threshold": threshold.value,
        "bound": threshold.bound,
        "answered": int((tested.confidence > threshold.value).sum()),
        "coverage": _measured(evaluated, tested, partial(coverage_above, threshold=threshold.value)),
        "achieved": _measured(evaluated, tested, partial(risk_above, threshold=threshold.value)),
    }
