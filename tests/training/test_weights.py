"""Encoders and heads as files: built again as they were, to the bit, with no pickle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from fewlabel.networks import Encoder, EncoderSettings, mlp_head
from fewlabel.networks.decoders import Decoder
from fewlabel.objectives.generator import Generator
from fewlabel.training import load_tensors, save_tensors
from fewlabel.training.weights import (
    load_encoder,
    load_generator,
    load_head,
    save_encoder,
    save_generator,
    save_head,
)
from fewlabel.types import FewlabelError


def test_an_encoder_comes_back_with_its_normalisation(tmp_path: Path) -> None:
    encoder = Encoder(EncoderSettings("test_resnet", 1, 32)).eval()
    encoder.mean, encoder.std = torch.full((1, 1, 1), 0.4), torch.full((1, 1, 1), 0.3)
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    again = load_encoder(tmp_path / "encoder.safetensors")
    state = encoder.state_dict()
    assert again.settings == encoder.settings
    assert torch.equal(again.mean, encoder.mean)
    assert torch.equal(again.std, encoder.std)
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("hidden_norm", [True, False])
@pytest.mark.parametrize("last_norm", [True, False])
def test_a_head_comes_back_as_it_was(tmp_path: Path, layers: int, hidden_norm: bool, last_norm: bool) -> None:
    head = mlp_head(6, 5, 4, layers=layers, hidden_norm=hidden_norm, last_norm=last_norm).eval()
    save_head(head, tmp_path / "head.safetensors")
    x = torch.randn(3, 6)
    assert torch.equal(load_head(tmp_path / "head.safetensors")(x), head(x))


def test_a_head_of_an_earlier_version_is_that_of_simclr(tmp_path: Path) -> None:
    head = mlp_head(6, 5, 4).eval()
    save_head(head, tmp_path / "head.safetensors")
    tensors, metadata = load_tensors(tmp_path / "head.safetensors")
    save_tensors(tensors, tmp_path / "old.safetensors", {"widths": metadata["widths"]})
    assert json.loads(metadata["widths"]) == [6, 5, 4]
    x = torch.randn(3, 6)
    assert torch.equal(load_head(tmp_path / "old.safetensors")(x), head(x))


@pytest.mark.parametrize(
    "head",
    [
        nn.Sequential(),
        nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4, bias=False)),
        nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 4, bias=False)),
    ],
)
def test_a_head_that_could_not_be_built_again_is_refused(tmp_path: Path, head: nn.Sequential) -> None:
    with pytest.raises(FewlabelError, match="give a head made by mlp_head"):
        save_head(head, tmp_path / "head.safetensors")
    assert not list(tmp_path.iterdir())


def test_each_file_is_taken_for_what_it_is(tmp_path: Path) -> None:
    save_head(mlp_head(6, 5, 4), tmp_path / "head.safetensors")
    save_encoder(Encoder(EncoderSettings("test_resnet", 1, 32)), tmp_path / "encoder.safetensors")
    with pytest.raises(FewlabelError, match="holds no Fewlabel encoder"):
        load_encoder(tmp_path / "head.safetensors")
    with pytest.raises(FewlabelError, match="holds no projection head"):
        load_head(tmp_path / "encoder.safetensors")


def _generator() -> Generator:
    torch.manual_seed(3)
    return Generator(Decoder(6, channels=3, size_px=16, width=4).eval(), 4, ("no finding", "opacity"))


def test_a_generator_comes_back_and_makes_the_same_images(tmp_path: Path) -> None:
    made, y = _generator(), torch.tensor([0, 1, 1])
    save_generator(made, tmp_path / "generator.safetensors")
    again = load_generator(tmp_path / "generator.safetensors")
    assert again.class_names == ("no finding", "opacity")
    assert (again.latent_dim, again.size_px, again.channels) == (4, 16, 3)
    images = [one.sample(y, torch.Generator().manual_seed(1)) for one in (made, again)]
    assert torch.equal(*images)


def test_a_damaged_or_foreign_generator_is_told_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "generator.safetensors"
    save_generator(_generator(), path)
    tensors, metadata = load_tensors(path)
    told = json.loads(metadata["generator"])
    foreign = [
        {},
        {"generator": "[]"},
        {"generator": "no JSON"},
        {"generator": json.dumps({**told, "width": 5})},
        {"generator": json.dumps({**told, "size_px": 15})},
        {"generator": json.dumps({**told, "class_names": ["one"]})},
    ]
    for said in foreign:
        save_tensors(tensors, path, said)
        with pytest.raises(FewlabelError, match=r"holds no generator of images.*--objective vae-gan"):
            load_generator(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(FewlabelError, match="cannot be read as safetensors"):
        load_generator(path)
