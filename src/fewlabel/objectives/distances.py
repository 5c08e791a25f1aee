"""Distances between the rows of two batches, for objectives that pull alike images together.

A metric is symmetric, 0 only between equal points, and no detour is shorter than the straight way (the triangle
inequality). `euclidean` and `manhattan` are metrics; `squared_euclidean` breaks the triangle inequality, and
`cosine_distance` breaks it too and is 0 between any two vectors of one direction. Losses need no metric, indexes may.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from fewlabel.objectives.pairs import in_full, unit
from fewlabel.types import FewlabelError

Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Called with embeddings (A, K) and (B, K); gives (A, B)."""


def euclidean(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The length of a - b, of rows (A, K) and (B, K): (A, B), from 0. A metric; its gradient is 0 where a = b.

    Raises FewlabelError unless both are embeddings of one width.
    """
    _check(a, b)
    return torch.cdist(in_full(a), in_full(b), compute_mode="donot_use_mm_for_euclid_dist")


def squared_euclidean(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The square of `euclidean`, with which FaceNet compares. On the unit sphere 0 to 4, twice the cosine distance.

    Symmetric, and 0 only for a = b, but no metric: from 0 over 1 to 2 it is 1 + 1, and straight on 4.
    """
    return euclidean(a, b).square()


def manhattan(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The sum of |a_k - b_k|, of rows (A, K) and (B, K): (A, B), from 0. A metric. Errors as of `euclidean`."""
    _check(a, b)
    return torch.cdist(in_full(a), in_full(b), p=1.0)


def cosine_distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """1 - the cosine of the angle, of rows (A, K) and (B, K): (A, B), 0 to 2. Errors as of `euclidean`.

    Symmetric, but no metric: 0 for any two vectors of one direction, and a detour over the vector half-way between two
    at right angles is 0.59 long, while straight on it is 1. To a vector of zeros it is 1.
    """
    _check(a, b)
    return 1 - unit(a) @ unit(b).T


def _check(a: torch.Tensor, b: torch.Tensor) -> None:
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1]:
        raise FewlabelError(
            f"A distance was asked for between {tuple(a.shape)} and {tuple(b.shape)}: give embeddings (A, K) "
            "and (B, K)."
        )
