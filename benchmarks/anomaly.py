"""What is not normal, learned from normal images alone: VAE, SimCLR, and what needs no training.

    python benchmarks/anomaly.py nih-chest-xray phantoms
    python benchmarks/anomaly.py --quick phantoms

One run of `fewlabel anomalies` for each way to pretrain, on the same split. Intervals draw patients; one seed, so they
do not hold the chance of initial weights. Of made radiographs the places of opacities are known, and maps are measured
by them. The page with ten cases of each run stays in the work folder; a run that was stopped goes on.

Real images lie in ../shared/data beside the project, or where FEWLABEL_REAL_DATA says. `--quick` runs everything
through in little time; its figures mean nothing and stay in the work folder.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from main_job import data_folder, import_source
from named_jobs import run_named

from fewlabel.collection import Collection, import_images
from fewlabel.phantoms import radiographs, write_radiographs
from fewlabel.pipeline import AnomalySettings, PretrainSettings, find_anomalies
from fewlabel.types import JSON

PHANTOMS, PHANTOM_SEED, SIZE_PX = 1200, 11, 64
Made = tuple[Collection, np.ndarray | None]
OBJECTIVES = ("vae", "simclr")
KEPT = ("images", "neither", "split", "specificity", "made_images")
DIGITS = 5


@dataclass(frozen=True)
class AnomalyJob:
    """make: (work folder, images) -> the collection, and masks where there are some. normal: in words.

    phantoms: how many are made, of no meaning for real images.
    """

    about: str
    make: Callable[[Path, int], Made]
    settings: AnomalySettings
    normal: str
    pretraining: PretrainSettings
    phantoms: int = PHANTOMS


def make_nih(work: Path, count: int) -> Made:
    """The collection of the main job; nobody has drawn masks for it."""
    return import_source("nih-chest-xray", data_folder(), work), None


def make_phantoms(work: Path, count: int) -> Made:
    """Made radiographs, imported from files as a user would, with the masks of their opacities."""
    name = f"phantoms-{count}"
    images, to = work / f"{name}-images", work / "collections" / name
    if not (images / "labels.csv").exists():
        write_radiographs(images, count, PHANTOM_SEED, size_px=SIZE_PX)
    import_images(images, to, labels=images / "labels.csv", file_column="file", patient_column="Patient ID")
    collection = Collection.open(to)
    made = radiographs(count, size_px=SIZE_PX, seed=PHANTOM_SEED)
    return collection, made.opacity_mask[places_of(made.patients, collection)]


def places_of(patients: Sequence[str], collection: Collection) -> np.ndarray:
    """(N,) which of the made images, with these patients, each row of the collection is, by its file's name."""
    first = {patient: i for i, patient in reversed(list(enumerate(patients)))}
    names = [Path(case).stem.rsplit("_", 1) for case in collection.column("case:case_id")]
    return np.array([first[who] + int(number) - 1 for who, number in names])


SCHEDULE = PretrainSettings(size_px=SIZE_PX, steps=400, batch_size=64)
JOBS = {
    "nih-chest-xray": AnomalyJob(
        "1,000 NIH chest X-rays, half of them with pneumonia",
        make_nih,
        AnomalySettings('"No Finding" = 1'),
        "No Finding",
        SCHEDULE,
    ),
    "phantoms": AnomalyJob(
        "made radiographs, some with an opacity",
        make_phantoms,
        AnomalySettings("opacity = 0", where="effusion = 0 AND reticulation = 0"),
        "no finding",
        SCHEDULE,
    ),
}


def quick(job: AnomalyJob) -> AnomalyJob:
    """The same job with so little of everything that it only shows that it runs."""
    tiny = replace(job.pretraining, encoder="test_resnet", steps=2, batch_size=16)
    settings = replace(job.settings, patches=200, resamples=20)
    return replace(job, settings=settings, pretraining=tiny, phantoms=150)


def run_job(name: str, job: AnomalyJob, work: Path) -> JSON:
    """One run for each way to pretrain; the content of the result file."""
    collection, masks = job.make(work, job.phantoms)
    scores: list[JSON] = []
    places: list[JSON] = []
    kept: JSON = {}
    for objective in OBJECTIVES:
        print(f"{name}: {objective}", file=sys.stderr, flush=True)
        pretraining = replace(job.pretraining, objective=objective)
        out = work / "anomalies" / f"{name}-{objective}"
        found = find_anomalies(collection, job.settings, out, pretraining=pretraining, masks=masks).results
        scores += rows_of(objective, found["scores"], scores)
        places += rows_of(objective, (found["localisation"] or {"rows": []})["rows"], places)
        kept = {key: found[key] for key in KEPT}
        if found["localisation"]:
            kept["chance"] = found["localisation"]["chance"]
    return rounded(
        {
            "benchmark": "anomaly",
            "data": name,
            "about": job.about,
            "normal": job.normal,
            "seed": job.pretraining.seed,
            "encoder": job.pretraining.encoder,
            "size_px": job.pretraining.size_px,
            "steps": job.pretraining.steps,
            "batch_size": job.pretraining.batch_size,
            **kept,
            "scores": scores,
            "localisation": places,
        }
    )


def rows_of(objective: str, rows: list[JSON], before: list[JSON]) -> list[JSON]:
    """Rows with the way to pretrain; what needs no training is the same in every run, and comes once."""
    known = {row["label"] for row in before}
    return [{"way": objective, **row} for row in rows if row["label"] not in known]


def rounded(value: JSON) -> JSON:
    """With numbers of so many digits as mean anything."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def main(arguments: list[str] | None = None) -> int:
    """Run the jobs named on the command line. Returns the exit status."""
    return run_named(arguments, __doc__, "anomaly", JOBS, quick, run_job)


if __name__ == "__main__":
    sys.exit(main())
