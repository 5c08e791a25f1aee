"""Networks that follow others: an exponential moving average of their weights, as BYOL and MoCo use it."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def frozen_copy(network: Network) -> Network:
    """A copy with the same weights that takes no gradient; it has batch statistics of its own."""
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def follow(target: nn.Module, source: nn.Module, momentum: float) -> None:
    """target <- momentum * target + (1 - momentum) * source, for each parameter, in place.

    Buffers stay: the batch statistics of a target are those of its own forward passes.
    """
    for theirs, ours in zip(target.parameters(), source.parameters(), strict=True):
        theirs.lerp_(ours, 1 - momentum)
