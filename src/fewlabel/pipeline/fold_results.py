"""cross_validation.json: the folds of a cross-validation put together, in the form of results.json where it fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewlabel.collection import Collection, Target
from fewlabel.evaluation.folds import OverFolds, over_folds
from fewlabel.evaluation.intervals import Bootstrap, draw_resamples, paired_difference
from fewlabel.evaluation.label_efficiency import MetricSuite, metric_suite
from fewlabel.pipeline.evaluating import EvaluateSettings
from fewlabel.pipeline.results import MADE, is_made
from fewlabel.types import JSON


@dataclass(frozen=True)
class Fold:
    """What one fold gave.

    told: numbers and words, as in fold.json. tested: (n,) the labelled test rows. outputs, called: by (arm, budget), as
    of `LabelEfficiency`.
    """

    told: JSON
    tested: np.ndarray
    outputs: dict[tuple[str, int], np.ndarray]
    called: dict[tuple[str, int], np.ndarray]

    def measured(self, suite: MetricSuite, name: str, arm: str, place: int) -> np.ndarray:
        """What a measure looks at, of the budget at `place` in the list."""
        key = arm, self.told["budgets"][place]
        return (self.called if name in suite.of_called else self.outputs)[key]


Measured = dict[tuple[str, int, str], OverFolds]
"""By arm, budget and name of the measure."""


def build_fold_results(
    collection: Collection, settings: EvaluateSettings, title: str, folds: Sequence[Fold]
) -> JSON:
    """The content of cross_validation.json but for settings, versions and time.

    The last budget is all labels of a fold; it stands under their median number.
    """
    target = settings.target_in(collection)
    suite = metric_suite(target.kind, referable=target.referable)
    everything = int(np.median([fold.told["train"] for fold in folds]))
    asked = settings.budgets or ()
    places = {**{budget: place for place, budget in enumerate(asked)}, everything: len(asked)}
    budgets, arms = sorted(places), folds[0].told["arms"]
    measured = _measure(collection, target, suite, settings, folds, places)
    headline_budget = min(budgets, key=lambda budget: (abs(budget - settings.headline_budget), budget))
    return {
        "format": 1,
        "title": f"{target.name} in {collection.name}, {len(folds)}-fold cross-validation",
        "made_images": is_made(collection),
        "target": {"name": target.name, "kind": target.kind, "where": settings.where},
        "metric": suite.main,
        "metric_labels": suite.labels,
        "higher_is_better": suite.higher_is_better,
        "arms": arms,
        "budgets": budgets,
        "seeds": list(range(settings.seeds)),
        "metrics": [_row(key, found.mean, found) for key, found in measured.items()],
        "pooled": [_row(key, found.pooled) for key, found in measured.items()],
        "differences": _differences(measured, [arm["key"] for arm in arms], budgets, suite.main),
        "headline": _headline(measured, arms, headline_budget, suite, title, len(folds)),
        "folds": [fold.told for fold in folds],
        "unlabelled": _unlabelled(folds),
        "data": {"train": everything, "images": len(collection), "patients": _patients(collection, folds)},
        "warnings": _warnings(collection, folds, measured),
    }


def _measure(
    collection: Collection,
    target: Target,
    suite: MetricSuite,
    settings: EvaluateSettings,
    folds: Sequence[Fold],
    places: dict[int, int],
) -> Measured:
    patients = collection.patients()
    resamples = [
        draw_resamples(
            patients[fold.tested], resamples=settings.resamples, seed=fold.told["number"], warn=False
        )
        for fold in folds
    ]
    truth = [target.values[fold.tested] for fold in folds]
    return {
        (arm["key"], budget, name): over_folds(
            function, truth, [fold.measured(suite, name, arm["key"], place) for fold in folds], resamples
        )
        for arm in folds[0].told["arms"]
        for budget, place in places.items()
        for name, function in suite.measures.items()
    }


def _row(key: tuple[str, int, str], found: Bootstrap, by_fold: OverFolds | None = None) -> JSON:
    arm, budget, name = key
    low, high = found.interval()
    row: JSON = {"arm": arm, "budget": budget, "name": name, "value": found.value, "low": low, "high": high}
    row |= {"n": found.n, "patients": found.patients, "unit": ""}
    if by_fold:
        row["per_seed"] = [one.value for one in by_fold.folds]
        row["spread"] = by_fold.spread
    return row


def _differences(measured: Measured, arms: Sequence[str], budgets: Sequence[int], main: str) -> list[JSON]:
    """The pretrained encoder's probe against every other arm, both means of the same folds; paired."""
    rows = []
    for reference in arms:
        for budget in budgets if reference != "simclr" else ():
            a, b = measured["simclr", budget, main].mean, measured[reference, budget, main].mean
            found = paired_difference(a, b)
            rows.append(
                {
                    "arm": "simclr",
                    "reference": reference,
                    "budget": budget,
                    "name": main,
                    "value": found.value,
                }
                | {"low": found.low, "high": found.high, "p": found.p, "n": a.n, "patients": a.patients}
            )
    return rows


def _headline(
    measured: Measured, arms: Sequence[JSON], budget: int, suite: MetricSuite, title: str, folds: int
) -> JSON:
    compared = next((arm for arm in arms if arm["key"] == "supervised"), None)
    first = _told(measured["simclr", budget, suite.main].mean)
    sentence = f"With {budget:,} labels {title} reaches {suite.labels[suite.main]} {first}, the mean of {folds} folds"
    if compared:
        sentence += (
            f"; training from scratch reaches {_told(measured['supervised', budget, suite.main].mean)}"
        )
    return {
        "sentence": f"{sentence}.",
        "arm": "simclr",
        "reference": compared and "supervised",
        "budget": budget,
    }


def _told(found: Bootstrap) -> str:
    low, high = found.interval()
    return f"{found.value:.3f} ({low:.3f} to {high:.3f})"


def _unlabelled(folds: Sequence[Fold]) -> list[JSON]:
    """Each measure that needs no label: its value in each fold, and their mean; none where no fold has them."""
    rows: list[JSON] = []
    for one in folds[0].told["unlabelled"]:
        found = [row for fold in folds for row in fold.told["unlabelled"] if row["name"] == one["name"]]
        values = [row["value"] for row in found]
        rows.append(
            {"name": one["name"], "unit": one["unit"], "value": float(np.mean(values))}
            | {"spread": float(np.std(values, ddof=1)), "folds": found}
        )
    return rows


def _patients(collection: Collection, folds: Sequence[Fold]) -> int:
    return len(np.unique(np.concatenate([collection.patients()[fold.tested] for fold in folds])))


def _warnings(collection: Collection, folds: Sequence[Fold], measured: Measured) -> list[str]:
    found = list(dict.fromkeys(text for fold in folds for text in fold.told["warnings"]))
    found += [MADE] if is_made(collection) else []
    if not any(collection.column("case:patient_id")):
        found.append(
            "No patient numbers were given: each image counts as its own patient. If patients have several images, "
            "one of them may be tested by a model that was trained on another."
        )
    fewest = min(fold.told["test_patients"] for fold in folds)
    if fewest < 50:
        found.append(f"The smallest fold tests {fewest} patients: its own figures are rough.")
    gaps = max(found.mean.undefined / len(found.mean.draws) for found in measured.values())
    if gaps > 0.1:
        found.append(
            f"In {100 * gaps:.0f} % of the resamples some fold lacks a class, so that some interval may be too narrow: "
            "use fewer folds, or label more patients of the rarer class."
        )
    return found
