"""MICLe: the two views of a positive pair come from two images of one patient. Azizi et al. 2021, arXiv:2101.05224.

For a patient (or study) with the images X = {x_1, ..., x_m}, m > 1, a positive pair is

    ( t(x_a), t'(x_b) ),   a != b drawn from X,

and ( t(x_1), t'(x_1) ), as in SimCLR, where there is one image only. The loss is SimCLR's NT-Xent over a batch of
patients. So MICLe is not another loss but another way to draw batches, and any objective on two views can be trained
with it: give `TrainingSet` its `groups`.

A batch holds a patient (or, where pairs are drawn by study, a study) once, so that no two images of it are ever pushed
apart; within one batch of the authors' code they could be. A departure: the authors train with pairs after SimCLR on
single images, here pairs are drawn from the start, half of them or less by `share` if asked for.
"""

from __future__ import annotations

import numpy as np


def draw_pairs(
    groups: np.ndarray, chosen: np.ndarray, generator: np.random.Generator, *, share: float = 1.0
) -> np.ndarray:
    """One pair of images of each chosen group.

    groups: (N,) group of each image, numbered from 0; chosen: (B,) groups. share: probability with which a group of
    several images gives two different ones, in [0, 1]; else the same image stands twice.
    Returns image numbers (B, 2).
    """
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], chosen)
    sizes = np.searchsorted(groups[order], chosen, side="right") - starts
    first = generator.integers(0, sizes)
    other = (first + generator.integers(1, np.maximum(sizes, 2))) % sizes  # any but the first
    second = np.where(generator.random(len(chosen)) < share, other, first)
    return np.stack([order[starts + first], order[starts + second]], axis=1)
