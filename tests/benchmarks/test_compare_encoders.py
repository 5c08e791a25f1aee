"""Encoders are compared on the same labels with equal compute; made images, no figure is asserted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import compare_encoders
import pytest
from compare_encoders import STUDIES, Study, Way
from main_job import SOURCES

from fewlabel.collection import Collection, import_images
from fewlabel.phantoms import write_radiographs
from fewlabel.pipeline import PretrainSettings

TINY = PretrainSettings(encoder="test_resnet", size_px=32, batch_size=16)


@pytest.mark.parametrize("name", STUDIES)
def test_settings_fit_together(name: str) -> None:
    study = STUDIES[name]
    assert study.data in SOURCES
    by_network: dict[str, set[str]] = {}
    for way in study.ways.values():
        by_network.setdefault(way.network, set()).add(way.settings.encoder)
        assert way.settings.size_px == next(iter(study.ways.values())).settings.size_px
    assert all(len(encoders) == 1 for encoders in by_network.values())


@pytest.mark.slow
def test_a_study_runs_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = write_radiographs(tmp_path / "images", 80, seed=1, size_px=32)
    to = tmp_path / "chest"
    import_images(tmp_path / "images", to, labels=labels, patient_column="Patient ID", workers=1)
    ways = {
        "simclr": Way("SimCLR", TINY),
        "patient": Way("MICLe", replace(TINY, positives="patient")),
        "supcon": Way("SupCon", TINY, supcon=True),
    }
    study = Study(
        "made chests", "mednist-cxr", {"opacity": "opacity"}, ways, (10,), seconds=0.1, pretraining_seeds=1
    )
    monkeypatch.setitem(compare_encoders.STUDIES, "made", study)
    monkeypatch.setattr(compare_encoders, "WORTH_MEASURING", 2)
    monkeypatch.setattr(compare_encoders, "data_folder", lambda: tmp_path)
    monkeypatch.setattr(compare_encoders, "import_source", lambda *given: Collection.open(to))
    arguments = ["made", "--seeds", "2", "--work", str(tmp_path / "work"), "--results", str(tmp_path)]
    assert compare_encoders.main(arguments) == 0
    told = json.loads((tmp_path / "made.json").read_text())
    assert [row["way"] for row in told["rows"][::2]] == ["random, ResNet-18", "simclr", "patient", "supcon"]
    assert {row["against"] for row in told["rows"]} == {"simclr"}
    assert all(row["low"] <= row["value"] <= row["high"] for row in told["rows"])
    assert all(way["trainings"][0]["steps"] >= 2 for way in told["ways"].values())
    monkeypatch.setattr(compare_encoders, "_train", lambda *given: pytest.fail("trained again"))
    assert compare_encoders.main(arguments) == 0
    again = json.loads((tmp_path / "made.json").read_text())
    assert [row["value"] for row in again["rows"]] == [row["value"] for row in told["rows"]]
