"""How good an encoder is after how many seconds of training, beside `lightly` and beside other settings; prints JSON.

    pip install -e ".[peers]"
    python benchmarks/quality_over_time.py > benchmarks/results/quality-pneumoniamnist.json
    python benchmarks/quality_over_time.py --data nih-chest-xray --side-by-side --seeds 1 --seconds 3600
    python benchmarks/quality_over_time.py --size 64 --who fewlabel "32 bits" growing

AUROC on the test split of nearest neighbours and of a linear probe, both with all training labels, while training
goes on; the clock stands still during evaluation. Figures of the
validation part stand beside them: settings may be chosen on those only. Competitors take turns, or run
side by side with one core each. A run of ours is as long as `--seconds` allows, by the speed of its first steps.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from machine import machine_facts
from main_job import JOBS, data_folder, import_source
from peers import Lightly, write_folder
from sklearn.metrics import roc_auc_score
from torch import nn

from fewlabel.adaptation.features import extract_features
from fewlabel.adaptation.probe import Scaling, fit_linear_probe, fit_neighbour_probe
from fewlabel.collection import Collection
from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives import SimCLR
from fewlabel.pipeline.pretraining import split_of
from fewlabel.training import Compute, FitResult, TrainingSet, Watch, fit, mix_seed
from fewlabel.training.compute import WORTH_MEASURING
from fewlabel.types import JSON, Schedule
from fewlabel.views import medical_views

Features = Callable[[np.ndarray], np.ndarray]
"""Rows (N,) -> features (N, F)."""

OURS: dict[str, JSON] = {
    "fewlabel": {},
    "growing": {"growing": True},  # views start at half their side
    "32 bits": {"precision": "32"},
    "bf16": {"precision": "bf16"},
}
PASSED = ("data", "seconds", "points", "seeds", "size", "lightly_size", "batch", "workers", "work")


class Study:
    """Images (N, 1, S, S), labels 0 or 1 and the rows of train, val and test; keeps what is found."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        collection = Collection.open(given.work / "collections" / given.data)
        split = split_of(collection, seed=0, drop=True)
        target = collection.target(JOBS[given.data].evaluation.target)
        parts = {part: getattr(split, part) for part in ("train", "val", "test")}
        self.rows = {part: rows[target.usable[rows]] for part, rows in parts.items()}
        self.y = target.values.astype(int)
        self.train = split.train  # training without labels takes all of them
        side = 28 if given.data == "pneumoniamnist" else 2 * given.size
        self.images = collection.square(side, channels=1)
        self.pace: dict[str, float] = {}  # steps a second
        self.curves: list[JSON] = []

    def add(self, who: str, seed: int, seconds: float, features: Features) -> None:
        """AUROC on test of both probes, whose settings are chosen on validation, at this moment of training."""
        x, y = ({part: of(rows) for part, rows in self.rows.items()} for of in (features, self.y.__getitem__))
        given = x["train"], y["train"], x["val"], y["val"]
        knn = fit_neighbour_probe(*given, kind="binary", classes=2)
        linear = fit_linear_probe(*given, kind="binary", classes=2, scaling=Scaling.of(x["train"]))
        row: JSON = {"who": who, "seed": seed, "seconds": round(seconds, 1)}
        for name, probe in (("knn", knn), ("probe", linear)):
            for part, key in (("test", name), ("val", f"{name}_val")):
                row[key] = round(float(roc_auc_score(y[part], probe.predict(x[part])[:, 1])), 4)
        self.curves.append(row)
        print(json.dumps(self.curves[-1]), file=sys.stderr, flush=True)

    def run(self, who: str, seed: int) -> None:
        """One training of one competitor."""
        if who == "lightly":
            self._lightly(seed)
        else:
            self._ours(who, seed, OURS[who])

    def _ours(self, who: str, seed: int, options: JSON) -> None:
        if who not in self.pace:
            first = self._fit(Schedule(WORTH_MEASURING, self.given.batch, 1e-3), seed, options, look=None)
            self.pace[who] = first.images_per_second / self.given.batch
        every = max(1, round(self.given.seconds * self.pace[who] / self.given.points))
        steps = every * self.given.points
        schedule = Schedule(steps, self.given.batch, 1e-3, warmup_steps=steps // 20, seed=seed)
        self._fit(schedule, seed, options, look=lambda seconds, of: self.add(who, seed, seconds, of))

    def _fit(
        self, schedule: Schedule, seed: int, options: JSON, *, look: Callable[[float, Features], None] | None
    ) -> FitResult:
        size = self.given.size
        torch.manual_seed(mix_seed("initial weights", seed))
        objective = SimCLR(Encoder(EncoderSettings("resnet18", 1, size)), temperature=0.2)
        started, stopped = time.perf_counter(), 0.0

        def features(rows: np.ndarray) -> np.ndarray:
            return extract_features(objective.encoder, self.images[rows], size_px=size)

        def score(model: nn.Module) -> float:
            nonlocal stopped
            now = time.perf_counter()
            seconds = now - started - stopped
            if look:
                look(seconds, features)
            stopped += time.perf_counter() - now
            return seconds  # later is better: the last weights stay

        return fit(
            objective,
            TrainingSet((self.images,), (self.train,)),
            medical_views(size),
            replace(schedule, start_size_px=size // 2 if options.get("growing") else None),
            watch=Watch(score, max(1, schedule.steps // self.given.points), patience=schedule.steps),
            compute=Compute(options["precision"]) if "precision" in options else None,
        )

    def _lightly(self, seed: int) -> None:
        with tempfile.TemporaryDirectory() as name:
            write_folder(np.array(self.images[self.train])[:, 0], Path(name) / "files")
            model = Lightly(Path(name) / "files", self.given.lightly_size, self.given.workers, seed)
            seconds, every = 0.0, self.given.seconds / self.given.points
            due, last = every, time.perf_counter()
            for _ in model.steps():
                seconds += time.perf_counter() - last
                if seconds >= due:
                    self.add("lightly", seed, seconds, self._of_lightly(model))
                    due += every
                if seconds >= self.given.seconds:
                    return
                last = time.perf_counter()

    def _of_lightly(self, model: Lightly) -> Features:
        return lambda rows: model.features(self.images[rows], self.given.lightly_size)


def side_by_side(given: argparse.Namespace) -> list[JSON]:
    """Every competitor in a process of its own with one thread, all at the same time."""
    argued = [f"--{key.replace('_', '-')}={value}" for key, value in vars(given).items() if key in PASSED]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, __file__, *argued, "--imported", "--who", who],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for who in given.who
    ]
    told = [json.loads(one.communicate()[0]) for one in running]
    return [row for one in told for row in one["curves"]]


def main() -> None:
    """Print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=("pneumoniamnist", "nih-chest-xray"), default="pneumoniamnist")
    parser.add_argument("--who", nargs="+", choices=["lightly", *OURS], default=["lightly", "fewlabel"])
    parser.add_argument("--seconds", type=float, default=200, help="of training, a run")
    parser.add_argument("--points", type=int, default=8, help="evaluations in a run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=32, help="side of our views")
    parser.add_argument(
        "--lightly-size", type=int, default=32, help="side of lightly's views; its batch is 128"
    )
    parser.add_argument("--batch", type=int, default=64, help="our batch")
    parser.add_argument("--workers", type=int, default=0, help="loader processes of lightly")
    parser.add_argument("--side-by-side", action="store_true", help="all at once, one thread each")
    parser.add_argument("--imported", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, default=Path(__file__).resolve().parents[1] / ".work")
    given = parser.parse_args()
    facts = machine_facts()
    if not given.imported:  # two processes must not import at once
        import_source(given.data, data_folder(), given.work)
    if given.side_by_side:
        curves = side_by_side(given)
    else:
        study = Study(given)
        for seed in range(given.seeds):
            for who in given.who if seed % 2 == 0 else reversed(given.who):
                study.run(who, seed)
        curves = study.curves
    settings = {key: value for key, value in vars(given).items() if key not in ("work", "imported")}
    print(json.dumps({"benchmark": "quality_over_time", **settings, "curves": curves, **facts}, indent=1))


if __name__ == "__main__":
    main()
