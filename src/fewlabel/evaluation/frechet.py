"""The Fréchet feature distance: how far two sets of images lie apart in an encoder's features.

Dowson and Landau 1982, doi:10.1016/0047-259X(82)90077-X; for generated images Heusel et al. 2017, arXiv:1706.08500,
equation 6. With means m and covariances C of the two sets,

    d^2 = || m_a - m_b ||^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)).

The features are those of a run's own encoder and not of Inception's, so values of two encoders cannot be compared, nor
with published ones; it is called by another name for that reason.

A factor S_a with S_a' S_a = C_a is at hand: the centred features themselves. The eigenvalues of C_a C_b are the squares
of the singular values of S_a S_b', so the trace of the root is their sum. No matrix root is taken, no number becomes
complex, and sets smaller than the number of features, whose covariances are singular, are nothing special.

With few images the distance is too large, by about 1 / n (Chong and Forsyth 2020, arXiv:1911.07023): only sets of one
size may be compared. What is left where nothing differs is the floor: the distance between real images and as many
other real ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewlabel.evaluation.intervals import patient_weights, percentile_interval
from fewlabel.types import FewlabelError, Metric

NAME = "frechet_feature_distance"


@dataclass(frozen=True)
class FrechetDistance:
    """distance: with its 95 % interval, n of the images compared. floor: of real images to `floor_n` other real ones;
    None where there are none.
    """

    distance: Metric
    floor: float | None = None
    floor_n: int = 0


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """d^2 of features a (N, F) and b (M, F), at least 0, in float64; covariances with N - 1 and M - 1.

    Raises FewlabelError for sets of other shapes, of fewer than 2 images, or that hold NaN or infinity.
    """
    a, b = _checked(a, b)
    return _between(_moments(a, np.ones(len(a))), _moments(b, np.ones(len(b))))


def frechet_with_interval(
    images: np.ndarray,
    others: np.ndarray,
    patients: np.ndarray,
    *,
    paired: bool,
    spare: np.ndarray | None = None,
    resamples: int = 200,
    seed: int,
) -> FrechetDistance:
    """The distance of features `others` (M, F) to those of held-out `images` (N, F), with a 95 % interval.

    patients: (N,) of the images; they are drawn with replacement. paired: others[i] was made from images[i] and is
    drawn with it; else others are drawn one by one. spare: features (P, F) of further real images, of other patients,
    for the floor; M of them are drawn, or all where there are fewer.

    A resample holds fewer different images, and so lies higher for that alone: the resampled distances are moved to
    have the distance itself as their mean. The interval tells what other patients would have given at this n; it does
    not take away what few images add, which the floor shows.
    Raises FewlabelError as `frechet_distance` does, and for paired sets of two lengths.
    """
    images, others = _checked(images, others)
    if len(patients) != len(images) or (paired and len(others) != len(images)):
        raise FewlabelError(
            f"{len(patients)} patients and {len(others)} others came with {len(images)} images: one patient an image "
            "is needed, and of others made from them as many."
        )
    rng = np.random.default_rng([seed, 0])
    drawn = patient_weights(patients, resamples, rng)
    drawn_others = drawn if paired else patient_weights(np.arange(len(others)), resamples, rng)
    draws = np.array(
        [
            _between(_moments(images, of_images), _moments(others, of_others))
            for of_images, of_others in zip(drawn, drawn_others, strict=True)
        ]
    )
    value = frechet_distance(images, others)
    low, high = percentile_interval(draws - draws.mean() + value)
    distance = Metric(NAME, value, max(0.0, low), high, n=len(images), patients=len(np.unique(patients)))
    if spare is None or len(spare) < 2:
        return FrechetDistance(distance)
    chosen = np.random.default_rng([seed, 1]).permutation(len(spare))[: len(others)]
    return FrechetDistance(distance, frechet_distance(images, spare[chosen]), len(chosen))


def _checked(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise FewlabelError(
            f"Features are {a.shape} and {b.shape}: (N, F) and (M, F) of one encoder are needed, of at least 2 images "
            "each."
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise FewlabelError("Features hold NaN or infinity: the encoder is broken; pretrain again.")
    return a, b


def _moments(x: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (F,) and S with S' S = the covariance, (k, F) with k at most F, where x[i] comes weights[i] times."""
    x, weights = x[weights > 0], weights[weights > 0].astype(np.float64)
    total = weights.sum()
    mean = weights @ x / total
    centred = np.sqrt(weights / max(1.0, total - 1))[:, None] * (x - mean)
    return mean, np.asarray(np.linalg.qr(centred, mode="r")) if len(x) > x.shape[1] else centred


def _between(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
    (mean_a, root_a), (mean_b, root_b) = a, b
    apart = float(((mean_a - mean_b) ** 2).sum())
    shared = float(np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum())
    return max(0.0, apart + float((root_a**2).sum() + (root_b**2).sum()) - 2 * shared)
