"""Batch normalisation over the images of all processes, on CPU as well (torch's own needs a GPU)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fewlabel.networks.torchvision_shim import ensure_torchvision
from fewlabel.processes import summed, world_size


def synchronise_batchnorm(module: nn.Module, device: torch.device) -> None:
    """Have every batch-norm layer below `module` take its statistics from all processes; in place, same weights.

    On a GPU these become torch's SyncBatchNorm; on CPU the layers of this file. One process: nothing changes.
    """
    if world_size() == 1:
        return
    ensure_torchvision()
    from timm.layers import BatchNormAct2d, convert_sync_batchnorm

    if device.type == "cuda":
        for name, child in module.named_children():
            setattr(module, name, convert_sync_batchnorm(child))
        return
    synced = {**_SYNCED, BatchNormAct2d: _SynchronisedAct2d}
    for layer in module.modules():
        if type(layer) in synced:  # the same layer with the same weights and buffers, of another class
            layer.__class__ = synced[type(layer)]


class _Total(torch.autograd.Function):
    """The sum of x over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return summed(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return summed(gradient)


class _Synchronised(nn.modules.batchnorm._BatchNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        dims = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        wide = x if x.dtype == torch.float64 else x.float()
        count = wide.new_tensor([wide.numel() / wide.shape[1]])
        totals: torch.Tensor = _Total.apply(torch.cat([wide.sum(dims), count]))
        number = totals[-1].detach()
        mean = totals[:-1] / number
        centred = wide - mean.view(shape)
        variance: torch.Tensor = _Total.apply(centred.square().sum(dims)) / number
        self._remember(mean.detach(), variance.detach(), number)
        y = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is not None:
            y = y * self.weight.view(shape)
        if self.bias is not None:
            y = y + self.bias.view(shape)
        return y.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: torch.Tensor, variance: torch.Tensor, number: torch.Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        unbiased = variance * number / (number - 1).clamp(min=1)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


class _Synchronised1d(_Synchronised, nn.BatchNorm1d):
    pass


class _Synchronised2d(_Synchronised, nn.BatchNorm2d):
    pass


class _Synchronised3d(_Synchronised, nn.BatchNorm3d):
    pass


class _SynchronisedAct2d(_Synchronised2d):
    """timm's `BatchNormAct2d`: what follows the normalisation is part of the layer."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.drop(super().forward(x)))


_SYNCED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _Synchronised1d,
    nn.BatchNorm2d: _Synchronised2d,
    nn.BatchNorm3d: _Synchronised3d,
}
