"""`fewlabel learn`, the main job: pretrain, probe, evaluate, keep a classifier, report. And `evaluate` on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from fewlabel.collection import Collection
from fewlabel.collection.store import locked
from fewlabel.networks import Encoder
from fewlabel.pipeline.adopting import only_target, open_or_import, paired_texts, usual_folder
from fewlabel.pipeline.evaluating import Evaluated, EvaluateSettings, check_evaluation, evaluate_encoders
from fewlabel.pipeline.evidence import evidence_results, few_shot_results, labelled_cases
from fewlabel.pipeline.inspecting import hygiene_results
from fewlabel.pipeline.made_pictures import generated_results
from fewlabel.pipeline.neighbours import similarity_results
from fewlabel.pipeline.pairs import texts_fingerprint
from fewlabel.pipeline.predicting import save_classifier
from fewlabel.pipeline.pretraining import Pretrained, check_texts, kept_pretrained, pretrain, split_of
from fewlabel.pipeline.probabilities import validation_cases
from fewlabel.pipeline.results import build_results
from fewlabel.pipeline.runs import (
    RUN,
    finished_results,
    read_json,
    read_split,
    versions,
    write_json,
    write_split,
)
from fewlabel.pipeline.separation import separate_from_pretraining
from fewlabel.pipeline.settings import PretrainSettings, check_range, resolve_settings
from fewlabel.pipeline.simclr_v2 import SIMCLR_V2_HEAD_LAYERS
from fewlabel.pipeline.unlabelled import unlabelled_results
from fewlabel.processes import launched_processes
from fewlabel.report import write_report
from fewlabel.reports import PairedTexts
from fewlabel.splits import Split
from fewlabel.training.weights import GENERATOR, save_generator
from fewlabel.types import JSON, FewlabelError, ProgressCallback


@dataclass(frozen=True)
class Learned:
    """What a run gave: the folder, the report, the headline, and results.json as a dictionary."""

    out: Path
    report: Path
    headline: str
    results: JSON


@dataclass(frozen=True)
class Job:
    """What a command that pretrains and evaluates was asked to do.

    main: what is learned on. others: collections that are only pretrained on. texts: of the images of `main`.
    """

    command: str
    main: Collection
    others: list[Collection]
    pretraining: PretrainSettings
    evaluation: EvaluateSettings
    texts: PairedTexts | None

    def described(self) -> JSON:
        """What stands in run.json of it."""
        return {
            "command": self.command,
            "collection": str(self.main.path),
            "data": [one.fingerprint for one in [self.main, *self.others]],
            "pretrain_on": [str(other.path) for other in self.others],
            "pretraining": asdict(self.pretraining),
            "evaluation": asdict(self.evaluation),
            "texts": self.texts and texts_fingerprint(self.texts),
        }


def learn(
    collection: Collection | str | Path,
    target: str | None = None,
    out: str | Path | None = None,
    *,
    reports: str | Path | None = None,
    text_column: str | None = None,
    pretrain_on: Sequence[Collection | str | Path] = (),
    pretraining: PretrainSettings | None = None,
    evaluation: EvaluateSettings | None = None,
    pretraining_seeds: int = 1,
    drop_leaks: bool = False,
    tensorboard: bool = False,
    bar: bool = False,
    progress: ProgressCallback | None = None,
) -> Learned:
    """The main job on one collection.

    collection: or a folder of images, which is imported beside itself, with the labels of `reports` if that is a table.
    target: what to learn, see `Collection.target`; None = the only label column there is. out: None = below runs/.
    reports, text_column: what ConVIRT learns from, see `find_reports`.
    pretrain_on: further collections, used without labels.
    pretraining_seeds: how often to pretrain; the label seeds are shared out among the encoders.
    The same call continues an interrupted run, one process at a time. Raises FewlabelError, one sentence, for every
    mistake of the user.
    """
    check_range("pretraining_seeds", pretraining_seeds, 1)
    job = open_job(
        "learn",
        collection,
        target,
        reports=reports,
        text_column=text_column,
        pretrain_on=pretrain_on,
        pretraining=pretraining,
        evaluation=evaluation,
        progress=progress,
    )
    main, others, settings, chosen, texts = job.main, job.others, job.evaluation, job.pretraining, job.texts
    out = Path(out) if out else usual_folder(main, settings.target, chosen)
    wanted = settings.target_in(main)
    strata = None if wanted.kind == "number" else wanted.values
    splits = [split_of(main, seed=chosen.seed, strata=strata, drop=drop_leaks)]
    splits += [whole(other) for other in others]
    run = {**job.described(), "pretraining_seeds": pretraining_seeds}
    if not (out / RUN).exists():
        check_evaluation(main, splits[0], settings, chosen)
        Encoder(chosen.encoder_settings)  # a mistake in its name, size or weights shows here
    finished = _begin(out, run)
    if finished:
        return finished
    with locked(out, "run"):
        encoders = [
            pretrain(
                [main, *others],
                out / "pretrain" / f"seed-{seed}",
                replace(chosen, seed=chosen.seed + seed),
                texts=texts,
                splits=splits,
                drop=drop_leaks,
                tensorboard=tensorboard,
                progress=bar,
            )
            for seed in range(pretraining_seeds)
        ]
        write_split(out / "split.csv", [main, *others], encoders[0].splits)
        return _finish(main, encoders, settings, out, run, progress, texts=texts)


def open_job(
    command: str,
    collection: Collection | str | Path,
    target: str | None,
    *,
    reports: str | Path | None,
    text_column: str | None,
    pretrain_on: Sequence[Collection | str | Path],
    pretraining: PretrainSettings | None,
    evaluation: EvaluateSettings | None,
    progress: ProgressCallback | None,
) -> Job:
    """What a command was asked to do, with what it is about opened; arguments and errors as of `learn`."""
    if launched_processes() != (1, 1):
        raise FewlabelError(
            f"{command} was started as several processes, and only pretraining is shared out: start fewlabel pretrain "
            "so, then fewlabel evaluate as one process."
        )
    main = open_or_import(collection, reports, progress)
    target = target or only_target(main)
    others = [_open(other) for other in pretrain_on]
    settings = replace(evaluation or EvaluateSettings(target), target=target)
    wanted = pretraining or PretrainSettings()
    if settings.recipe == "simclr-v2":
        wanted = replace(wanted, head_layers=wanted.head_layers or SIMCLR_V2_HEAD_LAYERS)
    chosen = resolve_settings(wanted, [main, *others])
    texts = paired_texts(main, reports, chosen.text, text_column) if reports else None
    check_texts(chosen, [main, *others], texts)
    return Job(command, main, others, chosen, settings, texts)


def evaluate(
    collection: Collection | str | Path,
    target: str,
    model: str | Path,
    out: str | Path,
    *,
    evaluation: EvaluateSettings | None = None,
    reports: str | Path | None = None,
    text_column: str | None = None,
    drop_leaks: bool = False,
    cluster: str | None = None,
    progress: ProgressCallback | None = None,
) -> Learned:
    """Evaluate an encoder made by `pretrain` or `learn` on a target; with baselines, intervals and report.

    model: the folder of the run. The split that the run kept for this collection holds; a collection that the run
    has not seen is split by patient, and none of its test images may have been pretrained on.
    reports, text_column: see `find_reports`; to search between images and texts, where the encoder learned from such.
    cluster: address of a Ray cluster whose machines take the features; they must see the collection's files.
    """
    out, model, main = Path(out), Path(model), _open(collection)
    folders = sorted((model / "pretrain").glob("seed-*")) or [model]
    settings = replace(evaluation or EvaluateSettings(target), target=target)
    encoders = [_load_pretrained(folder, main, settings, drop_leaks) for folder in folders]
    texts = paired_texts(main, reports, encoders[0].settings.text, text_column) if reports else None
    run = {
        "command": "evaluate",
        "collection": str(main.path),
        "data": [main.fingerprint],
        "model": str(model),
        "evaluation": asdict(settings),
        "pretraining": asdict(encoders[0].settings),
        "texts": texts and texts_fingerprint(texts),
    }
    if not (out / RUN).exists():
        check_evaluation(main, encoders[0].splits[0], settings, encoders[0].settings)
    finished = _begin(out, run)
    if finished:
        return finished
    with locked(out, "run"):
        write_split(out / "split.csv", [main], encoders[0].splits)
        return _finish(main, encoders, settings, out, run, progress, texts=texts, cluster=cluster)


def _open(collection: Collection | str | Path) -> Collection:
    return collection if isinstance(collection, Collection) else Collection.open(Path(collection))


def whole(collection: Collection) -> Split:
    """Every image is for training: a collection that is only pretrained on."""
    none = np.array([], dtype=np.int64)
    return Split(np.arange(len(collection)), none, none, origin="all images, for pretraining only")


def _begin(out: Path, run: JSON) -> Learned | None:
    """Write run.json, or check that `out` holds this very run; what it gave, if it is finished already."""
    results = finished_results(out, run, "results.json")
    return _learned(out, results) if results else None


def _learned(out: Path, results: JSON) -> Learned:
    """Write the report of finished results."""
    headline = (results["headline"] or {}).get("sentence")
    nothing = "No reference was trained: labels saved are not measured."
    return Learned(out, write_report(out), headline or nothing, results)


def _load_pretrained(folder: Path, main: Collection, settings: EvaluateSettings, drop: bool) -> Pretrained:
    made = read_json(folder / "pretrain.json", "fewlabel pretrain")
    chosen = PretrainSettings.from_json(made["settings"])
    split = read_split(folder / "split.csv", main)
    warnings: list[str] = []
    if split is None:
        wanted = settings.target_in(main)
        strata = None if wanted.kind == "number" else wanted.values
        split = split_of(main, seed=chosen.seed, strata=strata, drop=drop)
        split, warnings = separate_from_pretraining(folder, main, split, drop)
    elif len(split.test) == 0:
        raise FewlabelError(
            f"{folder} was pretrained on every image of {main.name}: no image is left to test on. Use fewlabel learn, "
            "or pretrain with this collection's test part held out."
        )
    found = kept_pretrained(folder, chosen, int(made["store_px"]), [split], int(made["images"]))
    found.fit.warnings += warnings
    return found


def _finish(
    main: Collection,
    encoders: Sequence[Pretrained],
    settings: EvaluateSettings,
    out: Path,
    run: JSON,
    progress: ProgressCallback | None,
    *,
    texts: PairedTexts | None = None,
    cluster: str | None = None,
) -> Learned:
    evaluated = evaluate_encoders(main, encoders, settings, folder=out, cluster=cluster, progress=progress)
    results = build_results(main, encoders, evaluated, settings, out)
    results |= similarity_results(evaluated, encoders[0], texts, out, prompts=settings.prompts)
    results |= evidence_results(evaluated, out) | few_shot_results(evaluated, encoders[0])
    results |= unlabelled_results(evaluated.task, encoders[0], resamples=settings.resamples)
    results |= hygiene_results(evaluated.task, encoders[0], out)
    if evaluated.generator:
        save_generator(evaluated.generator, out / GENERATOR)
    results |= generated_results(evaluated.task, encoders[0], out)
    pretrain_seconds = sum(encoder.fit.seconds for encoder in encoders)
    results["seconds"] = {
        "pretrain": pretrain_seconds,
        "evaluate": evaluated.seconds,
        "total": pretrain_seconds + evaluated.seconds,
    }
    results["versions"] = versions()
    results["settings"] = run
    compute = [asdict(encoder.fit.compute) for encoder in encoders]
    write_json(out / RUN, {**run, "versions": results["versions"], "compute": compute})
    _save_model(encoders[0], evaluated, out, main)
    write_json(out / "results.json", results)
    return _learned(out, read_json(out / "results.json", "fewlabel learn"))


def _save_model(pretrained: Pretrained, evaluated: Evaluated, out: Path, main: Collection) -> None:
    task = evaluated.task
    save_classifier(
        out / "model",
        evaluated.encoder,
        evaluated.classifier,
        task.target,
        size_px=task.size_px,
        store_px=pretrained.store_px,
        max_side_px=main.max_side_px,
        labels=len(task.train),
        trained_on=main.name,
        validation=validation_cases(evaluated),
        cuts=evaluated.cuts,
        cases=None if task.target.kind == "number" else labelled_cases(task, evaluated.features),
    )
