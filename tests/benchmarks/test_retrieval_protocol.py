"""The retrieval benchmark on made radiographs: what it prints holds together; no figure is asserted."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import retrieval_protocol
import torch

from fewlabel.collection import Collection, import_images
from fewlabel.networks import Encoder, EncoderSettings, load_text_encoder
from fewlabel.objectives import ConVIRT
from fewlabel.phantoms import write_radiographs
from fewlabel.pipeline import PretrainSettings
from fewlabel.pipeline.runs import write_json, write_split
from fewlabel.splits import Split, draw_split
from fewlabel.tasks import ImageText
from fewlabel.training.weights import save_encoder

FINDINGS = ["opacity", "effusion=1", "reticulation"]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*tokens and were cut")]
QUICK = ["--resamples", "30", "--queries", "3", "--at", "2", "5", "999"]


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    root = tmp_path_factory.mktemp("chest")
    labels = write_radiographs(root / "images", 200, seed=1, size_px=32, dicom_files=0)
    import_images(root / "images", root / "chest", labels=labels, patient_column="Patient ID", workers=1)
    return Collection.open(root / "chest")


@pytest.fixture(scope="module")
def models(chest: Collection, text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with split.csv, an image-text model and a run without texts; weights are random."""
    root = tmp_path_factory.mktemp("models")
    settings = PretrainSettings(encoder="test_resnet", size_px=32, channels=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = Encoder(EncoderSettings("test_resnet", 1, 32))
        texts = load_text_encoder(text_folder, frozen_layers=None, longest=32)
        ImageText.of(ConVIRT(encoder, texts, embedding_dim=8), size_px=32).save(root / "image-text")
    save_encoder(encoder, root / "run" / "encoder.safetensors")
    write_json(root / "run" / "pretrain.json", {"settings": asdict(settings)})
    split = draw_split(chest.patients(), test=0.6, seed=0)
    for folder in (root, root / "run"):
        write_split(folder / "split.csv", [chest], [split])
    return root


def _printed(
    capsys: pytest.CaptureFixture[str], chest: Collection, model: Path, *given: str
) -> dict[str, Any]:
    assert retrieval_protocol.main([str(chest.path), str(model), *QUICK, *given]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_image_text_model(capsys: pytest.CaptureFixture[str], chest: Collection, models: Path) -> None:
    told = _printed(capsys, chest, models / "image-text", "--classes", *FINDINGS)
    assert {*told["classes"]} == {"opacity", "effusion", "reticulation"}
    assert told["cores"] > 0
    asking = told["queries_per_class"]
    assert asking in (2, 3)
    assert told["protocol_note"].startswith(tuple(f"Class {name} has " for name in told["classes"]))
    images, texts = told["image_to_image"], told["text_to_image"]
    for found in (images["random"], images["features"], images["embeddings"], texts["embeddings"]):
        assert [row["metric"] for row in found] == ["precision@2", "precision@5"]
        assert all(0 <= row["low"] <= row["high"] <= 1 and row["patients"] > 3 for row in found)
    assert images["features"][0]["n"] == 3 * asking
    assert texts["embeddings"][0]["n"] == sum(map(len, texts["prompts"].values()))
    assert texts["chance"] == pytest.approx(1 / 3, abs=1e-4)
    assert texts["prompts"]["effusion"][0] == "There is effusion."
    gap = images["features"][1]["over_random"]
    value = images["features"][1]["value"] - images["random"][1]["value"]
    assert gap["value"] == pytest.approx(value)
    assert str(models) not in json.dumps(told)


def test_a_run_without_texts_and_one_column(
    capsys: pytest.CaptureFixture[str], chest: Collection, models: Path
) -> None:
    told = _printed(capsys, chest, models / "run", "--classes", "opacity")
    assert {*told["classes"]} == {"not opacity", "opacity"}
    assert "text_to_image" not in told
    assert {*told["image_to_image"]} == {"chance", "random", "features"}


def test_only_test_images_are_used(
    capsys: pytest.CaptureFixture[str], chest: Collection, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def spy(labels: np.ndarray, patients: np.ndarray, **given: Any) -> Any:
        seen.append((labels, patients))
        return draw(labels, patients, **given)

    draw = retrieval_protocol.draw_protocol
    monkeypatch.setattr(retrieval_protocol, "draw_protocol", spy)
    _printed(capsys, chest, models / "run", "--classes", "opacity")
    split = draw_split(chest.patients(), test=0.6, seed=0)
    np.testing.assert_array_equal(seen[0][0], chest.target("opacity").values[split.test])
    np.testing.assert_array_equal(seen[0][1], chest.patients()[split.test])


def test_prompts_from_a_file(
    capsys: pytest.CaptureFixture[str], chest: Collection, models: Path, tmp_path: Path
) -> None:
    file = tmp_path / "prompts.json"
    file.write_text(
        json.dumps({"opacity": ["There is an opacity."], "not opacity": ["It is clear.", "Clear."]})
    )
    given = ("--classes", "opacity", "--prompts", str(file))
    told = _printed(capsys, chest, models / "image-text", *given)
    assert told["text_to_image"]["prompts"]["not opacity"] == ["It is clear.", "Clear."]
    assert told["text_to_image"]["embeddings"][0]["n"] == 3
    file.write_text(json.dumps({"opacity": ["There is an opacity."], "normal": ["Clear."]}))
    assert retrieval_protocol.main([str(chest.path), str(models / "image-text"), *QUICK, *given]) == 1
    assert "the classes are not opacity, opacity" in capsys.readouterr().err


def test_mistakes(
    capsys: pytest.CaptureFixture[str], chest: Collection, models: Path, tmp_path: Path
) -> None:
    model = str(models / "image-text")
    for given, said in (
        (["Patient Age"], "Patient Age is no class"),
        (["opacity", "side"], "side is no class"),
        (["opacity", "--split", str(tmp_path / "none.csv")], "No split with test images of chest"),
    ):
        assert retrieval_protocol.main([str(chest.path), model, "--classes", *given]) == 1
        assert said in capsys.readouterr().err
    none = np.array([], dtype=np.int64)
    write_split(tmp_path / "split.csv", [chest], [Split(np.arange(len(chest)), none, none, "all")])
    given = ["--classes", "opacity", "--split", str(tmp_path / "split.csv")]
    assert retrieval_protocol.main([str(chest.path), model, *given]) == 1
    assert "No split with test images" in capsys.readouterr().err
