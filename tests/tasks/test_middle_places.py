"""Middle levels of a network place by place: which levels, and what a place holds."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.tasks.places import middle_features
from fewlabel.types import FewlabelError


def made(name: str, size_px: int) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Encoder(EncoderSettings(name, 1, size_px)).eval()


@pytest.mark.parametrize(
    ("size_px", "finer", "coarser"),
    [(224, 2, 3), (64, 1, 2), (32, 0, 1), (16, 0, 1)],  # strides of 8 and 16 as in the paper; then finer ones
)
@torch.no_grad()
def test_levels_follow_the_size_of_the_image(size_px: int, finer: int, coarser: int) -> None:
    encoder, x = made("resnet10t", size_px), torch.rand(1, 1, size_px, size_px)
    levels = encoder.network.forward_intermediates((x - 0.5) / 0.25, intermediates_only=True)  # type: ignore[operator]
    first, second = levels[finer], levels[coarser]
    found = middle_features(encoder, x)
    assert found.shape == (1, *first.shape[-2:], first.shape[1] + second.shape[1])
    i, j = first.shape[-2] // 2, 0  # at the border only the places that there are count
    mean = first[0, :, i - 1 : i + 2, 0:2].mean(dim=(1, 2))
    torch.testing.assert_close(found[0, i, j, : first.shape[1]], mean)
    pooled = F.avg_pool2d(second, 3, 1, 1, count_include_pad=False)
    wanted = F.interpolate(pooled, first.shape[-2:], mode="bilinear")
    torch.testing.assert_close(found[0, ..., first.shape[1] :].permute(2, 0, 1), wanted[0])


@torch.no_grad()
def test_a_bright_patch_changes_its_own_place_most() -> None:
    for name in ("test_resnet", "test_vit"):
        encoder, dark = made(name, 160), torch.zeros(1, 1, 160, 160)
        bright = dark.clone()
        bright[:, :, 32:48, 112:128] = 1
        change = (middle_features(encoder, bright) - middle_features(encoder, dark)).norm(dim=-1)[0]
        row, column = divmod(int(change.argmax()), change.shape[1])
        assert abs((row + 0.5) / change.shape[0] - 40 / 160) < 0.12
        assert abs((column + 0.5) / change.shape[1] - 120 / 160) < 0.12


def test_networks_without_levels_are_refused() -> None:
    encoder = made("test_resnet", 32)
    encoder.network = nn.Flatten()
    with pytest.raises(FewlabelError, match="does not give two middle levels"):
        middle_features(encoder, torch.rand(1, 1, 32, 32))
