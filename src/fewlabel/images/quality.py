"""Short marks on images that a person should look at before trusting them."""

from __future__ import annotations

import numpy as np

from fewlabel.types import Image

SMALLEST_SIDE = 16
LEAST_VALID = 0.2
MOST_CLIPPED = 0.2
MOST_BLANK = 0.99


def quality_flags(image: Image) -> tuple[str, ...]:
    """Marks of an image that was read right but may be of little use.

    "constant"        every valid pixel has the same value.
    "mostly padding"  less than 20 % of the pixels are valid.
    "very small"      height or width is below 16 pixels.
    "nearly blank"    one value fills more than 99 % of the valid pixels.
    "clipped"         more than 20 % of the valid pixels sit on the highest value, so detail is lost there.
    """
    flags = []
    if min(image.pixels.shape[-2:]) < SMALLEST_SIDE:
        flags.append("very small")
    if image.valid is not None and image.valid.mean() < LEAST_VALID:
        flags.append("mostly padding")
    values = _valid_values(image)
    if values.size == 0 or values.min() == values.max():
        return (*flags, "constant")
    if _largest_share(values) > MOST_BLANK:
        flags.append("nearly blank")
    elif np.mean(values == values.max()) > MOST_CLIPPED and len(np.unique(values)) > 2:
        flags.append("clipped")
    return tuple(flags)


def _valid_values(image: Image) -> np.ndarray:
    pixels = image.pixels
    return pixels.ravel() if image.valid is None else pixels[:, image.valid].ravel()


def _largest_share(values: np.ndarray) -> float:
    """Share of the commonest value; the median is that value whenever its share is above one half."""
    middle = np.partition(values, values.size // 2)[values.size // 2]
    return float(np.mean(values == middle))
