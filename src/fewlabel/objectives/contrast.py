"""Contrastive losses over a batch, in memory that grows with N and not with N squared.

Similarities are computed in tiles, forward only for their log-sum-exp, and once more in the backward pass, which is
written out below; no (2N, 2N) matrix ever exists. Where several processes train together, each contrasts its own
embeddings with those of all: the loss is that of the joint batch, and its gradients too (the mean of a process's
gradients over the processes, as DistributedDataParallel takes it, is the gradient of the joint batch).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from fewlabel.objectives.pairs import check_pair, unit
from fewlabel.processes import gathered, rank, summed, world_size
from fewlabel.types import FewlabelError

TILE = 1024
"""Rows and columns of a tile: 4 MB of float32, which stays in the cache of a processor core."""
SMALL = 256
"""Pairs up to which the cross-entropy of torch on the matrix (256 kB) is quicker than what is written out below."""


def nt_xent(z1: torch.Tensor, z2: torch.Tensor, *, temperature: float = 0.5) -> torch.Tensor:
    """NT-Xent, the mean over both directions of all N positive pairs.

    z1, z2: embeddings of the two views, shape (N, K), before normalisation; row i of both is image i.
    Returns a scalar. Raises FewlabelError if the shapes differ, N < 2 or temperature <= 0.
    Source: arXiv:2002.05709, equation 1 and algorithm 1.
    """
    _check(z1, z2, temperature)
    with torch.autocast(z1.device.type, enabled=False):
        return _NTXent.apply(unit(torch.cat([z1, z2])), temperature)


def info_nce(
    z1: torch.Tensor, z2: torch.Tensor, *, temperature: float = 0.5, weight: float = 0.5
) -> torch.Tensor:
    """InfoNCE between two views or two modalities: only the N - 1 cross-view negatives stand in the denominator.

    weight: of the direction from z1 to z2, in [0, 1]; the other direction has 1 - weight. 0.5 is symmetric.
    Other arguments, result and errors as in `nt_xent`. Source: arXiv:1807.03748, equation 4, in both directions;
    with weights: arXiv:2010.00747, equation 4.
    """
    _check(z1, z2, temperature)
    if not 0 <= weight <= 1:
        raise FewlabelError(f"weight is {weight}: it must lie from 0 to 1.")
    with torch.autocast(z1.device.type, enabled=False):
        if len(z1) <= SMALL and world_size() == 1:
            return _small_info_nce(unit(z1), unit(z2), temperature, weight)
        return _InfoNCE.apply(unit(torch.cat([z1, z2])), temperature, weight)


def _small_info_nce(z1: torch.Tensor, z2: torch.Tensor, temperature: float, weight: float) -> torch.Tensor:
    similarity, same = z1 @ z2.T / temperature, torch.arange(len(z1), device=z1.device)
    return weight * F.cross_entropy(similarity, same) + (1 - weight) * F.cross_entropy(similarity.T, same)


def _check(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> None:
    check_pair(z1, z2)
    check_temperature(temperature)


def check_temperature(temperature: float) -> None:
    """Raise FewlabelError unless the temperature is above 0."""
    if not temperature > 0:
        raise FewlabelError(f"temperature is {temperature}: it must be above 0; the paper uses 0.1 to 0.5.")


def _tiles(
    a: torch.Tensor, b: torch.Tensor, only: torch.Tensor | None = None
) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """(rows, columns, a @ b.T there) in tiles; a tile is the caller's own to change, until the next one is asked for.

    only: the whole product, kept from the forward pass where one tile holds it.
    """
    if max(a.shape[0], b.shape[0]) <= TILE:
        yield slice(0, a.shape[0]), slice(0, b.shape[0]), a @ b.T if only is None else only
        return
    out = a.new_empty(min(TILE, a.shape[0]) * min(TILE, b.shape[0]))
    for top in range(0, a.shape[0], TILE):
        rows = slice(top, min(top + TILE, a.shape[0]))
        for left in range(0, b.shape[0], TILE):
            columns = slice(left, min(left + TILE, b.shape[0]))
            shape = rows.stop - rows.start, columns.stop - columns.start
            tile = out[: shape[0] * shape[1]].view(shape)
            yield rows, columns, torch.mm(a[rows], b[columns].T, out=tile)


def _gather(lse: torch.Tensor, place: slice, found: torch.Tensor, *, first: bool) -> None:
    """Add the log-sum-exps of a tile to those of the tiles before it, in place."""
    lse[place] = found if first else torch.logaddexp(lse[place], found)


class _NTXent(torch.autograd.Function):
    """Unit rows z (2n, K), all first views and then all second ones -> the loss of the joint batch.

    With p_ij = exp(s_ij / t - lse_i), which is 0 on the diagonal, and the positive i' of i,

        dL/dz_i = (sum_j (p_ij + p_ji) z_j - 2 z_i') / (2 N t),

    so that a process needs the embeddings and the log-sum-exps of all, and no other gradient than its own.
    """

    @staticmethod
    def forward(ctx: Any, own: torch.Tensor, temperature: float) -> torch.Tensor:
        everything = _both_views_of_all(own)  # (2N, K)
        scaled, partner = own / temperature, own.roll(own.shape[0] // 2, 0)
        lse = own.new_empty(own.shape[0])
        for rows, columns, tile in _tiles(scaled, everything):
            _mask_self(tile, rows, columns, own.shape[0], everything.shape[0])
            _gather(lse, rows, tile.logsumexp(dim=1), first=columns.start == 0)
        only = tile if tile.numel() == own.shape[0] * everything.shape[0] else None
        ctx.save_for_backward(own, partner, everything, lse, _both_views_of_all(lse), only)
        ctx.temperature = temperature
        return summed(lse.sum() - (scaled * partner).sum()) / everything.shape[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        own, partner, everything, lse, all_lse, only = ctx.saved_tensors
        found = partner * -2
        scaled = own / ctx.temperature if only is None else own
        for rows, columns, tile in _tiles(scaled, everything, only):
            if only is None:
                _mask_self(tile, rows, columns, own.shape[0], everything.shape[0])
            share = (tile - lse[rows, None]).exp_()
            share += (tile - all_lse[columns]).exp_()
            found[rows].addmm_(share, everything[columns])
        return found.mul_(gradient * world_size() / (everything.shape[0] * ctx.temperature)), None


def _both_views_of_all(own: torch.Tensor) -> torch.Tensor:
    """Rows (2n, ...) of this process -> (2N, ...): the first views of all processes, then the second ones."""
    return own if world_size() == 1 else torch.cat([gathered(view) for view in own.chunk(2)])


def _mask_self(tile: torch.Tensor, rows: slice, columns: slice, own: int, everything: int) -> None:
    """Put -inf where a view meets itself; own rows hold both views, all rows those of every process in turn."""
    n, images = own // 2, everything // 2
    for first, place in ((0, rank() * n), (n, images + rank() * n)):  # of each view: own row, row among all
        top, bottom = max(rows.start, first), min(rows.stop, first + n)
        offset = top - first + place - columns.start  # the column in the tile that is row `top` itself
        if top < bottom and -n < offset < tile.shape[1]:
            tile[top - rows.start : bottom - rows.start].diagonal(offset).fill_(float("-inf"))


class _InfoNCE(torch.autograd.Function):
    """Unit rows z (2n, K), all first views and then all second ones -> the weighted loss of the joint batch."""

    @staticmethod
    def forward(ctx: Any, own: torch.Tensor, temperature: float, weight: float) -> torch.Tensor:
        z1, z2 = own.chunk(2)
        scaled, everything = z1 / temperature, gathered(z2)  # (n, K), (N, K)
        to_right, to_left = scaled.new_empty(scaled.shape[0]), scaled.new_empty(everything.shape[0])
        for rows, columns, tile in _tiles(scaled, everything):
            _gather(to_right, rows, tile.logsumexp(dim=1), first=columns.start == 0)
            _gather(to_left, columns, tile.logsumexp(dim=0), first=rows.start == 0)
        if world_size() > 1:
            to_left = gathered(to_left[None]).logsumexp(dim=0)
        mine = slice(rank() * z1.shape[0], (rank() + 1) * z1.shape[0])
        terms = weight * to_right + (1 - weight) * to_left[mine] - (scaled * z2).sum(dim=1)
        only = tile if tile.numel() == z1.shape[0] * everything.shape[0] else None
        ctx.save_for_backward(own, everything, to_right, to_left, only)
        ctx.temperature, ctx.mine = temperature, mine
        ctx.weights = weight, 1 - weight
        return summed(terms.sum()) / everything.shape[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        own, everything, to_right, to_left, only = ctx.saved_tensors
        z1, _ = own.chunk(2)
        found = own.roll(z1.shape[0], 0).neg_()  # of the positives: -z2 for z1, -z1 for z2
        to_z1, to_z2 = found.chunk(2)
        to_everything = to_z2 if world_size() == 1 else torch.zeros_like(everything)
        right, left = (
            lse - _log(weight) for lse, weight in zip((to_right, to_left), ctx.weights, strict=True)
        )
        scaled = z1 / ctx.temperature if only is None else z1
        for rows, columns, tile in _tiles(scaled, everything, only):
            share = (tile - right[rows, None]).exp_()
            share += (tile - left[columns]).exp_()
            to_z1[rows].addmm_(share, everything[columns])
            to_everything[columns].addmm_(share.T, z1[rows])
        if world_size() > 1:
            to_z2 += summed(to_everything)[ctx.mine]
        return found.mul_(gradient * world_size() / (everything.shape[0] * ctx.temperature)), None, None


def _log(weight: float) -> float:
    return math.log(weight) if weight else float("-inf")
