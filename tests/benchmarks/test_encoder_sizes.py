"""Bigger against smaller networks: the differences are those of the same draws, and the words follow the intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from encoder_sizes import BIG, COMPARISONS, SMALL, compare
from encoder_sizes_page import encoder_sizes

from fewlabel.evaluation.intervals import Bootstrap, bootstrap, draw_resamples
from fewlabel.evaluation.metrics import auroc

BUDGETS = (5, 50)
ARMS = {pair for one in COMPARISONS for pair in (one.minuend, one.subtrahend)}


def answers(skill: dict[tuple[str, str], tuple[float, float]]) -> dict[tuple[str, str], list[Bootstrap]]:
    """Two seeds of made scores: the truth times the skill of an arm at a budget, and noise."""
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    resamples = draw_resamples(np.arange(80), resamples=200, seed=0)
    found = {}
    for pair in sorted(ARMS):
        scores = [skill.get(pair, (0.5, 0.5))[place] * y + rng.normal(size=(2, 80)) for place in range(2)]
        found[pair] = [bootstrap(auroc, y, one, resamples) for one in scores]
    return found


def test_differences_are_of_the_same_draws() -> None:
    measured = answers({(BIG, "finetune-head"): (3.0, 0.5)})
    rows = {(row["key"], row["budget"]): row for row in compare(measured, BUDGETS)}
    assert len(rows) == len(COMPARISONS) * (len(BUDGETS) + 1)
    big, small = measured[BIG, "finetune-head"], measured[SMALL, "finetune-head"]
    assert rows["tuned", 5]["value"] == pytest.approx(big[0].value - small[0].value, abs=1e-4)
    low, high = np.quantile(big[0].draws - small[0].draws, [0.025, 0.975])
    assert (rows["tuned", 5]["low"], rows["tuned", 5]["high"]) == pytest.approx((low, high), abs=1e-4)
    more = (big[0].draws - small[0].draws) - (big[1].draws - small[1].draws)
    assert rows["tuned", None]["value"] == pytest.approx(
        rows["tuned", 5]["value"] - rows["tuned", 50]["value"], abs=1e-4
    )
    assert rows["tuned", None]["low"] == pytest.approx(np.quantile(more, 0.025), abs=1e-4)
    assert rows["tuned", None]["low"] > 0


def page(rows: list[dict[str, Any]]) -> str:
    one = {
        "data": "made",
        "groups": "patients",
        "metric": "AUROC",
        "seeds": 2,
        "budgets": [5, 50],
        "rows": rows,
    }
    networks = {"small": "resnet18", "big": "resnet50", "student": "resnet18"}
    return encoder_sizes({"networks": networks, "data": [one]})


def test_words_follow_the_intervals() -> None:
    better = answers({(BIG, "finetune-head"): (3.0, 3.0), (BIG, "distilled"): (3.0, 0.5)})
    text = page(compare(better, BUDGETS))
    assert "with 5 labels, resnet50 is better than resnet18, and whether that is more or less" in text
    assert (
        "The resnet18 that resnet50 teaches is not told from it with 5, worse than it with 50 labels." in text
    )
    more = answers({(BIG, "finetune-head"): (3.0, 0.5), (BIG, "distilled"): (3.0, 0.5)})
    text = page(compare(more, BUDGETS))
    assert "with 5 labels, resnet50 is better than resnet18, more than with all labels" in text
    assert "is not told from it with 5 / 50 labels." in text
    worse = answers({(SMALL, "finetune-head"): (3.0, 3.0)})
    text = page(compare(worse, BUDGETS))
    assert "resnet50 is worse than resnet18, and whether that is more or less" in text
    assert "| 50 (100 %) |" in text
    assert encoder_sizes(None) == "Not measured."
