"""Pairs of embeddings, of two views of each image: what every objective on them asks, and the joint batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from fewlabel.processes import gathered, rank, world_size
from fewlabel.types import Batch, FewlabelError


def two_views(batch: Batch, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The two views (B, C, [D,] H, W) of a batch; FewlabelError if they are not 2. name: the objective's."""
    if len(batch.views) != 2:
        raise FewlabelError(f"{name} got {len(batch.views)} view(s) of each image: it needs exactly 2.")
    return batch.views[0], batch.views[1]


def check_pair(z1: torch.Tensor, z2: torch.Tensor) -> None:
    """Raise FewlabelError unless both are embeddings (N, K), N >= 2 over all processes."""
    if z1.shape != z2.shape or z1.dim() != 2:
        raise FewlabelError(
            f"z1 is {tuple(z1.shape)}, z2 is {tuple(z2.shape)}: both views need the same batch of shape "
            "(N, K). Set drop_last=True if your own loader leaves a shorter last batch."
        )
    if z1.shape[0] * world_size() < 2:
        raise FewlabelError(
            f"The batch holds {z1.shape[0]} image: at least 2 are needed. Raise the batch size."
        )


def in_full(z: torch.Tensor) -> torch.Tensor:
    """z in 32 bits, where it has fewer; 64 stay."""
    return z if z.dtype == torch.float64 else z.float()


def unit(z: torch.Tensor) -> torch.Tensor:
    """Rows of length 1 in 32 bits or more: in bf16 a cosine is wrong by 1 % before it is divided by tau."""
    return F.normalize(in_full(z), dim=1)


def joint(z: torch.Tensor) -> torch.Tensor:
    """The rows z (n, ...) of all processes one below the other, (N, ...), with gradients to one's own.

    For a loss that every process computes alike from the joint batch. A process's own gradient counts for as
    many as there are processes, since DistributedDataParallel takes their mean.
    """
    return z if world_size() == 1 else _Joint.apply(z)


class _Joint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: torch.Tensor) -> torch.Tensor:
        ctx.own = slice(rank() * z.shape[0], (rank() + 1) * z.shape[0])
        return gathered(z)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient[ctx.own] * world_size()
