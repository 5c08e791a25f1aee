"""Several ways to pretrain, on the same images with the same split, labels and compute; writes benchmarks/results.

    python benchmarks/compare_encoders.py objectives
    python benchmarks/compare_encoders.py positives-nih positives-hannover

Every way trains for the same number of seconds of the processor (on a GPU: of the clock): as many steps as its speed,
measured at the start, allows. Then a linear probe, its settings chosen on validation, with few and with all labels;
95 % intervals from a bootstrap over patients, label draws and pretrainings, and the paired difference to the way that
is named first for its network.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from machine import machine_facts
from main_job import RESULTS, ROOT, SEEDS, SOURCES, data_folder, import_source, say

from fewlabel.collection import Collection
from fewlabel.evaluation.intervals import paired_difference
from fewlabel.files import write_text
from fewlabel.networks import Encoder
from fewlabel.objectives import SupCon
from fewlabel.pipeline import EvaluateSettings, PretrainSettings, pretrain
from fewlabel.pipeline.arms import Arm, encoder_features, probe_arm, random_features
from fewlabel.pipeline.evaluating import compare_on, make_task
from fewlabel.pipeline.pretraining import Pretrained, split_of, store_size
from fewlabel.pipeline.settings import OBJECTIVE_TITLES, ObjectiveName, resolve_settings
from fewlabel.splits import Split
from fewlabel.training import TrainingSet, fit, mix_seed
from fewlabel.training.compute import WORTH_MEASURING
from fewlabel.training.weights import load_encoder, save_encoder
from fewlabel.types import JSON, FewlabelError

SUPCON = "supcon"


@dataclass(frozen=True)
class Way:
    """One way to pretrain. network: ways with the same one are compared with the first of them.

    supcon: with the supervised contrastive loss on all training labels, instead of the settings' objective.
    """

    label: str
    settings: PretrainSettings
    network: str = "ResNet-18"
    supcon: bool = False


@dataclass(frozen=True)
class Study:
    """data: of `main_job.SOURCES`. targets: name -> what to learn.

    seconds: of the processor for training, a way and pretraining seed.
    """

    about: str
    data: str
    targets: dict[str, str]
    ways: dict[str, Way]
    budgets: tuple[int, ...]
    seconds: float
    pretraining_seeds: int = 2

    @property
    def first_target(self) -> str:
        """What the split is stratified by, and SupCon learns."""
        return next(iter(self.targets.values()))


SIMCLR = PretrainSettings(size_px=32, batch_size=64)
VIT = replace(SIMCLR, encoder="vit_tiny_patch16_224")
CONVOLUTIONAL: tuple[ObjectiveName, ...] = ("moco", "byol", "barlow", "vicreg")
NIH = PretrainSettings(size_px=32, batch_size=64)


def _positives(base: PretrainSettings) -> dict[str, Way]:
    return {
        "simclr": Way("SimCLR, two views of an image", base),
        "patient": Way("MICLe, two images of a patient", replace(base, positives="patient")),
        "mixed": Way("MICLe, half of the pairs", replace(base, positives="patient", pair_share=0.5)),
    }


STUDIES = {
    "objectives": Study(
        "pneumonia in PneumoniaMNIST, 28 px enlarged to 32",
        "pneumoniamnist",
        {"pneumonia": "label"},
        {
            "simclr": Way("SimCLR", SIMCLR),
            "info-nce": Way("SimCLR with InfoNCE", replace(SIMCLR, loss="info-nce")),
            **{name: Way(OBJECTIVE_TITLES[name], replace(SIMCLR, objective=name)) for name in CONVOLUTIONAL},
            SUPCON: Way("SupCon, all training labels", SIMCLR, supcon=True),
            "simclr-vit": Way("SimCLR", VIT, "ViT-Tiny"),
            "mae": Way("MAE", replace(VIT, objective="mae"), "ViT-Tiny"),
        },
        (47,),
        seconds=180,
    ),
    "positives-nih": Study(
        "NIH chest X-rays, 32 px",
        "nih-chest-xray",
        {"pneumonia": "Pneumonia", "sex": "Patient Gender=M", "view PA": "View Position=PA"},
        _positives(NIH),
        (58,),
        seconds=150,
    ),
    "positives-hannover": Study(
        "Hannover chest X-rays, COVID-19 patients only, 32 px",
        "hannover-chest-xray",
        {"sex": "sex=m", "view PA": "projection=pa"},
        _positives(replace(NIH, batch_size=32)),
        (30,),
        seconds=100,
    ),
}


def trained(
    way: Way, study: Study, collection: Collection, split: Split, seed: int, folder: Path
) -> tuple[Pretrained, JSON]:
    """The encoder of a way; kept in `folder`, so that the same call goes on."""
    told = folder / "told.json"
    settings = replace(resolve_settings(way.settings, [collection]), seed=seed)
    if told.exists():
        encoder, facts = load_encoder(folder / "encoder.safetensors"), json.loads(told.read_text())
        return _kept(encoder, settings, collection, split), facts
    shutil.rmtree(folder, ignore_errors=True)
    # The processor's own time, since something else may run beside it; a GPU's is not seen there.
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    speed = 0.0
    for steps in (WORTH_MEASURING, None):
        steps = steps or max(WORTH_MEASURING, round(study.seconds * speed))
        settings = replace(settings, steps=steps)
        started = clock()
        encoder = _train(way, study, settings, collection, split, folder / str(steps))
        seconds = clock() - started
        speed = steps / seconds
    facts = {"steps": settings.steps, "seconds": round(seconds, 1)}
    save_encoder(encoder, folder / "encoder.safetensors")
    write_text(told, json.dumps(facts))
    return _kept(encoder, settings, collection, split), facts


def _kept(encoder: Encoder, settings: PretrainSettings, collection: Collection, split: Split) -> Pretrained:
    return Pretrained(encoder, settings, store_size(settings.size_px, [collection]), [split])


def _train(
    way: Way, study: Study, settings: PretrainSettings, collection: Collection, split: Split, out: Path
) -> Encoder:
    if not way.supcon:
        return pretrain([collection], out, settings, splits=[split]).encoder
    target = collection.target(study.first_target)
    with torch.random.fork_rng():
        torch.manual_seed(mix_seed("initial weights", settings.seed))
        objective = SupCon(Encoder(settings.encoder_settings))
    pixels = collection.square(store_size(settings.size_px, [collection]), channels=settings.channels or 1)
    labels = np.where(target.usable, target.values, -1)[split.train].astype(np.int64)
    fit(objective, TrainingSet((pixels,), (split.train,), labels), settings.view_settings, settings.schedule)
    return objective.encoder.eval()


def compare(name: str, study: Study, work: Path, *, seeds: int) -> JSON:
    """Pretrain all ways, probe all targets; the content of the result file."""
    collection = import_source(study.data, data_folder(), work)
    strata = collection.target(study.first_target).values
    split = split_of(collection, seed=0, strata=strata, drop=True)
    folder = work / "encoders" / f"{name}-{study.seconds:g}"
    found = {
        key: [
            trained(way, study, collection, split, seed, folder / f"{key}-{seed}")
            for seed in range(study.pretraining_seeds)
        ]
        for key, way in study.ways.items()
    }
    rows: list[JSON] = []
    for target, column in study.targets.items():
        evaluation = EvaluateSettings(column, budgets=study.budgets, seeds=seeds)
        rows += _rows(study, found, collection, evaluation, target, folder / "features")
    trainings = {key: [facts for _, facts in made] for key, made in found.items()}
    settings = {key: asdict(made[0][0].settings) for key, made in found.items()}
    return {
        "benchmark": "compare_encoders", "study": name, "about": study.about, "groups": SOURCES[study.data].groups,
        "seconds": study.seconds, "label_seeds": seeds, "pretraining_seeds": study.pretraining_seeds,
        "ways": {key: {"label": way.label, "network": way.network, "trainings": trainings[key]}
                 for key, way in study.ways.items()},
        "rows": rows, "settings": settings,
    }  # fmt: skip


def _rows(
    study: Study,
    found: dict[str, list[tuple[Pretrained, JSON]]],
    collection: Collection,
    evaluation: EvaluateSettings,
    target: str,
    features: Path,
) -> list[JSON]:
    arms: list[Arm] = []
    firsts: dict[str, str] = {}  # network -> its first way
    reference: dict[str, str] = {}
    for key, way in study.ways.items():
        made = [one for one, _ in found[key]]
        task = make_task(collection, made[0], evaluation, features_folder=features)
        if way.network not in firsts:
            firsts[way.network] = key
            random = f"random, {way.network}"
            arms.append(probe_arm(random, "random init", "control", task, random_features(task)))
            reference[random] = key
        reference[key] = firsts[way.network]
        arms.append(
            probe_arm(key, way.label, "method", task, encoder_features(task, [m.encoder for m in made]))
        )
    curves, _ = compare_on(task, arms, evaluation, say)
    rows = []
    for arm in arms:
        for budget in curves.budgets:
            measured, other = curves.main(arm.key, budget), curves.main(reference[arm.key], budget)
            low, high = measured.interval()
            gap = paired_difference(measured, other)
            rows.append(
                {
                    "target": target, "way": arm.key, "label": arm.label, "budget": budget, "metric": curves.suite.main,
                    "value": measured.value, "low": low, "high": high, "n": measured.n, "patients": measured.patients,
                    "against": reference[arm.key], "difference": gap.value, "difference_low": gap.low,
                    "difference_high": gap.high, "p": gap.p,
                }
            )  # fmt: skip
    return [{k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()} for row in rows]


def main(arguments: list[str] | None = None) -> int:
    """Run the studies named on the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=STUDIES)
    parser.add_argument("--seconds", type=float, help="of each training, instead of the study's own")
    parser.add_argument("--seeds", type=int, default=2 * SEEDS, help="draws of labels")
    parser.add_argument(
        "--work", type=Path, default=ROOT / ".work", help="collections and encoders are kept here"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    try:
        for name in given.names:
            study = STUDIES[name]
            if given.seconds:
                study = replace(study, seconds=given.seconds)
            facts = machine_facts()
            content = {**compare(name, study, given.work, seeds=given.seeds), **facts}
            write_text(given.results / f"{name}.json", json.dumps(content, indent=1) + "\n")
            print(given.results / f"{name}.json")
    except FewlabelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
