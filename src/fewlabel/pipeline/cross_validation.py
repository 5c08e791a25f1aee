"""`fewlabel cross-validate`: with few labels in each fold, every patient tested once by a model that never saw them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fewlabel.collection import Collection
from fewlabel.collection.store import locked
from fewlabel.files import replacing
from fewlabel.networks import Encoder
from fewlabel.pipeline.adopting import usual_folder
from fewlabel.pipeline.evaluating import (
    EvaluateSettings,
    check_evaluation,
    make_arms,
    make_task,
    recipe_steps,
    run_on,
)
from fewlabel.pipeline.fold_results import Fold, build_fold_results
from fewlabel.pipeline.learning import Job, open_job, whole
from fewlabel.pipeline.pretraining import pretrain
from fewlabel.pipeline.runs import RUN, finished_results, read_json, versions, write_json, write_split
from fewlabel.pipeline.settings import PretrainSettings
from fewlabel.pipeline.unlabelled import unlabelled_results
from fewlabel.report.cross_validation import write_cross_validation
from fewlabel.splits import Split, draw_folds, linked_groups, official_split
from fewlabel.types import JSON, FewlabelError, ProgressCallback

RESULTS = "cross_validation.json"
FOLD, OUTPUTS = "fold.json", "outputs.npz"


@dataclass(frozen=True)
class CrossValidated:
    """What a cross-validation gave: the folder, the page, its first sentence, and cross_validation.json as a
    dictionary.
    """

    out: Path
    page: Path
    headline: str
    results: JSON


def cross_validate(
    collection: Collection | str | Path,
    target: str | None = None,
    out: str | Path | None = None,
    *,
    folds: int = 5,
    reports: str | Path | None = None,
    text_column: str | None = None,
    pretrain_on: Sequence[Collection | str | Path] = (),
    pretraining: PretrainSettings | None = None,
    evaluation: EvaluateSettings | None = None,
    drop_leaks: bool = False,
    bar: bool = False,
    progress: ProgressCallback | None = None,
) -> CrossValidated:
    """Cross-validate by patient: in each fold pretraining, all arms and their settings see the other patients alone.

    folds: how many; patients and duplicates stay together. evaluation: its budgets are labels in a fold; None = the
    headline's, 50, and all labels. Its seeds draw other labels in each fold. Further arguments as of `learn`. The test
    part of a source with an official split takes no part at all, so that it stays unseen for a last test.
    The same call goes on after an interruption, between folds and within one. Raises FewlabelError, one sentence, for
    every mistake of the user, before anything is trained.
    """
    job = open_job(
        "cross-validate",
        collection,
        target,
        reports=reports,
        text_column=text_column,
        pretrain_on=pretrain_on,
        pretraining=pretraining,
        evaluation=evaluation,
        progress=progress,
    )
    main, settings = job.main, job.evaluation
    out = Path(out) if out else usual_folder(main, f"{settings.target}-folds", job.pretraining)
    run = {**job.described(), "folds": folds}
    splits = fold_splits(main, settings, folds, job.pretraining.seed)
    job = replace(job, evaluation=replace(settings, budgets=_budgets(settings, splits)))
    if not (out / RUN).exists():
        _check(job, splits)
    finished = finished_results(out, run, RESULTS)
    if finished:
        return _cross_validated(out)
    with locked(out, "run"):
        done = [
            _fold(
                job, split, number, out / f"fold-{number}", drop_leaks, bar, _named(progress, number, folds)
            )
            for number, split in enumerate(splits, start=1)
        ]
        results = build_fold_results(main, job.evaluation, job.pretraining.title, done)
        seconds = sum(one.told["seconds"] for one in done)
        told = {"seconds": {"total": seconds}, "versions": versions(), "settings": run}
        write_json(out / RUN, {**run, "versions": told["versions"]})
        write_json(out / RESULTS, results | told)
    return _cross_validated(out)


def fold_splits(collection: Collection, settings: EvaluateSettings, folds: int, seed: int) -> list[Split]:
    """The folds of all images but those of an official test part, each class dealt out evenly.

    Raises FewlabelError for more folds than patients, or than patients of one class.
    """
    patients = collection.patients()
    groups = linked_groups(
        patients, collection.column("case:exact_group"), collection.column("case:near_group")
    )
    rows, parts = np.arange(len(collection)), collection.column("case:split")
    if np.any(parts == "test"):
        official = official_split(parts, groups, seed=seed)
        rows = np.union1d(official.train, official.val)
    target = settings.target_in(collection)
    labels = target.values.copy()
    if settings.where:
        out = np.setdiff1d(np.arange(len(collection)), collection.where(settings.where))
        labels[out] = np.nan if target.kind == "number" else -1
    splits = draw_folds(groups, rows, labels=labels, folds=folds, seed=seed)
    for code, name in enumerate(target.classes):
        have = len(np.unique(groups[rows][labels[rows] == code]))
        if 0 < have < folds:
            raise FewlabelError(
                f"{folds} folds were asked for and {target.name} = {name} was seen in {have} patient(s): use at most "
                f"{have} folds, or leave that class out with --where."
            )
    return splits


def _budgets(settings: EvaluateSettings, splits: Sequence[Split]) -> tuple[int, ...]:
    if settings.budgets is not None:
        return tuple(sorted({*settings.budgets}))
    fits = settings.headline_budget < min(len(split.train) for split in splits)
    return (settings.headline_budget,) if fits else ()


def _check(job: Job, splits: Sequence[Split]) -> None:
    """Raise FewlabelError for all that would stop a fold, before anything is trained."""
    for number, split in enumerate(splits, start=1):
        try:
            check_evaluation(job.main, split, job.evaluation, job.pretraining)
        except FewlabelError as error:
            raise FewlabelError(f"In fold {number} of {len(splits)}: {error}") from error
    Encoder(job.pretraining.encoder_settings)  # a mistake in its name, size or weights shows here


def _named(progress: ProgressCallback | None, number: int, folds: int) -> ProgressCallback | None:
    if progress is None:
        return None
    return lambda done, total, what: progress(done, total, f"fold {number} of {folds}: {what}")


def _fold(
    job: Job,
    split: Split,
    number: int,
    folder: Path,
    drop_leaks: bool,
    bar: bool,
    progress: ProgressCallback | None,
) -> Fold:
    """One fold, from where it stood; at once where it is finished."""
    if (folder / FOLD).exists():
        return _read_fold(folder)
    started, main, settings = time.perf_counter(), job.main, job.evaluation
    if progress:
        progress(0, 0, "pretraining")  # which has a bar of its own
    pretrained = pretrain(
        [main, *job.others],
        folder / "pretrain",
        replace(job.pretraining, seed=job.pretraining.seed + number - 1),
        texts=job.texts,
        splits=[split, *(whole(other) for other in job.others)],
        drop=drop_leaks,
        progress=bar,
    )
    task = make_task(main, pretrained, settings, features_folder=folder / "features")
    steps = recipe_steps(task, [pretrained], settings, folder)
    arms = make_arms(task, [pretrained], settings, steps, folder / "outputs")
    budgets = [*(settings.budgets or ()), len(task.train)]
    curves = run_on(task, arms, settings, sorted({*budgets}), progress)
    parts = {"train": task.train, "val": task.val, "test": task.test}
    patients = main.patients()
    told = {
        "number": number,
        "budgets": budgets,
        "arms": [{"key": arm.key, "label": arm.label, "role": arm.role} for arm in arms],
        **{part: len(rows) for part, rows in parts.items()},
        **{f"{part}_patients": len(np.unique(patients[rows])) for part, rows in parts.items()},
        "pretraining_images": pretrained.images,
        "unlabelled": unlabelled_results(task, pretrained, resamples=settings.resamples, seed=number).get(
            "unlabelled", []
        ),
        "warnings": pretrained.fit.warnings,
        "seconds": time.perf_counter() - started,
    }
    write_split(folder / "split.csv", [main, *job.others], pretrained.splits)
    fold = Fold(told, task.test, curves.outputs, curves.called)
    _write_fold(folder, fold)
    return fold


def _write_fold(folder: Path, fold: Fold) -> None:
    """Outputs first: where fold.json is, the fold is finished."""
    arrays: JSON = {f"output {arm} {budget}": found for (arm, budget), found in fold.outputs.items()}
    arrays |= {f"called {arm} {budget}": found for (arm, budget), found in fold.called.items()}
    with replacing(folder / OUTPUTS) as temporary, temporary.open("wb") as file:
        np.savez(file, tested=fold.tested, **arrays)
    write_json(folder / FOLD, fold.told)


def _read_fold(folder: Path) -> Fold:
    found: dict[str, dict[tuple[str, int], np.ndarray]] = {"output": {}, "called": {}}
    try:
        with np.load(folder / OUTPUTS, allow_pickle=False) as file:
            tested = file["tested"]
            for name in file.files:
                if name != "tested":
                    kind, arm, budget = name.split(" ")
                    found[kind][arm, int(budget)] = file[name]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise FewlabelError(
            f"{folder / OUTPUTS} is damaged ({error}): delete {folder / FOLD}, and the fold is evaluated again."
        ) from error
    told = read_json(folder / FOLD, "fewlabel cross-validate")
    return Fold(told, tested, found["output"], found["called"])


def _cross_validated(out: Path) -> CrossValidated:
    """Write the page of finished results."""
    results = read_json(out / RESULTS, "fewlabel cross-validate")
    return CrossValidated(out, write_cross_validation(out), results["headline"]["sentence"], results)
