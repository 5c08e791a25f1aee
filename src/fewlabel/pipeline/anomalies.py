"""`fewlabel anomalies`: a detector of what is not normal, from normal images alone, and how well it tells.

An encoder, with its decoder where the objective has one, is pretrained on the normal images of the split's training
part; a detector is fitted to the same images, and gets its thresholds from normal validation images. Images that are
not normal are seen in the test alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from fewlabel.collection import Collection, Target
from fewlabel.collection.filtering import RowFilter
from fewlabel.collection.store import locked
from fewlabel.networks import Encoder
from fewlabel.objectives import VAE, Autoencoder
from fewlabel.pipeline.anomaly_results import PIXELS, AnomalySettings, Measured, Scored, anomaly_results
from fewlabel.pipeline.arms import Role, Task, pixel_features, random_encoder, statistics_features
from fewlabel.pipeline.pretraining import Pretrained, pretrain, split_of
from fewlabel.pipeline.runs import finished_results, read_json, versions, write_json, write_split
from fewlabel.pipeline.settings import PretrainSettings, resolve_settings
from fewlabel.report.anomalies import write_anomalies
from fewlabel.splits import Split
from fewlabel.tasks.anomaly import Mahalanobis
from fewlabel.tasks.detector import SCORES, Detector
from fewlabel.types import JSON, FewlabelError

RESULTS, MODEL, PRETRAIN = "anomalies.json", "model", "pretrain"
COMMAND = "fewlabel anomalies"
FEWEST_NORMAL = 10
"""Training images that are normal: with fewer nothing is known of what normal images share."""
NORMAL, NOT_NORMAL, NEITHER = 0, 1, -1


@dataclass(frozen=True)
class Anomalies:
    """What a run gave: the folder, the page, the headline, and anomalies.json as a dictionary."""

    out: Path
    page: Path
    headline: str
    results: JSON


def find_anomalies(
    collection: Collection | str | Path,
    settings: AnomalySettings,
    out: str | Path,
    *,
    pretraining: PretrainSettings | None = None,
    masks: np.ndarray | None = None,
    drop_leaks: bool = False,
    bar: bool = False,
) -> Anomalies:
    """Pretrain on normal images, fit a detector to them, and measure on validation and test.

    pretraining: None = a VAE. masks: (N, S, S) bool at the run's size, True where an image is known not to be normal,
    for every row of the collection; the maps are then measured by them.
    The same call goes on where pretraining was interrupted, and returns at once when the run is complete. Raises
    FewlabelError, one sentence, for every mistake of the user.
    """
    opened = collection if isinstance(collection, Collection) else Collection.open(Path(collection))
    out, chosen = Path(out), _resolved(pretraining or PretrainSettings(objective="vae"), opened)
    target = normal_target(opened, settings)
    split = _normal_split(opened, target, settings, chosen.seed, drop_leaks)
    if masks is not None and masks.shape != (len(opened), chosen.size_px, chosen.size_px):
        raise FewlabelError(
            f"Masks are {masks.shape}: one of {chosen.size_px} x {chosen.size_px} px is needed for each of the "
            f"{len(opened)} images."
        )
    run: JSON = {
        "command": "anomalies",
        "collection": str(opened.path),
        "data": [opened.fingerprint],
        "settings": asdict(settings),
        "pretraining": asdict(chosen),
        "masks": None if masks is None else hashlib.sha256(np.packbits(masks).tobytes()).hexdigest(),
    }
    if not out.exists():
        Encoder(chosen.encoder_settings)  # a mistake in its name, size or weights shows here
    kept = finished_results(out, run, RESULTS)
    if kept:
        return _finished(out, kept)
    with locked(out, "run"):
        write_split(out / "split.csv", [opened], [split])
        pretrained = pretrain([opened], out / PRETRAIN, chosen, splits=[split], drop=drop_leaks, progress=bar)
        task = _task(opened, target, pretrained)
        detector, random = _detectors(task, pretrained, settings)
        scores = _scores(task, chosen.title, detector, random, settings)
        detector.save(out / MODEL)
        results = anomaly_results(Measured(task, detector, random, scores, masks), pretrained, settings, out)
        results |= {"settings": run, "versions": versions()}
        write_json(out / RESULTS, results)
        return _finished(out, read_json(out / RESULTS, COMMAND))


def _finished(out: Path, results: JSON) -> Anomalies:
    return Anomalies(out, write_anomalies(out, results), str(results["headline"]), results)


def _resolved(pretraining: PretrainSettings, collection: Collection) -> PretrainSettings:
    if pretraining.objective == "convirt":
        raise FewlabelError(
            "ConVIRT learns images from their reports, and a detector of what is not normal sees images alone: choose "
            "another objective, such as vae."
        )
    return resolve_settings(pretraining, [collection])


def normal_target(collection: Collection, settings: AnomalySettings) -> Target:
    """Who is normal (0), who is not (1), and who is neither (-1), for every image.

    Raises FewlabelError for a mistake in an expression, and where no image is normal, or every one.
    """

    def load(name: str) -> np.ndarray:
        """A column, whose cells that say neither yes nor no are missing."""
        values = collection.column(name)
        if name in collection.labels and collection.labels[name].kind == "binary":
            return np.where(values >= 0, values.astype(np.float64), np.nan)
        return values

    rows = RowFilter(collection.column_names, load, len(collection)).rows
    values = np.full(len(collection), NEITHER, dtype=np.int64)
    values[rows(settings.normal)] = NORMAL
    values[rows(f"NOT (\n{settings.normal}\n)")] = NOT_NORMAL
    if settings.where:
        inside = np.isin(np.arange(len(collection)), collection.where(settings.where))
        if not inside.any():
            raise FewlabelError(f"No image fulfils {settings.where!r}: check the column names and values.")
        values[~inside] = NEITHER
    normal, other = (int((values == code).sum()) for code in (NORMAL, NOT_NORMAL))
    if not normal or not other:
        which = "No image is" if not normal else "Every image that can be told is"
        raise FewlabelError(
            f"{which} normal by {settings.normal!r} ({normal} are, {other} are not): both kinds are needed, one to "
            "learn from and the other to test with; check the column names and values."
        )
    names = ("normal", "not normal")
    return Target("not normal", "binary", names, values, not_mentioned=int((values == NEITHER).sum()))


def _normal_split(
    collection: Collection, target: Target, settings: AnomalySettings, seed: int, drop: bool
) -> Split:
    """The split by patient with what can be told alone, and in training what is normal alone.

    Raises FewlabelError where too little is left.
    """
    split = split_of(collection, seed=seed, strata=target.values, drop=drop)
    split = split.within(np.flatnonzero(target.usable))
    split = replace(split, train=split.train[target.values[split.train] == NORMAL])
    for part, code, least in (
        ("train", NORMAL, FEWEST_NORMAL),
        ("val", NORMAL, 1),
        ("test", NORMAL, 1),
        ("test", NOT_NORMAL, 1),
    ):
        there = int((target.values[getattr(split, part)] == code).sum())
        if there < least:
            raise FewlabelError(
                f"{there} {target.classes[code]} image(s) by {settings.normal!r} lie in the part {part!r} of the "
                f"split, where at least {least} is needed: bring more images, or another expression."
            )
    return split


def _task(collection: Collection, target: Target, pretrained: Pretrained) -> Task:
    """All that the scores may see; its training rows are normal."""
    chosen, split = pretrained.settings, pretrained.splits[0]
    return Task(
        collection,
        target,
        split,
        collection.square(pretrained.store_px, channels=chosen.channels or 1),
        chosen.size_px,
        chosen.encoder_settings,
        chosen.flips,
        split.train,
        split.val,
        split.test,
    )


def _detectors(task: Task, pretrained: Pretrained, settings: AnomalySettings) -> tuple[Detector, Detector]:
    """The detector with its thresholds, and one by the same network with random weights."""
    chosen = pretrained.settings
    normal_val = task.pixels[task.val[task.y[task.val] == NORMAL]]

    def fitted(encoder: Encoder, reconstructor: Autoencoder | VAE | None) -> Detector:
        detector = Detector.of(
            encoder,
            reconstructor,
            task.pixels[task.train],
            size_px=task.size_px,
            max_side_px=task.collection.max_side_px,
            patches=settings.patches,
            seed=chosen.seed,
        )
        return detector.fixed(normal_val, specificity=settings.specificity)

    random = random_encoder(chosen.encoder_settings, chosen.seed)
    return fitted(pretrained.encoder, pretrained.reconstructor), fitted(random, None)


def _scores(
    task: Task, title: str, detector: Detector, random: Detector, settings: AnomalySettings
) -> list[Scored]:
    """All scores of validation and test images: the detector's own, then what they have to be better than."""
    rows = np.concatenate([task.val, task.test])
    normal_val = task.val[task.y[task.val] == NORMAL]

    def scored(key: str, label: str, role: Role, values: np.ndarray, unit: str = "") -> Scored:
        every = np.full(len(task.pixels), np.nan)
        every[rows] = values
        threshold = float(np.quantile(every[normal_val], settings.specificity, method="higher"))
        return Scored(key, label, role, unit, every, threshold)

    def far(features: np.ndarray) -> np.ndarray:
        return Mahalanobis.of(features[task.train]).distances(features[rows])

    detectors: list[tuple[str, str, Role, Detector]] = [
        ("", title, "method", detector),
        ("random-", "random weights", "control", random),
    ]
    found = [
        scored(prefix + key, f"{who}: {SCORES[key].label}", role, values, SCORES[key].unit)
        for prefix, who, role, one in detectors
        for key, values in one.look(task.pixels[rows], maps=False).scores.items()
    ]
    pixels, statistics = pixel_features(task), statistics_features(task)
    return [
        *found,
        scored(PIXELS, "16 x 16 pixels: Mahalanobis distance", "baseline", far(pixels)),
        scored("statistics", "six image statistics: Mahalanobis distance", "control", far(statistics)),
        scored("brightness", "mean intensity, brighter = less normal", "control", pixels[rows].mean(axis=1)),
    ]
