"""results.json: everything that the report shows, as numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewlabel.collection import Collection, Target
from fewlabel.evaluation.intervals import Bootstrap, paired_difference
from fewlabel.evaluation.labels_saved import Curve, labels_saved
from fewlabel.pipeline.evaluating import Evaluated, EvaluateSettings
from fewlabel.pipeline.figures import case_figure, views_figure
from fewlabel.pipeline.grading import grades_block
from fewlabel.pipeline.pretraining import Pretrained, longest_sides
from fewlabel.pipeline.probabilities import abstention, calibration_rows
from fewlabel.tasks.grading import referable_probability
from fewlabel.types import JSON, FewlabelError

SHORTCUT_MARGIN = 0.02
MISTAKES = 12
MAP_POINTS = 1500
MADE = "These images are made by a program. The figures show that the method runs, not what it is worth."


def build_results(
    collection: Collection,
    pretrained: Sequence[Pretrained],
    evaluated: Evaluated,
    settings: EvaluateSettings,
    out: Path,
) -> JSON:
    """The content of results.json; writes the pictures to out/figures."""
    task, curves = evaluated.task, evaluated.curves
    made = is_made(collection)
    saved = _labels_saved(evaluated)
    headline_budget = min(curves.budgets, key=lambda budget: (abs(budget - settings.headline_budget), budget))
    headline = next((one for one in saved if one["budget"] == headline_budget), None)
    views_figure(
        task.pixels, task.split.train, pretrained[0].settings.view_settings, out / "figures" / "views.png"
    )
    return {
        "format": 1,
        "title": f"{task.target.name} in {collection.name}",
        "made_images": made,
        "target": {
            "name": task.target.name,
            "kind": task.target.kind,
            "classes": list(task.target.classes),
            "referable": task.target.classes[task.target.referable] if evaluated.cuts else None,
            "where": settings.where,
        },
        "metric": curves.suite.main,
        "metric_labels": curves.suite.labels,
        "higher_is_better": curves.suite.higher_is_better,
        "arms": [{"key": arm.key, "label": arm.label, "role": arm.role} for arm in evaluated.arms],
        "final": evaluated.final,
        "budgets": curves.budgets,
        "seeds": curves.seeds,
        "metrics": _metric_rows(evaluated),
        "differences": _difference_rows(evaluated),
        "headline": headline,
        "labels_saved": saved,
        "roc": _roc(evaluated, headline_budget),
        "calibration": calibration_rows(evaluated, headline_budget),
        "abstention": abstention(evaluated),
        "scatter": _scatter(evaluated),
        "grades": grades_block(evaluated, headline_budget),
        "embedding": _embedding(evaluated),
        "views_figure": "figures/views.png",
        "mistakes": _mistakes(collection, evaluated, out),
        "health": _health(pretrained[0]),
        "data": data_facts(collection, pretrained, evaluated),
        "warnings": _warnings(collection, pretrained, evaluated),
    }


def is_made(collection: Collection) -> bool:
    """True if the images say of themselves that they are made (a column `made`)."""
    try:
        values = collection.column("made")
    except FewlabelError:
        return False
    return bool(np.any(np.isin(values.astype(str), ("1", "1.0", "True", "true"))))


def _metric_rows(evaluated: Evaluated) -> list[JSON]:
    rows = []
    for (arm, budget), measures in evaluated.curves.bootstraps.items():
        for name, measure in measures.items():
            low, high = measure.interval()
            rows.append(
                {
                    "arm": arm,
                    "budget": budget,
                    "name": name,
                    "value": measure.value,
                    "low": low,
                    "high": high,
                    "n": measure.n,
                    "patients": measure.patients,
                    "unit": "",
                    "per_seed": measure.seed_values,
                }
            )
    return rows


# What each step of a recipe is compared with: (after, before).
STEPS = (
    ("finetune", "simclr"),
    ("finetune-head", "simclr"),
    ("self-distilled", "finetune-head"),
    ("distilled", "self-distilled"),
    ("self-distilled", "supervised"),
    ("simclr-triplet", "simclr"),
    ("simclr-siamese", "simclr"),
    ("simclr-triplet-knn", "simclr-knn"),
    ("simclr-siamese-knn", "simclr-knn"),
    ("simclr-triplet", "triplet"),
    ("triplet", "supervised"),
    ("m2", "supervised"),
    ("gan", "supervised"),
    ("supervised-made-1", "supervised"),
    ("mean-teacher", "supervised"),
    ("fixmatch", "supervised"),
    ("three-stage-frozen", "simclr"),
    ("three-stage", "three-stage-frozen"),
    ("three-stage", "supervised"),
    ("simclr-ordinal-triplet", "simclr"),
    ("simclr-ordinal-triplet-knn", "simclr-knn"),
)


def _difference_rows(evaluated: Evaluated) -> list[JSON]:
    """SimCLR's linear probe against every other arm, and each further step against the one before; paired."""
    curves, keys = evaluated.curves, [arm.key for arm in evaluated.arms]
    steps = [pair for pair in STEPS if set(pair) <= set(keys)]
    further = {after for after, _ in steps}
    pairs = [("simclr", key) for key in keys if key != "simclr" and key not in further]
    rows = []
    for arm, reference in [*steps, *pairs]:
        for budget in curves.budgets:
            a, b = curves.main(arm, budget), curves.main(reference, budget)
            difference = paired_difference(a, b)
            rows.append(
                {
                    "arm": arm,
                    "reference": reference,
                    "budget": budget,
                    "name": curves.suite.main,
                    "value": difference.value,
                    "low": difference.low,
                    "high": difference.high,
                    "p": difference.p,
                    "n": a.n,
                    "patients": a.patients,
                }
            )
    return rows


def _labels_saved(evaluated: Evaluated) -> list[JSON]:
    """SimCLR against training from scratch, at every budget below all labels."""
    keys = [arm.key for arm in evaluated.arms]
    if "supervised" not in keys:
        return []
    curves = evaluated.curves
    arm = Curve.of(evaluated.title, {budget: curves.main("simclr", budget) for budget in curves.budgets})
    reference = Curve.of("training from scratch", {b: curves.main("supervised", b) for b in curves.budgets})
    name = curves.suite.labels[curves.suite.main]
    saved = labels_saved(
        arm,
        reference,
        metric=f"{'an' if name[0] in 'AEIOU' else 'a'} {name}",
        higher_is_better=curves.suite.higher_is_better,
    )
    return [{"arm": "simclr", "reference": "supervised", **one.as_json()} for one in saved]


def _roc(evaluated: Evaluated, budget: int) -> list[JSON]:
    """Mean ROC over seeds at two budgets with a band over resamples, on a common grid of false positive rates.

    Of a binary target, or of grades: referable or not.
    """
    task, curves = evaluated.task, evaluated.curves
    if task.target.kind not in ("binary", "ordinal"):
        return []
    from sklearn.metrics import roc_curve

    from_on = task.target.referable or 1
    y, grid = task.y[task.test] >= from_on, np.linspace(0, 1, 101)
    weights = evaluated.resamples.weights[:200].astype(float)
    rows = []
    for arm in ("simclr", "supervised", "random"):
        for at in sorted({budget, curves.budgets[-1]}):
            if (arm, at) not in curves.outputs:
                continue
            scores = referable_probability(curves.outputs[arm, at], from_on)  # (S, N)
            mean = np.mean([_on_grid(roc_curve(y, score), grid) for score in scores], axis=0)
            drawn = [
                _on_grid(roc_curve(y, scores[i % len(scores)], sample_weight=weight), grid)
                for i, weight in enumerate(weights)
                if len(np.unique(y[weight > 0])) == 2
            ]
            low, high = np.quantile(drawn, (0.025, 0.975), axis=0) if drawn else (mean, mean)
            rows.append(
                {"arm": arm, "budget": at, "fpr": grid, "tpr": mean, "tpr_low": low, "tpr_high": high}
            )
    return rows


def _on_grid(curve: tuple[np.ndarray, np.ndarray, np.ndarray], grid: np.ndarray) -> np.ndarray:
    fpr, tpr, _ = curve
    on_grid = np.interp(grid, fpr, tpr)
    on_grid[0] = 0.0
    return on_grid


def _scatter(evaluated: Evaluated) -> JSON | None:
    if evaluated.task.target.kind != "number":
        return None
    task, curves = evaluated.task, evaluated.curves
    return {
        "truth": task.y[task.test],
        "prediction": curves.outputs["simclr", curves.budgets[-1]].mean(axis=0),
    }


def _embedding(evaluated: Evaluated) -> JSON | None:
    """A map of at most 1,500 test images: t-SNE of their features after PCA to 50."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    task = evaluated.task
    rows = task.test
    if len(rows) > MAP_POINTS:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:MAP_POINTS])
    if len(rows) < 10:
        return None
    features = evaluated.features[rows]
    reduced = PCA(min(50, *features.shape), random_state=0).fit_transform(features)
    perplexity = min(30.0, (len(rows) - 1) / 4)
    whose = f"{evaluated.title} features, made without labels,"
    if evaluated.final != "simclr":
        labels_of = {arm.key: arm.label for arm in evaluated.arms}
        whose = f"the features of the final network ({labels_of[evaluated.final]}), made with labels,"
    places = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(reduced)
    target = task.target
    if target.kind == "number":
        labels: list[Any] = [float(value) for value in task.y[rows]]
    else:
        labels = [_class_label(evaluated, int(value)) for value in task.y[rows]]
    return {
        "method": f"t-SNE of {whose} of {len(rows)} test images, seed 0",
        "x": places[:, 0],
        "y": places[:, 1],
        "label": labels,
        "kind": "number" if target.kind == "number" else "category",
    }


def _class_label(evaluated: Evaluated, value: int) -> str:
    target = evaluated.task.target
    if target.kind == "binary":
        return target.name if value else f"not {target.name}"
    return target.classes[value]


def _mistakes(collection: Collection, evaluated: Evaluated, out: Path) -> list[JSON]:
    """The test images that the final classifier gets most confidently wrong; of grades the farthest off first."""
    task = evaluated.task
    predicted = evaluated.predicted(task.test)
    truth, names = task.y[task.test], collection.column("case:source")
    if task.target.kind == "number":
        order = list(np.argsort(-np.abs(predicted - truth))[:MISTAKES])
        said: list[tuple[str, str, float | None]] = [
            (f"{truth[i]:.4g}", f"{predicted[i]:.4g}", None) for i in order
        ]
    else:
        called = evaluated.cuts(predicted) if evaluated.cuts else predicted.argmax(axis=1)
        confidence = predicted[np.arange(len(called)), called]
        shown = predicted[:, 1] if task.target.kind == "binary" else confidence
        off = np.abs(called - truth) if evaluated.cuts else np.ones(len(called))
        order = [i for i in np.lexsort((-confidence, -off)) if called[i] != truth[i]][:MISTAKES]
        said = [
            (
                _class_label(evaluated, int(truth[i])),
                _class_label(evaluated, int(called[i])),
                float(shown[i]),
            )
            for i in order
        ]
    rows = []
    for rank, (i, (true, called_as, probability)) in enumerate(zip(order, said, strict=True)):
        figure = f"figures/mistake-{rank}.png"
        case_figure(task.pixels, int(task.test[i]), out / figure)
        rows.append(
            {
                "case": str(names[task.test[i]]),
                "truth": true,
                "prediction": called_as,
                "probability": probability,
                "figure": figure,
            }
        )
    return rows


def _health(pretrained: Pretrained) -> JSON | None:
    history = [row for row in pretrained.fit.history if "alignment" in row]
    if not history:
        return None
    keys = ("step", "loss", "alignment", "uniformity", "effective_rank")
    return {**{key: [row[key] for row in history] for key in keys}, "warnings": pretrained.fit.warnings}


def data_facts(collection: Collection, pretrained: Sequence[Pretrained], evaluated: Evaluated) -> JSON:
    """Who is in which part, and what is known of the images."""
    task, target = evaluated.task, evaluated.task.target
    patients = collection.patients()
    parts = {"train": task.train, "val": task.val, "test": task.test}
    counts = {
        part: {name: int((task.y[rows] == code).sum()) for code, name in enumerate(target.classes)}
        for part, rows in parts.items()
    }
    groups = {kind: collection.column(f"case:{kind}_group") for kind in ("exact", "near")}
    sides = longest_sides(collection)
    quarantine = [{"file": name, "reason": reason} for name, reason in collection.quarantine]
    return {
        "images": len(collection),
        "patients": int(patients.max() + 1) if len(patients) else 0,
        **{part: len(rows) for part, rows in parts.items()},
        **{f"{part}_patients": len(np.unique(patients[rows])) for part, rows in parts.items()},
        "label_counts": counts,
        "uncertain": target.uncertain,
        "not_mentioned": target.not_mentioned,
        "spacing_mm": _spacing(collection),
        "modalities": dict(Counter(str(m) or "not stated" for m in collection.column("case:modality"))),
        "image_sizes": f"{sides.min()} px"
        if sides.min() == sides.max()
        else f"{sides.min()} to {sides.max()} px",
        "quarantine": quarantine[:50],
        "quarantine_total": len(quarantine),
        **{f"{kind}_duplicate_groups": len(np.unique(g[g >= 0])) for kind, g in groups.items()},
        "dropped_for_leakage": sum(len(split.dropped) for split in pretrained[0].splits),
        "split": pretrained[0].splits[0].origin,
        "pretraining_images": pretrained[0].images,
        "validation_labels": len(task.val),
    }


def _spacing(collection: Collection) -> str:
    known = [
        tuple(spacing)
        for spacing in collection.column("case:spacing_mm")
        if spacing is not None and len(spacing)
    ]
    if not known:
        return "not stated"
    last = np.array([spacing[-1] for spacing in known])
    return f"{last.min():.3g} to {last.max():.3g} mm ({len(known)} of {len(collection)} images state it)"


def _warnings(collection: Collection, pretrained: Sequence[Pretrained], evaluated: Evaluated) -> list[str]:
    task = evaluated.task
    found = list(dict.fromkeys(text for one in pretrained for text in one.fit.warnings))
    found += [MADE] if is_made(collection) else []
    found += _shortcut_warnings(evaluated)
    if not any(collection.column("case:patient_id")):
        found.append(
            "No patient numbers were given: each image counts as its own patient. If patients have several images, "
            "the split may leak and the intervals are too narrow."
        )
    dropped = sum(len(split.dropped) for split in pretrained[0].splits)
    if dropped:
        found.append(f"{dropped} images were left out because they also lie in another part of the split.")
    found += _order_not_used(task.target)
    tested = len(np.unique(collection.patients()[task.test]))
    if tested < 50:
        found.append(f"The test part holds {tested} patients: the intervals are rough.")
    return found


def _order_not_used(target: Target) -> list[str]:
    """A hint where classes look like grades and were not named as such: nothing is taken for grades unasked."""
    if target.kind != "category" or not all(name.isdigit() for name in target.classes):
        return []
    return [
        f"The classes of {target.name} are whole numbers, and their order counted for nothing. If they are grades, say "
        f"so with --grades {','.join(target.classes)}."
    ]


def _shortcut_warnings(evaluated: Evaluated) -> list[str]:
    """Controls that see no anatomy, or learned nothing, must stay well below the trained model."""
    curves = evaluated.curves
    budget = curves.budgets[-1]
    trained, found = curves.main("simclr", budget), []
    words = {
        "random": "features of the same network with random weights",
        "statistics": "six plain image statistics (mean, deviation, borders)",
    }
    for key, what in words.items():
        control = curves.main(key, budget)
        difference = paired_difference(trained, control)
        if not _close(trained, control, curves.suite.higher_is_better):
            continue
        better_end = difference.high if curves.suite.higher_is_better else -difference.low
        verdict = ("do better than" if better_end < 0 else "come close to") + f" {evaluated.title}"
        found.append(
            f"With all {budget} labels, {what} {verdict} "
            f"({control.value:.3f} against {trained.value:.3f}; difference {difference.value:+.3f}, 95 % interval "
            f"{difference.low:+.3f} to {difference.high:+.3f}). That is the mark of a shortcut, or of pretraining that "
            "did not help: much of this target can be told from how the image was taken. Look at what the classes "
            "differ in before trusting any of these figures."
        )
    return found


def _close(trained: Bootstrap, control: Bootstrap, higher_is_better: bool) -> bool:
    difference = paired_difference(trained, control)
    if higher_is_better:  # an AUROC, or a kappa
        return difference.low <= SHORTCUT_MARGIN
    return -difference.value <= SHORTCUT_MARGIN * abs(control.value)
