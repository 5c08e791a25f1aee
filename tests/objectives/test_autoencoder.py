"""Autoencoder: the error by loops, what is hidden, and that it learns to reconstruct what it was not shown."""

import numpy as np
import pytest
import torch

from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives.autoencoder import BLOCK_PX, Autoencoder, corrupt, reconstruction_error
from fewlabel.training import TrainingSet, fit
from fewlabel.types import Batch, FewlabelError, Schedule
from fewlabel.views import plain_view


def autoencoder(size_px: int = 16, channels: int = 1, **arguments: float) -> Autoencoder:
    torch.manual_seed(0)
    encoder = Encoder(EncoderSettings("test_resnet", channels=channels, size_px=size_px))
    return Autoencoder(encoder, latent_dim=16, width=8, **arguments)


def test_error_by_loops() -> None:
    x, y = torch.rand(2, 2, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for i, found in enumerate(reconstruction_error(x, y)):
        wanted = (
            sum((float(x[i, 0, r, c]) - float(y[i, 0, r, c])) ** 2 for r in range(3) for c in range(3)) / 9
        )
        assert float(found) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(("size_px", "channels"), [(8, 1), (24, 3), (40, 1)])
def test_any_side_that_8_divides_and_colour(size_px: int, channels: int) -> None:
    model = autoencoder(size_px, channels)
    x = torch.rand(2, channels, size_px, size_px)
    made = model.reconstruct(x)
    assert made.shape == x.shape
    assert 0 < float(made.min()) <= float(made.max()) < 1


@pytest.mark.parametrize("size_px", [20, 4])
def test_another_side_is_one_sentence(size_px: int) -> None:
    with pytest.raises(
        FewlabelError, match=rf"Images of {size_px} px were to be decoded: a side that 8 divides"
    ):
        autoencoder(size_px)


def test_images_of_another_size_are_one_sentence() -> None:
    with pytest.raises(FewlabelError, match=r"Images are \(1, 24, 24\) and the decoder gives \(1, 16, 16\)"):
        autoencoder(16).loss(Batch(views=(torch.rand(2, 1, 24, 24),)))


def test_wrong_arguments_are_one_sentence() -> None:
    with pytest.raises(FewlabelError, match="hidden is 1: a deviation from 0 and a share"):
        autoencoder(hidden=1.0)


def test_hidden_blocks_are_whole_and_the_rest_stays() -> None:
    torch.manual_seed(0)
    x = torch.rand(50, 1, 24, 20) * 0.4
    seen = corrupt(x, noise=0.0, hidden=0.3)
    changed = seen != x
    assert torch.all(seen[changed] == 0.5)
    blocks = changed[:, 0, :, :16].unfold(1, BLOCK_PX, BLOCK_PX).unfold(2, BLOCK_PX, BLOCK_PX).flatten(-2)
    assert torch.equal(blocks.any(-1), blocks.all(-1))
    assert 0.2 < float(changed.float().mean()) < 0.4


def test_noise_has_the_deviation_asked_for() -> None:
    torch.manual_seed(0)
    noisy = corrupt(torch.full((8, 1, 32, 32), 0.5), noise=0.1, hidden=0.0)
    assert float(noisy.std()) == pytest.approx(0.1, rel=0.05)


def test_it_learns_to_show_what_was_hidden() -> None:
    rng = np.random.default_rng(0)
    level = rng.integers(30, 225, (64, 1, 1, 1))
    images = np.broadcast_to(level, (64, 1, 16, 16)).astype(np.uint8).copy()
    model = autoencoder(hidden=0.25)
    data = TrainingSet((images,), (np.arange(64),))
    fit(model, data, plain_view(16), Schedule(150, 32, 3e-3))
    model.eval()
    x = torch.from_numpy(images).float() / 255
    with torch.no_grad():
        seen = corrupt(x, noise=0.0, hidden=0.25)
        error = reconstruction_error(x, model.reconstruct(seen)).mean()
        assert error < 0.3 * reconstruction_error(x, seen).mean()
