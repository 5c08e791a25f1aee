"""No image that is tested on may be pretrained on: between collections, and against encoders made elsewhere."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fewlabel.collection import Collection, find_duplicates
from fewlabel.files import replacing
from fewlabel.splits import Leak, Split, check_leaks
from fewlabel.types import FewlabelError

THUMBNAILS = "thumbnails.npy"


def separate(collections: Sequence[Collection], splits: list[Split], drop: bool) -> list[Split]:
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
