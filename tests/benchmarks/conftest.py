"""The scripts of benchmarks/ can be imported in these tests; and a made result to make tables of."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "benchmarks"))


def _metric(arm: str, budget: int, value: float) -> dict[str, Any]:
    return {
        "arm": arm, "budget": budget, "name": "auroc", "value": value, "low": value - 0.02, "high": value + 0.01,
        "n": 624, "patients": 600, "unit": "", "per_seed": [value, value],
    }  # fmt: skip


@pytest.fixture
def made_result() -> dict[str, Any]:
    """What `main_job` keeps of a run, with figures that are easy to find again."""
    arms = {"simclr": 0.931, "supervised": 0.812, "random": 0.753, "pixels": 0.777, "statistics": 0.711}
    return {
        "job": "pneumoniamnist",
        "about": "pneumonia in children's chest X-rays",
        "groups": "patients",
        "target": {"name": "pneumonia", "kind": "binary", "classes": [], "referable": None},
        "metric": "auroc",
        "metric_labels": {"auroc": "AUROC"},
        "higher_is_better": True,
        "arms": [{"key": key, "label": f"arm {key}", "role": "method"} for key in arms],
        "budgets": [47, 4708],
        "seeds": [0, 1],
        "metrics": [
            _metric(arm, budget, value + (0.04 if budget > 47 else 0))
            for arm, value in arms.items()
            for budget in (47, 4708)
        ],
        "differences": [
            {
                "arm": "simclr", "reference": "supervised", "budget": budget, "name": "auroc", "value": 0.119,
                "low": 0.08, "high": 0.15, "p": 0.0005, "n": 624, "patients": 600,
            }
            for budget in (47, 4708)
        ],
        "headline": {"budget": 47, "sentence": "With 47 labels SimCLR reaches what needs 777 otherwise."},
        "labels_saved": [],
        "data": {
            "images": 5856, "patients": 5800, "train": 4708, "val": 524, "test": 624, "test_patients": 600,
            "pretraining_images": 4708, "split": "official",
        },
        "warnings": ["A warning of the run."],
        "settings": {"evaluation": {"headline_budget": 50}, "pretraining": {"steps": 1234}},
    }  # fmt: skip
