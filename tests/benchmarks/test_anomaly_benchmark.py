"""The benchmark of what is not normal: the small version of each job, its rows, its page, the masks of its images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anomaly
import anomaly_page
import numpy as np
import pytest
from main_job import SOURCES

from fewlabel.phantoms import radiographs


def told(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.05, "high": value + 0.04, "n": 80, "patients": 60}


def score(label: str, area: float) -> dict[str, Any]:
    return {
        "label": label, "auroc": told(area), "sensitivity": told(0.31), "specificity": told(0.92),
        "from_pixels": None if label == "pixels" else {"value": area - 0.6, "low": -0.02, "high": 0.2, "p": 0.03},
    }  # fmt: skip


@pytest.mark.parametrize("name", anomaly.JOBS)
def test_quick_changes_how_much_and_not_what(name: str) -> None:
    job = anomaly.JOBS[name]
    quick = anomaly.quick(job)
    assert (quick.make, quick.settings.normal, quick.settings.where) == (
        job.make,
        job.settings.normal,
        job.settings.where,
    )
    assert quick.pretraining.steps < 10 < job.pretraining.steps
    assert quick.phantoms < job.phantoms
    assert name in {*SOURCES, "phantoms"}


def test_masks_are_those_of_the_images_in_the_collections_order(tmp_path: Path) -> None:
    collection, masks = anomaly.make_phantoms(tmp_path, 30)
    assert masks is not None
    opacity, pixels = collection.column("opacity"), collection.square(anomaly.SIZE_PX)
    assert np.array_equal(masks.any(axis=(1, 2)), opacity == 1)
    made = radiographs(30, size_px=anomaly.SIZE_PX, seed=anomaly.PHANTOM_SEED)
    places = anomaly.places_of(made.patients, collection)
    assert sorted(places) == list(range(30))
    for row, place in enumerate(places):
        assert np.corrcoef(pixels[row].ravel(), made.pixels[place].ravel())[0, 1] > 0.999
        assert np.array_equal(masks[row], made.opacity_mask[place])


def test_what_needs_no_training_comes_once() -> None:
    first = anomaly.rows_of("vae", [score("VAE: a", 0.7), score("pixels", 0.6)], [])
    second = anomaly.rows_of("simclr", [score("SimCLR: a", 0.8), score("pixels", 0.6)], first)
    assert [(row["way"], row["label"]) for row in first + second] == [
        ("vae", "VAE: a"),
        ("vae", "pixels"),
        ("simclr", "SimCLR: a"),
    ]


def test_the_page_tells_every_score_with_its_interval() -> None:
    parts = {
        "train": {"normal": 290, "not_normal": 0, "patients": 210},
        "val": {"normal": 48, "not_normal": 50, "patients": 60},
        "test": {"normal": 161, "not_normal": 153, "patients": 205},
    }
    content: dict[str, Any] = {
        "data": "phantoms", "about": "made radiographs", "normal": "no finding", "images": parts, "specificity": 0.95,
        "split": "drawn by patient, seed 0", "encoder": "resnet18", "size_px": 64, "steps": 300, "batch_size": 32,
        "scores": [score("VAE: a", 0.7), score("pixels", 0.6)],
        "localisation": [], "chance": 0.04,
    }  # fmt: skip
    page = anomaly_page.anomaly([content])
    assert (
        "| VAE: a | 0.700 (0.650 to 0.740) | +0.100 (−0.020 to +0.200), p 0.030 | 31 % (26 to 35 %) |" in page
    )
    assert "| pixels | 0.600 (0.550 to 0.640) | – |" in page
    assert "tested on 161 normal and 153 other images of 205 patients" in page
    assert "Highest value inside" not in page
    content["localisation"] = [{"label": "VAE: map", "pixel_auroc": told(0.8), "hits": told(0.5)}]
    page = anomaly_page.anomaly([content, content])
    assert page.count("| VAE: map | 0.800 (0.750 to 0.840) | 50 % (45 to 54 %) |") == 2
    assert "lies inside in 4.0 %" in page
    assert anomaly_page.anomaly([]) == "Not measured yet."
