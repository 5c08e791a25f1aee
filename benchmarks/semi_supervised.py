"""Few labels and many images without: generative and consistency methods beside SimCLR and supervised training.

    python benchmarks/semi_supervised.py pneumoniamnist
    python benchmarks/semi_supervised.py --quick pneumoniamnist

All have the same labels of the same draws, the same small network and the same validation patients, who choose
the weights that are kept and calibrate them. Autoencoder, VAE and SimCLR are pretrained once on all training images and
followed by a linear probe; the three stages go on from that VAE; M2, GAN, Mean Teacher and FixMatch start from random
weights. Every pretraining takes the same seconds of the processor (on a GPU: of the clock), every training on labels
others: as many steps as its speed, measured at the start, allows. Supervised training from scratch is that of
the main job, stopped early where validation does not get better. 95 % intervals are over patients and draws of labels,
differences to supervised training are paired. One pretraining: an interval holds the chance of labels and patients, not
that of pretrainings.

The images lie in ../shared/data beside the project, or where FEWLABEL_REAL_DATA says. What is trained is kept in the
work folder, and the same command goes on from there. `--quick` runs everything through in little time; its figures mean
nothing and stay in the work folder.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from main_job import SOURCES, data_folder, import_source, say
from named_jobs import run_named

from fewlabel.adaptation.semi_supervised import SemiSupervisedSettings
from fewlabel.adaptation.three_stages import ThreeStagesSettings
from fewlabel.collection import Collection
from fewlabel.evaluation import metrics
from fewlabel.evaluation.intervals import Bootstrap, draw_resamples, paired_difference
from fewlabel.evaluation.label_efficiency import LabelEfficiency, MetricSuite, measure, run_arms
from fewlabel.files import write_text
from fewlabel.pipeline import EvaluateSettings, Pretrained, PretrainSettings, pretrain
from fewlabel.pipeline.arms import (
    Arm,
    Task,
    encoder_features,
    probe_arm,
    random_features,
    supervised_arm,
)
from fewlabel.pipeline.evaluating import make_task, rows_of_budgets
from fewlabel.pipeline.pretraining import split_of
from fewlabel.pipeline.semi_supervised import METHODS, SemiSupervised
from fewlabel.pipeline.three_stages import JOINT, ThreeStages
from fewlabel.splits import Split
from fewlabel.types import JSON

REFERENCE = "supervised"
PRETRAININGS = {"autoencoder": "autoencoder", "vae": "VAE", "simclr": "SimCLR"}
SUITE = MetricSuite(
    "auroc",
    True,
    {
        "auroc": lambda y, p, w: metrics.auroc(y, p[:, 1], w),
        "accuracy": lambda y, p, w: 1 - metrics.share_off_by(y, p.argmax(axis=1), w, steps=1),
    },
    {"auroc": "AUROC", "accuracy": "accuracy"},
)


@dataclass(frozen=True)
class SemiJob:
    """data: of `main_job.SOURCES`. target: two classes. budgets: numbers of labels, each drawn `seeds` times.

    pretraining_seconds, seconds: of the processor, for a pretraining and for a training on labels.
    measured_steps: from which a method's speed is taken.
    """

    about: str
    data: str
    target: str
    pretraining: PretrainSettings
    evaluation: EvaluateSettings
    budgets: tuple[int, ...] = (25, 50, 100, 250)
    seeds: int = 5
    pretraining_seconds: float = 240
    seconds: float = 50
    measured_steps: int = 20


MIXED = SemiSupervisedSettings(batch_size=32)  # small, so that few seconds are many steps
JOINT_MIXED = replace(ThreeStagesSettings().joint, batch_size=32)
JOBS = {
    "pneumoniamnist": SemiJob(
        "pneumonia in children's chest X-rays of 28 px (PneumoniaMNIST), enlarged to 32 px",
        "pneumoniamnist",
        "label",
        PretrainSettings(encoder="resnet10t", size_px=32, batch_size=64),
        EvaluateSettings("label", semi_supervised=MIXED, three_stages=ThreeStagesSettings(joint=JOINT_MIXED)),
    )
}


def quick(job: SemiJob) -> SemiJob:
    """The same job with so little of everything that it only shows that it runs."""
    tiny = replace(job.pretraining, encoder="test_resnet", batch_size=16)
    return replace(
        job, pretraining=tiny, budgets=job.budgets[:1], seeds=1, pretraining_seconds=0.01, seconds=0.01,
        measured_steps=2,
    )  # fmt: skip


@dataclass
class Plan:
    """Steps that fit into the seconds, by name; kept in a file, so that a run that goes on trains as it began."""

    path: Path
    steps: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def of(path: Path) -> Plan:
        """What the file says, or an empty one."""
        return Plan(path, json.loads(path.read_text()) if path.exists() else {})

    def steps_of(self, name: str, seconds: float, few: int, train: Callable[[int], object]) -> int:
        """train(steps): a training that is timed with `few` steps, once before the clock starts."""
        if name not in self.steps:
            clock = time.perf_counter if torch.cuda.is_available() else time.process_time
            train(few)
            started = clock()
            train(few)
            self.steps[name] = max(few, round(few * seconds / max(1e-3, clock() - started)))
            write_text(self.path, json.dumps(self.steps))
        return self.steps[name]


def pretrained_encoders(
    job: SemiJob, collection: Collection, split: Split, folder: Path, plan: Plan
) -> dict[str, Pretrained]:
    """One pretraining of each kind."""
    found = {}
    for name in PRETRAININGS:
        train = partial(_pretrained, job, collection, split, name)
        steps = plan.steps_of(name, job.pretraining_seconds, job.measured_steps, partial(_tried, train))
        print(f"  {name}, {steps} steps", file=sys.stderr, flush=True)
        found[name] = train(steps, folder / f"{name}-{steps}")
    return found


def _tried(train: Callable[[int, Path], Pretrained], steps: int) -> None:
    with TemporaryDirectory() as out:
        train(steps, Path(out))


def _pretrained(
    job: SemiJob, collection: Collection, split: Split, objective: Any, steps: int, out: Path
) -> Pretrained:
    settings = replace(job.pretraining, objective=objective, steps=steps)
    return pretrain([collection], out, settings, splits=[split])


def arms_of(job: SemiJob, task: Task, encoders: dict[str, Pretrained], folder: Path, plan: Plan) -> list[Arm]:
    """All that is compared, supervised training first."""
    outputs, networks = folder / "outputs", folder / "networks"
    rows = rows_of_budgets(task.train, task.y, task.collection.patients(), job.budgets, 0)[job.budgets[0]]
    arms = [supervised_arm(task, outputs)]
    for name, label in PRETRAININGS.items():
        features = encoder_features(task, [encoders[name].encoder])
        arms.append(probe_arm(name, f"{label}, linear probe", "method", task, features))
    arms.append(probe_arm("random", "random init, linear probe", "control", task, random_features(task)))

    def alone(steps: int, to: Path | None) -> SemiSupervised:
        return SemiSupervised(task, replace(job.evaluation.semi_supervised, steps=steps), None, to)

    def stages(steps: int, to: Path | None) -> ThreeStages:
        usual = job.evaluation.three_stages
        chosen = replace(usual, frozen_steps=steps, joint=replace(usual.joint, steps=steps))
        return ThreeStages(task, [encoders["vae"]], chosen, to)

    for method in METHODS:
        steps = plan.steps_of(
            method.key,
            job.seconds,
            job.measured_steps,
            lambda steps: alone(steps, None).trained(method, rows, 0),  # noqa: B023, called at once
        )
        arms += [arm for arm in alone(steps, networks).arms(outputs) if arm.key == method.key]
    steps = plan.steps_of(
        JOINT,
        job.seconds,
        job.measured_steps,
        lambda steps: stages(steps, None).arms(None)[0].outputs(rows, 0),
    )
    return arms + stages(steps, networks).arms(outputs)


def compare(job: SemiJob, task: Task, arms: list[Arm]) -> LabelEfficiency:
    """All arms with the same labels and the same resamples."""
    patients, y = task.collection.patients(), task.y
    curves = run_arms(
        arms,
        lambda seed: rows_of_budgets(task.train, y, patients, job.budgets, seed),
        suite=SUITE,
        budgets=job.budgets,
        seeds=range(job.seeds),
        progress=say,
    )
    measure(curves, y[task.test], draw_resamples(patients[task.test], seed=0))
    return curves


def table(curves: LabelEfficiency, arms: list[Arm]) -> list[JSON]:
    """Both measures of every arm at every budget, and the paired difference to supervised training."""
    rows = []
    for arm in arms:
        for budget in curves.budgets:
            for name, one in curves.bootstraps[arm.key, budget].items():
                told = _told(one, curves.bootstraps[REFERENCE, budget][name])
                rows.append({"arm": arm.key, "label": arm.label, "budget": budget, "name": name, **told})
    return rows


def _told(one: Bootstrap, reference: Bootstrap) -> JSON:
    low, high = one.interval()
    gap = paired_difference(one, reference)
    found = {
        "value": one.value, "low": low, "high": high, "difference": gap.value, "difference_low": gap.low,
        "difference_high": gap.high, "p": gap.p,
    }  # fmt: skip
    return {
        **{key: round(float(value), 5) for key, value in found.items()},
        "n": one.n,
        "patients": one.patients,
    }


def run_job(name: str, job: SemiJob, work: Path) -> JSON:
    """Train and compare; the content of the result file."""
    collection = import_source(job.data, data_folder(), work)
    strata = collection.target(job.target).values
    split = split_of(collection, seed=0, strata=strata, drop=True)
    folder = work / "semi-supervised" / f"{name}-{job.pretraining_seconds:g}-{job.seconds:g}"
    folder.mkdir(parents=True, exist_ok=True)
    plan = Plan.of(folder / "steps.json")
    encoders = pretrained_encoders(job, collection, split, folder / "pretrain", plan)
    task = make_task(collection, encoders["vae"], job.evaluation, features_folder=folder / "features")
    arms = arms_of(job, task, encoders, folder, plan)
    rows = table(compare(job, task, arms), arms)
    settings = {
        "encoder": job.pretraining.encoder, "size_px": job.pretraining.size_px,
        "semi_supervised": asdict(job.evaluation.semi_supervised), "three_stages": asdict(job.evaluation.three_stages),
    }  # fmt: skip
    return {
        "benchmark": "semi_supervised", "data": name, "about": job.about, "target": job.target,
        "groups": SOURCES[job.data].groups, "split": split.origin, "seeds": job.seeds, "budgets": list(job.budgets),
        "pretraining_seconds": job.pretraining_seconds, "seconds": job.seconds, "steps": plan.steps,
        "images": {"train": len(task.split.train), "val": len(task.val), "test": len(task.test)},
        "rows": rows, "settings": settings,
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run the jobs named on the command line. Returns the exit status."""
    return run_named(arguments, __doc__, "semi-supervised", JOBS, quick, run_job)


if __name__ == "__main__":
    sys.exit(main())
