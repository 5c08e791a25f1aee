"""Each quality flag, and its absence on an ordinary image."""

from __future__ import annotations

import numpy as np
import pytest

from fewlabel.images import quality_flags
from fewlabel.types import Image

ORDINARY = np.random.default_rng(0).integers(0, 4000, (1, 32, 32)).astype(np.uint16)


def changed(**where: object) -> np.ndarray:
    pixels = ORDINARY.copy()
    pixels[0, : where["rows"]] = where["value"]
    return pixels


@pytest.mark.parametrize(
    ("image", "flags"),
    [
        (Image(ORDINARY), ()),
        (Image(ORDINARY[:, :10]), ("very small",)),
        (Image(np.full((1, 20, 20), 5, np.uint8)), ("constant",)),
        (Image(changed(rows=10, value=4095)), ("clipped",)),
        (Image(changed(rows=10, value=0)), ()),
        (Image((ORDINARY > 2000).astype(np.uint8)), ()),
        (
            Image(
                changed(rows=32, value=1) + np.eye(32, dtype=np.uint16)[None, :, ::-1] * (np.arange(32) < 4)
            ),
            ("nearly blank",),
        ),
        (Image(ORDINARY, valid=np.arange(1024).reshape(32, 32) < 100), ("mostly padding",)),
        (Image(ORDINARY, valid=np.zeros((32, 32), bool)), ("mostly padding", "constant")),
        (Image(np.stack([ORDINARY] * 3, axis=1)), ()),
    ],
)
def test_flags(image, flags):
    assert quality_flags(image) == flags
