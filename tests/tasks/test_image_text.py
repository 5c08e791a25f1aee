"""Images and texts in one space: unit vectors, similarity maps, and files that give back the same to the bit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toy_texts import SENTENCES, toy_studies
from toy_towers import BLOCK_PX, SIZE_PX, known_model

from fewlabel.adaptation.features import weights_fingerprint
from fewlabel.networks import Encoder, EncoderSettings, load_text_encoder, mlp_head
from fewlabel.objectives import ConVIRT
from fewlabel.tasks import ImageText, load_image_text
from fewlabel.tasks.image_text import at_image_size
from fewlabel.training import Compute, Sentences, TrainingSet, fit
from fewlabel.training.weights import save_head
from fewlabel.types import FewlabelError, Schedule
from fewlabel.views import plain_view


def _objective(text_folder: Path, seed: int = 0, size_px: int = 32) -> ConVIRT:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = Encoder(EncoderSettings("test_resnet", 1, size_px))
        texts = load_text_encoder(text_folder, frozen_layers=None, longest=16)
        return ConVIRT(encoder, texts, embedding_dim=24, hidden_dim=20, temperature=0.2)


@pytest.fixture(scope="module")
def model(text_folder: Path) -> ImageText:
    return ImageText.of(_objective(text_folder), size_px=32)


def _pixels(count: int = 5, size_px: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 1, size_px, size_px), dtype=np.uint8)


def test_embeddings_are_those_of_the_objective_at_unit_length(text_folder: Path) -> None:
    objective = _objective(text_folder)
    model, pixels = ImageText.of(objective, size_px=32), _pixels(size_px=32)
    images, texts = model.embed_images(pixels, batch_size=2), model.embed_texts(SENTENCES[:7], batch_size=3)
    objective.eval()
    tokens = objective.text_encoder.tokenise(SENTENCES[:7])
    with torch.no_grad():
        v, u = (
            objective.embed(torch.from_numpy(pixels).float() / 255),
            objective.embed_text(tokens.ids, tokens.mask),
        )
    for found, wanted in ((images, v), (texts, u)):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, nn.functional.normalize(wanted, dim=1).numpy(), atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert model.temperature == 0.2
    np.testing.assert_allclose(model.similarity(pixels, SENTENCES[:7]), images @ texts.T, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_networks_are_left_as_they_were(model: ImageText, training: bool) -> None:
    networks = (model.encoder, model.head, model.text_encoder, model.text_head)
    for network in networks:
        network.train(training)
    before = [weights_fingerprint(network) for network in networks]
    first = model.similarity(_pixels(), SENTENCES[:2])
    model.similarity_map(_pixels(), SENTENCES[0])
    np.testing.assert_array_equal(first, model.similarity(_pixels(), SENTENCES[:2]))  # no dropout
    assert [weights_fingerprint(network) for network in networks] == before
    for network in networks:
        assert all(module.training is training for module in network.modules())


def test_images_may_be_of_16_bits_and_come_in_batches(model: ImageText) -> None:
    pixels = _pixels()
    wide = pixels.astype(np.uint16) * 257
    wanted = model.embed_images(pixels)
    np.testing.assert_allclose(model.embed_images(wide, batch_size=2), wanted, atol=1e-5)


def test_a_long_text_is_cut_and_said(model: ImageText) -> None:
    with pytest.warns(UserWarning, match="1 of 2 texts have more than 16 tokens and were cut"):
        model.embed_texts(["opacity " * 40, "opacity"])


def test_mistakes_are_said(model: ImageText) -> None:
    for texts in ("a text", []):
        with pytest.raises(FewlabelError, match="give a list of at least one text"):
            model.embed_texts(texts)
    for pixels in (_pixels()[:0], _pixels()[0], np.repeat(_pixels(), 3, axis=1)):
        with pytest.raises(FewlabelError, match=r"give at least one, \(N, 1, S, S\)"):
            model.embed_images(pixels)
        with pytest.raises(FewlabelError, match=r"give at least one, \(N, 1, S, S\)"):
            model.similarity_map(pixels, "opacity")


def test_a_map_by_hand() -> None:
    """One white block of four. Normalised, it is 2 and black -2: places (2, 1) and (-2, 1), the text (1, 0)."""
    pixels = np.zeros((1, 1, SIZE_PX, SIZE_PX), dtype=np.uint8)
    pixels[0, 0, :BLOCK_PX, BLOCK_PX:] = 255
    model = known_model({"bright": (3.0, 0.0), "dark": (-1.0, 0.0)})
    found = model.similarity_map(pixels, "bright")
    side = 2 / math.sqrt(5)
    np.testing.assert_allclose(found, [[[-side, side], [-side, -side]]], atol=1e-6)
    np.testing.assert_allclose(model.similarity_map(pixels, "dark"), -found, atol=1e-6)
    whole = float(model.similarity(pixels, ["bright"])[0, 0])  # the mean block is -1
    assert whole == pytest.approx(-1 / math.sqrt(2), abs=1e-6)
    assert found.mean() == pytest.approx(-side / 2, abs=1e-6)  # which is not the image's similarity


def test_a_map_at_the_size_of_the_image() -> None:
    maps = np.array([[[-1.0, 1.0], [-1.0, -1.0]]], dtype=np.float32)
    found = at_image_size(maps, 8)
    assert found.shape == (1, 8, 8)
    assert (found.min(), found.max()) == (-1, 1)
    np.testing.assert_allclose(found[0, 0], [-1, -1, -0.75, -0.25, 0.25, 0.75, 1, 1], atol=1e-6)
    np.testing.assert_allclose(found[0, :, 0], -1)


PLACE_PX, PLACES = 8, 4


class Patches(nn.Module):
    """What an `Encoder` asks of a network: a map (B, 8, 4, 4) that sees 8 x 8 px a place, and its mean."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.forward_features = nn.Sequential(nn.Conv2d(1, 8, PLACE_PX, PLACE_PX), nn.ReLU())

    def forward_head(self, found: torch.Tensor) -> torch.Tensor:
        return found.mean(dim=(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))


def _looking_at_patches(text_folder: Path) -> ConVIRT:
    torch.manual_seed(0)
    encoder = Encoder(EncoderSettings("test_resnet", 1, 32))
    encoder.network, encoder.dim = Patches(), Patches.num_features
    texts = load_text_encoder(text_folder, frozen_layers=None, longest=16)
    return ConVIRT(encoder, texts, embedding_dim=24, hidden_dim=20)


def _squares(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[list[str]]]:
    """Dark noise (count, 1, 32, 32), every other one with a bright square of 8 px; its place, and what is said."""
    rng = np.random.default_rng(seed)
    side = PLACES * PLACE_PX
    images = rng.integers(0, 100, (count, 1, side, side), dtype=np.uint8)
    places = rng.integers(0, PLACES, (count, 2))
    for image, (row, column) in zip(images[::2], PLACE_PX * places[::2], strict=True):
        image[0, row : row + PLACE_PX, column : column + PLACE_PX] += 120
    return images, places[::2], [["There is an opacity."], ["The field is inner."]] * (count // 2)


def test_the_bright_square_lights_up_after_training(text_folder: Path) -> None:
    """The texts say only whether there is a square. The map has 4 x 4 places; by chance 1 of 16 would be right."""
    objective = _looking_at_patches(text_folder)
    images, _, texts = _squares(64, seed=0)
    data = TrainingSet(
        (images,), (np.arange(64),), texts=Sentences.of(texts, objective.text_encoder.tokenise)
    )
    plan = Schedule(60, 16, 3e-3, warmup_steps=5, optimizer="adam")
    fit(objective, data, plain_view(32), plan, compute=Compute("32"))
    model = ImageText.of(objective, size_px=32)
    images, places, _ = _squares(64, seed=1)
    scores = model.similarity(images, ["There is an opacity."])[:, 0]
    assert scores[::2].min() > scores[1::2].max()
    maps = model.similarity_map(images[::2], "There is an opacity.")
    assert maps.shape == (32, PLACES, PLACES)
    assert -1 <= maps.min() < maps.max() <= 1
    brightest = np.stack(np.unravel_index(maps.reshape(32, -1).argmax(axis=1), (PLACES, PLACES)), axis=1)
    assert (brightest == places).all(axis=1).mean() > 0.8


def test_saved_and_loaded_it_is_the_same_to_the_bit(model: ImageText, tmp_path: Path) -> None:
    model.encoder.mean.fill_(0.4)
    model.save(tmp_path / "model")
    assert not [path for path in (tmp_path / "model").rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    again = load_image_text(tmp_path / "model")
    assert (again.size_px, again.temperature) == (32, 0.2)
    assert (again.text_encoder.longest, again.text_encoder.frozen_layers) == (16, None)
    for part in ("encoder", "head", "text_encoder", "text_head"):
        assert weights_fingerprint(getattr(again, part)) == weights_fingerprint(getattr(model, part))
        assert not getattr(again, part).training
    again.save(tmp_path / "again")
    third = load_image_text(tmp_path / "again")
    for first, second in ((model, again), (again, third)):
        np.testing.assert_array_equal(first.embed_texts(SENTENCES), second.embed_texts(SENTENCES))
    np.testing.assert_array_equal(again.embed_images(_pixels()), third.embed_images(_pixels()))
    np.testing.assert_allclose(again.embed_images(_pixels()), model.embed_images(_pixels()), atol=1e-5)
    images, _, _ = toy_studies(4)
    assert again.similarity(images, SENTENCES).shape == (4, len(SENTENCES))


def test_a_model_that_is_half_written_is_not_loaded(
    model: ImageText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save(tmp_path)
    monkeypatch.setattr(type(model.text_encoder), "save", lambda self, folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.save(tmp_path)
    with pytest.raises(FewlabelError, match="holds no whole image-text model"):
        load_image_text(tmp_path)


def test_folders_that_hold_no_whole_model(model: ImageText, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with pytest.raises(
        FewlabelError, match=r"holds no whole image-text model \(image_text.json: FileNotFoundError\)"
    ):
        load_image_text(folder)
    model.save(folder)
    said = json.loads((folder / "image_text.json").read_text())
    for wrong in ("{", "[1]", json.dumps({**said, "longest": None})):
        (folder / "image_text.json").write_text(wrong)
        with pytest.raises(FewlabelError, match="holds no whole image-text model"):
            load_image_text(folder)
    (folder / "image_text.json").write_text(json.dumps(said))
    for name in ("encoder.safetensors", "head.safetensors", "text_head.safetensors"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(FewlabelError, match="cut short or damaged"):
            load_image_text(folder)
        (folder / name).write_bytes(content)
    right = (folder / "text_head.safetensors").read_bytes()
    for widths in ((model.encoder.dim, 24), (model.text_encoder.dim, 25)):  # of another encoder; of another K
        save_head(mlp_head(widths[0], 20, widths[1], hidden_norm=False), folder / "text_head.safetensors")
        with pytest.raises(FewlabelError, match="do not fit each other"):
            load_image_text(folder)
    (folder / "text_head.safetensors").write_bytes(right)
    assert load_image_text(folder).size_px == 32
