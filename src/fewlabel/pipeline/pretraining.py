"""`fewlabel pretrain`: an encoder from images without labels, of one collection or several."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from fewlabel.cluster import train_on_cluster
from fewlabel.collection import Collection, find_duplicates
from fewlabel.files import replacing
from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.networks.encoders import has_fixed_size
from fewlabel.objectives import BYOL, MAE, BarlowTwins, MoCo, SimCLR, VICReg, info_nce, nt_xent
from fewlabel.pipeline.runs import read_history, read_json, versions, write_json, write_split
from fewlabel.processes import launched_rank, world_size
from fewlabel.splits import (
    Leak,
    Split,
    check_leaks,
    draw_split,
    drop_leaks,
    find_leaks,
    linked_groups,
    official_split,
)
from fewlabel.training import Compute, FitResult, TrainingSet, fit, mix_seed
from fewlabel.training.weights import ENCODER, HEAD, load_encoder, load_head, save_encoder, save_head
from fewlabel.types import JSON, FewlabelError, Schedule
from fewlabel.views import ViewSettings, medical_views, simclr_views

LossName = Literal["nt-xent", "info-nce"]
ViewName = Literal["medical", "simclr"]
ObjectiveName = Literal["simclr", "moco", "byol", "barlow", "vicreg", "mae"]
OBJECTIVE_TITLES: dict[ObjectiveName, str] = {
    "simclr": "SimCLR",
    "moco": "MoCo v2",
    "byol": "BYOL",
    "barlow": "Barlow Twins",
    "vicreg": "VICReg",
    "mae": "MAE",
}
"""For people."""
Positives = Literal["views", "patient", "study"]


@dataclass(frozen=True)
class PretrainSettings:
    """How to pretrain. What is None is chosen from the images and written to run.json.

    objective: what training minimises; head_layers, temperature and loss are SimCLR's, the first two MoCo's as well.
    encoder, weights, small_stem: see `EncoderSettings`. size_px: smaller images are enlarged to it, which helps: on
    PneumoniaMNIST (28 px) 64 px gave better validation figures than 28.
    channels: None = 3 if most images have colour, else 1.
    views: "medical" or the paper's "simclr"; flips: left-right flips among the medical views.
    steps of batch_size images (or all there are); AdamW with peak rate 1e-3; warm-up over 5 % of the steps.
    micro_batch, start_size_px: see `Schedule`. checkpointing: see `EncoderSettings`.
    positives: where the two views of a positive pair come from: one image, or two of one patient or study (MICLe),
    with probability pair_share where there are two.
    """

    encoder: str = "resnet18"
    weights: str | None = None
    size_px: int = 64
    channels: int | None = None
    small_stem: bool = False
    head_layers: int = 2
    views: ViewName = "medical"
    flips: bool = False
    temperature: float = 0.2
    loss: LossName = "nt-xent"
    steps: int = 1000
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    optimizer: Literal["sgd", "adam", "adamw", "lars"] = "adamw"
    seed: int = 0
    micro_batch: int | None = None
    start_size_px: int | None = None
    checkpointing: bool = False
    positives: Positives = "views"
    pair_share: float = 1.0
    objective: ObjectiveName = "simclr"

    def __post_init__(self) -> None:
        check_range("steps", self.steps, 1)
        check_range("batch_size", self.batch_size, 2)
        check_range("size_px", self.size_px, 8)
        check_range("head_layers", self.head_layers, 1)
        check_range("seed", self.seed, 0, 2**32 - 1)
        check_range("micro_batch", self.micro_batch, 1)
        check_range("start_size_px", self.start_size_px, 8, self.size_px)
        if self.objective == "mae" and self.positives != "views":
            raise FewlabelError(
                "A masked autoencoder looks at one view of an image, so positives have no meaning for it: leave "
                "positives at views, or choose another objective."
            )
        if self.start_size_px is not None and has_fixed_size(self.encoder):
            raise FewlabelError(
                f"{self.encoder} takes images of one size only, and views were to grow from {self.start_size_px} px: "
                "leave start_size_px out, or choose a convolutional network."
            )
        for name, number in (("learning_rate", self.learning_rate), ("temperature", self.temperature)):
            if not (math.isfinite(number) and number > 0):
                raise FewlabelError(f"{name} is {number:g}: a number above 0 is needed.")

    @property
    def title(self) -> str:
        """The objective's name for people; MICLe where two images of a patient are a positive pair."""
        pairs = " with pairs of images (MICLe)" if self.positives != "views" else ""
        return OBJECTIVE_TITLES[self.objective] + pairs

    @property
    def schedule(self) -> Schedule:
        """The training schedule, with a warm-up over 5 % of the steps."""
        return Schedule(
            self.steps,
            self.batch_size,
            self.learning_rate,
            warmup_steps=max(1, self.steps // 20),
            weight_decay=self.weight_decay,
            optimizer=self.optimizer,
            seed=self.seed,
            micro_batch=self.micro_batch,
            start_size_px=self.start_size_px,
        )

    @property
    def encoder_settings(self) -> EncoderSettings:
        """The network; only for resolved settings."""
        assert self.channels is not None
        return EncoderSettings(
            self.encoder, self.channels, self.size_px, self.small_stem, self.weights, self.checkpointing
        )

    @property
    def view_settings(self) -> ViewSettings:
        """The views; only for resolved settings."""
        return (
            medical_views(self.size_px, flips=self.flips)
            if self.views == "medical"
            else simclr_views(self.size_px)
        )


def check_range(name: str, number: int | None, low: int, high: int | None = None) -> None:
    """Raise FewlabelError if a setting that was given lies outside low to high."""
    if number is not None and (number < low or (high is not None and number > high)):
        allowed = f"at least {low}" if high is None else f"from {low} to {high}"
        raise FewlabelError(f"{name} is {number}: {allowed} is needed.")


@dataclass
class Pretrained:
    """An encoder, who it may be tested on, and how its training went.

    splits: one a collection, in the order given; test rows took no part in pretraining.
    store_px: size of the images that views are drawn from. head: the projection head, where it was kept.
    """

    encoder: Encoder
    settings: PretrainSettings
    store_px: int
    splits: list[Split]
    fit: FitResult = field(default_factory=FitResult)
    images: int = 0
    head: nn.Sequential | None = None


def resolve_settings(settings: PretrainSettings, collections: Sequence[Collection]) -> PretrainSettings:
    """Fill in what is None from the images."""
    colour = np.concatenate([channel_counts(collection) for collection in collections])
    return replace(settings, channels=settings.channels or (3 if np.median(colour) > 1 else 1))


def longest_sides(collection: Collection) -> np.ndarray:
    """(N,) the longer in-plane side of each image in pixels."""
    return np.array([max(shape[-2:]) for shape in collection.column("case:shape")])


def channel_counts(collection: Collection) -> np.ndarray:
    """(N,) 1 for grey, 3 for colour."""
    return np.array([shape[0] for shape in collection.column("case:shape")])


def store_size(size_px: int, collections: Sequence[Collection]) -> int:
    """Views are drawn from images of twice their size, where a source has as much, so that crops stay sharp."""
    medians = [np.median(longest_sides(collection)) for collection in collections]
    return int(np.clip(max(medians), size_px, 2 * size_px))


def split_of(
    collection: Collection, *, seed: int, strata: np.ndarray | None = None, drop: bool = False
) -> Split:
    """The official split where the source has one, else one drawn by patient and duplicate group; leaks checked.

    Raises FewlabelError naming the leaking rows, unless `drop` takes them out of training.
    """
    patients = collection.patients()
    exact, near = collection.column("case:exact_group"), collection.column("case:near_group")
    parts = collection.column("case:split")
    if np.any(parts == "test"):
        split = official_split(parts, linked_groups(patients, exact, near), seed=seed)
    else:
        split = draw_split(linked_groups(patients, exact, near), strata=strata, seed=seed)
    leaks = find_leaks(split, patients, exact, near)
    if leaks and drop:
        return drop_leaks(split, patients, exact, near)
    check_leaks(leaks, list(collection.column("case:source")))
    return split


def pretrain(
    collections: Sequence[Collection],
    out: Path,
    settings: PretrainSettings | None = None,
    *,
    splits: Sequence[Split] | None = None,
    drop: bool = False,
    tensorboard: bool = False,
    progress: bool = False,
) -> Pretrained:
    """Pretrain an encoder on the training images of one or more collections, without labels.

    splits: who is held out of each collection; None = by patient (or the source's own), seeded.
    drop: leave out images that also lie in a test part, instead of stopping.
    The same call continues an interrupted run, and returns at once when it is complete.
    Raises FewlabelError for leaks between collections, a broken checkpoint, settings that differ from the run's.
    """
    if not collections:
        raise FewlabelError(
            "No collection was given to pretrain on: give at least one folder made by fewlabel import."
        )
    settings = resolve_settings(settings or PretrainSettings(), collections)
    splits = list(
        splits or [split_of(collection, seed=settings.seed, drop=drop) for collection in collections]
    )
    splits = _separate(collections, splits, drop)
    store_px = store_size(settings.size_px, collections)
    images = sum(len(split.train) for split in splits)
    if (out / ENCODER).exists() and _is_complete(out, settings, collections):
        return Pretrained(
            load_encoder(out / ENCODER), settings, store_px, splits, kept_fit(out), images, kept_head(out)
        )
    objective = _objective(settings, images)
    rows = tuple(split.train for split in splits)
    groups = positive_groups(collections, rows, settings.positives)
    data = TrainingSet(_stores(collections, settings), rows, groups=groups, pair_share=settings.pair_share)
    first = launched_rank() == 0
    if first:
        write_split(out / "split.csv", collections, splits)
        write_thumbnails(out / THUMBNAILS, collections, splits)
    result = fit(
        objective,
        data,
        settings.view_settings,
        settings.schedule,
        out=out,
        settings=_identity(settings, collections),
        tensorboard=tensorboard,
        progress="pretraining" if progress else "",
    )
    encoder = objective.encoder.eval()
    head = objective.head.eval() if settings.objective == "simclr" else None
    pretrained = Pretrained(encoder, settings, store_px, splits, result, images, head)
    if not first:
        return pretrained
    if head is not None:
        save_head(head, out / HEAD)
    save_encoder(encoder, out / ENCODER)
    write_json(
        out / "pretrain.json",
        {
            **_identity(settings, collections),
            "versions": versions(),
            "store_px": store_px,
            "images": images,
            "steps": result.steps,
            "seconds": result.seconds,
            "images_per_second": result.images_per_second,
            "compute": asdict(result.compute),
            "processes": world_size(),
            "warnings": result.warnings,
        },
    )
    return pretrained


def _stores(collections: Sequence[Collection], settings: PretrainSettings) -> tuple[np.ndarray, ...]:
    """The images (N, C, S, S) that views are drawn from; only for resolved settings."""
    assert settings.channels is not None
    side_px = store_size(settings.size_px, collections)
    return tuple(collection.square(side_px, channels=settings.channels) for collection in collections)


def positive_groups(
    collections: Sequence[Collection], rows: Sequence[np.ndarray], positives: Positives
) -> np.ndarray | None:
    """(N,) patient or study of each of `rows`, numbered over all collections; None for two views of one image.

    Raises FewlabelError if no two images belong together, since that would be SimCLR under another name.
    """
    if positives == "views":
        return None
    parts: list[np.ndarray] = []
    for collection, mine in zip(collections, rows, strict=True):
        numbers = (collection.patients() if positives == "patient" else collection.studies())[mine]
        offset = max((int(part.max()) + 1 for part in parts if len(part)), default=0)
        parts.append(numbers + offset)
    groups = np.concatenate(parts)
    if len(np.unique(groups)) == len(groups):
        raise FewlabelError(
            f"Positives were to come from two images of a {positives}, and no {positives} has more than one image: "
            f"import the collection with its {positives} numbers, or leave --positives out."
        )
    return groups


def pretrain_on_cluster(
    collections: Sequence[Collection],
    out: Path,
    settings: PretrainSettings | None = None,
    *,
    address: str,
    processes: int,
    drop: bool = False,
) -> Pretrained:
    """As `pretrain`, by `processes` processes of the Ray cluster at `address`, one for each core or GPU.

    Collections and `out` must be seen by all machines under the same paths. When a process or a machine dies, training
    goes on from the last checkpoint.
    """
    settings = resolve_settings(settings or PretrainSettings(), collections)
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    paths = [str(collection.path.absolute()) for collection in collections]
    _stores(collections, settings)  # made here once; otherwise every process would make them
    told = {"collections": paths, "out": str(out), "settings": asdict(settings), "drop": drop}
    train_on_cluster(address, _pretrain_as_told, told, processes=processes, folder=out)
    return pretrain(collections, out, settings, drop=drop)


def _pretrain_as_told(told: JSON) -> None:
    """One process of the cluster."""
    collections = [Collection.open(Path(path)) for path in told["collections"]]
    pretrain(collections, Path(told["out"]), PretrainSettings(**told["settings"]), drop=told["drop"])


def kept_head(folder: Path) -> nn.Sequential | None:
    """The projection head of the run in `folder`; None where it was not kept."""
    return load_head(folder / HEAD) if (folder / HEAD).exists() else None


def kept_fit(folder: Path) -> FitResult:
    """How the training went whose pretrain.json lies in `folder`."""
    made = read_json(folder / "pretrain.json", "fewlabel pretrain")
    return FitResult(
        steps=int(made["steps"]),
        seconds=float(made["seconds"]),
        images_per_second=float(made["images_per_second"]),
        compute=Compute.from_json(made["compute"]),
        warnings=list(made["warnings"]),
        history=read_history(folder),
    )


_LOSSES: dict[LossName, Callable[..., torch.Tensor]] = {"nt-xent": nt_xent, "info-nce": info_nce}


def _objective(settings: PretrainSettings, images: int) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(mix_seed("initial weights", settings.seed))
        encoder = Encoder(settings.encoder_settings)
        layers, temperature = settings.head_layers, settings.temperature
        if settings.objective == "simclr":
            loss = _LOSSES[settings.loss]
            return SimCLR(encoder, head_layers=layers, temperature=temperature, loss_function=loss)
        if settings.objective == "moco":
            # A queue as long as the collection would hold each image's own older keys as negatives.
            queue_size = min(4096, max(settings.batch_size, images // 2))
            return MoCo(encoder, head_layers=layers, temperature=temperature, queue_size=queue_size)
        others = {"byol": BYOL, "barlow": BarlowTwins, "vicreg": VICReg, "mae": MAE}
        return others[settings.objective](encoder)


def _identity(settings: PretrainSettings, collections: Sequence[Collection]) -> JSON:
    return {
        "settings": asdict(settings),
        "collections": [collection.fingerprint for collection in collections],
    }


def _is_complete(out: Path, settings: PretrainSettings, collections: Sequence[Collection]) -> bool:
    there = read_json(out / "pretrain.json", "fewlabel pretrain") if (out / "pretrain.json").exists() else {}
    return all(there.get(key) == value for key, value in _identity(settings, collections).items())


def _separate(collections: Sequence[Collection], splits: list[Split], drop: bool) -> list[Split]:
    """No test image of one collection may be, itself or at another size, a training image of another one."""
    for i, tested in enumerate(collections):
        for j, trained in enumerate(collections):
            if i == j or len(splits[i].test) == 0 or len(splits[j].train) == 0:
                continue
            found_i, found_j, _ = find_duplicates(
                tested.thumbnails()[splits[i].test], trained.thumbnails()[splits[j].train]
            )
            if not len(found_i):
                continue
            rows_i, rows_j = splits[i].test[found_i], splits[j].train[found_j]
            if not drop:
                names = [f"{tested.name}/{name}" for name in tested.column("case:source")]
                offset = len(names)
                names += [f"{trained.name}/{name}" for name in trained.column("case:source")]
                check_leaks(
                    [
                        Leak("near duplicate", int(a), "test", int(b) + offset, "train")
                        for a, b in zip(rows_i, rows_j, strict=True)
                    ],
                    names,
                )
            out = np.unique(rows_j)
            splits[j] = splits[j].without(out)
    return splits


THUMBNAILS = "thumbnails.npy"


def write_thumbnails(path: Path, collections: Sequence[Collection], splits: Sequence[Split]) -> None:
    """Small pictures (N, 1024) uint8 of the pretraining images, in the order of the training rows of split.csv.

    With them another collection can be checked for images that the encoder has seen, wherever these lie now.
    """
    seen = [one.thumbnails()[split.train] for one, split in zip(collections, splits, strict=True)]
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.concatenate(seen), allow_pickle=False)


def separate_from_pretraining(
    folder: Path, collection: Collection, split: Split, drop: bool
) -> tuple[Split, list[str]]:
    """The split of a collection that the encoder in `folder` was not told of, and warnings for the report.

    Raises FewlabelError if test images, themselves or near copies, were pretrained on, naming them; with `drop` they
    leave the test part, since an encoder cannot forget.
    """
    if not (folder / THUMBNAILS).exists():
        text = "cannot be checked, since the run keeps no small pictures of its images"
        return split, [f"Whether the encoder was pretrained on test images of {collection.name} {text}."]
    try:
        seen = np.load(folder / THUMBNAILS, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FewlabelError(f"{folder / THUMBNAILS} is damaged ({error}): pretrain again.") from error
    found, same_as, _ = find_duplicates(collection.thumbnails()[split.test], seen)
    if len(found) == 0:
        return split, []
    rows = np.unique(split.test[found])
    what = f"{len(rows)} of {len(split.test)} test images of {collection.name}"
    if drop:
        text = f"{what} were left out: the encoder was pretrained on them, or on near copies."
        return split.without(rows), [text]
    names, trained = collection.column("case:source"), _training_names(folder / "split.csv")
    pairs = [f"{names[split.test[a]]} = {trained[b]}" for a, b in zip(found[:5], same_as[:5], strict=True)]
    raise FewlabelError(
        f"{what} were pretrained on, themselves or near copies ({'; '.join(pairs)}): results would look better than "
        "they are. Leave them out of the test part with --drop-leaks, or pretrain with this test part held out."
    )


def _training_names(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return [
            f"{row['collection']}/{row['case_id']}" for row in csv.DictReader(file) if row["part"] == "train"
        ]
