"""The recipe "metric" in one command: its arms, its classifier, what is found, and going on after an interruption."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import QUICK, TINY, two_steps

from fewlabel.adaptation.features import extract_features
from fewlabel.collection import Collection
from fewlabel.pipeline import Learned, arms, learn, load_classifier, metric_learning, neighbours
from fewlabel.pipeline.runs import read_split
from fewlabel.types import FewlabelError

RECIPE = replace(QUICK, budgets=(10,), seeds=1, recipe="metric", supervised=False)
METHODS = ["simclr-triplet", "simclr-siamese", "triplet"]
ARMS = [key + end for key in METHODS for end in ("", "-knn")]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_learning, "supervised_schedule", two_steps)


@pytest.fixture(scope="module")
def whole(chest: Collection, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    with pytest.MonkeyPatch.context() as patch:
        for module in (arms, metric_learning):
            patch.setattr(module, "supervised_schedule", two_steps)
        out = tmp_path_factory.mktemp("metric") / "run"
        return learn(chest, "opacity", out, pretraining=TINY, evaluation=RECIPE)


@pytest.mark.slow
def test_every_method_is_probed_twice_and_its_gain_is_told(whole: Learned) -> None:
    assert [arm["key"] for arm in whole.results["arms"]][1:7] == ARMS
    told = {(row["arm"], row["reference"]) for row in whole.results["differences"]}
    assert {("simclr-triplet", "simclr"), ("simclr-triplet-knn", "simclr-knn")} <= told
    assert whole.results["abstention"]["arm"] == "simclr-triplet"  # the classifier that predict uses
    kept = sorted(path.name for path in (whole.out / "networks").iterdir())
    assert kept == [f"simclr-triplet-{whole.results['budgets'][-1]}-0.safetensors"]
    page = (whole.out / "report.html").read_text()
    assert "SimCLR + Siamese, nearest neighbours" in page
    assert "MAP@R" in page


@pytest.mark.slow
def test_the_classifier_that_is_kept_is_that_of_the_triplets(whole: Learned, chest: Collection) -> None:
    classifier, split = load_classifier(whole.out), read_split(whole.out / "split.csv", chest)
    assert split is not None
    pixels = chest.square(classifier.store_px, channels=1)[split.test]
    features = extract_features(classifier.encoder, pixels, size_px=classifier.size_px)
    budget = whole.results["budgets"][-1]
    with np.load(whole.out / "outputs" / f"simclr-triplet-{budget}-0.npz") as kept:
        assert np.allclose(classifier.probe.predict(features), kept["test"], atol=1e-4)


@pytest.mark.slow
def test_the_embedding_is_searched_beside_the_encoders(whole: Learned) -> None:
    modes = [mode for mode in whole.results["retrieval"]["modes"] if mode["key"] == "image-image"]
    assert [mode["encoder"] for mode in modes] == ["SimCLR", "SimCLR + triplet, all labels", "random init"]
    for mode in modes:
        names = [row["name"] for row in mode["ranking"]]
        assert names == ["recall@1", "recall@5", "recall@10", "r_precision", "map_at_r"]
        for row in mode["ranking"]:
            assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
            assert 0 < row["chance"] <= 1


@pytest.mark.slow
def test_an_interrupted_recipe_goes_on(
    whole: Learned, chest: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the third training: what was finished is not trained again, and the result is the same."""
    original, labels = metric_learning.learn_metric, []

    def stop_at_the_third(objective: Any, images: Any, *arguments: Any, **named: Any) -> Any:
        labels.append(len(images.train))
        if len(labels) == 3:
            raise KeyboardInterrupt
        return original(objective, images, *arguments, **named)

    monkeypatch.setattr(metric_learning, "learn_metric", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        learn(chest, "opacity", tmp_path / "run", pretraining=TINY, evaluation=RECIPE)
    again = learn(chest, "opacity", tmp_path / "run", pretraining=TINY, evaluation=RECIPE)
    assert len(labels) == 3 + 4  # six trainings, of which the third began twice
    assert again.results["metrics"] == whole.results["metrics"]
    assert json.dumps(again.results["retrieval"]) == json.dumps(whole.results["retrieval"])


def test_what_has_no_classes_or_too_few_labels_is_refused_before_training(
    chest: Collection, tmp_path: Path
) -> None:
    for target, changes, said in (
        ("Patient Age", {}, "needs classes, and Patient Age is a number"),
        ("opacity", {"budgets": (2,)}, "No two of 2 images with a label share a class"),
    ):
        settings = replace(RECIPE, target=target, **changes)
        with pytest.raises(FewlabelError, match=said):
            learn(chest, target, tmp_path / target, pretraining=TINY, evaluation=settings)
        assert not (tmp_path / target).exists()


def test_many_images_are_searched_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    classes, owners = rng.integers(0, 2, 60), np.arange(60)
    side = neighbours._Side(np.eye(2)[classes] + rng.normal(size=(60, 2)), classes, owners)
    asking = np.array([3, 40, 59])
    every = neighbours._ranking(side, asking, 0)
    monkeypatch.setattr(neighbours, "MOST_FOUND", 20)
    some = neighbours._ranking(side, asking, 0)
    assert every != some
    assert [row["name"] for row in every] == [row["name"] for row in some]
    alone = neighbours._Side(np.eye(3), np.arange(3), np.arange(3))
    assert neighbours._ranking(alone, np.arange(3), 0) == []
