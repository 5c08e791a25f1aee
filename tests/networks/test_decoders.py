"""A doubling convolution is the doubling and the convolution that it stands for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fewlabel.networks.decoders import Decoder, DoublingConv2d


def plainly(layer: DoublingConv2d, x: torch.Tensor) -> torch.Tensor:
    return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), layer.weight, padding=1)


@pytest.mark.parametrize("side", [(1, 1), (4, 4), (3, 5)])
def test_doubling_and_convolving_at_once(side: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = DoublingConv2d(5, 7).double()
    x = torch.randn(2, 5, *side, generator=generator, dtype=torch.float64, requires_grad=True)
    towards = torch.randn(2, 7, 2 * side[0], 2 * side[1], generator=generator, dtype=torch.float64)
    found, wanted = layer(x), plainly(layer, x)
    assert found.shape == towards.shape
    torch.testing.assert_close(found, wanted)
    ours, theirs = (torch.autograd.grad((y * towards).sum(), [x, layer.weight]) for y in (found, wanted))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_a_decoder_doubles_three_times() -> None:
    decoder = Decoder(6, channels=2, size_px=24, width=4).eval()
    assert sum(isinstance(layer, DoublingConv2d) for layer in decoder.layers) == 3
    made = decoder(torch.randn(3, 6))
    assert made.shape == (3, 2, 24, 24)
    assert 0 < float(made.detach().min()) < float(made.detach().max()) < 1
