"""Toy studies: a bright square in one of eight places, and sentences that say where it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fewlabel.networks import small_bert, train_tokenizer

SIZE_PX = 16
PLACES = [(row, column) for row in ("upper", "lower") for column in ("left", "inner", "outer", "right")]
TEMPLATES = (
    "There is an opacity in the {row} {column} field.",
    "Opacity is seen, {column} and {row}.",
    "The {row} part shows an opacity on the {column} side.",
)
SENTENCES = [template.format(row=row, column=column) for row, column in PLACES for template in TEMPLATES]


def make_bert(folder: Path) -> None:
    """Write a tokenizer and a BERT of 2 layers and width 32 into the folder."""
    tokenizer = train_tokenizer(SENTENCES, 120, folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        small_bert(tokenizer, layers=2, width=32, heads=4, longest=32).save(folder)


def toy_studies(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[list[str]]]:
    """Noisy images (count, 1, 16, 16) uint8, the place (count,) of each one's square, and its study's sentences."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (count, 1, SIZE_PX, SIZE_PX), dtype=np.uint8)
    places = np.arange(count) % len(PLACES)
    for image, place in zip(images, places, strict=True):
        top, left = 8 * (place // 4) + rng.integers(0, 5), 4 * (place % 4)
        image[0, top : top + 4, left : left + 4] += 100
    width = len(TEMPLATES)
    return images, places, [SENTENCES[width * place : width * place + width] for place in places]
