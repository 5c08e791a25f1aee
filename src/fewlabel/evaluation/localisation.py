"""How well a map of scores finds a place that is known: pixel AUROC, and whether the highest value hits.

Both look at images that have such a place; they say nothing of whether an image has one.
"""

from __future__ import annotations

import numpy as np

from fewlabel.types import FewlabelError

BINS = 2000
"""Of map values, by their quantiles: the AUROC of the bins is within 1 / 2000 of that of the pixels."""


def pixel_counts(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """How many pixels of each image lie in each bin of map values, (N, 2, BINS): outside of the mask, and inside.

    maps: (N, H, W) scores. masks: (N, H, W) bool. Bins hold equal numbers of all pixels, but for ties. Raises
    FewlabelError for shapes that differ.
    """
    if maps.ndim != 3 or maps.shape != masks.shape:
        raise FewlabelError(
            f"Maps are {maps.shape} and masks {masks.shape}: one mask of the size of its map is needed for each image."
        )
    edges = np.unique(np.quantile(maps, np.linspace(0, 1, BINS + 1)[1:-1]))
    place = np.searchsorted(edges, maps.reshape(len(maps), -1), side="right")  # (N, H W)
    place += BINS * masks.reshape(len(maps), -1) + 2 * BINS * np.arange(len(maps))[:, None]
    return np.bincount(place.ravel(), minlength=2 * BINS * len(maps)).reshape(len(maps), 2, BINS)


def pixel_auroc(y: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """P(a pixel inside scores above one outside) + half of P(same bin), over the pixels of all images drawn. (R,).

    y: not looked at, so that `bootstrap` can call it. counts: `pixel_counts`, (N, 2 BINS) or (N, 2, BINS). weights:
    (R, N) how often each image was drawn.
    """
    drawn = weights.astype(np.float64) @ counts.reshape(len(counts), -1)  # (R, 2 BINS)
    outside, inside = drawn[:, :BINS], drawn[:, BINS:]
    below = np.cumsum(outside, axis=1) - outside / 2
    pairs = outside.sum(axis=1) * inside.sum(axis=1)
    area = (inside * below).sum(axis=1)
    return np.divide(area, pairs, out=np.full(len(area), np.nan), where=pairs > 0)


def hits(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """(N,) bool: whether the highest value of each map (N, H, W) lies in its mask; of equal ones the first counts."""
    highest = maps.reshape(len(maps), -1).argmax(axis=1)
    return masks.reshape(len(masks), -1)[np.arange(len(maps)), highest]
