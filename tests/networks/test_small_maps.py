"""3x3 convolutions on maps of 1x1 to 2x2 places: torch's own convolution is the oracle."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fewlabel.networks import Encoder, EncoderSettings, small_maps
from fewlabel.networks.small_maps import SmallMapConv2d, multiply_on_small_maps


def both(x: torch.Tensor, *, stride: int = 1, bias: bool = False) -> list[tuple[torch.Tensor, ...]]:
    """(output, gradients of x, weight and bias) of torch's convolution and of ours."""
    torch.manual_seed(0)
    plain = nn.Conv2d(x.shape[1], 7, 3, stride, 1, bias=bias).to(x.dtype)
    ours = copy.deepcopy(plain)
    multiply_on_small_maps(ours)
    assert type(ours) is SmallMapConv2d
    found = []
    for layer in (plain, ours):
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        pull = torch.linspace(-1, 2, y.numel(), dtype=x.dtype).view(y.shape)
        found.append((y, *torch.autograd.grad(y, [leaf, *layer.parameters()], pull)))
    return found


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 2), (2, 1)], ids=str)
def test_outputs_and_gradients_are_those_of_the_convolution(
    shape: tuple[int, int], stride: int, bias: bool
) -> None:
    x = torch.randn(5, 3, *shape, dtype=torch.float64)
    for theirs, ours in zip(*both(x, stride=stride, bias=bias), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_in_bf16_it_is_the_convolution_within_rounding() -> None:
    x = torch.randn(64, 32, 2, 2)
    exact = both(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = both(x)[1]
    assert found[0].dtype == torch.bfloat16
    assert [g.dtype for g in found[1:]] == [torch.float32] * 2
    for a, b in zip(found, exact, strict=True):
        assert (a - b).abs().max() < 0.02 * b.abs().max()


def test_only_where_it_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[int, ...]] = []
    apply = small_maps._DenseConvolution.apply
    monkeypatch.setattr(
        small_maps._DenseConvolution,
        "apply",
        lambda x, *rest: called.append(tuple(x.shape)) or apply(x, *rest),
    )
    layer = nn.Conv2d(2, 4, 3, padding=1)
    multiply_on_small_maps(layer)
    layer(torch.rand(1, 2, 3, 3))
    with torch.no_grad():
        layer(torch.rand(1, 2, 2, 2))
    assert called == []
    layer(torch.rand(1, 2, 2, 2))
    assert called == [(1, 2, 2, 2)]


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(4, 4, 3, padding=1),
    ],
    ids=["1x1", "no padding", "groups", "dilation", "reflect", "transposed"],
)
def test_other_convolutions_are_left_alone(layer: nn.Module) -> None:
    before = type(layer)
    multiply_on_small_maps(layer)
    assert type(layer) is before


def test_an_encoder_trains_with_it() -> None:
    encoder = Encoder(EncoderSettings("resnet10t", 1, 32))
    assert any(type(layer) is SmallMapConv2d for layer in encoder.modules())
    plain = copy.deepcopy(encoder)
    for layer in plain.modules():
        if type(layer) is SmallMapConv2d:
            layer.__class__ = nn.Conv2d
    x = torch.rand(6, 1, 32, 32)
    for one in (encoder, plain):
        one(x).square().sum().backward()
    for (name, a), b in zip(encoder.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-3 * float(b.grad.abs().max())), name
