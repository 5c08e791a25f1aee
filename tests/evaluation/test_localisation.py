"""Maps against known places: pixel AUROC against scikit-learn, hits by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fewlabel.evaluation.intervals import bootstrap, draw_resamples
from fewlabel.evaluation.localisation import hits, pixel_auroc, pixel_counts
from fewlabel.types import FewlabelError


def some(count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    masks = rng.random((count, 16, 16)) < 0.1
    return rng.normal(size=masks.shape) + masks, masks


def test_the_area_of_all_pixels_is_that_of_scikit_learn() -> None:
    maps, masks = some()
    counts = pixel_counts(maps, masks)
    assert counts.sum() == maps.size
    assert counts[:, 1].sum(axis=1) == pytest.approx(masks.sum(axis=(1, 2)))
    weights = np.array([[1] * 12, [0, 3] + [1] * 10, [0] * 12])
    found = pixel_auroc(np.ones(12), counts, weights)
    assert found[0] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-3)
    drawn = np.repeat(np.arange(12), weights[1])
    assert found[1] == pytest.approx(roc_auc_score(masks[drawn].ravel(), maps[drawn].ravel()), abs=1e-3)
    assert np.isnan(found[2])


def test_equal_values_count_half() -> None:
    masks = np.zeros((1, 2, 2), bool)
    masks[0, 0] = True
    for maps, wanted in (([[1, 1], [1, 1]], 0.5), ([[2, 3], [0, 1]], 1.0), ([[2, 1], [1, 0]], 0.875)):
        counts = pixel_counts(np.array([maps], float), masks)
        assert pixel_auroc(np.ones(1), counts, np.ones((1, 1))) == pytest.approx([wanted])


def test_the_bootstrap_takes_it() -> None:
    maps, masks = some()
    drawn = draw_resamples(np.arange(12), resamples=50, seed=0)
    found = bootstrap(pixel_auroc, np.ones(12), pixel_counts(maps, masks)[None], drawn)
    low, high = found.interval()
    assert low < found.value < high


def test_the_highest_value_hits_or_misses() -> None:
    maps, masks = np.zeros((2, 3, 3)), np.zeros((2, 3, 3), bool)
    maps[:, 1, 2] = 1
    masks[0, 1, 2] = masks[1, 0, 0] = True
    assert hits(maps, masks).tolist() == [True, False]


def test_masks_of_another_size_are_refused() -> None:
    with pytest.raises(FewlabelError, match=r"Maps are \(1, 4, 4\) and masks \(1, 5, 5\)"):
        pixel_counts(np.zeros((1, 4, 4)), np.zeros((1, 5, 5), bool))
