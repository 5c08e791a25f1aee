"""No test image, itself or nearly, may have been pretrained on: within, between and across collections."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_runs import QUICK, TINY, MakeCollection

from fewlabel.collection import Collection, find_duplicates, import_images
from fewlabel.pipeline import Learned, evaluate, learn, pretrain, pretraining
from fewlabel.pipeline.pretraining import split_of
from fewlabel.splits import Split
from fewlabel.training import TrainingSet
from fewlabel.training.weights import load_encoder
from fewlabel.types import FewlabelError

COPIES = 5
WITHOUT_TRAINING = replace(QUICK, budgets=(10,), seeds=1, resamples=30, supervised=False)


def copied(chest: Collection, rows: np.ndarray, folder: Path, count: int) -> None:
    """Copies of some images at another size, a little brighter."""
    taken = [row for row in rows if str(chest.column("case_id")[row]).endswith(".png")][:count]
    assert len(taken) == count
    folder.mkdir(parents=True, exist_ok=True)
    for i, row in enumerate(taken):
        with Image.open(chest.path.parent / "images" / str(chest.column("case_id")[row])) as image:
            large = image.resize((72, 72), Image.Resampling.BICUBIC)
        Image.fromarray(np.clip(np.asarray(large) * 1.05 + 3, 0, 255).astype(np.uint8)).save(
            folder / f"copy{i}.png"
        )


def collection_with_copies(
    chest: Collection, rows: np.ndarray, other: Collection, root: Path, count: int = COPIES
) -> Collection:
    """Another hospital's images, among them copies of some rows of `chest`; labelled by chance."""
    copied(chest, rows, root / "images", count)
    for path in sorted((other.path.parent / "images" / "images").glob("*.png")):
        (root / "images" / path.name).write_bytes(path.read_bytes())
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "finding"])
        names = sorted(path.name for path in (root / "images").iterdir())
        writer.writerows([name, i % 2] for i, name in enumerate(names))
    import_images(root / "images", root / "mixed", labels=root / "labels.csv", workers=1)
    return Collection.open(root / "mixed")


@pytest.fixture(scope="module")
def other(make_collection: MakeCollection) -> Collection:
    return make_collection("other", 40, seed=3)


@pytest.fixture(scope="module")
def mixed(chest: Collection, other: Collection, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Holds copies of test images of `chest`."""
    return collection_with_copies(chest, split_of_run(chest).test, other, tmp_path_factory.mktemp("mixed"))


def split_of_run(chest: Collection) -> Split:
    return split_of(chest, seed=0, strata=chest.target("opacity").values)


def test_the_copies_are_found(chest: Collection, mixed: Collection) -> None:
    found, _, _ = find_duplicates(chest.thumbnails(), mixed.thumbnails())
    assert len(found) == COPIES


def test_pretraining_on_copies_of_test_images_stops_and_names_them(
    chest: Collection, mixed: Collection, tmp_path: Path
) -> None:
    splits = [split_of_run(chest), split_of(mixed, seed=0)]
    with pytest.raises(
        FewlabelError, match=r"near duplicate: chest/.*\(test\) and mixed/.*\(train\)"
    ) as raised:
        pretrain([chest, mixed], tmp_path / "run", TINY, splits=splits)
    assert "copy" in str(raised.value)
    assert "--drop-leaks" in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_learning_with_a_further_collection_drops_them_when_told_to(
    chest: Collection, mixed: Collection, tmp_path: Path
) -> None:
    arguments = {"pretrain_on": [mixed], "pretraining": TINY, "evaluation": WITHOUT_TRAINING}
    with pytest.raises(FewlabelError, match="near duplicate: chest/"):
        learn(chest, "opacity", tmp_path / "run", **arguments)
    made = learn(chest, "opacity", tmp_path / "run", **arguments, drop_leaks=True)
    train = made.results["data"]["train"]
    assert made.results["data"]["pretraining_images"] == train + len(mixed) - COPIES
    assert made.results["data"]["dropped_for_leakage"] == COPIES
    assert any(f"{COPIES} images were left out" in warning for warning in made.results["warnings"])
    seen = np.load(made.out / "pretrain" / "seed-0" / "thumbnails.npy", allow_pickle=False)
    assert len(find_duplicates(chest.thumbnails()[split_of_run(chest).test], seen)[0]) == 0
    with pytest.raises(FewlabelError, match="pretrained on every image of mixed"):
        evaluate(mixed, "finding", made.out, tmp_path / "again", evaluation=WITHOUT_TRAINING)


@pytest.fixture(scope="module")
def foreign(
    run: Learned, chest: Collection, other: Collection, tmp_path_factory: pytest.TempPathFactory
) -> Collection:
    """Holds copies of images that the encoder of `run` was pretrained on."""
    return collection_with_copies(
        chest, split_of_run(chest).train, other, tmp_path_factory.mktemp("foreign"), 15
    )


def test_an_unknown_collection_with_pretraining_images_in_its_test_part(
    run: Learned, foreign: Collection, tmp_path: Path
) -> None:
    with pytest.raises(FewlabelError, match=r"of \d+ test images of mixed were pretrained on") as raised:
        evaluate(foreign, "finding", run.out, tmp_path / "run", evaluation=WITHOUT_TRAINING)
    said = str(raised.value)
    assert "copy" in said
    assert "= chest/images/P" in said
    assert "--drop-leaks" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_they_leave_the_test_part_when_told_to(run: Learned, foreign: Collection, tmp_path: Path) -> None:
    whole = split_of(foreign, seed=0, strata=foreign.target("finding").values)
    names = foreign.column("source")
    bad = [row for row in whole.test if "copy" in names[row]]
    assert bad
    made = evaluate(
        foreign, "finding", run.out, tmp_path / "run", evaluation=WITHOUT_TRAINING, drop_leaks=True
    )
    assert made.results["data"]["test"] == len(whole.test) - len(bad)
    assert made.results["data"]["train"] == len(whole.train)
    assert any("were left out: the encoder was pretrained on them" in w for w in made.results["warnings"])


def test_a_run_without_small_pictures_says_that_it_cannot_tell(
    run: Learned, chest: Collection, other: Collection, tmp_path: Path
) -> None:
    from fewlabel.pipeline.separation import separate_from_pretraining

    split = split_of(other, seed=0)
    same, warnings = separate_from_pretraining(tmp_path, other, split, drop=False)
    assert same is split
    assert "cannot be checked" in warnings[0]
    folder = run.out / "pretrain" / "seed-0"
    assert separate_from_pretraining(folder, other, split, drop=False) == (split, [])
    (tmp_path / "thumbnails.npy").write_bytes((folder / "thumbnails.npy").read_bytes()[:200])
    with pytest.raises(FewlabelError, match=r"is damaged .*: pretrain again"):
        separate_from_pretraining(tmp_path, other, split, drop=False)


def test_pretraining_reads_training_images_alone(
    chest: Collection, other: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[np.ndarray] = []

    def look(objective: Any, data: TrainingSet, *rest: Any, **named: Any) -> None:
        read.append(data.images(np.arange(len(data))).numpy())
        raise InterruptedError

    monkeypatch.setattr(pretraining, "fit", look)
    splits = [split_of_run(chest), split_of(other, seed=0)]
    with pytest.raises(InterruptedError):
        pretrain([chest, other], tmp_path / "run", TINY, splits=splits)
    squares = [one.square(32)[split.train] for one, split in zip((chest, other), splits, strict=True)]
    assert np.array_equal(read[0], np.concatenate(squares))


def test_pretraining_twice_gives_the_same_encoder_and_the_second_time_at_once(
    other: Collection, tmp_path: Path
) -> None:
    first = pretrain([other], tmp_path / "a", TINY)
    stamp = (tmp_path / "a" / "encoder.safetensors").stat().st_mtime_ns
    again = pretrain([other], tmp_path / "a", TINY)
    assert (tmp_path / "a" / "encoder.safetensors").stat().st_mtime_ns == stamp
    assert again.fit.history == first.fit.history
    assert again.images == first.images
    pretrain([other], tmp_path / "b", TINY)
    both = [(tmp_path / name / "encoder.safetensors").read_bytes() for name in "ab"]
    assert both[0] == both[1]
    assert load_encoder(tmp_path / "a" / "encoder.safetensors").settings == first.encoder.settings
