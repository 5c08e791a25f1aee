"""What training reads: images of one size from one or more collections, gathered by index."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch

from fewlabel.objectives.micle import draw_pairs
from fewlabel.training.balanced import Members, draw_balanced, members_of_classes
from fewlabel.training.mixed import Kinds, draw_mixed, with_and_without_label
from fewlabel.training.sentences import Sentences
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
    labels: (N,) int64 (-1 = none) or float32 (NaN = none), or (N, L) int64 of 0 and 1 (-1 = unknown) where an image may
        have several, in the order of `rows`; None = unlabelled.
    groups: (N,) patient or study of each image, any integers; a batch then holds a group once, and the second view of
        a positive pair is drawn from another image of the group with probability `pair_share` (MICLe). None = all
        views are of the same image.
    texts: what was written about each image; a batch then carries one sentence of each. With the study as group no text
        is the negative of another image of its own study. None = no text.
    patients: (N,) int64 codes, -1 = unknown, that a batch then names. None = unknown.
    per_class: K: a batch then holds several classes with K images of each, or more where there are few classes, of
        different patients as far as there are any; see `draw_balanced`. None = images by chance.
    labelled_share: between 0 and 1: of each batch this share (at least one image, at most all that there are) is drawn
        from the images with a label, the rest from those without; see `draw_mixed`. None = images by chance.
    Raises FewlabelError if the sources differ in shape or hold no image, or classes cannot be balanced, or not mixed.
    """

    sources: tuple[np.ndarray, ...]
    rows: tuple[np.ndarray, ...]
    labels: np.ndarray | None = None
    groups: np.ndarray | None = None
    pair_share: float = 1.0
    texts: Sentences | None = None
    patients: np.ndarray | None = None
    per_class: int | None = None
    labelled_share: float | None = None

    def __post_init__(self) -> None:
        shapes = {source.shape[1:] for source in self.sources}
        if len(shapes) != 1:
            raise FewlabelError(f"The collections give images of shapes {sorted(shapes)}: all need one size.")
        if len(self) == 0:
            raise FewlabelError(
                "There is no image to train on: every row was left out by the split or the filter."
            )
        studies = self.texts.study if self.texts else None
        by_image = {
            "labels": self.labels,
            "groups": self.groups,
            "texts": studies,
            "patients": self.patients,
        }
        for what, given in by_image.items():
            if given is not None and len(given) != len(self):
                raise FewlabelError(
                    f"{len(given)} {what} came with {len(self)} images: one a image is needed."
                )
        if not 0 <= self.pair_share <= 1:
            raise FewlabelError(f"pair_share is {self.pair_share}: a share from 0 to 1 is needed.")
        if self.per_class is not None:
            self._check_balance(self.per_class)
        if self.labelled_share is not None:
            self._check_mixture(self.labelled_share)

    def _check_balance(self, per_class: int) -> None:
        if per_class < 2:
            raise FewlabelError(
                f"per_class is {per_class}: at least 2 images of a class are needed to be alike."
            )
        if self.labels is None or self.groups is not None:
            raise FewlabelError(
                f"per_class came {'without labels' if self.labels is None else 'with groups'}: batches are balanced by "
                "their labels, or drawn by group."
            )
        members_of_classes(self.labels)

    def _check_mixture(self, share: float) -> None:
        if not 0 < share < 1:
            raise FewlabelError(f"labelled_share is {share:g}: a share between 0 and 1 is needed.")
        if self.labels is None or self.groups is not None or self.per_class is not None:
            came = "without labels" if self.labels is None else "with groups or per_class"
            raise FewlabelError(
                f"labelled_share came {came}: batches are mixed of images with and without a label, or drawn by group, "
                "or balanced."
            )
        with_and_without_label(self.labels)

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

    @cached_property
    def _group_numbers(self) -> np.ndarray:
        """(N,) groups from 0."""
        assert self.groups is not None
        return np.unique(self.groups, return_inverse=True)[1]

    @cached_property
    def _members(self) -> Members:
        """The images of each class."""
        assert self.labels is not None
        return members_of_classes(self.labels)

    @cached_property
    def _kinds(self) -> Kinds:
        """The images with a label, and those without."""
        assert self.labels is not None
        return with_and_without_label(self.labels)

    @property
    def units(self) -> int:
        """How many a batch can be drawn from: images, or groups where there are such."""
        return len(self) if self.groups is None else int(self._group_numbers.max()) + 1

    def batch_indices(self, step: int, batch_size: int, seed: int) -> np.ndarray:
        """The images of one step, (B, 1), or (B, 2) with groups: one column a view, the last for all further views.

        A new permutation each epoch, a shorter last batch dropped; or balanced, each batch drawn anew; or mixed of
        labelled and unlabelled images. A function of its arguments alone, so that a resumed run draws the same batches.
        """
        if self.per_class is not None:
            generator = np.random.default_rng(mix_seed("balanced", seed, step))
            drawn = draw_balanced(self._members, self.patients, batch_size, self.per_class, generator)
            return drawn[:, None]
        if self.labelled_share is not None:
            return self._mixed(step, min(batch_size, len(self)), self.labelled_share, seed)[:, None]
        batch_size = min(batch_size, self.units)
        steps_an_epoch = self.units // batch_size
        epoch, position = divmod(step, steps_an_epoch)
        order = _permutation(self.units, mix_seed("order", seed, epoch))
        chosen = order[position * batch_size : (position + 1) * batch_size]
        if self.groups is None:
            return chosen[:, None]
        generator = np.random.default_rng(mix_seed("pairs", seed, step))
        return draw_pairs(self._group_numbers, chosen, generator, share=self.pair_share)

    def _mixed(self, step: int, batch_size: int, share: float, seed: int) -> np.ndarray:
        generator = np.random.default_rng(mix_seed("mixed", seed, step))

        def order(kind: str, n: int, epoch: int) -> np.ndarray:
            return _permutation(n, mix_seed(kind, seed, epoch))

        return draw_mixed(self._kinds, batch_size, share, step, order, generator)

    def text_numbers(self, indices: np.ndarray, step: int, seed: int) -> np.ndarray | None:
        """The sentence drawn for each image (B,) of a step's batch; a function of its arguments alone."""
        if self.texts is None:
            return None
        return self.texts.draw(indices, np.random.default_rng(mix_seed("text", seed, step)))


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int) -> np.ndarray:
    """A permutation of n; the last few are kept, since many steps share one."""
    return np.random.default_rng(seed).permutation(n)
