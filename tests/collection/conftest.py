"""Small image folders for the tests of the collection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeImages = Callable[..., list[np.ndarray]]


@pytest.fixture
def make_images() -> MakeImages:
    """make_images(folder, names, seed=0, shape=(24, 20)) writes distinct 8-bit PNGs, returns their pixels."""

    def make(
        folder: Path, names: list[str], seed: int = 0, shape: tuple[int, ...] = (24, 20)
    ) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        made = []
        for name in names:
            pixels = rng.integers(0, 256, shape, dtype=np.uint8)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / name)
            made.append(pixels)
        return made

    return make


@pytest.fixture
def folder_bytes() -> Callable[[Path], dict[str, bytes]]:
    """folder_bytes(path): every file below it with its content, to compare two collections byte for byte."""

    def read(path: Path) -> dict[str, bytes]:
        return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}

    return read
