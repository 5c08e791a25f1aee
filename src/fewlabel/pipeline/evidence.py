"""The blocks `evidence` and `few_shot` of results.json: the labelled cases nearest to test images, and what a few
examples a class are worth. Nothing of either for a number.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fewlabel.evaluation.few_shot import EPISODES, SHOTS, few_shot, left_out
from fewlabel.evaluation.intervals import bootstrap
from fewlabel.pipeline.arms import Task, encoder_features, pixel_features, random_features
from fewlabel.pipeline.evaluating import Evaluated
from fewlabel.pipeline.figures import case_figure, match_figure, unit_image
from fewlabel.pipeline.pretraining import Pretrained
from fewlabel.tasks.evidence import LabelledCases, Nearest, disagreeing, match_places
from fewlabel.training import mix_seed
from fewlabel.types import JSON, FewlabelError

NEAREST = 5
"""Cases that are shown, and vote."""

SHOWN = 3
"""Right and wrong test images each."""

FEWEST_PLACES = 9


def labelled_cases(task: Task, features: np.ndarray) -> LabelledCases:
    """The labelled training images with features (N, F) of the whole collection."""
    rows = task.train
    ids, patients = task.collection.column("case:case_id"), task.collection.column("case:patient_id")
    return LabelledCases(
        features[rows].astype(np.float32),
        task.y[rows].astype(np.int64),
        tuple(str(ids[row]) for row in rows),
        tuple(str(patients[row] or "") for row in rows),
    )


def evidence_results(evaluated: Evaluated, out: Path, *, seed: int = 0) -> JSON:
    """{"evidence": ...}, with pictures in out/figures; {} for a number.

    Test images are answered by the final classifier; evidence is the nearest labelled training images in the features
    that it uses. Shown are right and wrong ones, drawn by chance.
    """
    task = evaluated.task
    if task.target.kind == "number":
        return {}
    cases = labelled_cases(task, evaluated.features)
    patients = task.collection.column("case:patient_id")[task.test]
    nearest = cases.nearest(evaluated.features[task.test], [str(one or "") for one in patients], NEAREST)
    votes = nearest.votes(cases.y, task.classes)
    probabilities = evaluated.classifier.predict(evaluated.features[task.test])
    called, truth = evaluated.called(probabilities), task.y[task.test]
    differs = disagreeing(votes, called)
    rng = np.random.default_rng(mix_seed("evidence", seed))
    shown = [
        np.sort(rng.permutation(np.flatnonzero((called == truth) == right))[:SHOWN])
        for right in (False, True)
    ]
    shown_cases, notes = [], []
    for at in np.concatenate(shown):
        code = int(called[at])
        case, why_no_map = _case(evaluated, cases, nearest, int(at), code, out)
        notes += [why_no_map] if why_no_map else []
        case["query"] |= {
            "prediction": task.target.classes[code],
            "probability": float(probabilities[at, code]),
            "right": bool(code == truth[at]),
        }
        case |= {"agreement": float(votes[at, code]), "disagrees": bool(differs[at])}
        shown_cases.append(case)
    return {
        "evidence": {
            "k": nearest.places.shape[1],
            "labels": len(task.train),
            "arm": evaluated.final,
            "wrong_where": [
                _share_wrong(evaluated, called != truth, chosen, name)
                for name, chosen in (("agree", ~differs), ("disagree", differs))
            ],
            "cases": shown_cases,
            "note": notes[0] if notes else "",
        }
    }


def _share_wrong(evaluated: Evaluated, wrong: np.ndarray, chosen: np.ndarray, name: str) -> JSON:
    """How often the classifier is wrong among the chosen test images, with an interval over patients."""

    def share(y: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
        drawn = weights.astype(np.float64)
        count = drawn @ score
        return np.where(count > 0, drawn @ (y * score) / np.maximum(count, 1), np.nan)

    found = bootstrap(share, wrong.astype(float), chosen[None].astype(float), evaluated.resamples)
    low, high = found.interval()
    return {"name": name, "value": found.value, "low": low, "high": high, "n": int(chosen.sum())}


def _case(
    evaluated: Evaluated, cases: LabelledCases, nearest: Nearest, at: int, called: int, out: Path
) -> tuple[JSON, str]:
    """A test image that is called a class, with its nearest cases; and a sentence where no map can be drawn."""
    task = evaluated.task
    row = int(task.test[at])
    names = task.collection.column("case:source")
    places = [int(place) for place in nearest.places[at] if place >= 0]
    hits = [
        {
            "figure": _figure(task, int(task.train[place]), out),
            "truth": task.target.classes[int(cases.y[place])],
            "agrees": bool(cases.y[place] == called),
            "similarity": float(nearest.cosines[at, rank]),
            "case": cases.cases[place],
        }
        for rank, place in enumerate(places)
    ]
    query = {
        "figure": _figure(task, row, out),
        "truth": task.target.classes[int(task.y[row])],
        "case": str(names[row]),
    }
    case: JSON = {"query": query, "hits": hits, "match": None}
    if not hits:
        return case, ""
    case["match"], note = _match(evaluated, row, int(task.train[places[0]]), out)
    return case, note


def _figure(task: Task, row: int, out: Path) -> str:
    figure = f"figures/case-{row}.png"
    if not (out / figure).exists():
        case_figure(task.pixels, row, out / figure)
    return figure


def _match(evaluated: Evaluated, row: int, hit: int, out: Path) -> tuple[JSON | None, str]:
    """Where a test image matches its nearest case; None and a sentence where the encoder's places are too few."""
    task, pixels = evaluated.task, evaluated.task.pixels
    centre = evaluated.features[task.split.train].mean(axis=0)
    try:
        [match] = match_places(
            evaluated.encoder, pixels[row], pixels[[hit]], size_px=task.size_px, centre=centre
        )
    except FewlabelError as error:  # its places cannot be told: no map, and the report says why
        return None, str(error)
    if match.of_query.size < FEWEST_PLACES:
        places = " x ".join(map(str, match.of_query.shape))
        return None, (
            f"At {task.size_px} px the encoder has {places} places, too few to show where two images match: train on "
            "larger views."
        )
    figure = f"figures/match-{row}-{hit}.png"
    low, high = match_figure(unit_image(pixels, row), unit_image(pixels, hit), match, out / figure)
    return {"figure": figure, "low": low, "high": high}, ""


def few_shot_results(evaluated: Evaluated, pretrained: Pretrained) -> JSON:
    """{"few_shot": ...}: balanced accuracy on test by prototypes of 1, 5, 10 training images a class; {} for a number.

    The pretrained encoder, the same network with random weights, and 16 x 16 pixels, on the same examples.
    """
    task = evaluated.task
    if task.target.kind == "number":
        return {}
    patients, y = task.collection.patients(), task.y.astype(np.int64)
    names = task.target.classes
    out = {shots: left_out(names, y[task.train], patients[task.train], shots) for shots in SHOTS}
    arms = (
        ("simclr", evaluated.title, encoder_features(task, [pretrained.encoder])(0)),
        ("random", "random init", random_features(task)(0)),
        ("pixels", "16 x 16 pixels", pixel_features(task)),
    )
    rows = []
    for arm, label, features in arms:
        for shots in (shots for shots, why in out.items() if not why):
            found = few_shot(
                features.astype(np.float64), y, patients, task.train, task.test, evaluated.resamples,
                classes=task.classes, shots=shots,
            )  # fmt: skip
            low, high = found.accuracy.interval()
            draw_low, draw_high = found.single_draws()
            rows.append(
                {
                    "arm": arm, "label": label, "shots": shots, "value": found.accuracy.value, "low": low,
                    "high": high, "draw_low": draw_low, "draw_high": draw_high, "n": found.accuracy.n,
                    "patients": found.accuracy.patients,
                }
            )  # fmt: skip
    return {
        "few_shot": {
            "shots": [shots for shots, why in out.items() if not why],
            "episodes": EPISODES,
            "rows": rows,
            "chance": 1 / task.classes,
            "note": " ".join(filter(None, out.values())),
        }
    }
