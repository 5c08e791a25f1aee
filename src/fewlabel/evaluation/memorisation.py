"""Does a generator give back images that it learned from? Its samples against real images that it never saw.

Distance alone does not tell: a smooth or average image lies nearer to every training image than a real one does, and
copies nobody. What a copy has is ONE training image that lies far nearer than all others. So, as Carlini et al. 2023,
arXiv:2301.13188, do for small images, the distance to the nearest training image t_1 is divided by the mean distance to
the next n = 50,

    r(x) = ||x - t_1|| / mean_{i = 2..n+1} ||x - t_i||,

which is 0 for a copy and near 1 for noise. A sample is too close where r is at most the q-quantile of the r of held-out
real images, of other patients: nearer than all but a share q of images that cannot be copies. It is asked in pixels and
in features, and one of them is enough; so of samples that are as good as real ones q to 2 q are called too close, too.
Departure: the paper puts a fixed bound on r; here held-out images set it.

This finds copies. It is no proof of privacy: what many samples tell together of a patient, it does not see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import faiss
import numpy as np

from fewlabel.evaluation.intervals import patient_weights, percentile_interval
from fewlabel.types import FewlabelError, Metric

NEIGHBOURS = 50
QUANTILE = 0.05
_BLOCK = 64

Looks = Mapping[str, np.ndarray]
"""Images as vectors (N, F) in some spaces, by name: pixels, features."""


@dataclass(frozen=True)
class Nearness:
    """distance: (N,) Euclidean, to the nearest training image. relative: (N,) r of the module's text."""

    distance: np.ndarray
    relative: np.ndarray


def nearness(x: np.ndarray, training: np.ndarray, *, neighbours: int = NEIGHBOURS) -> Nearness:
    """How near images x (N, F) lie to training images (M, F), M at least 2; with fewer than n + 1 all others are next.

    FAISS finds them; their distances are then computed in float64, so that a copy has exactly 0.
    """
    if len(training) < 2 or x.shape[1:] != training.shape[1:]:
        raise FewlabelError(
            f"Images are {x.shape} and training images {training.shape}: at least two training images of the same "
            "width are needed."
        )
    known = np.ascontiguousarray(training, dtype=np.float32)
    parts = []
    for start in range(0, len(x), _BLOCK):
        asked = np.ascontiguousarray(x[start : start + _BLOCK], dtype=np.float32)
        _, found = faiss.knn(asked, known, min(neighbours + 1, len(known)))
        apart = asked[:, None].astype(np.float64) - known[found]  # (b, k, F)
        parts.append(np.sort(np.linalg.norm(apart, axis=2), axis=1))
    distances = np.concatenate(parts)
    nearest, others = distances[:, 0], distances[:, 1:].mean(axis=1)
    return Nearness(nearest, np.where(others > 0, nearest / np.maximum(others, 1e-300), 0.0))


def without_exposure(pixels: np.ndarray) -> np.ndarray:
    """Images (N, ...) as vectors (N, P) of mean 0 and length 1, so that brightness and contrast do not count.

    An image of one value becomes 0.
    """
    flat = pixels.reshape(len(pixels), -1).astype(np.float64)
    centred = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.where(length > 1e-9, centred / np.maximum(length, 1e-300), 0.0).astype(np.float32)


@dataclass(frozen=True)
class Judged:
    """S samples. nearness: by space. too_close: (S,) bool."""

    nearness: dict[str, Nearness]
    too_close: np.ndarray


@dataclass(frozen=True)
class CopyCheck:
    """Training images and held-out real ones, against which samples are held. Made by `CopyCheck.of`.

    real: nearness of the held-out images by space. patients: (H,) of the held-out images. quantile: q.
    """

    training: dict[str, np.ndarray]
    real: dict[str, Nearness]
    patients: np.ndarray
    quantile: float

    @staticmethod
    def of(
        training: Looks, held_out: Looks, patients: np.ndarray, *, quantile: float = QUANTILE
    ) -> CopyCheck:
        """training (M, F), held_out (H, F) by space. patients: (H,) of held-out images, none of whom was trained on.

        Raises FewlabelError without held-out images, for spaces or lengths that differ, and for a quantile outside
        (0, 1).
        """
        if training.keys() != held_out.keys() or any(len(x) != len(patients) for x in held_out.values()):
            raise FewlabelError(
                f"Training images come as {', '.join(training)}, held-out ones as {', '.join(held_out)}, with "
                f"{len(patients)} patients: give both in the same spaces, and a patient for each held-out image."
            )
        if len(patients) == 0 or not 0 < quantile < 1:
            raise FewlabelError(
                f"{len(patients)} held-out images came with the quantile {quantile:g}: samples are compared with at "
                "least one, and a share between 0 and 1 of them."
            )
        real = {space: nearness(x, training[space]) for space, x in held_out.items()}
        return CopyCheck(dict(training), real, np.asarray(patients), quantile)

    @property
    def limits(self) -> dict[str, float]:
        """By space: a sample with r at most this is too close."""
        everybody = np.ones((1, len(self.patients)))
        return {space: float(found[0]) for space, found in self._limits(everybody).items()}

    @property
    def of_held_out(self) -> float:
        """Share of the held-out real images themselves that would be called too close, which none of them is."""
        return float(_any(self.real, self.limits).mean())

    def judge(self, samples: Looks) -> Judged:
        """Samples (S, F) by space."""
        found = {space: nearness(samples[space], x) for space, x in self.training.items()}
        return Judged(found, _any(found, self.limits))

    def share(self, judged: Judged, *, resamples: int = 1000, seed: int = 0) -> Metric:
        """Share of samples that are too close; interval by drawing held-out patients, and samples, with replacement."""
        rng = np.random.default_rng([seed, 2])
        limits = self._limits(patient_weights(self.patients, resamples, rng))
        count = len(judged.too_close)
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)  # (R, S)
        close = np.zeros((resamples, count), dtype=bool)
        for space, found in judged.nearness.items():
            close |= found.relative <= limits[space][:, None]
        low, high = percentile_interval((drawn * close).sum(axis=1) / count)
        value = float(judged.too_close.mean())
        return Metric("too_close", value, low, high, n=count, patients=len(np.unique(self.patients)))

    def _limits(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """(R,) by space, of held-out images that count weights (R, H) times."""
        return {
            space: _quantiles(found.relative, weights, self.quantile) for space, found in self.real.items()
        }


def _any(found: Mapping[str, Nearness], limits: Mapping[str, float]) -> np.ndarray:
    return np.any([found[space].relative <= limit for space, limit in limits.items()], axis=0)


def _quantiles(values: np.ndarray, weights: np.ndarray, q: float) -> np.ndarray:
    """The smallest of values (H,) that a share q of the weight (R, H) does not exceed, (R,)."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[:, order].astype(np.float64), axis=1)
    first = (reached >= q * reached[:, -1:]).argmax(axis=1)
    return values[order][first]
