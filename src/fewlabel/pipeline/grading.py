"""The block `grades` of results.json: which grades are taken for which, and how often a mistake is a large one."""

from __future__ import annotations

from functools import partial

import numpy as np

from fewlabel.evaluation.intervals import bootstrap
from fewlabel.evaluation.metrics import share_off_by
from fewlabel.pipeline.evaluating import Evaluated
from fewlabel.types import JSON

OFF_BY = (1, 2)


def grades_block(evaluated: Evaluated, budget: int) -> JSON | None:
    """Confusion matrices of all arms but the controls at `budget` and with all labels; None for other targets."""
    task, curves = evaluated.task, evaluated.curves
    if evaluated.cuts is None:
        return None
    shown = [arm.key for arm in evaluated.arms if arm.role != "control"]
    at = sorted({budget, curves.budgets[-1]})
    return {
        "classes": list(task.target.classes),
        "referable": task.target.classes[task.target.referable],
        "cuts": list(evaluated.cuts.at),
        "validation_labels": len(task.val),
        "confusion": [_confusion(evaluated, arm, labels) for labels in at for arm in shown],
    }


def _confusion(evaluated: Evaluated, arm: str, budget: int) -> JSON:
    """counts (K, K): truth by row, grade called by column, a mean over the seeds; shares: of each row."""
    from sklearn.metrics import confusion_matrix

    task, called = evaluated.task, evaluated.curves.called[arm, budget]
    y, codes = task.y[task.test], range(task.classes)
    counts = np.mean([confusion_matrix(y, one, labels=codes) for one in called], axis=0)
    rows = counts.sum(axis=1, keepdims=True)
    off = {}
    for steps in OFF_BY:
        found = bootstrap(partial(share_off_by, steps=steps), y, called, evaluated.resamples)
        low, high = found.interval()
        off[str(steps)] = {"value": found.value, "low": low, "high": high}
    return {
        "arm": arm,
        "budget": budget,
        "counts": counts,
        "shares": np.divide(counts, rows, out=np.full_like(counts, np.nan), where=rows > 0),
        "off_by": off,
    }
