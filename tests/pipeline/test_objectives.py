"""Every objective that pretrains without labels can be asked for by name, and the report calls it by its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from tiny_runs import QUICK, TINY

from fewlabel.collection import Collection
from fewlabel.networks.encoders import Encoder
from fewlabel.objectives import OBJECTIVES
from fewlabel.pipeline import learn, pretrain
from fewlabel.pipeline.settings import HEADED, OBJECTIVE_TITLES, ObjectiveName
from fewlabel.training.weights import load_encoder, load_reconstructor
from fewlabel.types import FewlabelError

NAMES = [
    name for name in get_args(ObjectiveName) if name != "convirt"
]  # which needs texts; test_learning_from_reports.py


def settings_for(name: Any) -> Any:
    return replace(TINY, objective=name, encoder="test_vit" if name == "mae" else "test_resnet")


def test_the_names_are_those_of_all_objectives_that_need_no_labels() -> None:
    assert set(NAMES) == {one.name for one in OBJECTIVES if not one.needs_labels}
    assert set(OBJECTIVE_TITLES) == set(get_args(ObjectiveName))


@pytest.mark.parametrize("name", ["autoencoder", "vae"])
@pytest.mark.parametrize("wrong", [{"size_px": 20}, {"start_size_px": 8}])
def test_images_are_made_of_one_size_that_8_divides(name: str, wrong: dict[str, int]) -> None:
    with pytest.raises(FewlabelError, match="makes images of one size that 8 divides"):
        replace(settings_for(name), **wrong)


@pytest.mark.parametrize("name", NAMES)
def test_each_pretrains(name: str, chest: Collection, tmp_path: Path) -> None:
    made = pretrain([chest], tmp_path, settings_for(name))
    assert made.fit.steps == TINY.steps
    assert isinstance(load_encoder(tmp_path / "encoder.safetensors"), Encoder)
    assert (tmp_path / "head.safetensors").exists() == (name in HEADED)


@pytest.mark.parametrize("name", ["autoencoder", "vae"])
def test_the_decoder_is_kept(name: str, chest: Collection, tmp_path: Path) -> None:
    made = pretrain([chest], tmp_path, settings_for(name))
    again = pretrain([chest], tmp_path, settings_for(name))
    assert made.reconstructor
    assert again.reconstructor
    x = torch.rand(4, 1, TINY.size_px, TINY.size_px)
    with torch.no_grad():
        torch.testing.assert_close(again.reconstructor.reconstruct(x), made.reconstructor.reconstruct(x))
    with pytest.raises(FewlabelError, match="no autoencoder or VAE that fits"):
        load_reconstructor(tmp_path / "encoder.safetensors", made.encoder)


@pytest.mark.slow
def test_the_report_calls_it_by_its_name(chest: Collection, tmp_path: Path) -> None:
    evaluation = replace(QUICK, budgets=(10,), seeds=1)
    made = learn(chest, "opacity", tmp_path / "run", pretraining=settings_for("vae"), evaluation=evaluation)
    assert made.results["arms"][0]["label"] == "VAE, linear probe"
    assert "what the VAE makes of its code" in made.report.read_text()
    assert "SimCLR" not in made.headline
    assert replace(TINY, positives="patient").title == "SimCLR with pairs of images (MICLe)"


def test_a_masked_autoencoder_has_no_pairs() -> None:
    with pytest.raises(FewlabelError, match="looks at one view"):
        replace(settings_for("mae"), positives="patient")
