"""Do images of one class find each other? Raw pixels, random weights, SimCLR, and encoders that learned it from labels.

    python benchmarks/metric_learning.py nih-chest-xray mednist-64
    python benchmarks/metric_learning.py --quick nih-chest-xray

Test images ask, all other test images are to be found, and nobody finds an image of his own patient. Recall@k,
R-precision and MAP@R are those of Musgrave et al. 2020, arXiv:2003.08505; intervals draw patients, the same for all
encoders, so that the differences are paired. SimCLR sees no label. Siamese and triplet see those of all training
images, and stop by MAP@R of the validation images. One seed: an interval holds the chance of patients, not that of
initial weights.

The images lie in ../shared/data beside the project, or where FEWLABEL_REAL_DATA says. What is trained is kept in the
work folder. `--quick` runs everything through in little time; its figures mean nothing and stay in the work folder.
"""

from __future__ import annotations

import csv
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from main_job import NIH_PRETRAINING, data_folder, import_source
from named_jobs import run_named

from fewlabel.collection import Collection, import_images
from fewlabel.evaluation.intervals import Bootstrap, Resamples, paired_difference
from fewlabel.evaluation.retrieval import Search, cosines, precision_at, rank_measures
from fewlabel.pipeline import EvaluateSettings, Pretrained, PretrainSettings, pretrain
from fewlabel.pipeline.arms import Task, encoder_features, pixel_features, random_features
from fewlabel.pipeline.evaluating import make_task, rows_of_budgets
from fewlabel.pipeline.metric_learning import MetricLearning
from fewlabel.pipeline.pretraining import split_of
from fewlabel.splits import Split
from fewlabel.types import JSON, FewlabelError

CLASSES = ("AbdomenCT", "BreastMRI", "ChestCT", "CXR", "Hand", "HeadCT")
BLOCK, BLOCKS = 50, 16
PARTS = {"train": range(8), "val": range(9, 11), "test": range(12, 16)}
"""Neighbours in the order of MedNIST's files come from one scan: blocks of files stand for patients, each part is a
run of them, and a block between two parts is left out."""
PRECISION_AT, RECALL_AT = (5, 10, 50), (1, 5, 10)
REFERENCE = "SimCLR"
Kept = Callable[[Path, Path], tuple[Collection, Split]]


@dataclass(frozen=True)
class MetricJob:
    """make: (data folder, work folder) -> collection and split. target: the classes. patients: what stands for them.

    labels: of training images that are used; None = all. asking: at most so many test images ask, drawn by chance.
    """

    about: str
    make: Kept
    target: str
    pretraining: PretrainSettings
    patients: str = "patients"
    labels: int | None = None
    asking: int = 600


def make_nih(data: Path, work: Path) -> tuple[Collection, Split]:
    """The collection of the main job, split by patient."""
    collection = import_source("nih-chest-xray", data, work)
    strata = collection.target("Pneumonia").values
    return collection, split_of(collection, seed=NIH_PRETRAINING.seed, strata=strata, drop=True)


def make_mednist(data: Path, work: Path) -> tuple[Collection, Split]:
    """The first 800 files of each class, in blocks."""
    images, to = work / "mednist-64-images", work / "collections" / "mednist-64"
    table = work / "mednist-64.csv"
    if not table.exists():
        for name in CLASSES:
            _extract(data / "mednist-64" / f"{name}.tar.gz", images / name)
        rows = [
            {"file": f"{name}/{number:06d}.jpeg", "class": name, "block": f"{name}-{number // BLOCK:02d}"}
            for name in CLASSES
            for number in range(BLOCK * BLOCKS)
        ]
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    import_images(images, to, labels=table, file_column="file", patient_column="block")
    collection = Collection.open(to)
    return collection, split_by_block([str(name) for name in collection.column("case:patient_id")])


def split_by_block(blocks: Sequence[str]) -> Split:
    """Parts of images whose block is called such as "CXR-07"."""
    numbers = np.array([int(name.rpartition("-")[2]) for name in blocks])
    parts = {part: np.flatnonzero(np.isin(numbers, chosen)) for part, chosen in PARTS.items()}
    return Split(**parts, origin="runs of files")


def _extract(archive: Path, to: Path) -> None:
    """The first files of a class, by their number."""
    if not archive.exists():
        raise FewlabelError(
            f"{archive} is missing: copy it there, or set FEWLABEL_REAL_DATA to another folder."
        )
    to.mkdir(parents=True, exist_ok=True)
    wanted = {f"{number:06d}.jpeg" for number in range(BLOCK * BLOCKS)}
    with tarfile.open(archive) as file:
        for member in file:
            name = Path(member.name).name
            content = file.extractfile(member) if name in wanted else None
            if content:
                (to / name).write_bytes(content.read())


JOBS = {
    "nih-chest-xray": MetricJob(
        "pneumonia in 1,000 NIH chest X-rays", make_nih, "Pneumonia", NIH_PRETRAINING
    ),
    "mednist-64": MetricJob(
        "body part and modality of MedNIST images of 64 px",
        make_mednist,
        "class",
        PretrainSettings(size_px=32, steps=300, batch_size=128),
        patients=f"runs of {BLOCK} files",
    ),
}


def quick(job: MetricJob) -> MetricJob:
    """The same job with so little of everything that it only shows that it runs."""
    tiny = replace(job.pretraining, encoder="test_resnet", size_px=32, steps=3, batch_size=16)
    return replace(job, pretraining=tiny, labels=60, asking=60)


def run_job(name: str, job: MetricJob, work: Path) -> JSON:
    """Train, embed the test images and measure; the content of the result file."""
    collection, split = job.make(data_folder(), work)
    runs = work / "metric-learning" / name
    pretrained = pretrain([collection], runs / "pretrain", job.pretraining, splits=[split], drop=True)
    task = make_task(collection, pretrained, EvaluateSettings(job.target), features_folder=None)
    encoders, seconds = embed(task, pretrained, job, runs / "networks")
    rows, differences = measure(task, encoders, job.asking)
    return {
        "benchmark": "metric_learning", "data": name, "about": job.about, "target": job.target, "seed": 0,
        "patients": job.patients, "classes": list(task.target.classes), "split": pretrained.splits[0].origin,
        "images": {"train": len(task.train), "val": len(task.val), "test": len(task.test)},
        "labels": len(labelled(task, job)), "asking": min(job.asking, len(task.test)), "rows": rows, "differences":
        differences, "seconds": {"SimCLR": pretrained.fit.seconds, **seconds},
        "settings": {"encoder": job.pretraining.encoder, "size_px": job.pretraining.size_px, "steps":
    job.pretraining.steps}, }  # fmt: skip


def labelled(task: Task, job: MetricJob) -> np.ndarray:
    """The training rows whose labels are used."""
    wanted = job.labels or len(task.train)
    return rows_of_budgets(task.train, task.y, task.collection.patients(), [wanted], 0)[wanted]


def embed(
    task: Task, pretrained: Pretrained, job: MetricJob, networks: Path
) -> tuple[dict[str, np.ndarray], JSON]:
    """Vectors (N, K) of the whole collection by each encoder, and the seconds of each training on labels."""
    vectors = {
        "16 x 16 pixels": pixel_features(task),
        "random init": random_features(task)(0),
        REFERENCE: encoder_features(task, [pretrained.encoder])(0),
    }
    learning, rows, seconds = MetricLearning(task, [pretrained], networks), labelled(task, job), {}
    for method in learning.methods:
        print(f"  {method.label}", file=sys.stderr, flush=True)
        started = time.perf_counter()
        learned = learning.trained(method, rows, 0)
        seconds[method.label] = round(time.perf_counter() - started, 1)
        vectors[method.label] = learned.embeddings(learned.features(task.pixels))
    return vectors, seconds


def measure(task: Task, encoders: dict[str, np.ndarray], asking: int) -> tuple[list[JSON], list[JSON]]:
    """All measures of each encoder, and the differences of MAP@R from SimCLR."""
    patients, y = task.collection.patients()[task.test], task.y[task.test].astype(int)
    own = np.sort(np.random.default_rng(0).permutation(len(y))[:asking])
    search = Search.by_class(y[own], y, patients[own], patients, query_rows=own)
    drawn = search.draw(seed=0)
    rows, map_at_r = [], {}
    for name, vectors in encoders.items():
        found = _measures(cosines(vectors[task.test[own]], vectors[task.test]), search, drawn)
        map_at_r[name] = found["map_at_r"][0]
        for measure_name, (one, chance) in found.items():
            low, high = one.interval()
            rows.append(
                {
                    "encoder": name, "name": measure_name, "value": round(one.value, 5), "low": round(low, 5),
                    "high": round(high, 5), "n": one.n, "patients": one.patients, "chance": round(chance, 5),
                }
            )  # fmt: skip
    differences = []
    for name, one in map_at_r.items():
        if name != REFERENCE:
            d = paired_difference(one, map_at_r[REFERENCE])
            told = {
                "value": round(d.value, 5),
                "low": round(d.low, 5),
                "high": round(d.high, 5),
                "p": round(d.p, 5),
            }
            differences.append({"encoder": name, "reference": REFERENCE, "name": "map_at_r", **told})
    return rows, differences


def _measures(similarity: np.ndarray, search: Search, drawn: Resamples) -> dict[str, tuple[Bootstrap, float]]:
    """Each measure with its chance."""
    at = [k for k in PRECISION_AT if k <= similarity.shape[1] // 2]
    precision = precision_at(similarity, search, drawn, at=at)
    ranking = rank_measures(similarity, search, drawn, recall_at=RECALL_AT)
    found = {f"precision@{k}": (one, precision.chance) for k, one in precision.precision.items()}
    return found | {name: (one.found, one.chance) for name, one in ranking.items()}


def main(arguments: list[str] | None = None) -> int:
    """Run the jobs named on the command line. Returns the exit status."""
    return run_named(__doc__, "metric-learning", JOBS, quick, run_job, arguments)


if __name__ == "__main__":
    sys.exit(main())
