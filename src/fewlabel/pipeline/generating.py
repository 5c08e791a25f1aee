"""`fewlabel generate`: made images of a class as files, each of them marked, none of them near a training image."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from fewlabel.adaptation.features import cached_features
from fewlabel.files import check_new, filling, write_text
from fewlabel.images.made import write_made_png
from fewlabel.objectives.generator import Generator
from fewlabel.phantoms.notes import NOTE_NAME
from fewlabel.pipeline.exporting import collection_of
from fewlabel.pipeline.made_images import Drawn, ImageCheck, draw_samples
from fewlabel.pipeline.runs import RUN, read_json, read_split
from fewlabel.pipeline.settings import PretrainSettings, check_range
from fewlabel.training.weights import ENCODER, GENERATOR, load_encoder, load_generator
from fewlabel.types import FewlabelError, ProgressCallback

TABLE = "made.csv"
SPACES = ("pixels", "features")
COLUMNS = (
    "file", "class", "made", "seed", "number", "kept", *(f"{space}_distance" for space in SPACES),
    *(f"{space}_relative" for space in SPACES),
)  # fmt: skip
_NOTE = (
    "These images were made by a generator (fewlabel generate, seed {seed}). They show no patient.\n"
    "They were learned from images of patients. {left_out} of {drawn} lay too close to one of these and are not here;\n"
    "that is a search for copies and no proof of privacy.\n"
)


@dataclass(frozen=True)
class Generated:
    """out: the folder. written: how many images. left_out: how many more were drawn and lay too close to training
    images.
    """

    out: Path
    written: int
    left_out: int

    @property
    def summary(self) -> str:
        """For people."""
        return (
            f"{self.written} made images written; {self.left_out} more lay too close to training images and were left "
            "out"
        )


def generate(
    run: str | Path,
    out: str | Path,
    *,
    class_name: str | None = None,
    count: int = 100,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Generated:
    """Write `count` made images of a class, or of each class, into a new folder.

    run: of `fewlabel learn` with a generator. out/images/made-<class>-<seed>-<number>.png: 8 bits, at the size that the
    run was trained at; a text chunk in each says what it is, and nothing is burned into the picture, so that it can be
    trained on. out/made.csv: one row a sample that was drawn, with the distance to its nearest training image (of
    vectors of length 1 for pixels) and r of `evaluation.memorisation`; those that were left out have no file. Which
    training image or patient that is, is not told.
    The collection is needed, since no image is written that was not held against it. Raises FewlabelError for a run
    without a generator, an unknown class, a folder that is not empty, and a generator that repeats what it has seen;
    then nothing is written.
    """
    run, out = Path(run), Path(out)
    check_range("count", count, 1)
    check_range("seed", seed, 0, 2**32 - 1)
    check_new(out)
    generator = run_generator(run)
    codes = _codes(generator, class_name)
    check = _check_of(run)
    written, left_out = 0, 0
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(COLUMNS)
    with filling(out) as folder:
        (folder / "images").mkdir()
        for done, code in enumerate(codes):
            if progress:
                progress(done, len(codes), generator.class_names[code])
            drawn = draw_samples(generator, code, count, check, seed)
            _check_enough(drawn, count, generator.class_names[code])
            writer.writerows(_write_class(folder, generator, code, seed, drawn))
            written, left_out = written + int(drawn.kept.sum()), left_out + int((~drawn.kept).sum())
        note = _NOTE.format(seed=seed, left_out=left_out, drawn=written + left_out)
        write_text(folder / NOTE_NAME, note)
        write_text(folder / TABLE, table.getvalue())
    return Generated(out, written, left_out)


def _check_enough(drawn: Drawn, count: int, name: str) -> None:
    left_out = int((~drawn.kept).sum())
    if len(drawn.kept) - left_out < count:
        raise FewlabelError(
            f"Of {len(drawn.kept)} images made of the class {name!r}, {left_out} lie too close to training images, "
            f"and {count} others were wanted: this generator repeats what it has seen; train it on more images or for "
            "fewer steps."
        )


def run_generator(run: Path) -> Generator:
    """The generator of a run. Raises FewlabelError where it has none, or a damaged one."""
    made = read_json(run / RUN, "fewlabel learn")
    if not (run / GENERATOR).exists():
        raise FewlabelError(
            f"{run} has no generator of images: make a run that has one with `fewlabel learn "
            f"{made.get('collection', 'IMAGES')} --target ... --objective vae-gan`."
        )
    return load_generator(run / GENERATOR)


def _codes(generator: Generator, class_name: str | None) -> list[int]:
    names = generator.class_names
    if class_name is None:
        return list(range(len(names)))
    if class_name not in names:
        raise FewlabelError(
            f"The generator makes no class {class_name!r}: name one of {', '.join(names)}, or leave --class out for "
            "all."
        )
    return [names.index(class_name)]


def _check_of(run: Path) -> ImageCheck:
    """The run's collection, split and pretrained encoder. Raises FewlabelError where they are not at hand."""
    collection = collection_of(run)
    split = None if collection is None else read_split(run / "split.csv", collection)
    if collection is None or split is None:
        raise FewlabelError(
            f"The collection that {run} learned from is not where it was, or has changed: made images are held against "
            "it before they are written, so put it back."
        )
    folder = _pretraining_of(run)
    told = read_json(folder / "pretrain.json", "fewlabel learn")
    settings, encoder = PretrainSettings.from_json(told["settings"]), load_encoder(folder / ENCODER)
    pixels = collection.square(int(told["store_px"]), channels=settings.channels or 1)
    features = cached_features(
        encoder,
        pixels,
        size_px=settings.size_px,
        fingerprint=collection.fingerprint,
        folder=run / "features",
    )
    return ImageCheck.of(encoder, pixels, features, split, collection.patients(), size_px=settings.size_px)


def _pretraining_of(run: Path) -> Path:
    """The folder of the pretraining that a run made, or that it was given as its model; of several the first."""
    root = Path(read_json(run / RUN, "fewlabel learn").get("model", run))
    return next(iter(sorted((root / "pretrain").glob("seed-*"))), root)


def _plain_name(generator: Generator, code: int) -> str:
    """The name of a class as part of a file's name, with its code where another class has the same."""
    plain = [re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") for name in generator.class_names]
    return (
        plain[code] if plain[code] and plain.count(plain[code]) == 1 else f"{plain[code] or 'class'}-{code}"
    )


def _write_class(
    folder: Path, generator: Generator, code: int, seed: int, drawn: Drawn
) -> list[tuple[str | int, ...]]:
    """Write the kept samples of a class; returns rows of the table, one for each that was drawn."""
    name, rows = generator.class_names[code], []
    plain = _plain_name(generator, code)
    for number, (image, kept) in enumerate(zip(drawn.images, drawn.kept, strict=True)):
        file = f"images/made-{plain}-{seed}-{number:05d}.png" if kept else ""
        if kept:
            write_made_png(folder / file, image, f"Class {name}, seed {seed}, number {number}.")
        near = [drawn.nearness[space] for space in SPACES]
        told = [f"{one.distance[number]:.4g}" for one in near] + [
            f"{one.relative[number]:.4g}" for one in near
        ]
        rows.append((file, name, "true", seed, number, "yes" if kept else "no", *told))
    return rows
