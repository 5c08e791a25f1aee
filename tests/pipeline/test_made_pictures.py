"""What a run shows of images that it made: each marked, originals not, test patients only; what is told of copies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from tiny_runs import SIZE_PX

from fewlabel.networks.decoders import Decoder
from fewlabel.objectives import VAE, Autoencoder
from fewlabel.objectives.generator import Generator
from fewlabel.pipeline import made_pictures
from fewlabel.pipeline.arms import Task
from fewlabel.pipeline.figures import MADE_COLOUR, TILE_PX, marked
from fewlabel.pipeline.made_pictures import PAIRS, RECONSTRUCTED, STEPS, _pairs, generated_results
from fewlabel.pipeline.pretraining import Pretrained
from fewlabel.training.weights import GENERATOR, save_generator

MARK = tuple(int(MADE_COLOUR[place : place + 2], 16) for place in (1, 3, 5))
STEP = TILE_PX + 4


def _tiles(path: Path) -> np.ndarray:
    """(rows, columns) bool: whether each picture of the grid bears the mark in its lower left corner."""
    grid = np.asarray(PIL.Image.open(path).convert("RGB"))
    rows, columns = (grid.shape[0] + 4) // STEP, (grid.shape[1] + 4) // STEP
    corners = grid.reshape(grid.shape)[[i * STEP + TILE_PX - 2 for i in range(rows)]]
    corners = corners[:, [j * STEP + 2 for j in range(columns)]]
    return np.asarray((corners == MARK).all(axis=2))


def test_the_mark_lies_in_the_corner_and_leaves_the_rest() -> None:
    plain = np.full((TILE_PX, TILE_PX, 3), 90, np.uint8)
    drawn = marked(plain)
    assert drawn.shape == plain.shape
    assert (drawn[-2, 2] == MARK).all()
    changed = (drawn != plain).any(axis=2)
    assert 0.01 < changed.mean() < 0.08
    assert not changed[: TILE_PX * 3 // 4].any()
    assert not changed[:, TILE_PX // 2 :].any()


@pytest.mark.parametrize("kind", [VAE, Autoencoder])
def test_reconstructions_and_interpolations_are_marked_and_originals_are_not(
    kind: type, task: Task, pretrained: Pretrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    shown: list[int] = []
    usual = made_pictures._plain

    def noted(task: Task, rows: np.ndarray) -> torch.Tensor:
        shown.extend(rows.tolist())
        return usual(task, rows)

    monkeypatch.setattr(made_pictures, "_plain", noted)
    model = kind(pretrained.encoder, latent_dim=8, width=4)
    found = generated_results(task, replace(pretrained, reconstructor=model), tmp_path)["generated"]
    assert found["objective"] == kind.__name__
    assert set(found) == {"objective", "reconstructions", "interpolations"}
    assert found["reconstructions"]["images"] == RECONSTRUCTED
    assert len(shown) == RECONSTRUCTED + 2 * PAIRS
    assert set(shown) <= set(task.split.test)
    rows = _tiles(tmp_path / found["reconstructions"]["figure"])
    assert rows.tolist() == [[False] * 8, [True] * 8] * 2
    ways = _tiles(tmp_path / found["interpolations"]["figure"])
    assert ways.tolist() == [[False, *[True] * STEPS, False]] * PAIRS


def test_originals_are_test_images_and_pairs_differ(task: Task) -> None:
    rows = np.random.default_rng(0).permutation(task.split.test)
    pairs = _pairs(task, rows)
    patients = task.collection.patients()
    assert len(pairs) == PAIRS
    assert len({row for pair in pairs for row in pair}) == 2 * PAIRS
    for a, b in pairs:
        assert patients[a] != patients[b]
        assert task.y[a] != task.y[b]
        assert {a, b} <= set(task.split.test)


def test_ends_of_an_interpolation_are_the_reconstructions(
    task: Task, pretrained: Pretrained, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    model = VAE(pretrained.encoder, latent_dim=8, width=4).eval()
    ends = made_pictures._plain(task, task.split.test[:2])
    with torch.no_grad():
        line = made_pictures._way(model, ends)
        expected = [marked(one) for one in made_pictures._pictures(model.reconstruct(ends))]
        middle = model.decoder(model.embed(ends).mean(dim=0, keepdim=True))
    assert len(line) == STEPS + 2
    assert np.abs(line[1].astype(int) - expected[0]).max() <= 1
    assert np.abs(line[-2].astype(int) - expected[1]).max() <= 1
    half = marked(made_pictures._pictures(middle)[0])
    assert np.abs(line[1 + STEPS // 2].astype(int) - half).max() <= 1


def test_samples_are_shown_by_class_with_what_is_told_of_copies(
    task: Task, pretrained: Pretrained, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    made = Generator(Decoder(6, channels=1, size_px=SIZE_PX, width=4).eval(), 4, task.target.classes)
    save_generator(made, tmp_path / GENERATOR)
    found = generated_results(task, pretrained, tmp_path)["generated"]
    assert "reconstructions" not in found
    assert found["samples"]["classes"] == list(task.target.classes)
    assert _tiles(tmp_path / found["samples"]["figure"]).tolist() == [[True] * 8] * 2
    told = found["memorisation"]
    assert told["kept"] <= told["drawn"]
    assert 511 <= told["drawn"] <= 513
    assert told["share"]["low"] <= told["share"]["value"] <= told["share"]["high"]
    assert told["share"]["value"] == pytest.approx(1 - told["kept"] / told["drawn"])
    distance = found["frechet"]
    assert distance["low"] <= distance["value"] <= distance["high"]
    assert 0 < distance["floor"] < distance["value"]
    assert distance["n"] == len(task.split.test)
    assert distance["samples"] == distance["floor_n"] == len(task.split.train)
    assert (told["training"], told["held_out"]) == (len(task.split.train), len(task.split.val))


def test_a_run_that_makes_nothing_says_nothing(task: Task, pretrained: Pretrained, tmp_path: Path) -> None:
    assert generated_results(task, pretrained, tmp_path) == {}
    assert list(tmp_path.iterdir()) == []
