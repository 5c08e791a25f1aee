"""Labels and images worth a second look: labels that may be wrong, copies that contradict each other, outliers.

All of it is suspicion, found without a person: an image is looked at again, not left out.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from fewlabel.adaptation.probe import fold_probabilities, out_of_fold_probabilities
from fewlabel.collection.duplicates import find_duplicates
from fewlabel.evaluation.confident_learning import Suspects, suspected
from fewlabel.evaluation.intervals import bootstrap_metric
from fewlabel.evaluation.metrics import macro_auroc
from fewlabel.tasks.evidence import NOBODY, nearest_cases
from fewlabel.types import Metric

NEIGHBOURS = 10
TOLD_RESAMPLES = 300
ROBUST_CUT = 3.5
"""Modified z-score from which a value is an outlier (Iglewicz and Hoaglin 1993)."""

MOST_REFERENCES = 20_000
_BLOCK = 1024


@dataclass(frozen=True)
class Opinions:
    """Two opinions on each of N labels, both without the image's own patient; rows of NaN: none could be formed.

    probe: (N, K) probabilities of a linear probe. neighbours: (N, K) shares of the classes among the nearest images.
    """

    probe: np.ndarray
    neighbours: np.ndarray


def opinions(
    features: np.ndarray, y: np.ndarray, groups: np.ndarray, *, classes: int, seed: int = 0
) -> Opinions:
    """On each of N labelled images from the labels of all others but those of its own group.

    features: (N, F) by an encoder that saw no label. groups: (N,) patients, joined with those they share copies with.
    """
    probe = out_of_fold_probabilities(features, y, groups, classes=classes, seed=seed)
    found = nearest_cases(features, features, NEIGHBOURS, query_patients=groups, case_patients=groups)
    return Opinions(probe, found.votes(y, classes))


def opinions_on_others(features: np.ndarray, y: np.ndarray, others: np.ndarray, *, classes: int) -> Opinions:
    """On images (M, F) whose own labels take no part, from N labelled ones of other patients."""
    probe = fold_probabilities(features, y, others, classes=classes)
    nobody = np.full(len(others), NOBODY)
    found = nearest_cases(
        others, features, NEIGHBOURS, query_patients=nobody, case_patients=np.zeros(len(y), dtype=np.int64)
    )
    return Opinions(probe, found.votes(y, classes))


def suspected_labels(held: Opinions, y: np.ndarray) -> Suspects:
    """Labels (N,) that both opinions suspect by confident learning, and for the same class.

    One opinion alone suspects many labels that are right; two that were formed in different ways fewer. The margin is
    by how much the mean of both prefers the suggested class to the label.
    """
    by_probe, by_neighbours = suspected(held.probe, y), suspected(held.neighbours, y)
    suggested = {int(at): int(code) for at, code in zip(by_probe.positions, by_probe.suggested, strict=True)}
    other = zip(by_neighbours.positions, by_neighbours.suggested, strict=True)
    both = np.array([int(at) for at, code in other if suggested.get(int(at)) == code], dtype=np.int64)
    codes = np.array([suggested[int(at)] for at in both], dtype=np.int64)
    mean = (held.probe[both] + held.neighbours[both]) / 2
    margin = mean[np.arange(len(both)), codes] - mean[np.arange(len(both)), y[both]]
    order = np.argsort(-margin, kind="stable")
    return Suspects(both[order], codes[order], margin[order])


def how_well_told(held: Opinions, y: np.ndarray, groups: np.ndarray) -> Metric:
    """AUROC (macro) of the probe's opinion on labels (N,), with an interval over groups (N,).

    Where it cannot be told from 0.5, the opinions know nothing of the labels and can doubt none.
    """
    known = ~np.isnan(held.probe).any(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of few groups: the interval is then wide, which is what it is asked for
        return bootstrap_metric(
            macro_auroc,
            y[known],
            held.probe[None, known],
            groups[known],
            name="auroc",
            resamples=TOLD_RESAMPLES,
            seed=0,
        )


@dataclass(frozen=True)
class Copies:
    """Pairs of rows (P,) with the same picture. exact: (P,) bool, pixel for pixel. correlation: (P,) of fine detail,
    negative where one is the other's negative.
    """

    a: np.ndarray
    b: np.ndarray
    exact: np.ndarray
    correlation: np.ndarray


def copies(thumbnails: np.ndarray, pixel_hashes: np.ndarray, near_groups: np.ndarray) -> Copies:
    """All pairs of copies of a collection; arguments as `Collection` gives them, (N, 1024), (N,) and (N,)."""
    rows = np.flatnonzero(near_groups >= 0)
    i, j, r = find_duplicates(thumbnails[rows])
    pairs = {(int(rows[a]), int(rows[b])): float(c) for a, b, c in zip(i, j, r, strict=True)}
    hashes = pixel_hashes[rows]
    for name in {
        name for name in hashes.tolist() if name
    }:  # a picture without detail is like nothing but itself
        same = rows[hashes == name]
        pairs.update({(int(a), int(b)): 1.0 for n, a in enumerate(same) for b in same[n + 1 :]})
    a, b = (np.array([pair[side] for pair in sorted(pairs)], dtype=np.int64) for side in (0, 1))
    correlation = np.array([pairs[pair] for pair in sorted(pairs)])
    exact = (pixel_hashes[a] == pixel_hashes[b]) & (pixel_hashes[a] != "") if len(a) else np.zeros(0, bool)
    return Copies(a, b, np.asarray(exact, dtype=bool), correlation)


@dataclass(frozen=True)
class Outliers:
    """positions: (M,) of the images beyond the cut, furthest first. score: (M,) their modified z-scores."""

    positions: np.ndarray
    score: np.ndarray


def outliers(
    features: np.ndarray, groups: np.ndarray, reference: np.ndarray, *, k: int = NEIGHBOURS, seed: int = 0
) -> Outliers:
    """Images that lie far from all others in the features of an encoder.

    Distance: Euclidean, to the k-th nearest of the `reference` rows that are of another group. Cut: the modified
    z-score of the log distance, 0.6745 (x - median) / MAD over the reference rows, above 3.5. Of more than 20,000
    reference rows that many are drawn. features: (N, F); groups: (N,). None where fewer than k + 2 reference groups
    are there, or half of the distances are equal.
    """
    if len(reference) > MOST_REFERENCES:
        reference = np.sort(np.random.default_rng(seed).permutation(reference)[:MOST_REFERENCES])
    nothing = Outliers(np.empty(0, dtype=np.int64), np.empty(0))
    if len(np.unique(groups[reference])) < k + 2:
        return nothing
    x = np.log(np.maximum(_kth_distance(features, groups, reference, k), 1e-12))
    median = np.median(x[reference])
    mad = np.median(np.abs(x[reference] - median))
    if mad <= 0:
        return nothing
    score = 0.6745 * (x - median) / mad
    beyond = np.flatnonzero(score > ROBUST_CUT)
    order = np.argsort(-score[beyond], kind="stable")
    return Outliers(beyond[order], score[beyond[order]])


def _kth_distance(features: np.ndarray, groups: np.ndarray, reference: np.ndarray, k: int) -> np.ndarray:
    """(N,) Euclidean distance to the k-th nearest reference row of another group."""
    exact = features.astype(np.float64)
    known = exact[reference]
    squares, found = (known**2).sum(axis=1), np.empty(len(features))
    for start in range(0, len(features), _BLOCK):
        block = exact[start : start + _BLOCK]
        distance = squares - 2 * block @ known.T + (block**2).sum(axis=1)[:, None]
        distance[groups[start : start + _BLOCK, None] == groups[reference]] = np.inf
        kth = np.partition(distance, k - 1, axis=1)[:, k - 1]
        found[start : start + _BLOCK] = np.sqrt(np.maximum(kth, 0))
    return found
