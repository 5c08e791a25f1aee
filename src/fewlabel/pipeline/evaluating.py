"""`fewlabel evaluate`: what an encoder is worth with few labels, against its baselines, with intervals."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from fewlabel.adaptation.features import extract_features
from fewlabel.adaptation.semi_supervised import SemiSupervisedSettings, check_plain_classes
from fewlabel.adaptation.three_stages import ThreeStagesSettings
from fewlabel.collection import Collection, Target
from fewlabel.evaluation.intervals import Resamples, draw_resamples
from fewlabel.evaluation.label_efficiency import LabelEfficiency, measure, metric_suite, run_arms
from fewlabel.evaluation.selective import called_class
from fewlabel.networks import Encoder
from fewlabel.objectives.generator import Generator
from fewlabel.pipeline.arms import (
    Arm,
    Probe,
    Task,
    chosen_cuts,
    encoder_features,
    fit_probe,
    graded,
    pixel_features,
    probe_arm,
    random_features,
    statistics_features,
    supervised_arm,
)
from fewlabel.pipeline.grading_recipe import Grading
from fewlabel.pipeline.metric_learning import MetricLearning, check_metric_labels
from fewlabel.pipeline.pretraining import Pretrained
from fewlabel.pipeline.semi_supervised import SemiSupervised
from fewlabel.pipeline.settings import DECODING, PretrainSettings, check_range
from fewlabel.pipeline.simclr_v2 import SimCLRv2, SimCLRv2Settings, check_simclr_v2
from fewlabel.pipeline.three_stages import ThreeStages
from fewlabel.splits import Split, nested_budgets
from fewlabel.tasks.grading import Cuts
from fewlabel.types import FewlabelError, ProgressCallback

Recipe = Literal["probe", "simclr-v2", "metric", "grading", "semi-supervised", "three-stage"]
Steps = SimCLRv2 | MetricLearning | Grading | SemiSupervised | ThreeStages
"""What a recipe trains beyond a probe."""
NETWORKS = "networks"
DEFAULT_BUDGETS = (10, 25, 50, 100, 250)
LINEAR_MODELS = {"number": "ridge regression", "ordinal": "cumulative logits"}
"""Of targets that are not told by logistic regression."""


@dataclass(frozen=True)
class EvaluateSettings:
    """What to evaluate, and how.

    target, grades, referable: see `Collection.target`. where: an SQL expression; only these images are labelled,
    validated and tested.
    budgets: numbers of labels, None = 10, 25, 50, 100, 250; all labels are always added.
    seeds: draws of the labels and of initial weights. headline_budget: fixed before any result is seen; the nearest
    budget is taken. validation_labels: at most so many validation labels are used for choosing settings; None = all.
    resamples: of the bootstrap. supervised: include training from scratch, the slowest arm.
    recipe: "simclr-v2" also fine-tunes and distils, "metric" also trains which images are alike, "grading", for grades,
    fine-tunes and trains that with margins by grade, "semi-supervised" trains on images without labels too, and
    "three-stage" goes on from a pretrained autoencoder or VAE as a GAN; each at every budget and seed, as simclr_v2,
    metric_learning, grading, semi_supervised and three_stages say.
    prompts: a JSON file with sentences for each class, see `read_prompts`; None = usual ones with the target's name.
    """

    target: str
    where: str | None = None
    budgets: tuple[int, ...] | None = None
    seeds: int = 5
    headline_budget: int = 50
    validation_labels: int | None = None
    resamples: int = 1000
    supervised: bool = True
    supervised_learning_rate: float = 1e-3
    recipe: Recipe = "probe"
    simclr_v2: SimCLRv2Settings = field(default_factory=SimCLRv2Settings)
    prompts: str | None = None
    grades: tuple[str, ...] | None = None
    referable: str | None = None
    semi_supervised: SemiSupervisedSettings = field(default_factory=SemiSupervisedSettings)
    three_stages: ThreeStagesSettings = field(default_factory=ThreeStagesSettings)

    def __post_init__(self) -> None:
        if self.grades is None and (self.referable is not None or self.recipe == "grading"):
            asked = "recipe grading" if self.referable is None else f"referable {self.referable!r}"
            raise FewlabelError(
                f"There came {asked} and no grades: name the target's grades from least to most, such as 0,1,2,3,4."
            )
        check_range("seeds", self.seeds, 1)
        check_range("validation_labels", self.validation_labels, 2)
        check_range("resamples", self.resamples, 1)

    def target_in(self, collection: Collection) -> Target:
        """The target in a collection; errors as of `Collection.target`."""
        return collection.target(self.target, grades=self.grades, referable=self.referable)


@dataclass
class Evaluated:
    """All that the report and the final classifier need.

    classifier: that of the arm `final` with all training labels, on `features` (N, F) of `encoder`.
    cuts: between its grades, from validation; None for a target without grades.
    embedding: of the recipe metric, what was trained in words and its embeddings (N, K), from all training labels.
    generator: of the recipe three-stage, with all training labels; it makes images of the classes.
    chosen_among: from how many states of its network, or networks, validation patients chose the classifier.
    """

    task: Task
    arms: list[Arm]
    curves: LabelEfficiency
    resamples: Resamples
    encoder: Encoder
    features: np.ndarray
    classifier: Probe
    seconds: float
    title: str = "SimCLR"
    final: str = "simclr"
    embedding: tuple[str, np.ndarray] | None = None
    cuts: Cuts | None = None
    generator: Generator | None = None
    chosen_among: int = 1

    def called(self, probabilities: np.ndarray) -> np.ndarray:
        """(N, K) -> classes called by the final classifier, (N,)."""
        return self.cuts(probabilities) if self.cuts else called_class(probabilities)

    def predicted(self, rows: np.ndarray) -> np.ndarray:
        """What the classifier says of some rows: calibrated probabilities (n, K), or numbers (n,)."""
        return self.classifier.predict(self.features[rows])


def make_task(
    collection: Collection,
    pretrained: Pretrained,
    settings: EvaluateSettings,
    *,
    features_folder: Path | None,
    cluster: str | None = None,
) -> Task:
    """Target, split and pixels together, checked; errors as in `labelled_rows`."""
    target, split = settings.target_in(collection), pretrained.splits[0]
    labelled = labelled_rows(collection, target, split, settings)
    resolved = pretrained.settings
    channels, size_px = resolved.channels or 1, resolved.size_px
    return Task(
        collection,
        target,
        split,
        collection.square(pretrained.store_px, channels=channels),
        size_px,
        resolved.encoder_settings,
        resolved.flips,
        labelled.train,
        labelled.val,
        labelled.test,
        features_folder,
        cluster,
    )


def labelled_rows(collection: Collection, target: Target, split: Split, settings: EvaluateSettings) -> Split:
    """The rows of each part that have a usable label, and fulfil `where`.

    Raises FewlabelError when a part holds no usable label or one class only, each naming what to do.
    """
    if settings.where:
        rows = collection.where(settings.where)
        if len(rows) == 0:
            raise FewlabelError(f"No image fulfils {settings.where!r}: check the column names and values.")
        split = split.within(rows)
    labelled = split.within(np.flatnonzero(target.usable))
    wanted, val = settings.validation_labels, labelled.val
    if wanted is not None and wanted < len(val):
        drawn = nested_budgets(target.values[val], collection.patients()[val], [wanted], seed=0)
        labelled = replace(labelled, val=val[drawn[wanted]])
    for part, name in (("train", "training"), ("val", "validation"), ("test", "test")):
        _check_part(target, getattr(labelled, part), name)
    return labelled


def check_evaluation(
    collection: Collection, split: Split, settings: EvaluateSettings, pretraining: PretrainSettings
) -> None:
    """Raise FewlabelError for all that would stop the evaluation, before anything is trained."""
    target, patients = settings.target_in(collection), collection.patients()
    if settings.recipe in ("semi-supervised", "three-stage"):
        _check_unlabelled_recipe(settings.recipe, target, pretraining)
    if settings.recipe == "simclr-v2":
        check_simclr_v2(settings.simclr_v2, pretraining)
    labelled = labelled_rows(collection, target, split, settings)
    budgets = choose_budgets(settings.budgets, len(labelled.train))
    if settings.recipe in ("metric", "grading"):
        check_metric_labels(target, [labelled.val], patients)
        for seed in range(settings.seeds):
            drawn = rows_of_budgets(labelled.train, target.values, patients, budgets, seed)
            check_metric_labels(target, drawn.values(), patients)


def _check_unlabelled_recipe(recipe: str, target: Target, pretraining: PretrainSettings) -> None:
    check_plain_classes(target.kind, f"The recipe {recipe}")
    if recipe == "three-stage" and pretraining.objective not in DECODING:
        raise FewlabelError(
            f"The recipe three-stage goes on from an encoder with its decoder, and {pretraining.title} has none: "
            f"pretrain with the objective {' or '.join(DECODING)}, or choose another recipe."
        )
    if pretraining.size_px % 8:
        raise FewlabelError(
            f"The recipe {recipe} makes images, whose side 8 must divide, and size_px is {pretraining.size_px}: "
            "choose such a size, or another recipe."
        )


def rows_of_budgets(
    train: np.ndarray, y: np.ndarray, patients: np.ndarray, budgets: Sequence[int], seed: int
) -> dict[int, np.ndarray]:
    """The rows of `train` that have a label at each budget; y, patients: (N,) of the whole collection."""
    drawn = nested_budgets(y[train], patients[train], list(budgets), seed=seed)
    return {budget: train[positions] for budget, positions in drawn.items()}


def _check_part(target: Target, rows: np.ndarray, part: str) -> None:
    if len(rows) == 0:
        raise FewlabelError(
            f"No {part} image has a usable label for {target.name!r} ({target.uncertain} uncertain, "
            f"{target.not_mentioned} not mentioned in all): label more images, or choose another target."
        )
    values = target.values[rows]
    if target.kind == "number":
        if np.ptp(values) == 0:
            raise FewlabelError(
                f"All {part} values of {target.name!r} are the same: there is nothing to learn."
            )
    elif len(np.unique(values)) < 2:
        name = target.classes[int(values[0])]
        raise FewlabelError(
            f"All {len(rows)} labelled {part} images are {target.name} = {name}: at least two classes are needed "
            "in each part. Label images of the other class, or check the spelling in the label file."
        )


def choose_budgets(asked: Sequence[int] | None, available: int) -> list[int]:
    """The label budgets, with all labels as the last. Raises FewlabelError for one that is too large or too small."""
    if asked is None:
        return [budget for budget in DEFAULT_BUDGETS if budget < available] + [available]
    wrong = [budget for budget in asked if budget < 2 or budget > available]
    if wrong:
        raise FewlabelError(
            f"A budget of {wrong[0]} labels was asked for, but the training part has {available} usable labels: "
            f"use budgets from 2 to {available}."
        )
    return sorted({*asked, available})


def make_arms(
    task: Task,
    pretrained: Sequence[Pretrained],
    settings: EvaluateSettings,
    steps: Steps | None,
    folder: Path | None,
) -> list[Arm]:
    """The pretrained encoder with its probes and further steps, supervised from scratch, random-init features, pixels,
    statistics. The keys "simclr" and "simclr-knn" stand for the pretrained encoder, whatever its objective was.
    """
    title = pretrained[0].settings.title
    features = encoder_features(task, [one.encoder for one in pretrained])
    pixels, statistics = pixel_features(task), statistics_features(task)
    linear = LINEAR_MODELS.get(task.target.kind, "logistic regression")
    arms = [
        probe_arm("simclr", f"{title}, {task.probe_name}", "method", task, features),
        probe_arm("simclr-knn", f"{title}, nearest neighbours", "method", task, features, "neighbours"),
        probe_arm(
            "random", f"random-init features, {task.probe_name}", "control", task, random_features(task)
        ),
        probe_arm("pixels", f"16 x 16 pixels, {linear}", "baseline", task, lambda seed: pixels),
        probe_arm("statistics", f"six image statistics, {linear}", "control", task, lambda seed: statistics),
    ]
    if steps:
        arms[1:1] = steps.arms(folder)
    if settings.supervised:
        arms.insert(-3, supervised_arm(task, folder, settings.supervised_learning_rate))
    return arms


def evaluate_encoders(
    collection: Collection,
    pretrained: Sequence[Pretrained],
    settings: EvaluateSettings,
    *,
    folder: Path | None = None,
    cluster: str | None = None,
    progress: ProgressCallback | None = None,
) -> Evaluated:
    """Compare all arms at all budgets and seeds, and fit the final classifier on all training labels.

    pretrained: the same pretraining with one or more seeds; label seed s uses encoder s modulo their number.
    folder: where features and trained outputs are cached, so that an interrupted evaluation goes on; None = nowhere.
    cluster: address of a Ray cluster that takes the features.
    """
    started = time.perf_counter()
    task = make_task(
        collection, pretrained[0], settings, features_folder=folder and folder / "features", cluster=cluster
    )
    steps = recipe_steps(task, pretrained, settings, folder)
    arms = make_arms(task, pretrained, settings, steps, folder and folder / "outputs")
    curves, resamples = compare_on(task, arms, settings, progress)
    final, encoder, features, classifier = _final_classifier(task, pretrained, steps)
    cuts = None
    if task.target.kind == "ordinal":
        cuts = chosen_cuts(task, classifier.predict(features[task.val]))
    return Evaluated(
        task,
        arms,
        curves,
        resamples,
        encoder,
        features,
        classifier,
        seconds=time.perf_counter() - started,
        title=pretrained[0].settings.title,
        final=final,
        embedding=steps.final_embedding(features) if isinstance(steps, MetricLearning) else None,
        cuts=cuts,
        generator=steps.final_generator() if isinstance(steps, ThreeStages) else None,
        chosen_among=steps.chosen_among if isinstance(steps, SimCLRv2 | ThreeStages | MetricLearning) else 1,
    )


def recipe_steps(
    task: Task, pretrained: Sequence[Pretrained], settings: EvaluateSettings, folder: Path | None
) -> Steps | None:
    """What the recipe trains beside probes; its networks are kept in `folder`. None for the recipe probe."""
    networks = folder and folder / NETWORKS
    if settings.recipe == "simclr-v2":
        return SimCLRv2(task, pretrained, settings.simclr_v2, networks)
    if settings.recipe == "metric":
        return MetricLearning(task, pretrained, networks)
    if settings.recipe == "grading":
        return Grading(task, pretrained, networks)
    three_stages = None
    if all(one.reconstructor for one in pretrained):
        three_stages = ThreeStages(task, pretrained, settings.three_stages, networks)
    if settings.recipe == "semi-supervised":
        return SemiSupervised(task, settings.semi_supervised, three_stages, networks)
    return three_stages if settings.recipe == "three-stage" else None


def _final_classifier(
    task: Task, pretrained: Sequence[Pretrained], steps: Steps | None
) -> tuple[str, Encoder, np.ndarray, Probe]:
    """Key of the arm whose classifier a run keeps, and with all training labels its encoder, features and
    classifier.
    """
    if isinstance(steps, SimCLRv2 | ThreeStages):
        final, encoder, last = steps.final_classifier()
        return final, encoder, extract_features(encoder, task.pixels, size_px=task.size_px), last
    if isinstance(steps, MetricLearning):
        final, encoder = steps.final_encoder()
        features = extract_features(encoder, task.pixels, size_px=task.size_px)
    else:
        final, encoder = "simclr", pretrained[0].encoder
        features = encoder_features(task, [encoder])(0)
    return final, encoder, features, fit_probe(task, features, task.train, "linear")


def compare_on(
    task: Task, arms: Sequence[Arm], settings: EvaluateSettings, progress: ProgressCallback | None = None
) -> tuple[LabelEfficiency, Resamples]:
    """All arms at the settings' budgets and seeds, with the same labels and the same bootstrap."""
    patients = task.collection.patients()[task.test]
    # The report itself says when the test patients are few.
    resamples = draw_resamples(patients, resamples=settings.resamples, seed=0, warn=False)
    budgets = choose_budgets(settings.budgets, len(task.train))
    curves = run_on(task, arms, settings, budgets, progress)
    measure(curves, task.y[task.test], resamples)
    return curves, resamples


def run_on(
    task: Task,
    arms: Sequence[Arm],
    settings: EvaluateSettings,
    budgets: Sequence[int],
    progress: ProgressCallback | None = None,
) -> LabelEfficiency:
    """The outputs of all arms at `budgets` and the settings' seeds, with the same labels; nothing is measured."""
    patients, y = task.collection.patients(), task.y
    if task.target.kind == "ordinal":
        arms = [graded(task, arm) for arm in arms]
    return run_arms(
        arms,
        lambda seed: rows_of_budgets(task.train, y, patients, budgets, seed),
        suite=metric_suite(task.target.kind, referable=task.target.referable),
        budgets=budgets,
        seeds=range(settings.seeds),
        progress=progress,
    )
