"""Features: as by a plain forward pass, taken once, never from a damaged cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fewlabel.adaptation import features as module
from fewlabel.adaptation.features import cached_features, extract_features, weights_fingerprint
from fewlabel.networks import Encoder, EncoderSettings

SIZE_PX = 16


def encoder(seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(EncoderSettings("test_resnet", 1, SIZE_PX))


def images(count: int = 5, dtype: type = np.uint8, size: int = SIZE_PX) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, top, (count, 1, size, size), dtype=dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("batch_size", [2, 256])
def test_features_are_a_plain_forward_pass(dtype: type, batch_size: int) -> None:
    network, pixels = encoder(), images(dtype=dtype)
    found = extract_features(network, pixels, size_px=SIZE_PX, batch_size=batch_size)
    network.eval()
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels.astype(np.float32) / np.iinfo(dtype).max))
    assert found.dtype == np.float32
    assert np.allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_encoder_is_left_as_it_was(training: bool) -> None:
    network = encoder().train(training)
    before = weights_fingerprint(network)
    extract_features(network, images(), size_px=SIZE_PX)
    assert network.training is training
    assert weights_fingerprint(network) == before


def test_larger_images_are_shrunk_to_the_encoders_size() -> None:
    flat = np.full((1, 1, 2 * SIZE_PX, 2 * SIZE_PX), 90, np.uint8)
    small, large = (
        extract_features(encoder(), pixels, size_px=SIZE_PX) for pixels in (flat[..., ::2, ::2], flat)
    )
    assert np.allclose(small, large, atol=1e-5)


class Counted:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.original = extract_features
        monkeypatch.setattr(module, "extract_features", self)

    def __call__(self, *arguments: object, **named: object) -> np.ndarray:
        self.calls += 1
        return self.original(*arguments, **named)  # type: ignore[arg-type]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def cached(network: Encoder, folder: Path | None, fingerprint: str = "a" * 64, **changes: int) -> np.ndarray:
    pixels = images(changes.get("count", 5), size=changes.get("size", SIZE_PX))
    return cached_features(network, pixels, size_px=SIZE_PX, fingerprint=fingerprint, folder=folder)


def test_the_cache_is_hit_by_the_same_and_missed_by_anything_else(counted: Counted, tmp_path: Path) -> None:
    first = cached(encoder(), tmp_path / "features")
    assert np.array_equal(cached(encoder(), tmp_path / "features"), first)
    assert counted.calls == 1
    assert not np.array_equal(cached(encoder(1), tmp_path / "features"), first)
    cached(encoder(), tmp_path / "features", fingerprint="b" * 64)
    cached(encoder(), tmp_path / "features", size=2 * SIZE_PX)
    assert counted.calls == 4
    assert len(list((tmp_path / "features").iterdir())) == 4
    assert len(cached(encoder(), tmp_path / "features", count=6)) == 6
    assert counted.calls == 5


def test_without_a_folder_nothing_is_kept(counted: Counted) -> None:
    assert np.array_equal(cached(encoder(), None), cached(encoder(), None))
    assert counted.calls == 2


@pytest.mark.parametrize("keep", [0, 20, 100, 400])
def test_a_cache_file_that_was_cut_short_is_made_again(keep: int, counted: Counted, tmp_path: Path) -> None:
    first = cached(encoder(), tmp_path)
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    assert np.array_equal(cached(encoder(), tmp_path), first)
    assert counted.calls == 2
    assert path.read_bytes() == whole


def test_fingerprints_see_weights_and_statistics() -> None:
    network = encoder()
    before = weights_fingerprint(network)
    assert weights_fingerprint(encoder()) == before
    network.network.bn1.running_mean += 1e-6
    assert weights_fingerprint(network) != before
