"""Batches for semi-supervised learning: a stated share of images with a label, the others without."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fewlabel.types import FewlabelError

Kinds = tuple[np.ndarray, np.ndarray]
"""The numbers of the images that have a label, and of those that have none."""
Order = Callable[[str, int, int], np.ndarray]
"""order(kind, n, epoch): a permutation of n, the same whenever it is asked for."""


def with_and_without_label(labels: np.ndarray) -> Kinds:
    """The images of each kind. labels: as of `TrainingSet`; an image with several needs one that is known.

    Raises FewlabelError where there is none of a kind.
    """
    known = ~np.isnan(labels) if labels.dtype.kind == "f" else labels >= 0
    known = known if known.ndim == 1 else known.any(axis=1)
    kinds = np.flatnonzero(known), np.flatnonzero(~known)
    if not all(len(kind) for kind in kinds):
        raise FewlabelError(
            f"{len(kinds[0])} images with a label and {len(kinds[1])} without one were to be mixed by labelled_share: "
            "give images of both kinds, or leave it out."
        )
    return kinds


def labelled_count(kinds: Kinds, batch_size: int, share: float) -> int:
    """How many images of a batch have a label: that share, at least one, and at most all that there are."""
    return min(max(1, round(share * batch_size)), len(kinds[0]))


def draw_mixed(
    kinds: Kinds,
    batch_size: int,
    share: float,
    step: int,
    order: Order,
    generator: np.random.Generator,
) -> np.ndarray:
    """Images (B,) of one batch, the labelled ones at even distances, so that every part of it gets some.

    kinds: of `with_and_without_label`. Each kind is gone through by permutations, of which one begins where the one
    before it ends, in the middle of a batch as a rule; an image may come twice there. Where too few images are without
    a label, the batch is smaller. generator: draws where the first labelled image stands.
    """
    labelled, unlabelled = kinds
    count = labelled_count(kinds, batch_size, share)
    rest = min(batch_size - count, len(unlabelled))
    places = ((np.arange(count) + generator.random()) * (count + rest) / count).astype(np.int64)
    batch = np.empty(count + rest, dtype=np.int64)
    others = np.ones(len(batch), dtype=bool)
    others[places] = False
    batch[places] = _next(labelled, "labelled", count, step, order)
    batch[others] = _next(unlabelled, "unlabelled", rest, step, order)
    return batch


def _next(images: np.ndarray, kind: str, count: int, step: int, order: Order) -> np.ndarray:
    """The images of a step where each step takes `count` and permutation follows permutation."""
    epochs, places = np.divmod(np.arange(step * count, (step + 1) * count), len(images))
    parts = [order(kind, len(images), int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)]
    return images[np.concatenate(parts)] if parts else images[:0]
