from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabel.collection.resample import area_resample, cast_like, fitted_size, luminance, thumbnail, to_range


def area_mean(x: np.ndarray, new: int) -> np.ndarray:
    """The plain loop: the mean over the covered stretch of a line, fractions of a pixel counted as such."""
    step = len(x) / new
    out = np.zeros(new)
    for i in range(new):
        for j in range(len(x)):
            out[i] += x[j] * max(0.0, min(j + 1, (i + 1) * step) - max(j, i * step))
    return out / step


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 23), st.integers(1, 23), st.integers(0, 2**16))
def test_shrinking_is_the_mean_of_the_covered_area(old: int, new: int, seed: int) -> None:
    new = min(old, new)
    x = np.random.default_rng(seed).integers(-1000, 3000, (1, 3, old)).astype(np.int16)
    found = area_resample(x, 3, new)
    assert found.shape == (1, 3, new)
    np.testing.assert_allclose(found[0], [area_mean(row, new) for row in x[0]], atol=0.01)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.integers(1, 60), st.integers(0, 255))
def test_a_constant_image_stays_constant(h: int, w: int, new_h: int, new_w: int, value: int) -> None:
    found = area_resample(np.full((1, h, w), value, np.uint8), new_h, new_w)
    np.testing.assert_allclose(found, value, atol=1e-3)


def test_enlarging_is_linear_interpolation() -> None:
    np.testing.assert_allclose(area_resample(np.array([[0.0, 4.0]]), 1, 4)[0], [0, 1, 3, 4])


def test_padding_does_not_bleed_into_its_neighbours() -> None:
    x = np.full((1, 4, 4), 100, np.int16)
    x[:, :, 0] = -2000
    valid = np.ones((4, 4), bool)
    valid[:, 0] = False
    np.testing.assert_allclose(area_resample(x, 2, 2, valid=valid), 100)


def test_fitted_size_keeps_aspect_and_never_vanishes() -> None:
    assert fitted_size(400, 200, 100) == (100, 50)
    assert fitted_size(1000, 1, 10) == (10, 1)


def test_cast_like_rounds_and_clips() -> None:
    assert cast_like(np.array([-5.0, 1.5, 300.0]), np.dtype(np.uint8)).tolist() == [0, 2, 255]


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_to_range_maps_ends_to_ends_and_clips(dtype: type, top: int) -> None:
    found = to_range(np.array([-2000.0, -1000.0, 0.0, 1000.0, 5000.0]), -1000, 1000, np.dtype(dtype))
    assert found.tolist() == [0, 0, (top + 1) // 2, top, top]


def test_thumbnail_of_a_volume_is_its_middle_slice_with_padding_black() -> None:
    volume = np.zeros((1, 3, 64, 64), np.int16)
    volume[0, 1] = 100
    valid = np.ones((3, 64, 64), bool)
    valid[1, :32] = False
    small = thumbnail(volume, valid, 0, 100).reshape(32, 32)
    assert (small[:16] == 0).all()
    assert (small[16:] == 255).all()


def test_luminance_of_equal_channels_is_that_channel() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    np.testing.assert_allclose(luminance(np.repeat(grey, 3, axis=0)), grey, rtol=1e-6)
