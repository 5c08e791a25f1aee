"""`fewlabel pretrain`: an encoder from images without labels, of one collection or several."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fewlabel.cluster import train_on_cluster
from fewlabel.collection import Collection
from fewlabel.networks import Encoder
from fewlabel.objectives import (
    BYOL,
    MAE,
    VAE,
    Autoencoder,
    BarlowTwins,
    MoCo,
    SimCLR,
    VICReg,
    info_nce,
    nt_xent,
)
from fewlabel.pipeline.pairs import make_pairs, texts_fingerprint
from fewlabel.pipeline.runs import read_history, read_json, versions, write_json, write_split
from fewlabel.pipeline.separation import THUMBNAILS, separate, write_thumbnails
from fewlabel.pipeline.settings import (
    DECODING,
    HEADED,
    OBJECTIVE_TITLES,
    LossName,
    Positives,
    PretrainSettings,
    resolve_settings,
)
from fewlabel.processes import launched_rank, world_size
from fewlabel.reports import PairedTexts
from fewlabel.splits import (
    Split,
    check_leaks,
    draw_split,
    drop_leaks,
    find_leaks,
    linked_groups,
    official_split,
)
from fewlabel.tasks.image_text import ImageText, load_image_text
from fewlabel.training import Compute, FitResult, TrainingSet, fit, mix_seed
from fewlabel.training.weights import (
    ENCODER,
    HEAD,
    RECONSTRUCTOR,
    load_encoder,
    load_head,
    load_reconstructor,
    save_encoder,
    save_head,
    save_reconstructor,
)
from fewlabel.types import JSON, FewlabelError

IMAGE_TEXT = "image-text"


@dataclass
class Pretrained:
    """An encoder, who it may be tested on, and how its training went.

    splits: one a collection, in the order given; test rows took no part in pretraining.
    store_px: size of the images that views are drawn from. head: the projection head, where it was kept.
    image_text: both towers, where images were learned from texts. reconstructor: encoder and decoder together, where
    the objective was an autoencoder or VAE.
    """

    encoder: Encoder
    settings: PretrainSettings
    store_px: int
    splits: list[Split]
    fit: FitResult = field(default_factory=FitResult)
    images: int = 0
    head: nn.Sequential | None = None
    image_text: ImageText | None = None
    reconstructor: Autoencoder | VAE | None = None


def longest_sides(collection: Collection) -> np.ndarray:
    """(N,) the longer in-plane side of each image in pixels."""
    return np.array([max(shape[-2:]) for shape in collection.column("case:shape")])


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
    texts: PairedTexts | None = None,
    splits: Sequence[Split] | None = None,
    drop: bool = False,
    checkpoint_every: int = 200,
    tensorboard: bool = False,
    progress: bool = False,
) -> Pretrained:
    """Pretrain an encoder on the training images of one or more collections, without labels.

    texts: of the images of the only collection, for ConVIRT.
    splits: who is held out of each collection; None = by patient (or the source's own), seeded.
    drop: leave out images that also lie in a test part, instead of stopping.
    checkpoint_every: steps between checkpoints; what is lost at most when the run is killed.
    The same call continues an interrupted run, and returns at once when it is complete.
    Raises FewlabelError for leaks between collections, a broken checkpoint, settings that differ from the run's.
    """
    if not collections:
        raise FewlabelError(
            "No collection was given to pretrain on: give at least one folder made by fewlabel import."
        )
    settings = resolve_settings(settings or PretrainSettings(), collections)
    check_texts(settings, collections, texts)
    splits = list(
        splits or [split_of(collection, seed=settings.seed, drop=drop) for collection in collections]
    )
    splits = separate(collections, splits, drop)
    store_px = store_size(settings.size_px, collections)
    images = sum(len(split.train) for split in splits)
    identity = _identity(settings, collections, texts)
    if (out / ENCODER).exists() and _is_complete(out, identity):
        return kept_pretrained(out, settings, store_px, splits, images)
    stores, watch = _stores(collections, settings), None
    if texts is not None:
        pairs = make_pairs(
            texts,
            splits[0],
            stores[0],
            settings.encoder_settings,
            settings.text,
            settings.schedule,
            temperature=settings.temperature or 0.1,
            out=out,
            progress=progress,
        )
        objective, data, watch = pairs.objective, pairs.data, pairs.watch
    else:
        objective = _objective(settings, images)
        rows = tuple(split.train for split in splits)
        groups = positive_groups(collections, rows, settings.positives)
        data = TrainingSet(stores, rows, groups=groups, pair_share=settings.pair_share)
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
        settings=identity,
        watch=watch,
        checkpoint_every=checkpoint_every,
        tensorboard=tensorboard,
        progress="pretraining" if progress else "",
    )
    encoder = objective.encoder.eval()
    head = objective.head.eval() if settings.objective in HEADED else None
    image_text = None if texts is None else ImageText.of(objective, size_px=settings.size_px)
    reconstructor = objective.eval() if isinstance(objective, Autoencoder | VAE) else None
    pretrained = Pretrained(
        encoder, settings, store_px, splits, result, images, head, image_text, reconstructor
    )
    if not first:
        return pretrained
    if head is not None:
        save_head(head, out / HEAD)
    if image_text is not None:
        image_text.save(out / IMAGE_TEXT)
    if reconstructor is not None:
        save_reconstructor(reconstructor, out / RECONSTRUCTOR)
    save_encoder(encoder, out / ENCODER)
    write_json(
        out / "pretrain.json",
        {
            **identity,
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
    checkpoint_every: int = 200,
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
    told = {
        "collections": paths, "out": str(out), "settings": asdict(settings), "drop": drop, "every": checkpoint_every
    }  # fmt: skip
    train_on_cluster(address, _pretrain_as_told, told, processes=processes, folder=out)
    return pretrain(collections, out, settings, drop=drop)


def _pretrain_as_told(told: JSON) -> None:
    """One process of the cluster."""
    collections = [Collection.open(Path(path)) for path in told["collections"]]
    settings = PretrainSettings.from_json(told["settings"])
    pretrain(collections, Path(told["out"]), settings, drop=told["drop"], checkpoint_every=told["every"])


def kept_pretrained(
    folder: Path, settings: PretrainSettings, store_px: int, splits: list[Split], images: int
) -> Pretrained:
    """What the finished run in `folder` gave. Raises FewlabelError where a file is damaged."""
    encoder = load_encoder(folder / ENCODER)
    decoded = settings.objective in DECODING
    return Pretrained(
        encoder,
        settings,
        store_px,
        splits,
        kept_fit(folder),
        images,
        load_head(folder / HEAD) if (folder / HEAD).exists() else None,
        load_image_text(folder / IMAGE_TEXT) if (folder / IMAGE_TEXT).exists() else None,
        load_reconstructor(folder / RECONSTRUCTOR, encoder) if decoded else None,
    )


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
        layers, temperature = settings.projection_layers, settings.temperature or 0.2
        if settings.objective == "simclr":
            loss = _LOSSES[settings.loss]
            return SimCLR(encoder, head_layers=layers, temperature=temperature, loss_function=loss)
        if settings.objective == "moco":
            # A queue as long as the collection would hold each image's own older keys as negatives.
            queue_size = min(4096, max(settings.batch_size, images // 2))
            return MoCo(encoder, head_layers=layers, temperature=temperature, queue_size=queue_size)
        others: dict[str, Callable[[Encoder], Any]] = {
            "byol": BYOL, "barlow": BarlowTwins, "vicreg": VICReg, "mae": MAE, "autoencoder": Autoencoder, "vae": VAE
        }  # fmt: skip
        return others[settings.objective](encoder)


def _identity(
    settings: PretrainSettings, collections: Sequence[Collection], texts: PairedTexts | None
) -> JSON:
    return {
        "settings": asdict(settings),
        "collections": [collection.fingerprint for collection in collections],
        "texts": texts and texts_fingerprint(texts),
    }


def _is_complete(out: Path, identity: JSON) -> bool:
    there = read_json(out / "pretrain.json", "fewlabel pretrain") if (out / "pretrain.json").exists() else {}
    here = json.loads(json.dumps(identity))  # where tuples are lists
    return all(there.get(key) == value for key, value in here.items())


def check_texts(
    settings: PretrainSettings, collections: Sequence[Collection], texts: PairedTexts | None
) -> None:
    """Raise FewlabelError unless texts came with ConVIRT, and with it alone."""
    title = OBJECTIVE_TITLES[settings.objective]
    if settings.objective != "convirt":
        if texts is not None:
            raise FewlabelError(
                f"Reports were given and {title} does not read them: choose the objective convirt, or leave them out."
            )
        return
    if texts is None:
        raise FewlabelError(
            f"{title} learns images from their reports and none came: give them with --reports."
        )
    if len(collections) > 1:
        raise FewlabelError(
            f"{title} got {len(collections)} collections, and reports belong to one: import all images and their "
            "reports into one collection."
        )
