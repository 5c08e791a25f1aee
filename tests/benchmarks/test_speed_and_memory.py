"""The benchmarks of contrast, micro-batches and features run, compare equals, and their page can be made."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import contrast
import feature_throughput
import micro_batch
import objective_cost
import performance_page
import pytest
import torch

FACTS = {"usable_cores": 2, "memory_gib": 24, "torch": "2", "python": "3", "disturbed": True}


def test_the_losses_compared_are_the_same_loss() -> None:
    pytest.importorskip("pytorch_metric_learning", reason="the extra `peers` is not installed")
    z1, z2 = torch.randn(2, 40, 16, generator=torch.Generator().manual_seed(0))
    ours, plain, theirs = (float(contrast.LOSSES[name](z1, z2)) for name in list(contrast.LOSSES)[:3])
    assert ours == pytest.approx(plain, abs=1e-5)
    assert ours == pytest.approx(theirs, abs=1e-5)
    ours, plain = (float(contrast.LOSSES[name](z1, z2)) for name in list(contrast.LOSSES)[3:])
    assert ours == pytest.approx(plain, abs=1e-5)


def test_memory_is_that_of_the_matrix_for_the_plain_loss_only() -> None:
    plain, ours = (contrast.alone(name, 4096)[0] for name in ("plain", "ours"))
    assert plain > 256  # (2 x 4096)^2 float32
    assert ours < plain / 3


def test_features_and_micro_batches_are_measured() -> None:
    given = argparse.Namespace(encoder="test_resnet", size=32, count=512, rounds=2)
    found = feature_throughput.measure(given)
    assert found["ratio"] > 0
    assert found["peak_memory_mib"][0] > 0
    row = micro_batch.run(32, 8, steps=1)
    assert row["peak_memory_mib"] > 0
    assert row["images_per_second"] > 0


@pytest.mark.parametrize("name", ["supervised", "gan"])
def test_an_objective_is_measured(name: str) -> None:
    row = objective_cost.run(name, 16, 8, steps=1, encoder="test_resnet")
    assert row["images_per_second"] > 0
    assert row["peak_memory_mib"] > 0


def test_the_cost_of_objectives_is_told() -> None:
    row = {
        "objective": "vae",
        "size_px": 32,
        "images_per_second": 100.0,
        "ratio": 0.5,
        "peak_memory_mib": 900,
    }
    settings = {"encoder": "resnet18", "batch": 60, "steps": 20, "rounds": 2}
    page = performance_page.performance({"objective-cost": {"settings": settings, "rows": [row], **FACTS}})
    assert "| `vae` | 32 | 100 | 0.50 | 900 | 2,000 |" in page


def test_the_page_is_made_from_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[dict[str, Any]] = [
        {"loss": loss, "pairs": pairs, "milliseconds": 1.5 * pairs, "memory_mib": 2.0 * pairs}
        for loss in ("ours", "plain")
        for pairs in (64, 128)
    ]
    content = {"width": 128, "rows": rows[:-1], **FACTS}
    page = performance_page.performance({"contrast": content})
    assert "| 64 | 96.0 / 128 | 96.0 / 128 |" in page
    assert "| 128 | 192.0 / 256 | - |" in page
    assert "Something else was running" in page
    assert "figures/contrast.svg" in page
    assert "million" not in page
    drawn = performance_page.contrast_figure(content)
    assert performance_page.json_digest(content) in drawn


def test_quality_and_growth_have_their_parts(tmp_path: Path) -> None:
    curves = [
        {"who": who, "seed": seed, "seconds": 30.0 * look, "knn": 0.5 + 0.1 * look, "probe": 0.6 + 0.1 * look}
        for who in ("lightly", "fewlabel")
        for seed in (0, 1)
        for look in (1, 2)
    ]
    content = {"data": "pneumoniamnist", "size": 32, "side_by_side": False, "curves": curves, **FACTS}
    row = {"changed": "batch", "batch": 64, "images": 4096, "size_px": 64, "images_per_second": 200.0}
    row |= {"waiting": 0.01, "peak_memory_mib": 900, "compute": "32"}
    scaling = {"base": {"images": 4096, "size_px": 64, "batch": 128}, "rows": [row], **FACTS}
    page = performance_page.performance({"quality-pneumoniamnist": content, "scaling": scaling})
    assert "| lightly | 2 | 0.600 | 0.700 after 60 s | 0.700 | 0.700 | 0.800 after 60 s | 0.800 |" in page
    assert "| 64 | 200 | 1.0 % | 900 | 32 |" in page
    assert "figures/quality-pneumoniamnist.svg" in page
    drawn = performance_page.quality_figure(content)
    assert performance_page.json_digest(content) in drawn
