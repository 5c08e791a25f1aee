"""Made-up results of a run on grades."""

from __future__ import annotations

from typing import Any

import numpy as np
from example import binary, slim

JSON = dict[str, Any]
GRADES = ["0", "1", "2", "3", "4"]
COUNTS = [[30, 2, 2, 0, 0], [2, 1.5, 1.5, 0, 0], [5, 3, 18, 5, 1], [0, 0, 6, 11, 2], [0, 0, 2, 4, 7]]


def graded() -> JSON:
    """Grades 0 to 4 of fundus photographs, referable from 2 on."""
    results = slim(binary()) | {"arms": binary()["arms"]}
    measures = {"auroc": "kappa", "brier": "auroc_referable"}
    metrics = [row | {"name": measures.get(row["name"], row["name"])} for row in results["metrics"]]
    differences = [row | {"name": "kappa"} for row in results["differences"]]
    return results | {
        "title": "Retinopathy grade in eyes/",
        "target": {
            "name": "Retinopathy grade",
            "kind": "ordinal",
            "classes": GRADES,
            "referable": "2",
            "where": None,
        },
        "metric": "kappa",
        "metric_labels": {"kappa": "quadratic weighted kappa", "auroc_referable": "AUROC, referable"},
        "metrics": metrics,
        "differences": differences,
        "grades": {
            "classes": GRADES,
            "referable": "2",
            "cuts": [0.61, 1.12, 2.4, 3.3],
            "validation_labels": 81,
            "confusion": [
                _confusion(arm, budget)
                for budget in (50, 4708)
                for arm in ("simclr", "simclr-knn", "supervised", "pixels")
            ],
        },
        "mistakes": [row | {"truth": "4", "prediction": "2"} for row in results["mistakes"][:3]],
    }


def _confusion(arm: str, budget: int) -> JSON:
    counts = np.array(COUNTS)
    shares = (counts / counts.sum(axis=1, keepdims=True)).tolist()
    return {
        "arm": arm,
        "budget": budget,
        "counts": COUNTS,
        "shares": shares,
        "off_by": {
            "1": {"value": 0.345, "low": 0.25, "high": 0.43},
            "2": {"value": 0.097, "low": 0.05, "high": 0.15},
        },
    }
