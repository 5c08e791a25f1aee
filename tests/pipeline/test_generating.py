"""Made images as files: marked, the same from the same seed, none a copy, and known as made when imported again."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

from fewlabel.collection import Collection, import_images
from fewlabel.images.made import MADE_KEY
from fewlabel.networks.decoders import Decoder
from fewlabel.objectives import GAN
from fewlabel.objectives.generator import Generator
from fewlabel.pipeline import Learned, generate, generating
from fewlabel.pipeline.results import is_made
from fewlabel.pipeline.runs import read_split
from fewlabel.training.weights import GENERATOR, load_encoder, save_generator
from fewlabel.types import FewlabelError

CLASSES = ("not opacity", "opacity")
Row = dict[str, str]


@pytest.fixture(scope="module")
def with_generator(run: Learned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with a generator that learned nothing, and so copies nobody."""
    folder = tmp_path_factory.mktemp("generating") / "run"
    shutil.copytree(run.out, folder)
    torch.manual_seed(0)
    gan = GAN(load_encoder(folder / "pretrain" / "seed-0" / "encoder.safetensors"), latent_dim=4, width=4)
    save_generator(Generator.of(gan, CLASSES), folder / GENERATOR)
    return folder


def _rows(folder: Path) -> list[Row]:
    with (folder / "made.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class Repeating(nn.Module):
    """A decoder that gives back images it has seen: a share of the time, told by z."""

    def __init__(self, seen: torch.Tensor, share: float) -> None:
        super().__init__()
        self.in_dim, self.size_px, self.channels, self.share = 3, seen.shape[-1], seen.shape[1], share
        self.seen = nn.Parameter(seen, requires_grad=False)

    def forward(self, told: torch.Tensor) -> torch.Tensor:
        chance = torch.special.ndtr(told[:, 0])
        noise = torch.rand(len(told), *self.seen.shape[1:], generator=torch.Generator().manual_seed(1))
        copies = self.seen[(chance * 1e4).long() % len(self.seen)]
        return torch.where((chance < self.share)[:, None, None, None], copies, noise)


@pytest.fixture
def repeating(
    with_generator: Path, chest: Collection, monkeypatch: pytest.MonkeyPatch
) -> Callable[[float], None]:
    """repeating(share): the run's generator gives back training images in this share."""
    split = read_split(with_generator / "split.csv", chest)
    assert split is not None
    pixels = chest.square(32)[split.train].astype(np.float32)
    seen = torch.from_numpy(pixels / (255 if pixels.max() < 256 else 65535))

    def install(share: float) -> None:
        made = Generator(Repeating(seen, share), 1, CLASSES)  # type: ignore[arg-type]
        monkeypatch.setattr(generating, "run_generator", lambda run: made)

    return install


def test_each_image_is_marked_and_listed(with_generator: Path, tmp_path: Path) -> None:
    made = generate(with_generator, tmp_path / "made", class_name="opacity", count=5, seed=3)
    rows = _rows(made.out)
    kept = [row for row in rows if row["kept"] == "yes"]
    files = sorted(path.name for path in (made.out / "images").iterdir())
    assert [f"images/{name}" for name in files] == [row["file"] for row in kept]
    assert (made.written, made.left_out) == (5, len(rows) - 5)
    assert all(name.startswith("made-opacity-3-") for name in files)
    assert {(row["made"], row["class"], row["seed"]) for row in rows} == {("true", "opacity", "3")}
    assert all(float(row["pixels_distance"]) > 0 and float(row["features_relative"]) > 0 for row in rows)
    with PIL.Image.open(made.out / kept[0]["file"]) as picture:
        assert picture.size == (32, 32)
        assert "It shows no patient." in picture.info[MADE_KEY]
        assert "Class opacity, seed 3, number 0." in picture.info[MADE_KEY]
    assert "no proof of privacy" in (made.out / "MADE_IMAGES.txt").read_text()


def test_no_patient_is_named(with_generator: Path, chest: Collection, tmp_path: Path) -> None:
    made = generate(with_generator, tmp_path / "made", count=3)
    written = b"".join(path.read_bytes() for path in made.out.rglob("*") if path.is_file())
    for name in {*chest.column("patient_id"), *chest.column("case_id")}:
        assert name.encode() not in written


def test_the_same_seed_makes_the_same_images_however_many(with_generator: Path, tmp_path: Path) -> None:
    few = generate(with_generator, tmp_path / "few", count=3, seed=1)
    many = generate(with_generator, tmp_path / "many", count=7, seed=1)
    other = generate(with_generator, tmp_path / "other", count=3, seed=2)
    assert (few.written, many.written) == (6, 14)
    for path in (few.out / "images").iterdir():
        assert path.read_bytes() == (many.out / "images" / path.name).read_bytes()
    images = [sorted((one.out / "images").iterdir())[0] for one in (few, other)]
    assert np.asarray(PIL.Image.open(images[0])).tolist() != np.asarray(PIL.Image.open(images[1])).tolist()


def test_copies_are_left_out_and_counted(
    with_generator: Path, repeating: Callable[[float], None], tmp_path: Path
) -> None:
    repeating(0.4)
    made = generate(with_generator, tmp_path / "made", class_name="opacity", count=20)
    rows = _rows(made.out)
    left = [row for row in rows if row["kept"] == "no"]
    assert made.left_out == len(left) > 0
    assert {row["file"] for row in left} == {""}
    near = [float(row["pixels_relative"]) for row in rows]
    assert all((r < 0.2) == (row["kept"] == "no") for r, row in zip(near, rows, strict=True))
    assert len(list((made.out / "images").iterdir())) == 20


def test_of_a_generator_that_only_repeats_nothing_is_written(
    with_generator: Path, repeating: Callable[[float], None], tmp_path: Path
) -> None:
    repeating(1.0)
    with pytest.raises(FewlabelError, match="Of 256 images made of the class 'opacity', 256 lie too close"):
        generate(with_generator, tmp_path / "made", class_name="opacity", count=20)
    assert list(tmp_path.iterdir()) == []


def test_made_images_are_imported_as_made(with_generator: Path, tmp_path: Path) -> None:
    made = generate(with_generator, tmp_path / "made", count=3)
    summary = import_images(made.out, tmp_path / "again", labels=made.out / "made.csv", workers=1)
    again = Collection.open(tmp_path / "again")
    assert is_made(again)
    assert (summary.labels_matched, len(again)) == (6, 6)
    assert again.target("class").counts == {"not opacity": 3, "opacity": 3}
    assert any("made by a generator" in fact for fact in again.facts)


def test_places_and_words_that_are_wrong(with_generator: Path, run: Learned, tmp_path: Path) -> None:
    with pytest.raises(FewlabelError, match="makes no class 'opacty': name one of not opacity, opacity"):
        generate(with_generator, tmp_path / "made", class_name="opacty")
    with pytest.raises(FewlabelError, match=r"has no generator of images: make a run .*--objective vae-gan"):
        generate(run.out, tmp_path / "made")
    with pytest.raises(FewlabelError, match="is no finished run"):
        generate(tmp_path / "nowhere", tmp_path / "made")
    with pytest.raises(FewlabelError, match="count is 0"):
        generate(with_generator, tmp_path / "made", count=0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("precious")
    with pytest.raises(FewlabelError, match="is not an empty folder"):
        generate(with_generator, tmp_path / "full")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_without_the_collection_nothing_is_written(with_generator: Path, tmp_path: Path) -> None:
    lonely = tmp_path / "run"
    shutil.copytree(with_generator, lonely)
    told = (lonely / "run.json").read_text()
    (lonely / "run.json").write_text(told.replace('"collection": "', '"collection": "/nowhere'))
    with pytest.raises(FewlabelError, match="held against it before they are written, so put it back"):
        generate(lonely, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_classes_with_the_same_letters_keep_apart() -> None:
    made = Generator(Decoder(5, channels=1, size_px=8, width=4), 1, ("a<1", "a>1", "ä", "b"))
    names = [generating._plain_name(made, code) for code in range(4)]
    assert names == ["a-1-0", "a-1-1", "class-2", "b"]
