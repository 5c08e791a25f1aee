"""A detector of the unusual: an encoder, perhaps with its decoder, and what normal images look like to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from fewlabel.adaptation.features import extract_features
from fewlabel.files import write_text
from fewlabel.networks import Encoder
from fewlabel.objectives import VAE, Autoencoder
from fewlabel.tasks.anomaly import (
    BLOCK,
    ErrorMap,
    Mahalanobis,
    NegativeELBO,
    PatchMemory,
    UsualMap,
    draw_patches,
    peak,
    smoothed,
)
from fewlabel.tasks.image_text import at_image_size
from fewlabel.tasks.places import MiddlePlaces
from fewlabel.training.checkpoint import load_tensors, save_tensors
from fewlabel.training.weights import (
    ENCODER,
    RECONSTRUCTOR,
    load_encoder,
    load_reconstructor,
    save_encoder,
    save_reconstructor,
)
from fewlabel.types import FewlabelError

DESCRIPTION, NORMAL, FORMAT = "detector.json", "normal.safetensors", 2
CANDIDATES = 10
"""As many places are drawn for each that is kept; PatchCore keeps 25, 10 or 1 % of all."""
PATCHES, RECONSTRUCTION, LOCAL = "patches", "reconstruction", "reconstruction-local"
"""Scores that come with a map of the same name."""


@dataclass(frozen=True)
class ScoreKind:
    """label: for people. unit: "" for a pure number."""

    label: str
    unit: str


SCORES: dict[str, ScoreKind] = {
    PATCHES: ScoreKind("distance of the most unusual place to normal ones", "standard deviations"),
    "mahalanobis": ScoreKind("Mahalanobis distance of the features", ""),
    RECONSTRUCTION: ScoreKind("mean squared reconstruction error", ""),
    "reconstruction-peak": ScoreKind("peak of the reconstruction error", ""),
    LOCAL: ScoreKind(
        "peak of the reconstruction error, by what is usual at the pixel", "standard deviations"
    ),
    "elbo": ScoreKind("−ELBO", "nats"),
}
MAPS: dict[str, ScoreKind] = {
    PATCHES: ScoreKind("distance to the nearest normal place", "standard deviations of normal places"),
    RECONSTRUCTION: ScoreKind("squared reconstruction error", "pixel values from 0 to 1, squared"),
    LOCAL: ScoreKind(
        "squared reconstruction error, by what is usual at the pixel", "standard deviations of normal images"
    ),
}
"""Pixels count from 0, black, to 1, white, so that errors are shares of that range."""


@dataclass(frozen=True)
class Looked:
    """What a detector says of N images: scores by name, (N,), higher = less normal; maps by name, (N, S, S)."""

    scores: dict[str, np.ndarray]
    maps: dict[str, np.ndarray]


@dataclass(frozen=True)
class Detector:
    """encoder, reconstructor: trained on normal images; the latter None where the objective has no decoder.

    memory, gaussian: of normal training images. size_px, store_px: side of what the encoder sees, and of the squares
    that this is drawn from; max_side_px: larger images were shrunk to it first. thresholds: by score; an image above
    is called not normal. ranges: by map, the values that are drawn darkest and brightest.
    usual: error maps of normal training images, where there is a decoder.
    """

    encoder: Encoder
    reconstructor: Autoencoder | VAE | None
    memory: PatchMemory
    gaussian: Mahalanobis
    size_px: int
    store_px: int
    max_side_px: int
    thresholds: Mapping[str, float] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    usual: UsualMap | None = None

    @staticmethod
    def of(
        encoder: Encoder,
        reconstructor: Autoencoder | VAE | None,
        normal: np.ndarray,
        *,
        size_px: int,
        max_side_px: int,
        patches: int,
        seed: int = 0,
    ) -> Detector:
        """Fitted on normal training images (N, C, S, S).

        patches: how many of their places are kept, of ten times as many that are drawn. seed: of both.
        Raises FewlabelError for fewer than two images, or a network whose places cannot be told.
        """
        gaussian = Mahalanobis.of(extract_features(encoder, normal, size_px=size_px))
        candidates = draw_patches(encoder, normal, size_px=size_px, count=CANDIDATES * patches, seed=seed)
        memory = PatchMemory.of(candidates, count=patches, seed=seed)
        usual = None
        if reconstructor is not None:
            errors = extract_features(ErrorMap(reconstructor), normal[:BLOCK], size_px=size_px)
            usual = UsualMap.of(smoothed(errors))
        store_px = normal.shape[-1]
        return Detector(encoder, reconstructor, memory, gaussian, size_px, store_px, max_side_px, usual=usual)

    def look(self, pixels: np.ndarray, *, maps: bool = True) -> Looked:
        """Scores and maps of images (N, C, S, S) (uint8 or uint16).

        maps: False leaves them out, which are much larger than the scores. Raises FewlabelError for no image, or
        another number of channels than the encoder's.
        """
        channels = self.encoder.settings.channels
        if pixels.ndim != 4 or not len(pixels) or pixels.shape[1] != channels:
            raise FewlabelError(
                f"Images of shape {pixels.shape} came to be scored and the detector was trained on {channels} "
                f"channel(s): give at least one, (N, {channels}, S, S), as Collection.square gives them."
            )
        scores, kept = [], []
        for start in range(0, len(pixels), BLOCK):
            part = self._look(pixels[start : start + BLOCK])
            scores.append(part.scores)
            kept.append(part.maps if maps else {})
        return Looked(_joined(scores), _joined(kept))

    def _look(self, pixels: np.ndarray) -> Looked:
        size_px = self.size_px
        places = self.memory.distances(extract_features(MiddlePlaces(self.encoder), pixels, size_px=size_px))
        features = extract_features(self.encoder, pixels, size_px=size_px)
        scores = {PATCHES: peak(places, 1.0), "mahalanobis": self.gaussian.distances(features)}
        maps = {PATCHES: smoothed(at_image_size(places, size_px))}
        if self.reconstructor is not None:
            errors = extract_features(ErrorMap(self.reconstructor), pixels, size_px=size_px)
            scores[RECONSTRUCTION] = errors.mean(axis=(1, 2))
            maps[RECONSTRUCTION] = smoothed(errors)
            scores["reconstruction-peak"] = peak(maps[RECONSTRUCTION])
            if self.usual is not None:
                maps[LOCAL] = self.usual(maps[RECONSTRUCTION])
                scores[LOCAL] = peak(maps[LOCAL])
        if isinstance(self.reconstructor, VAE):
            scores["elbo"] = extract_features(NegativeELBO(self.reconstructor), pixels, size_px=size_px)
        return Looked(scores, maps)

    def fixed(self, normal: np.ndarray, *, specificity: float, brightest: float = 0.999) -> Detector:
        """The same with thresholds and ranges from normal validation images (N, C, S, S).

        Above a threshold lie at most a share of 1 - specificity of them. Colours of a map run from the median of its
        values, over the first of them, to their quantile `brightest`.
        """
        scores = self.look(normal, maps=False).scores
        first = self.look(normal[:BLOCK]).maps
        thresholds = {
            name: float(np.quantile(values, specificity, method="higher")) for name, values in scores.items()
        }
        ranges = {
            name: (float(np.median(maps)), float(np.quantile(maps, brightest)))
            for name, maps in first.items()
        }
        return replace(self, thresholds=thresholds, ranges=ranges)

    def save(self, folder: Path) -> None:
        """Write weights and what is normal as safetensors, and the description last, which `load_detector` reads."""
        (folder / DESCRIPTION).unlink(missing_ok=True)  # until all is written, this is no whole detector
        save_encoder(self.encoder, folder / ENCODER)
        if self.reconstructor is not None:
            save_reconstructor(self.reconstructor, folder / RECONSTRUCTOR)
        arrays = {**asdict(self.memory), **asdict(self.gaussian)}
        if self.usual is not None:
            arrays |= {"usual_mean": self.usual.mean, "usual_spread": self.usual.spread}
        save_tensors({name: torch.from_numpy(array) for name, array in arrays.items()}, folder / NORMAL)
        description = {
            "format": FORMAT,
            "size_px": self.size_px,
            "store_px": self.store_px,
            "max_side_px": self.max_side_px,
            "reconstructor": self.reconstructor is not None,
            "thresholds": dict(self.thresholds),
            "ranges": dict(self.ranges),
        }
        write_text(folder / DESCRIPTION, json.dumps(description, indent=1) + "\n")


def load_detector(folder: Path) -> Detector:
    """What `Detector.save` wrote, in evaluation mode. Raises FewlabelError for what is missing, damaged or else."""
    try:
        said = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        came = said["format"]
        sizes = int(said["size_px"]), int(said["store_px"]), int(said["max_side_px"])
        thresholds = {str(name): float(value) for name, value in said["thresholds"].items()}
        ranges = {str(name): (float(low), float(high)) for name, (low, high) in said["ranges"].items()}
        decodes = bool(said["reconstructor"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FewlabelError(
            f"{folder} holds no whole detector ({DESCRIPTION}: {type(error).__name__}): give a finished run of "
            "`fewlabel anomalies`."
        ) from error
    if came != FORMAT:
        raise FewlabelError(
            f"{folder} holds a detector of format {came} and {FORMAT} is read here: make it again with `fewlabel "
            "anomalies`."
        )
    encoder = load_encoder(folder / ENCODER)
    reconstructor = load_reconstructor(folder / RECONSTRUCTOR, encoder) if decodes else None
    arrays = {name: tensor.numpy() for name, tensor in load_tensors(folder / NORMAL)[0].items()}
    try:
        memory = PatchMemory(arrays["centre"], arrays["spread"], arrays["bank"])
        gaussian = Mahalanobis(arrays["mean"], arrays["precision"])
        usual = UsualMap(arrays["usual_mean"], arrays["usual_spread"]) if decodes else None
    except KeyError as error:
        raise FewlabelError(
            f"{folder / NORMAL} lacks {error}: it is damaged; make it again with `fewlabel anomalies`."
        ) from error
    return Detector(encoder, reconstructor, memory, gaussian, *sizes, thresholds, ranges, usual)


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
