"""3x3 convolutions over maps of at most 2x2 places, as matrix products.

Small images leave a ResNet's last stages maps of 2x2 or 1x1 places, where most of a padded 3x3 window lies outside of
the map. The convolution is then a dense linear map of all places of the input to all places of the output; on CPU its
product takes a fifth of the time and less (docs/decisions/training-speed.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

LARGEST = 2
"""Places along an axis. On larger maps most of the dense matrix would be zeros."""


class SmallMapConv2d(nn.Conv2d):
    """A 3x3 `Conv2d` that trains as a matrix product where maps are small and lie on the CPU; else as it always does.

    Input (B, C, H, W), output (B, O, H', W'), equal to those of `Conv2d` within rounding; the weights are the same.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        small = x.dim() == 4 and max(x.shape[-2:]) <= LARGEST
        if not (small and x.device.type == "cpu" and torch.is_grad_enabled()):
            return super().forward(x)
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.get_autocast_dtype("cpu"))
        y = _DenseConvolution.apply(x, self.weight, self.stride)
        return y if self.bias is None else y + self.bias.to(y.dtype)[:, None, None]


def multiply_on_small_maps(network: nn.Module) -> None:
    """Turn all plain 3x3 convolutions of the network into `SmallMapConv2d`; in place, parameters and names stay."""
    for layer in network.modules():
        if (
            type(layer) is nn.Conv2d
            and layer.kernel_size == (3, 3)
            and layer.padding == (1, 1)
            and layer.dilation == (1, 1)
            and layer.groups == 1
            and layer.padding_mode == "zeros"
        ):
            layer.__class__ = SmallMapConv2d


def _places(
    shape: tuple[int, int], out_shape: tuple[int, int], stride: tuple[int, int]
) -> Iterator[tuple[int, int, int, int, int, int]]:
    """(row, column) of the output, (row, column) of the input, (row, column) of the weight that joins them."""
    for p, q in ((p, q) for p in range(out_shape[0]) for q in range(out_shape[1])):
        for i, j in ((i, j) for i in range(shape[0]) for j in range(shape[1])):
            yield p, q, i, j, i - p * stride[0] + 1, j - q * stride[1] + 1


class _DenseConvolution(torch.autograd.Function):
    """x (B, C, H, W) with H, W <= 2; weight (O, C, 3, 3), padding 1 -> (B, O, H', W'), channels last."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, stride: tuple[int, int]) -> torch.Tensor:
        (batch, channels, *shape), out_channels = x.shape, len(weight)
        out_shape = [(length - 1) // step + 1 for length, step in zip(shape, stride, strict=True)]
        dense = x.new_empty(*out_shape, out_channels, *shape, channels)
        places = list(_places((shape[0], shape[1]), (out_shape[0], out_shape[1]), stride))
        for p, q, i, j, row, column in places:
            dense[p, q, :, i, j] = weight[:, :, row, column]
        flat = x.permute(0, 2, 3, 1).reshape(batch, -1)  # (B, H W C)
        y = flat @ dense.view(-1, flat.shape[1]).T  # (B, H' W' O)
        ctx.save_for_backward(flat, dense)
        ctx.places, ctx.shape, ctx.weight_dtype = places, x.shape, weight.dtype
        return y.view(batch, *out_shape, out_channels).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, dense = ctx.saved_tensors
        batch, channels, height, width = ctx.shape
        by_place = gradient.permute(0, 2, 3, 1).reshape(batch, -1)  # (B, H' W' O)
        to_x = (by_place @ dense.view(by_place.shape[1], -1)).view(batch, height, width, channels)
        by_pair = (by_place.T @ flat).view(dense.shape)
        to_weight = torch.zeros(len(by_pair[0, 0]), 3, 3, channels, dtype=ctx.weight_dtype).permute(
            0, 3, 1, 2
        )
        for p, q, i, j, row, column in ctx.places:
            to_weight[:, :, row, column] += by_pair[p, q, :, i, j]
        return to_x.permute(0, 3, 1, 2), to_weight, None
