"""The main job on real data, each one command; the results go to benchmarks/results.

    python benchmarks/main_job.py pneumoniamnist
    python benchmarks/main_job.py nih-chest-xray nih-sex nih-age
    python benchmarks/main_job.py all

The images lie in ../shared/data beside the project, or where FEWLABEL_REAL_DATA says. Collections and encoders are
kept in the work folder and used again. `--quick` runs everything through in little time; its figures mean nothing and
are written into the work folder only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import idrid

from fewlabel.adaptation.distill import DistillSettings
from fewlabel.collection import Collection, import_images
from fewlabel.pipeline import EvaluateSettings, PretrainSettings, SimCLRv2Settings, evaluate, learn
from fewlabel.types import JSON, FewlabelError

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Source:
    """Where a collection comes from: paths below the data folder, and columns of its label file.

    groups: what the split and the bootstrap keep together, in words; "" where nothing is known of it.
    write_labels: (data folder, where to write) writes the label file that `labels` would name.
    """

    path: str
    labels: str | None = None
    file_column: str | None = None
    patient_column: str | None = None
    view_column: str | None = None
    split_column: str | None = None
    groups: str = "patients"
    write_labels: Callable[[Path, Path], Path] | None = None


SOURCES = {
    "pneumoniamnist": Source("pneumoniamnist/pneumoniamnist.npz", groups=""),
    "nih-chest-xray": Source(
        "nih-chest-xray/images", "nih-chest-xray/labels.csv", "Image Index", "Patient ID", "View Position"
    ),
    # No patient numbers were published: the near-duplicate groups stand for them.
    "iq-oth-lung-ct": Source(
        "iq-oth-lung-ct",
        "iq-oth-lung-ct/index.csv",
        "file",
        patient_column="near_dup_group_r098",
        groups="near-duplicate groups",
    ),
    "hannover-chest-xray": Source(
        "hannover-chest-xray/png",
        "hannover-chest-xray/data_with_included_flag.csv",
        "image_id",
        "patient_id",
        "projection",
    ),
    # No numbers of patients or eyes were published: the two eyes of a patient may lie in different parts.
    "idrid": Source(
        "idrid/grading_512px",
        file_column="file",
        split_column="split",
        groups="",
        write_labels=idrid.write_labels,
    ),
    "mednist-cxr": Source("mednist-64/CXR.tar.gz", groups=""),
}


@dataclass(frozen=True)
class Job:
    """One line of a table of results: the main one, or that of the recipe simclr-v2.

    data: the collection that is evaluated. pretraining: how to pretrain on it (and on `pretrain_on`, without labels);
    None = the encoder of the job `encoder_of`. followed_by: jobs that the same command runs afterwards.
    """

    data: str
    about: str
    evaluation: EvaluateSettings
    pretraining: PretrainSettings | None = None
    encoder_of: str = ""
    pretrain_on: tuple[str, ...] = ()
    pretraining_seeds: int = 1
    followed_by: tuple[str, ...] = ()
    table: Literal["main", "recipe"] = "main"


NIH_BUDGETS = (10, 25, 50, 100, 250)
NIH_PRETRAINING = PretrainSettings(size_px=64, steps=400, batch_size=128)
SEEDS = 3

# The settings of every job: the one place to change them. Chosen on validation patients, never on test.
JOBS: dict[str, Job] = {
    "pneumoniamnist": Job(
        "pneumoniamnist",
        "pneumonia in children's chest X-rays of 28 px, enlarged to 64 px, the official split",
        EvaluateSettings("label", budgets=(10, 25, 47, 100, 250), seeds=SEEDS, headline_budget=47),
        PretrainSettings(size_px=64, steps=1000, batch_size=128),
    ),
    "nih-chest-xray": Job(
        "nih-chest-xray",
        "pneumonia in 1,000 NIH chest X-rays",
        EvaluateSettings("Pneumonia", budgets=NIH_BUDGETS, seeds=SEEDS),
        NIH_PRETRAINING,
    ),
    "iq-oth-lung-ct": Job(
        "iq-oth-lung-ct",
        "malignant or not in lung CT slices, grouped by near-duplicates",
        EvaluateSettings("class=malignant", budgets=(10, 50, 250), seeds=SEEDS),
        PretrainSettings(size_px=64, steps=300, batch_size=128),
    ),
    "nih-multi": Job(
        "nih-chest-xray",
        "pneumonia, after pretraining on all chest X-rays there are",
        EvaluateSettings("Pneumonia", budgets=NIH_BUDGETS, seeds=SEEDS, supervised=False),
        NIH_PRETRAINING,
        pretrain_on=("hannover-chest-xray", "mednist-cxr", "pneumoniamnist"),
    ),
}

JOBS["idrid-grading"] = Job(
    "idrid",
    "grade of diabetic retinopathy (0 to 4) in fundus photographs, the official test part, doubtful copies left out",
    EvaluateSettings(
        "Retinopathy grade",
        grades=("0", "1", "2", "3", "4"),
        referable="2",
        budgets=(50, 100, 250),
        seeds=2,
        headline_budget=100,
        recipe="grading",
    ),
    PretrainSettings(size_px=96, channels=3, flips=True, steps=300, batch_size=64),
)

# Further targets on the encoder that was pretrained for pneumonia: name -> (about, target, where).
NIH_TARGETS = {
    "pa": (
        "pneumonia among PA views only, so that the view cannot give it away",
        "Pneumonia",
        "\"View Position\" = 'PA'",
    ),
    "sex": ("male or female", "Patient Gender=M", None),
    "effusion": ("effusion (9 % of the images)", "Effusion", None),
    "age": ("age in years", "Patient Age", None),
    "view": ("view PA or AP, which is how the image was taken and no finding", "View Position=PA", None),
}
for _owner, _words in (("nih-chest-xray", ""), ("nih-multi", ", after pretraining on all chest X-rays")):
    for _name, (_about, _target, _where) in NIH_TARGETS.items():
        JOBS[f"{_owner.replace('-chest-xray', '')}-{_name}"] = Job(
            "nih-chest-xray",
            _about + _words,
            EvaluateSettings(_target, _where, budgets=(50,), seeds=SEEDS, supervised=_owner != "nih-multi"),
            encoder_of=_owner,
        )
JOBS["nih-multi"] = replace(JOBS["nih-multi"], followed_by=tuple(f"nih-multi-{name}" for name in NIH_TARGETS))

# SimCLRv2's steps at 1, 10 and 100 % of the labels, with a small and a bigger network; its student is the next smaller.
RECIPE_DATA: dict[str, tuple[str, str, tuple[int, ...], int, int]] = {  # about, target, budgets, size, steps
    "pneumoniamnist": ("pneumonia in children's chest X-rays", "label", (47, 470), 32, 400),
    "nih-chest-xray": ("pneumonia in NIH chest X-rays", "Pneumonia", (6, 58), 32, 300),
    "iq-oth-lung-ct": ("malignant or not in lung CT slices", "class=malignant", (7, 71), 32, 200),
}
RECIPE_SEEDS, RECIPE_DISTILLING = 2, 120
RECIPE_NETWORKS = {"resnet18": "resnet10t", "resnet50": "resnet18"}
for _data, (_about, _target, _budgets, _size, _steps) in RECIPE_DATA.items():
    for _network, _student in RECIPE_NETWORKS.items():
        JOBS[f"{_data}-simclr-v2-{_network}"] = Job(
            _data,
            _about,
            EvaluateSettings(
                _target,
                budgets=_budgets,
                seeds=RECIPE_SEEDS,
                headline_budget=_budgets[0],
                recipe="simclr-v2",
                simclr_v2=SimCLRv2Settings(
                    student=_student,
                    of_own_kind=DistillSettings(temperature=0.1, steps=RECIPE_DISTILLING),
                    smaller=DistillSettings(temperature=1.0, steps=RECIPE_DISTILLING),
                ),
            ),
            PretrainSettings(encoder=_network, size_px=_size, steps=_steps, batch_size=128, head_layers=3),
            table="recipe",
        )

KEPT = (
    "title", "made_images", "target", "metric", "metric_labels", "higher_is_better", "arms", "budgets", "seeds",
    "metrics", "differences", "headline", "labels_saved", "data", "warnings", "settings", "versions", "seconds",
)  # fmt: skip
DIGITS = 5


def quick(job: Job) -> Job:
    """The same job with so little of everything that it only shows that it runs."""
    budgets = job.evaluation.budgets or (10,)
    short = DistillSettings(steps=2)
    recipe = replace(job.evaluation.simclr_v2, of_own_kind=short, smaller=short)
    evaluation = replace(
        job.evaluation, budgets=budgets[:1], seeds=1, resamples=50, supervised=False, simclr_v2=recipe
    )
    size_px = min(32, job.pretraining.size_px) if job.pretraining else 0
    pretraining = job.pretraining and replace(job.pretraining, steps=3, batch_size=16, size_px=size_px)
    return replace(job, evaluation=evaluation, pretraining=pretraining, pretraining_seeds=1)


def data_folder() -> Path:
    """The folder of real images. Raises FewlabelError where there is none."""
    folder = Path(os.environ.get("FEWLABEL_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        raise FewlabelError(
            f"There are no real images at {folder}: set FEWLABEL_REAL_DATA to the folder that holds "
            f"{', '.join(sorted({source.path.split('/')[0] for source in SOURCES.values()}))}."
        )
    return folder


def import_source(name: str, data: Path, work: Path) -> Collection:
    """The collection of a source; what was imported before is not read again."""
    source, to = SOURCES[name], work / "collections" / name
    if not (data / source.path).exists():
        raise FewlabelError(
            f"{data} holds no {source.path}: copy it there, or set FEWLABEL_REAL_DATA to another folder."
        )
    labels = data / source.labels if source.labels else None
    if source.write_labels:
        labels = source.write_labels(data, work / "labels" / f"{name}.csv")
    import_images(
        data / source.path,
        to,
        labels=labels,
        file_column=source.file_column,
        patient_column=source.patient_column,
        view_column=source.view_column,
        split_column=source.split_column,
    )
    return Collection.open(to)


def run_job(name: str, jobs: dict[str, Job], work: Path) -> Path:
    """Run one job; returns the folder of its run. Another setting means another folder, so nothing stale is used."""
    job, data = jobs[name], data_folder()
    main = import_source(job.data, data, work)
    encoder = encoder_folder(name, jobs, work)
    if job.pretraining and evaluation_of(encoder) in (None, _plain(asdict(job.evaluation))):
        others = [import_source(other, data, work) for other in job.pretrain_on]
        learn(
            main,
            job.evaluation.target,
            encoder,
            pretrain_on=others,
            pretraining=job.pretraining,
            evaluation=job.evaluation,
            pretraining_seeds=job.pretraining_seeds,
            drop_leaks=True,
            bar=sys.stderr.isatty(),
            progress=say,
        )
        return encoder
    if job.pretraining and not (encoder / "pretrain" / "seed-0" / "pretrain.json").exists():
        raise FewlabelError(
            f"{encoder} was stopped while it pretrained, with other settings of the evaluation: delete it, and run the "
            "job again."
        )
    if job.encoder_of and not (encoder / "results.json").exists():
        run_job(job.encoder_of, jobs, work)
    out = encoder.with_name(f"{name}-{_short(asdict(job.evaluation), encoder.name)}")
    evaluate(main, job.evaluation.target, encoder, out, evaluation=job.evaluation, progress=say)
    return out


def encoder_folder(name: str, jobs: dict[str, Job], work: Path) -> Path:
    """The run whose encoder a job uses; its name changes with the pretraining's settings."""
    owner = jobs[name].encoder_of or name
    job = jobs[owner]
    assert job.pretraining is not None
    what = _short(asdict(job.pretraining), job.pretrain_on, job.pretraining_seeds)
    return work / "runs" / f"{owner}-{what}"


def evaluation_of(run: Path) -> JSON | None:
    """The settings that a run was evaluated with; None where there is no run."""
    path = run / "run.json"
    return json.loads(path.read_text())["evaluation"] if path.exists() else None


def _short(*what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:8]


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def say(done: int, total: int, what: str) -> None:
    """Progress as lines."""
    print(f"  {done}/{total} {what}", file=sys.stderr, flush=True)


def compact(results: JSON, name: str, job: Job) -> JSON:
    """What is kept in the project of results.json: figures and facts, no file names, no path of a machine."""
    kept: JSON = {"job": name, "about": job.about, "groups": SOURCES[job.data].groups, "table": job.table}
    kept.update({key: results[key] for key in KEPT if key in results})
    kept["data"] = {key: value for key, value in kept["data"].items() if key != "quarantine"}
    return _tidy(kept)


def _tidy(value: Any) -> Any:
    """Rounds numbers, and leaves of a path its last part."""
    if isinstance(value, dict):
        return {key: _tidy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, str):
        words = value.split(" ")
        return " ".join(Path(word).name if word.startswith("/") and len(word) > 1 else word for word in words)
    return value


def write_result(content: JSON, folder: Path) -> Path:
    """Write the compact results of a job, one line a metric, so that changes can be read in a diff."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{content['job']}.json"
    temporary = path.with_suffix(".part")
    temporary.write_text(_lines(content) + "\n")
    os.replace(temporary, path)
    return path


def _lines(content: JSON) -> str:
    parts = []
    for key, value in content.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in value)
            text = f"[\n  {rows}\n ]"
        else:
            text = json.dumps(value, ensure_ascii=False)
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}"


def main(arguments: list[str] | None = None) -> int:
    """Run the jobs named on the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"all, or of {', '.join(JOBS)}")
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    parser.add_argument(
        "--work", type=Path, default=ROOT / ".work", help="collections and runs are kept here"
    )
    given = parser.parse_args(arguments)
    work: Path = given.work / "quick" if given.quick else given.work
    jobs = {name: quick(job) for name, job in JOBS.items()} if given.quick else JOBS
    try:
        names = chosen(given.names)
        data_folder()
        work.mkdir(parents=True, exist_ok=True)
        (given.work / ".gitignore").write_text("*\n")
        for name in names:
            print(f"{name}: {jobs[name].about}", file=sys.stderr, flush=True)
            run = run_job(name, jobs, work)
            content = compact(json.loads((run / "results.json").read_text()), name, jobs[name])
            print(write_result(content, work / "results" if given.quick else RESULTS))
    except FewlabelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def chosen(names: list[str]) -> list[str]:
    """The jobs to run, in order and each once, with those that follow them."""
    unknown = [name for name in names if name not in {*JOBS, "all"}]
    if unknown:
        raise FewlabelError(f"There is no job {unknown[0]!r}: use all, or {', '.join(JOBS)}.")
    wanted = list(JOBS) if "all" in names else names
    return list(dict.fromkeys(one for name in wanted for one in (name, *JOBS[name].followed_by)))


if __name__ == "__main__":
    sys.exit(main())
