"""MedMNIST's published layout, and fetching a set by name."""

from __future__ import annotations

import hashlib
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from fewlabel.images import medmnist_npz, read, scan
from fewlabel.types import FewlabelError


def write(path: Path, shape: tuple[int, ...] = (5, 28, 28), columns: int = 1, **arrays: np.ndarray) -> Path:
    content: dict[str, np.ndarray] = {}
    random = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        content[f"{split}_images"] = random.integers(0, 255, shape, np.uint8)
        content[f"{split}_labels"] = random.integers(0, 2, (shape[0], columns), np.uint8)
    np.savez_compressed(path, **{**content, **arrays})
    return path


def test_images_splits_and_labels(tmp_path):
    path = write(tmp_path / "p.npz")
    sources, rejected = scan(path, scratch=tmp_path / "scratch")
    assert rejected == []
    assert len(sources) == 15
    source = next(item for item in sources if item.name == "p.npz#train/00003")
    with np.load(path) as arrays:
        assert (read(source).pixels[0] == arrays["train_images"][3]).all()
        assert source.labels == {"label": float(arrays["train_labels"][3, 0])}
    assert (source.split, source.index, source.kind) == ("train", 3, "npz")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((4, 28, 28, 3), (3, 28, 28)), ((4, 28, 28, 28), (1, 28, 28, 28)), ((4, 64, 64), (1, 64, 64))],
)
def test_colour_and_volumes(tmp_path, shape, expected):
    sources, _ = scan(write(tmp_path / "p.npz", shape), scratch=tmp_path / "scratch")
    assert read(sources[0]).pixels.shape == expected


def test_several_labels(tmp_path):
    sources, _ = scan(write(tmp_path / "p.npz", columns=3), scratch=tmp_path / "scratch")
    assert set(sources[0].labels) == {"label_0", "label_1", "label_2"}


def test_a_missing_split_and_a_further_array(tmp_path):
    path = tmp_path / "p.npz"
    np.savez(path, train_images=np.zeros((2, 8, 8), np.uint8), train_labels=[0, 1], notes=np.zeros(3))
    sources, rejected = scan(path, scratch=tmp_path / "scratch")
    assert [source.labels["label"] for source in sources] == [0.0, 1.0]
    assert [item.name for item in rejected] == ["p.npz#notes"]


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"train_labels": np.zeros((4, 1))}, "for 5 images"),
        ({"train_images": np.zeros((5, 28))}, "no stack of images"),
        ({"train_images": np.array([{}] * 5, object)}, "damaged"),
        ({"train_labels": np.array([["a"]] * 5)}, "for 5 images"),
        (
            {f"{split}_images": np.zeros((0, 8, 8)) for split in ("train", "val", "test")},
            "damaged|hold no image|for 0",
        ),
    ],
)
def test_wrong_arrays_give_a_reason(tmp_path, arrays, reason):
    path = write(tmp_path / "p.npz", **arrays)
    sources, rejected = scan(path, scratch=tmp_path / "scratch")
    assert sources == []
    assert re.search(reason, rejected[0].reason)


def test_another_npz_and_a_cut_one(tmp_path):
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    data = write(tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    _, rejected = scan(tmp_path, scratch=tmp_path / ".scratch")
    reasons = {item.name: item.reason for item in rejected}
    assert "not in the layout of MedMNIST" in reasons["other.npz"]
    assert "damaged" in reasons["cut.npz"]


@pytest.fixture
def package(monkeypatch, tmp_path) -> dict[str, dict]:
    """A medmnist package whose one set lies at a file address."""
    published = write(tmp_path / "published.npz")
    md5 = hashlib.md5(published.read_bytes()).hexdigest()
    info = {"pneumoniamnist": {"url": published.as_uri(), "MD5": md5}, "organmnist3d": {"url": "", "MD5": ""}}
    module, inner = types.ModuleType("medmnist"), types.ModuleType("medmnist.info")
    inner.INFO = info
    module.info = inner
    monkeypatch.setitem(sys.modules, "medmnist", module)
    monkeypatch.setitem(sys.modules, "medmnist.info", inner)
    return info


@pytest.mark.parametrize(
    "name", ["pneumonia", "pneumoniamnist", "medmnist:pneumonia", "PneumoniaMNIST", "pneumonia_28"]
)
def test_a_set_by_name_is_fetched_once(tmp_path, package, name):
    path = medmnist_npz(name, tmp_path / "root")
    assert path == tmp_path / "root" / "pneumoniamnist.npz"
    assert len(scan(path, scratch=tmp_path / "scratch")[0]) == 15
    package["pneumoniamnist"]["url"] = "file:///nowhere"
    assert medmnist_npz(name, tmp_path / "root") == path


@pytest.mark.parametrize(
    ("change", "name", "reason"),
    [
        ({}, "pneumonja", "no set 'pneumonja': known are organmnist3d, pneumoniamnist"),
        ({}, "pneumonia_64", "no pneumoniamnist of 64 pixels"),
        ({"MD5": "0" * 32}, "pneumonia", "not the published file"),
        ({"url": "file:///nowhere/at/all"}, "pneumonia", "connect to the network"),
        ({"url": "http://127.0.0.1:9/x"}, "pneumonia", "connect to the network"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_leaves_no_file(tmp_path, package, change, name, reason):
    package["pneumoniamnist"].update(change)
    (tmp_path / "root").mkdir()
    with pytest.raises(FewlabelError, match=reason):
        medmnist_npz(name, tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_without_the_package_the_command_to_install_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "medmnist", None)
    with pytest.raises(FewlabelError, match=r'pip install "fewlabel\[medmnist\]"'):
        medmnist_npz("pneumonia", tmp_path)
