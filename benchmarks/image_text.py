"""ConVIRT on images with texts, against SimCLR and random weights on the same split; writes benchmarks/results.

    python benchmarks/image_text.py phantoms nih-weak-text vqa-rad

phantoms: made radiographs with made reports. nih-weak-text: sentences made from the labels, view, age and sex of the
NIH chest X-rays; such text is weak, since it tells the labels of all training images. vqa-rad: what was asked and
answered about each image; an image and all that was asked of it are in one part of the split. Each is one
`fewlabel learn` with ConVIRT and, on real images, one with SimCLR of as many steps, in the work folder, where a stopped
run goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from machine import machine_facts
from main_job import RESULTS, ROOT, data_folder, say

from fewlabel.collection import Collection
from fewlabel.evaluation.intervals import bootstrap, draw_resamples
from fewlabel.evaluation.retrieval import cosines
from fewlabel.files import write_text
from fewlabel.phantoms import EASY, write_radiographs
from fewlabel.pipeline import EvaluateSettings, PretrainSettings, evaluate, learn
from fewlabel.pipeline.adopting import open_or_import, paired_texts
from fewlabel.pipeline.runs import read_split
from fewlabel.tasks.image_text import load_image_text
from fewlabel.types import JSON, FewlabelError

Made = tuple[Path, Path]
"""Folder of images, and table with their labels and texts in a column `report`."""
NEAREST = 10
ORGANS = {"CHEST": "chest", "HEAD": "head", "ABD": "abdomen"}
NOT_LISTED = ("No Finding", "")


@dataclass(frozen=True)
class PairsJob:
    """make: (work folder, data folder) -> images and table. targets: what is told by prompts and probed.

    prompts: target -> class -> sentences in the manner of the texts; usual ones for other targets. On made images the
    usual ones ("There is opacity.") were tried first, on another seed: reports there say "There is no ..." of what is
    absent and name side and zone of what is present, so that these found images without the finding.
    beside_simclr: also pretrain with SimCLR, for as many steps.
    """

    about: str
    make: Callable[[Path, Path], Made]
    targets: tuple[str, ...]
    settings: PretrainSettings
    budgets: tuple[int, ...]
    weak: bool = False
    prompts: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    beside_simclr: bool = True


RARER = replace(EASY, opacity_share=0.25, effusion_share=0.25, reticulation_share=0.25)
"""As EASY, each finding in a quarter of the patients: three times chance must be possible."""


def make_phantoms(work: Path, data: Path) -> Made:
    """3,000 made radiographs, their reports among the labels."""
    folder = work / "made-radiographs-rarer"
    if not (folder / "labels.csv").exists():
        write_radiographs(folder, 3000, seed=23, size_px=64, difficulty=RARER)
    return folder / "images", folder / "labels.csv"


def make_nih(work: Path, data: Path) -> Made:
    """One sentence for each listed finding, one for sex and age, one for the view."""
    source = data / "nih-chest-xray"
    with (source / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        found = [name for name in row["Finding Labels"].split("|") if name not in NOT_LISTED]
        said = [f"There is {name.lower().replace('_', ' ')}." for name in found] or ["There is no finding."]
        sex = {"M": "male", "F": "female"}.get(row["Patient Gender"], "")
        said += [
            f"{row['View Position']} view of the chest.",
            f"A {sex} patient of {row['Patient Age']} years.",
        ]
        row["report"] = " ".join(said)
        row["pneumonia"] = str(int("Pneumonia" in found))
    return source / "images", _write(work / "nih-weak-text.csv", rows)


def make_vqa_rad(work: Path, data: Path) -> Made:
    """Question and answer as one sentence, for all questions on an image, however often they were asked."""
    source = data / "vqa-rad"
    asked = json.loads((source / "VQA_RAD Dataset Public.json").read_text())
    texts: dict[str, list[str]] = {}
    organs = {}
    for one in asked:
        question, answer = str(one["question"]).strip().rstrip("?. "), str(one["answer"]).strip().rstrip(". ")
        texts.setdefault(one["image_name"], []).append(f"{question}: {answer.lower()}.")
        organs[one["image_name"]] = ORGANS[one["image_organ"].strip()]
    rows = [
        {"file": name, "organ": organs[name], "report": " ".join(dict.fromkeys(said))}
        for name, said in texts.items()
    ]
    return source / "images", _write(work / "vqa-rad.csv", rows)


def _write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


MADE_PROMPTS = {
    "reticulation": {
        "reticulation": [
            "Fine reticulation in both lungs.", "Bilateral reticular pattern.", "Both lungs show a reticular pattern.",
            "Prominent interstitial markings in both lungs.", "There are reticular opacities in both lungs.",
        ],
        "not reticulation": [
            "No reticular pattern.", "No interstitial opacities are seen.", "There is no reticulation.",
            "No prominent interstitial markings.", "Negative for reticular opacities.",
        ],
    },
    "opacity": {
        "opacity": [
            "There is an opacity in the left mid zone.", "Right upper zone consolidation.",
            "Left lower zone infiltrate.",
            "Airspace opacity in the right mid zone.", "There is a consolidation in the right lower zone.",
        ],
        "not opacity": [
            "No focal opacity.", "No consolidation is seen.", "There is no airspace opacity.", "No infiltrate.",
            "The lungs are clear.",
        ],
    },
    "side=left": {
        "side=left": [
            "There is an opacity in the left mid zone.", "Left upper zone consolidation.",
            "Left lower zone infiltrate.",
            "Airspace opacity in the left mid zone.", "There is a consolidation in the left lower zone.",
        ],
        "side!=left": [
            "There is an opacity in the right mid zone.", "Right upper zone consolidation.", "No focal opacity.",
            "There is no airspace opacity.", "Clear lungs.",
        ],
    },
    "effusion": {
        "effusion": [
            "Left pleural effusion.", "There is a right pleural effusion.", "Right-sided effusion.",
            "Blunting of the left costophrenic angle.", "Pleural fluid on the left.",
        ],
        "not effusion": [
            "No pleural effusion.", "No pleural fluid is seen.", "There is no effusion.",
            "No blunting of the costophrenic angles.", "Negative for pleural effusion.",
        ],
    },
}  # fmt: skip
ASKED_PROMPTS = {
    "organ": {
        "chest": [
            "Are the lungs normal appearing: yes.",
            "Is there a pneumothorax: no.",
            "Is the heart enlarged: no.",
        ],
        "head": [
            "Is this an MRI of the brain: yes.",
            "Is there a midline shift: no.",
            "Is the skull fractured: no.",
        ],
        "abdomen": [
            "Is the liver normal: yes.",
            "Is there free air in the abdomen: no.",
            "Are there gallstones: no.",
        ],
    }
}
CONVIRT = PretrainSettings(objective="convirt", size_px=32, steps=1200, batch_size=64)
JOBS = {
    "phantoms": PairsJob(
        "made radiographs with made reports",
        make_phantoms,
        ("reticulation", "opacity", "side=left", "effusion"),
        replace(CONVIRT, size_px=48, steps=2000),
        (10, 100),
        prompts=MADE_PROMPTS,
        beside_simclr=False,
    ),
    "nih-weak-text": PairsJob(
        "NIH chest X-rays with sentences made from labels, view, age and sex",
        make_nih,
        ("pneumonia", "Effusion"),
        replace(CONVIRT, size_px=64, steps=300),
        (10, 58),
        weak=True,
    ),
    "vqa-rad": PairsJob(
        "radiology images of three organs with what was asked and answered about them",
        make_vqa_rad,
        ("organ",),
        replace(CONVIRT, size_px=64, steps=300, batch_size=32),
        (10,),
        prompts=ASKED_PROMPTS,
    ),
}


def run_job(name: str, job: PairsJob, work: Path) -> JSON:
    """Train both, evaluate all targets; the content of the result file."""
    images, table = job.make(work, data_folder() if name != "phantoms" else work)
    copy = work / f"{name}-images"
    if not copy.exists():
        copy.symlink_to(images.resolve())
    collection = open_or_import(copy, table)
    runs, rows, search, zero_shot = work / "image-text" / name, [], [], []
    first = job.targets[0]
    evaluation = EvaluateSettings(first, budgets=job.budgets, seeds=3, supervised=False)
    simclr = replace(job.settings, objective="simclr")
    encoders = [("convirt", job.settings, table), ("simclr", simclr, None)][: 1 + job.beside_simclr]
    for key, settings, reports in encoders:
        for target in job.targets:
            said, out = job.prompts.get(target), runs / f"{key}-{target}"
            prompts = _prompts(work / f"{name}-{target}.json", said) if said else None
            asked = replace(evaluation, target=target, prompts=prompts)
            if target == first:
                made = learn(
                    collection,
                    target,
                    out,
                    reports=reports,
                    pretraining=settings,
                    evaluation=asked,
                    progress=say,
                )
            else:
                model = runs / f"{key}-{first}"
                made = evaluate(
                    collection, target, model, out, reports=reports, evaluation=asked, progress=say
                )
            rows += _figures(made.results, key, target)
            if key == "convirt":
                search += [{"target": target, **mode} for mode in made.results["retrieval"]["modes"]]
                zero_shot.append({"target": target, **made.results["zero_shot"]})
    return {
        "benchmark": "image_text", "pairs": name, "about": job.about, "weak_text": job.weak, "rows": rows,
        "retrieval": search, "zero_shot": zero_shot, "own_text": own_text(collection, table, runs / f"convirt-{first}"),
        "seconds": {key: _seconds(runs / f"{key}-{first}") for key, *_ in encoders},
        "images": len(collection), "test": _test_count(collection, runs / f"convirt-{first}"),
    }  # fmt: skip


def _prompts(path: Path, said: dict[str, list[str]]) -> str:
    write_text(path, json.dumps(said, indent=1))
    return str(path)


def _figures(results: JSON, key: str, target: str) -> list[JSON]:
    """The main measure of the pretrained encoder's probe, and with it random weights'."""
    wanted = {"simclr": key, **({"random": "random"} if key == "convirt" else {})}
    kept = ("budget", "name", "value", "low", "high", "n", "patients")
    return [
        {"target": target, "encoder": wanted[row["arm"]], **{k: row[k] for k in kept}}
        for row in results["metrics"]
        if row["arm"] in wanted and row["name"] == results["metric"]
    ]


def own_text(collection: Collection, table: Path, run: Path) -> JSON:
    """How often a test image's own text is among the ten nearest of all test texts: recall@10, and chance.

    The interval draws patients who ask; the texts to be found stay.
    """
    seed = run / "pretrain" / "seed-0"
    settings = json.loads((seed / "pretrain.json").read_text())
    split = read_split(run / "split.csv", collection)
    assert split is not None
    texts = paired_texts(collection, table, PretrainSettings.from_json(settings["settings"]).text)
    places = np.flatnonzero(np.isin(texts.rows, split.test))
    numbers, own = np.unique(texts.text_of[places], return_inverse=True)
    model = load_image_text(seed / "image-text")
    channels = settings["settings"]["channels"]
    pixels = collection.square(settings["store_px"], channels=channels)
    images = model.embed_images(np.array(pixels[texts.rows[places]]))
    said = np.stack([model.embed_texts(texts.sentences[number]).mean(axis=0) for number in numbers])
    patients = collection.patients()[texts.rows[places]]
    similarity = cosines(images, said)
    places = (similarity > similarity[np.arange(len(own)), own][:, None]).sum(axis=1)  # (Q,), 0 = the nearest
    found = bootstrap(_share, own, (places < NEAREST)[None], draw_resamples(patients, seed=0))
    low, high = found.interval()
    chance = NEAREST / len(numbers)
    return {"k": NEAREST, "value": found.value, "low": low, "high": high, "n": found.n, "chance": chance}


def _share(y: np.ndarray, hit: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of queries that hit, in each resample; a `MetricFunction`."""
    return weights @ hit / weights.sum(axis=1)


def _seconds(run: Path) -> float:
    return json.loads((run / "results.json").read_text())["seconds"]["pretrain"]


def _test_count(collection: Collection, run: Path) -> int:
    split = read_split(run / "split.csv", collection)
    return 0 if split is None else len(split.test)


def main(arguments: list[str] | None = None) -> int:
    """Run the jobs named on the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=JOBS)
    parser.add_argument("--steps", type=int, help="of each pretraining, instead of the job's own")
    parser.add_argument(
        "--work", type=Path, default=ROOT / ".work", help="collections and runs are kept here"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    try:
        for name in given.names:
            job = JOBS[name]
            if given.steps:
                job = replace(job, settings=replace(job.settings, steps=given.steps))
            content = {**run_job(name, job, given.work), **machine_facts()}
            write_text(given.results / f"image-text-{name}.json", json.dumps(content, indent=1) + "\n")
            print(given.results / f"image-text-{name}.json")
    except FewlabelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
