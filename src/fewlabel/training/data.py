"""What training reads: images of one size from one or more collections, gathered by index."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fewlabel.types import FewlabelError


def mix_seed(*parts: Any) -> int:
    """A 63-bit seed from any printable parts, the same on every machine and in every run."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@dataclass(frozen=True)
class TrainingSet:
    """N images of the same shape.

    sources: arrays (N_i, C, S, S), uint8 or uint16, read by memory map; one for each collection.
    rows: for each source the rows that take part; N is their total.
    labels: (N,) int64 (-1 = none) or float32 (NaN = none), in the order of `rows`; None = unlabelled.
    Raises FewlabelError if the sources differ in shape or hold no image.
    """

    sources: tuple[np.ndarray, ...]
    rows: tuple[np.ndarray, ...]
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        shapes = {source.shape[1:] for source in self.sources}
        if len(shapes) != 1:
            raise FewlabelError(f"The collections give images of shapes {sorted(shapes)}: all need one size.")
        if len(self) == 0:
            raise FewlabelError(
                "There is no image to train on: every row was left out by the split or the filter."
            )
        if self.labels is not None and len(self.labels) != len(self):
            raise FewlabelError(
                f"{len(self.labels)} labels came with {len(self)} images: one a image is needed."
            )

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.rows)

    def images(self, indices: np.ndarray) -> torch.Tensor:
        """Images (B, C, S, S) by their index in 0..N-1, dtype of the store (the wider one if they differ)."""
        starts = np.cumsum([0] + [len(rows) for rows in self.rows])
        which = np.searchsorted(starts, indices, side="right") - 1
        wide = any(source.dtype == np.uint16 for source in self.sources)
        dtype = np.uint16 if wide else self.sources[0].dtype
        out = np.empty((len(indices), *self.sources[0].shape[1:]), dtype=dtype)
        for i, (source, rows) in enumerate(zip(self.sources, self.rows, strict=True)):
            mine = which == i
            if mine.any():
                part = source[rows[indices[mine] - starts[i]]]
                out[mine] = part.astype(np.uint16) * 257 if wide and part.dtype == np.uint8 else part
        return torch.from_numpy(out)

    def batch_indices(self, step: int, batch_size: int, seed: int) -> np.ndarray:
        """The (B,) images of one step: a new permutation each epoch, a shorter last batch dropped.

        A function of its arguments alone, so that a resumed run draws the same batches.
        """
        batch_size = min(batch_size, len(self))
        steps_an_epoch = len(self) // batch_size
        epoch, position = divmod(step, steps_an_epoch)
        order = _permutation(len(self), mix_seed("order", seed, epoch))
        return order[position * batch_size : (position + 1) * batch_size]


_last_permutation: dict[tuple[int, int], np.ndarray] = {}


def _permutation(n: int, seed: int) -> np.ndarray:
    if (n, seed) not in _last_permutation:
        _last_permutation.clear()
        _last_permutation[n, seed] = np.random.default_rng(seed).permutation(n)
    return _last_permutation[n, seed]
