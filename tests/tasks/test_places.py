"""Places of an encoder: where features h lie, for convolutional networks and vision transformers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.tasks.places import PlaceSimilarity, place_features
from fewlabel.types import FewlabelError


def _encoder(name: str, size_px: int, seed: int = 0) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Encoder(EncoderSettings(name, 1, size_px)).eval()


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_convnext", "test_efficientnet", "mobilenetv3_small_050"]
)
@torch.no_grad()
def test_the_one_place_of_a_small_image_is_the_image(name: str) -> None:
    """At 32 px the map has one place. Some networks have a norm or a layer behind the pooling: the place has it too."""
    encoder, x = _encoder(name, 32), torch.rand(3, 1, 32, 32)
    found = place_features(encoder, x)
    assert found.shape == (3, 1, 1, encoder.dim)
    assert torch.equal(found[:, 0, 0], encoder(x))


@torch.no_grad()
def test_the_places_of_a_resnet_are_its_map_and_their_mean_is_h() -> None:
    encoder, x = _encoder("test_resnet", 64), torch.rand(2, 1, 64, 96)
    encoder.mean, encoder.std = torch.full((1, 1, 1), 0.2), torch.full((1, 1, 1), 0.7)
    network = encoder.network
    found = place_features(encoder, x)
    assert found.shape == (2, 2, 3, encoder.dim)
    torch.testing.assert_close(found.permute(0, 3, 1, 2), network.forward_features((x - 0.2) / 0.7))  # type: ignore[operator]
    torch.testing.assert_close(found.mean(dim=(1, 2)), encoder(x))


@pytest.mark.parametrize("name", ["test_vit", "test_vit4"])
@torch.no_grad()
def test_the_places_of_a_transformer_are_its_patches(name: str) -> None:
    """The first pools by the class token, the other by the mean of the patches."""
    encoder, x = _encoder(name, 160), torch.rand(2, 1, 160, 160)
    network = encoder.network
    tokens = network.forward_features((x - encoder.mean) / encoder.std)  # type: ignore[operator]
    found = place_features(encoder, x)
    assert found.shape == (2, 10, 10, encoder.dim)
    wanted = network.fc_norm(tokens[:, network.num_prefix_tokens :])  # type: ignore[operator, misc]
    torch.testing.assert_close(found.flatten(1, 2), wanted)


@torch.no_grad()
def test_a_transformers_places_lie_in_rows() -> None:
    """One bright patch changes its own token most."""
    encoder, dark = _encoder("test_vit", 160), torch.zeros(1, 1, 160, 160)
    bright = dark.clone()
    bright[:, :, 32:48, 112:128] = 1
    change = (place_features(encoder, bright) - place_features(encoder, dark)).norm(dim=-1)[0]
    assert divmod(int(change.argmax()), 10) == (2, 7)


def test_other_networks_are_refused() -> None:
    encoder = _encoder("test_mambaout", 32)  # its map lies (B, h, w, F)
    with pytest.raises(FewlabelError, match=r"test_mambaout has a feature map of shape \(1, 1, 1, 64\)"):
        place_features(encoder, torch.rand(1, 1, 32, 32))


@torch.no_grad()
def test_similarity_is_the_cosine_of_each_projected_place() -> None:
    encoder, x = _encoder("test_resnet", 64), torch.rand(2, 1, 64, 64)
    head = nn.Sequential(nn.Linear(encoder.dim, 8), nn.ReLU(), nn.Linear(8, 5, bias=False))
    text = torch.randn(5)
    found = PlaceSimilarity(encoder, head, text)(x)
    places = place_features(encoder, x)
    assert found.shape == (2, 2, 2)
    for b, i, j in ((0, 0, 1), (1, 1, 0)):
        v = head(places[b, i, j])
        assert float(found[b, i, j]) == pytest.approx(float(v @ text / v.norm() / text.norm()), abs=1e-5)
