"""Why these? The nearest labelled cases of a classification, and the places where two images match.

Both show what the encoder finds alike. Neither is a cause: a classifier need not look where two images match, and
neighbours may be near for a marker, a border or an exposure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fewlabel.adaptation.features import extract_features
from fewlabel.networks import Encoder
from fewlabel.tasks.places import place_features
from fewlabel.types import FewlabelError

NOBODY = -1
"""Patient code of who is not known: it is the same as nobody else."""

SAME_IMAGE = 1e-3
"""Features that are nearer than this share of the cases' spread are of the same image."""

_BLOCK = 1024


@dataclass(frozen=True)
class Nearest:
    """The nearest cases of each query, best first. places: (N, k), -1 = none left. cosines: (N, k), NaN = none left."""

    places: np.ndarray
    cosines: np.ndarray

    def votes(self, y: np.ndarray, classes: int) -> np.ndarray:
        """(N, classes) share of the found cases that have each class, each case one vote; NaN where none was found.

        y: (M,) classes of the cases.
        """
        found = self.places >= 0
        of_class = (y[self.places][..., None] == np.arange(classes)) & found[..., None]  # (N, k, classes)
        count = found.sum(axis=1, keepdims=True)
        return np.where(count > 0, of_class.sum(axis=1) / np.maximum(count, 1), np.nan)


def nearest_cases(
    queries: np.ndarray,
    cases: np.ndarray,
    k: int,
    *,
    query_patients: np.ndarray,
    case_patients: np.ndarray,
) -> Nearest:
    """The k cases with the highest cosine to each query, none of the query's own patient.

    queries: (N, F), cases: (M, F) features. query_patients (N,), case_patients (M,): codes of one numbering; `NOBODY`
    is the same as nobody.
    """
    k = min(k, len(cases))
    places = np.full((len(queries), k), -1)
    cosines = np.full((len(queries), k), np.nan)
    units = _units(cases)
    for start in range(0, len(queries), _BLOCK):
        block = slice(start, start + _BLOCK)
        similarity = _units(queries[block]) @ units.T  # (b, M)
        own = (query_patients[block, None] == case_patients) & (query_patients[block, None] != NOBODY)
        similarity[own] = -np.inf
        best = np.sort(np.argpartition(-similarity, k - 1, axis=1)[:, :k], axis=1)
        found = np.take_along_axis(similarity, best, axis=1)
        order = np.argsort(-found, axis=1, kind="stable")
        best, found = (np.take_along_axis(one, order, axis=1) for one in (best, found))
        places[block] = np.where(np.isfinite(found), best, -1)
        cosines[block] = np.where(np.isfinite(found), np.clip(found, -1, 1), np.nan)
    return Nearest(places, cosines)


def _units(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def disagreeing(votes: np.ndarray, called: np.ndarray) -> np.ndarray:
    """(N,) bool: where another class has more votes than the one that is called. votes (N, K), called (N,)."""
    own = np.take_along_axis(votes, called[:, None], axis=1)[:, 0]
    return np.nan_to_num(votes, nan=-1.0).max(axis=1) > np.nan_to_num(own, nan=-1.0)


@dataclass(frozen=True)
class LabelledCases:
    """The training images whose labels a classifier was fitted to, as evidence: no pixels.

    features: (M, F) float32. y: (M,) classes. cases, patients: (M,) ids as the collection has them, "" = not known.
    Raises FewlabelError for lengths that differ.
    """

    features: np.ndarray
    y: np.ndarray
    cases: tuple[str, ...]
    patients: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.features) == len(self.y) == len(self.cases) == len(self.patients):
            raise FewlabelError(
                f"There are {len(self.features)} features, {len(self.y)} labels, {len(self.cases)} cases and "
                f"{len(self.patients)} patients: give one of each for every case."
            )

    def nearest(self, features: np.ndarray, patients: Sequence[str], k: int) -> Nearest:
        """The k nearest cases of images with features (N, F), none of the image's own patient.

        patients: (N,) ids, "" = not known. An image that is itself one of the cases is known by its features, however
        it came, and so is its patient.
        """
        known = {name: code for code, name in enumerate(dict.fromkeys(filter(None, self.patients)))}
        # Who has no id is somebody else than everybody: an image of his is told by its features alone.
        nameless = range(len(known), len(known) + len(self.patients))
        of_cases = np.array([known.get(name, own) for name, own in zip(self.patients, nameless, strict=True)])
        asking = np.array([known.get(name, NOBODY) for name in patients])
        found = nearest_cases(features, self.features, k, query_patients=asking, case_patients=of_cases)
        same = (asking == NOBODY) & self._are_cases(features, found)
        if not same.any():
            return found
        asking[same] = of_cases[found.places[same, 0]]
        return nearest_cases(features, self.features, k, query_patients=asking, case_patients=of_cases)

    def _are_cases(self, features: np.ndarray, found: Nearest) -> np.ndarray:
        spread = float(np.linalg.norm(self.features - self.features.mean(axis=0), axis=1).mean())
        apart = np.linalg.norm(features - self.features[found.places[:, 0]], axis=1)
        return (found.places[:, 0] >= 0) & (apart <= SAME_IMAGE * spread)


@dataclass(frozen=True)
class PlaceMatch:
    """Where a query and a hit look alike to an encoder, both ways.

    of_query: (h, w) the highest cosine of each place of the query with any place of the hit; of_hit: the same the other
    way. in_hit: (h, w) number of that place of the hit, row by row; in_query: the same the other way.
    """

    of_query: np.ndarray
    in_hit: np.ndarray
    of_hit: np.ndarray
    in_query: np.ndarray

    def mutual(self) -> list[tuple[int, int, float]]:
        """(place of the query, place of the hit, cosine) of places that are each other's best, best first."""
        there, back = self.in_hit.ravel(), self.in_query.ravel()
        cosine = self.of_query.ravel()
        pairs = [(i, int(j), float(cosine[i])) for i, j in enumerate(there) if back[j] == i]
        return sorted(pairs, key=lambda pair: -pair[2])


class _Places(nn.Module):
    """Images (B, C, H, W) -> features of each place (B, h, w, F)."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return place_features(self.encoder, x)


def match_places(
    encoder: Encoder, query: np.ndarray, hits: np.ndarray, *, size_px: int, centre: np.ndarray | None = None
) -> list[PlaceMatch]:
    """Which places of a query match which places of each hit.

    query: (C, S, S), hits: (H, C, S, S) (uint8 or uint16), as `Collection.square` gives them. Features of places are
    those of the map before pooling (`place_features`), less `centre` (F,): the mean feature of training images, which
    all images share and which would make every place like every other.
    A map says where features are alike. It is no segmentation, and says nothing about why a class was called; places
    see far beyond their own pixels. Raises FewlabelError for encoders whose places cannot be told.
    """
    places = _Places(encoder).train(
        encoder.training
    )  # features are taken in evaluation mode, and the mode is restored
    maps = extract_features(places, np.concatenate([query[None], hits]), size_px=size_px)  # (1 + H, h, w, F)
    if centre is not None:
        maps = maps - centre.astype(maps.dtype)
    grid = maps.shape[1:3]
    units = [_units(one.reshape(-1, maps.shape[-1])) for one in maps]
    return [_match(units[0], hit, grid) for hit in units[1:]]


def _match(query: np.ndarray, hit: np.ndarray, grid: tuple[int, ...]) -> PlaceMatch:
    cosines = np.clip(query @ hit.T, -1, 1)  # (places of the query, places of the hit)
    return PlaceMatch(
        cosines.max(axis=1).reshape(grid),
        cosines.argmax(axis=1).reshape(grid),
        cosines.max(axis=0).reshape(grid),
        cosines.argmax(axis=0).reshape(grid),
    )
