"""A text encoder from one's own texts, in the one training loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from toy_texts import SENTENCES

from fewlabel.networks import TextEncoder, load_text_encoder
from fewlabel.training import FitResult, train_text_encoder
from fewlabel.types import FewlabelError, Schedule


def train(folder: Path, steps: int, seed: int = 0) -> tuple[TextEncoder, FitResult]:
    plan = Schedule(steps, 24, 3e-3, warmup_steps=5, seed=seed)
    return train_text_encoder(
        SENTENCES, folder, vocabulary_size=120, layers=2, width=32, heads=2, longest=24, schedule=plan
    )


def test_it_learns_and_can_be_loaded(tmp_path: Path) -> None:
    encoder, result = train(tmp_path, 120)
    losses = [row["loss"] for row in result.history]
    assert losses[-1] < 0.6 * losses[0]
    assert result.compute.seconds  # 100 steps and more: the setting was measured, on texts
    again = load_text_encoder(tmp_path, frozen_layers=1, longest=24).eval()
    tokens = again.tokenise(SENTENCES)
    encoder.eval()
    assert torch.equal(again(tokens.ids, tokens.mask), encoder(tokens.ids, tokens.mask))
    assert sum(p.requires_grad for p in encoder.parameters()) == len(list(encoder.parameters()))


def test_the_seed_decides_everything_and_the_same_call_goes_on(tmp_path: Path) -> None:
    first, second, other = (
        train(tmp_path / name, 3, seed)[0].state_dict() for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)
    again, result = train(tmp_path / "a", 3)
    assert result.images_per_second == 0  # nothing was left to do
    assert all(torch.equal(first[key], value) for key, value in again.state_dict().items())


def test_texts_without_words_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FewlabelError, match="give texts with words"):
        train_text_encoder(["", ""], tmp_path)
    assert np.size(list(tmp_path.glob("*.safetensors"))) == 0
