"""Scores and maps of the unusual: against plain loops, and cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives import VAE, Autoencoder
from fewlabel.tasks import anomaly
from fewlabel.tasks.anomaly import (
    ErrorMap,
    Mahalanobis,
    NegativeELBO,
    PatchMemory,
    UsualMap,
    coreset,
    draw_patches,
    peak,
    smoothed,
)
from fewlabel.tasks.places import middle_features
from fewlabel.types import FewlabelError

SIZE = 32


def encoder(name: str = "test_resnet", size_px: int = SIZE) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Encoder(EncoderSettings(name, 1, size_px)).eval()


def images(count: int, size_px: int = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 1, size_px, size_px), dtype=np.uint8)


@torch.no_grad()
def test_the_error_map_is_the_squared_error_of_each_pixel() -> None:
    model = Autoencoder(encoder(), latent_dim=4, width=4).eval()
    x = torch.rand(3, 1, SIZE, SIZE)
    given_back = model.reconstruct(x)
    found = ErrorMap(model)(x)
    assert found.shape == (3, SIZE, SIZE)
    assert float(found[1, 5, 7]) == pytest.approx(
        float((x[1, 0, 5, 7] - given_back[1, 0, 5, 7]) ** 2), rel=1e-5
    )


@torch.no_grad()
def test_the_bound_is_kl_less_log_likelihood_and_an_images_own() -> None:
    model = VAE(encoder(), latent_dim=4, width=4, scale=0.3).eval()
    model.to_mean.weight.mul_(30)  # so that the KL term counts
    x = torch.rand(6, 1, SIZE, SIZE)
    bound = NegativeELBO(model, draws=3)
    mean, log_variance = model.posterior(x)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    kl = kl_divergence(posterior, Normal(0.0, 1.0)).sum(1)
    said = [
        Normal(model.decoder(mean + posterior.stddev * e), 0.3).log_prob(x).sum((1, 2, 3))
        for e in bound.noise
    ]
    assert float(kl.min()) > 1
    torch.testing.assert_close(bound(x), kl - torch.stack(said).mean(0), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(bound(x)[4:5], bound(x[4:5]), rtol=1e-4, atol=1e-2)
    assert not torch.allclose(bound(x), NegativeELBO(model, draws=3, seed=1)(x), rtol=1e-4)


def test_smoothing_keeps_the_mass_and_the_peak_is_a_quantile() -> None:
    maps = np.zeros((1, 56, 56), np.float32)
    maps[0, 28, 28] = 1
    found = smoothed(maps)  # sigma of 1 px
    assert float(found.sum()) == pytest.approx(1, abs=1e-5)
    assert found[0, 28, 29] / found[0, 28, 28] == pytest.approx(math.exp(-0.5), rel=1e-3)
    assert smoothed(np.ones((2, 8, 8), np.float32)) == pytest.approx(np.ones((2, 8, 8)))
    ramp = np.arange(100.0).reshape(1, 10, 10)
    assert peak(ramp, 1.0) == pytest.approx([99])
    assert peak(ramp, 0.5) == pytest.approx([49.5])


def test_a_value_counts_by_what_is_usual_at_its_pixel() -> None:
    normal = np.zeros((4, 2, 2))
    normal[:, 0, 0] = [0, 10, 0, 10]  # a letter that is there or not
    normal[:, 1] = [[1, 1], [3, 3], [1, 1], [3, 3]]
    usual = UsualMap.of(normal)  # deviations 5, 0, 1, 1: a tenth of their median is 0.1
    found = usual(np.full((1, 2, 2), 10.0))
    assert found[0] == pytest.approx(np.array([[5 / 5.1, 10 / 0.1], [8 / 1.1, 8 / 1.1]]))


def test_mahalanobis_by_hand_and_by_the_shrunk_covariance() -> None:
    by_hand = Mahalanobis(np.array([1.0, 2.0]), np.array([[4.0, 0.0], [0.0, 0.25]]))
    assert by_hand.distances(np.array([[2.0, 4.0], [1.0, 2.0]])) == pytest.approx([math.sqrt(4 + 1), 0])
    features = np.random.default_rng(0).normal(size=(20, 30)) * np.linspace(
        0.1, 3, 30
    )  # fewer images than features
    fitted = Mahalanobis.of(features)
    centred = features - features.mean(axis=0)
    sample = centred.T @ centred / 20
    mu = np.trace(sample) / 30
    spread = ((sample - mu * np.eye(30)) ** 2).sum()
    noise = sum(((np.outer(x, x) - sample) ** 2).sum() for x in centred) / 20**2
    share = min(noise, spread) / spread  # Ledoit and Wolf 2004, section 3
    shrunk = (1 - share) * sample + share * mu * np.eye(30)
    for x, found in zip(features[:3], fitted.distances(features[:3]), strict=True):
        apart = x - features.mean(axis=0)
        assert found == pytest.approx(math.sqrt(apart @ np.linalg.solve(shrunk, apart)), rel=1e-6)
    with pytest.raises(FewlabelError, match="at least two"):
        Mahalanobis.of(features[:1])


def test_a_place_is_as_far_as_its_nearest_normal_one() -> None:
    rng = np.random.default_rng(0)
    patches, places = rng.normal(3, 2, (50, 5)), rng.normal(3, 4, (2, 3, 4, 5))
    found = PatchMemory.of(patches).distances(places)
    assert found.shape == (2, 3, 4)
    deviation = patches.std(axis=0)
    for n, i, j in ((0, 0, 0), (1, 2, 3), (0, 1, 2)):
        distances = [math.sqrt((((places[n, i, j] - one) / deviation) ** 2).mean()) for one in patches]
        assert found[n, i, j] == pytest.approx(min(distances), rel=1e-4)
    assert PatchMemory.of(patches).distances(patches.reshape(1, 5, 10, 5)) == pytest.approx(
        np.zeros((1, 5, 10)), abs=1e-3
    )
    with pytest.raises(FewlabelError, match="No normal place"):
        PatchMemory.of(np.empty((0, 5)))


def test_a_coreset_is_chosen_greedily() -> None:
    places = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    found = coreset(places, 8, seed=3)
    assert found.tolist() == sorted(set(found.tolist()))
    first = int(np.random.default_rng(3).integers(60))
    wanted = [first]
    while len(wanted) < 8:
        to_chosen = [min(math.dist(place, places[other]) for other in wanted) for place in places]
        wanted.append(max(range(60), key=lambda one: to_chosen[one]))
    assert set(found) == set(wanted)
    assert coreset(places, 60).tolist() == list(range(60))


def test_a_rare_normal_place_is_kept_and_near() -> None:
    """One place in 2,000 shows a letter: drawn by chance, 20 would lack it nearly always."""
    rng = np.random.default_rng(0)
    patches = np.concatenate([rng.normal(0, 1, (1999, 100)), np.full((1, 100), 4.0)])
    memory = PatchMemory.of(patches, count=20, seed=1)
    assert memory.bank.shape == (20, 100)
    assert memory.distances(patches[-1][None, None, None])[0, 0, 0] < 0.01
    whole = PatchMemory.of(patches)
    assert (memory.centre == whole.centre).all()
    assert (memory.spread == whole.spread).all()


def test_a_channel_that_never_varied_does_not_drown_the_others() -> None:
    patches = np.random.default_rng(0).normal(0, 1, (200, 5))
    patches[:, 0] = 0.5
    memory = PatchMemory.of(patches)
    assert memory.spread[0] == pytest.approx(0.1 * np.median(patches.std(axis=0)), rel=1e-5)
    place = np.zeros((1, 1, 1, 5))
    place[..., 0] = 0.6
    assert memory.distances(place)[0, 0, 0] < 2


@torch.no_grad()
def test_as_many_places_of_each_image_drawn_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    network, pixels = encoder(), images(7)
    places = middle_features(network, torch.from_numpy(pixels).float() / 255)
    of_image = places.flatten(1, 2).numpy()
    drawn = draw_patches(network, pixels, size_px=SIZE, count=21, seed=3)
    assert drawn.shape == (21, places.shape[-1])
    owner = [
        [i for i, own in enumerate(of_image) if np.isclose(own, one, atol=1e-5).all(axis=1).any()]
        for one in drawn
    ]
    assert np.bincount([found[0] for found in owner]).tolist() == [3] * 7
    monkeypatch.setattr(anomaly, "BLOCK", 2)
    assert draw_patches(network, pixels, size_px=SIZE, count=21, seed=3) == pytest.approx(drawn, abs=1e-4)
    assert not np.allclose(draw_patches(network, pixels, size_px=SIZE, count=21, seed=4), drawn)
    assert len(draw_patches(network, pixels, size_px=SIZE, count=5)) == 5
    every = draw_patches(network, pixels, size_px=SIZE, count=10**6)
    assert len(every) == of_image.shape[0] * of_image.shape[1]
