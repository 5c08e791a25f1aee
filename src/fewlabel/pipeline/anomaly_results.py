"""anomalies.json: how well each score tells what is not normal, how well maps find it, and ten cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fewlabel.evaluation.intervals import Bootstrap, Resamples, bootstrap, draw_resamples, paired_difference
from fewlabel.evaluation.localisation import hits, pixel_auroc, pixel_counts
from fewlabel.evaluation.metrics import auroc, sensitivity, specificity
from fewlabel.pipeline.arms import Role, Task
from fewlabel.pipeline.figures import case_figure, map_figure, unit_image
from fewlabel.pipeline.predicting import write_rows
from fewlabel.pipeline.pretraining import Pretrained
from fewlabel.pipeline.results import is_made
from fewlabel.pipeline.settings import check_range
from fewlabel.report.words import interval, number
from fewlabel.tasks.detector import MAPS, PATCHES, Detector
from fewlabel.types import JSON, FewlabelError

PIXELS = "pixels"
"""Key of the score that all others are compared with; it was fixed beforehand, as was the main one, `PATCHES`."""
SCORES_FILE = "scores.csv"
SHOWN = 5
"""Test cases with the highest main score, and as many drawn from the others."""
FEW_NORMAL, FEW_PATIENTS = 20, 20
"""Below so many normal validation images a threshold of 95 % specificity is one of their extremes.
Intervals of so few test patients are too narrow."""


@dataclass(frozen=True)
class AnomalySettings:
    """What is normal, and how the detector is fitted and measured.

    normal: an SQL expression over the columns, as of `Collection.where`, but for labels that are uncertain or not
        mentioned, which are NULL here: where the expression comes to NULL, an image is neither normal nor not, and
        takes no part. where: a further expression; only images that fulfil it take part.
    specificity: share of normal validation images that thresholds leave below. patches: normal places that are kept.
    resamples: of the bootstrap over patients.
    """

    normal: str
    where: str | None = None
    specificity: float = 0.95
    patches: int = 5_000
    resamples: int = 1000

    def __post_init__(self) -> None:
        check_range("patches", self.patches, 1)
        check_range("resamples", self.resamples, 1)
        if not 0 < self.specificity < 1:
            raise FewlabelError(
                f"specificity is {self.specificity:g}: a share between 0 and 1 is needed, such as 0.95."
            )


@dataclass(frozen=True)
class Scored:
    """One score of the images. key: short name in files; label: for people; unit: "" for a pure number.

    values: (N,) of the whole collection, NaN where it was not asked. threshold: an image above is called not normal.
    """

    key: str
    label: str
    role: Role
    unit: str
    values: np.ndarray
    threshold: float


@dataclass(frozen=True)
class Measured:
    """What there is to measure. random: the detector with random weights. masks: as of `find_anomalies`."""

    task: Task
    detector: Detector
    random: Detector
    scores: Sequence[Scored]
    masks: np.ndarray | None

    @property
    def main(self) -> Scored:
        """The score of the headline and of the ten cases."""
        return next(one for one in self.scores if one.key == PATCHES)

    @cached_property
    def marked(self) -> np.ndarray:
        """Test rows that are not normal and have a mask."""
        if self.masks is None:
            return np.empty(0, dtype=np.int64)
        test = self.task.test[self.task.y[self.task.test] == 1]
        return test[self.masks[test].any(axis=(1, 2))]


def anomaly_results(measured: Measured, pretrained: Pretrained, settings: AnomalySettings, out: Path) -> JSON:
    """The content of anomalies.json; writes scores.csv and the pictures to `out`."""
    task, title = measured.task, pretrained.settings.title
    patients = task.collection.patients()
    resamples = draw_resamples(patients[task.test], resamples=settings.resamples, seed=0, warn=False)
    rows = _score_rows(measured, resamples)
    write_rows(_score_table(measured), out / SCORES_FILE)
    counts = {
        part: {
            "normal": int((task.y[inside] == 0).sum()),
            "not_normal": int((task.y[inside] == 1).sum()),
            "patients": len(np.unique(patients[inside])),
        }
        for part, inside in (("train", task.train), ("val", task.val), ("test", task.test))
    }
    return {
        "format": 1,
        "collection": task.collection.name,
        "made_images": is_made(task.collection),
        "normal": settings.normal,
        "where": settings.where,
        "objective": title,
        "main": PATCHES,
        "headline": _headline(rows, counts["train"]["normal"]),
        "specificity": settings.specificity,
        "images": counts,
        "neither": task.target.not_mentioned,
        "split": task.split.origin,
        "scores": rows,
        "localisation": _localisation(measured, title, settings.resamples),
        "maps": {
            name: {"label": MAPS[name].label, "unit": MAPS[name].unit, "low": low, "high": high}
            for name, (low, high) in measured.detector.ranges.items()
        },
        "cases": _cases(measured, pretrained.settings.seed, out),
        "warnings": _warnings(measured, pretrained, rows, counts),
        "seconds": {"pretrain": pretrained.fit.seconds},
    }


def _score_rows(measured: Measured, resamples: Resamples) -> list[JSON]:
    """AUROC with its difference from 16 x 16 pixels, and what the threshold of validation gives on test."""
    task = measured.task
    y = task.y[task.test]
    areas = {one.key: bootstrap(auroc, y, one.values[task.test][None], resamples) for one in measured.scores}
    rows = []
    for one in measured.scores:
        called = (one.values[task.test] > one.threshold).astype(float)[None]
        difference = paired_difference(areas[one.key], areas[PIXELS])
        rows.append(
            {
                "key": one.key,
                "label": one.label,
                "role": one.role,
                "unit": one.unit,
                "threshold": one.threshold,
                "auroc": _told(areas[one.key]),
                "sensitivity": _told(bootstrap(sensitivity, y, called, resamples)),
                "specificity": _told(bootstrap(specificity, y, called, resamples)),
                "from_pixels": None
                if one.key == PIXELS
                else {name: getattr(difference, name) for name in ("value", "low", "high", "p")},
            }
        )
    return rows


def _told(found: Bootstrap) -> JSON:
    low, high = found.interval()
    return {"value": found.value, "low": low, "high": high, "n": found.n, "patients": found.patients}


def _localisation(measured: Measured, title: str, resamples: int) -> JSON | None:
    """How well maps find the masks of images that have one; beside them, what needs no detector."""
    rows, masks = measured.marked, measured.masks
    if masks is None or not len(rows):
        return None
    task = measured.task
    drawn = draw_resamples(task.collection.patients()[rows], resamples=resamples, seed=0, warn=False)
    normal_val = task.pixels[task.val[task.y[task.val] == 0]]
    typical = measured.detector.look(normal_val).maps[PATCHES].mean(axis=0)
    own = measured.detector.look(task.pixels[rows]).maps
    random = measured.random.look(task.pixels[rows]).maps[PATCHES]
    maps = {f"{title}: {MAPS[name].label}": found for name, found in own.items()} | {
        f"random weights: {MAPS[PATCHES].label}": random,
        f"{title}: the mean map of normal images, whatever the image": np.repeat(
            typical[None], len(rows), axis=0
        ),
        "brightness of the pixel": np.stack([_grey(task, row) for row in rows]),
    }
    nobody = np.ones(len(rows))
    found = [
        {
            "label": label,
            "pixel_auroc": _told(bootstrap(pixel_auroc, nobody, pixel_counts(one, masks[rows])[None], drawn)),
            "hits": _told(bootstrap(sensitivity, nobody, hits(one, masks[rows])[None].astype(float), drawn)),
        }
        for label, one in maps.items()
    ]
    return {"rows": found, "chance": float(masks[rows].mean()), "images": len(rows)}


def _grey(task: Task, row: int) -> np.ndarray:
    """The image as the encoder sees it, mean over channels, (S, S)."""
    return unit_image(task.pixels, int(row), task.size_px).mean(axis=0)


def _score_table(measured: Measured) -> list[dict[str, str]]:
    """All scores of validation and test images, a row an image."""
    task = measured.task
    ids = task.collection.column("case:case_id")
    return [
        {
            "case": str(ids[row]),
            "part": part,
            "normal": "yes" if task.y[row] == 0 else "no",
            **{one.key: f"{one.values[row]:.6g}" for one in measured.scores},
        }
        for part in ("val", "test")
        for row in (task.val if part == "val" else task.test)
    ]


def _cases(measured: Measured, seed: int, out: Path) -> list[JSON]:
    """The test images with the highest main score, and as many drawn from the rest; with pictures of their maps."""
    task, main = measured.task, measured.main.values
    ordered = task.test[np.argsort(-main[task.test], kind="stable")]
    drawn = np.random.default_rng(seed).permutation(ordered[SHOWN:])[:SHOWN]
    rows = np.concatenate([ordered[:SHOWN], drawn])
    maps = measured.detector.look(task.pixels[rows]).maps
    names, cases = task.collection.column("case:source"), []
    for place, row in enumerate(rows):
        figure, mask = f"figures/case-{row}.png", None
        if measured.masks is not None and row in measured.marked:
            mask = measured.masks[row]
        case_figure(task.pixels, row, out / figure, mask=mask)
        drawn_maps = {}
        for name, found in maps.items():
            drawn_maps[name] = f"figures/case-{row}-{name}.png"
            low, high = measured.detector.ranges[name]
            map_figure(unit_image(task.pixels, row), found[place], low, high, out / drawn_maps[name])
        cases.append(
            {
                "case": str(names[row]),
                "chosen": "highest" if place < SHOWN else "drawn",
                "normal": bool(task.y[row] == 0),
                "marked": mask is not None,
                "scores": {one.key: float(one.values[row]) for one in measured.scores},
                "figure": figure,
                "maps": drawn_maps,
            }
        )
    return cases


def _headline(rows: Sequence[JSON], normal: int) -> str:
    by_key = {row["key"]: row["auroc"] for row in rows}
    told = {
        key: f"{number(by_key[key]['value'])} ({interval(by_key[key]['low'], by_key[key]['high'])})"
        for key in (PATCHES, f"random-{PATCHES}", PIXELS)
    }
    return (
        f"Learned from {normal:,} normal images alone, the distance to normal places tells what is not normal with "
        f"AUROC {told[PATCHES]}; with random weights {told[f'random-{PATCHES}']}, from 16 x 16 pixels {told[PIXELS]}."
    )


def _warnings(
    measured: Measured, pretrained: Pretrained, rows: Sequence[JSON], counts: dict[str, JSON]
) -> list[str]:
    found = list(pretrained.fit.warnings)
    if is_made(measured.task.collection):
        found.append(
            "These images are made by a program. The figures show that the method runs, not what it is worth."
        )
    if counts["val"]["normal"] < FEW_NORMAL:
        found.append(
            f"Only {counts['val']['normal']} normal validation images set the thresholds, which are rough therefore."
        )
    if counts["test"]["patients"] < FEW_PATIENTS:
        found.append(f"Only {counts['test']['patients']} patients were tested on: intervals are too narrow.")
    told = [row for row in rows if row["key"] in ("statistics", "brightness") and _tells(row["auroc"])]
    if told:
        figures = "; ".join(f"{row['label']}: AUROC {number(row['auroc']['value'])}" for row in told)
        found.append(
            f"Image statistics that see no anatomy tell normal from not normal ({figures}): exposure, projection or "
            "equipment differ between the two, and a part of what the scores reach may be that."
        )
    return found


def _tells(area: JSON) -> bool:
    """Whether chance lies outside of the interval, on either side."""
    return area["low"] > 0.5 or area["high"] < 0.5
