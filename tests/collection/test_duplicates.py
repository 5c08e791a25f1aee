from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from fewlabel.collection.duplicates import detail, find_duplicates, joined_groups, near_groups
from fewlabel.collection.resample import thumbnail


def pictures(count: int, seed: int = 0, side: int = 96) -> np.ndarray:
    """Smooth random pictures that share one coarse layout, as radiographs do: (count, side, side) uint8."""
    rng = np.random.default_rng(seed)
    layout = gaussian_filter(rng.normal(size=(side, side)), side / 8)
    fine = np.stack([gaussian_filter(rng.normal(size=(side, side)), 1.5) for _ in range(count)])
    mixed = layout / layout.std() * 45 + fine / fine.std() * 12 + 128
    return np.clip(mixed, 0, 255).astype(np.uint8)


def thumbs(images: np.ndarray) -> np.ndarray:
    return np.stack([thumbnail(x[None], None, 0, 255) for x in images])


def brute_force(a: np.ndarray, threshold: float) -> set[tuple[int, int]]:
    r = detail(a) @ detail(a).T
    return {(int(i), int(j)) for i, j in np.argwhere(np.abs(r) >= threshold) if i < j}


def test_the_pruned_search_finds_what_the_plain_one_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewlabel.collection.duplicates._BLOCK", 50)
    base = thumbs(pictures(60))
    rng = np.random.default_rng(1)
    noisy = [np.clip(base + rng.normal(0, sd, base.shape), 0, 255).astype(np.uint8) for sd in (1, 3, 6)]
    everything = np.concatenate([base, *noisy])
    for threshold in (0.5, 0.9, 0.99):
        i, j, r = find_duplicates(everything, threshold=threshold)
        assert set(zip(i.tolist(), j.tolist(), strict=True)) == brute_force(everything, threshold)
        np.testing.assert_allclose(r, (detail(everything) @ detail(everything).T)[i, j], atol=1e-5)
    i, j, _ = find_duplicates(base, noisy[0])
    assert set(range(60)) <= set(i[i == j].tolist())


def test_other_pictures_of_the_same_layout_are_no_duplicates() -> None:
    base = thumbs(pictures(60))
    plain = np.corrcoef(base)[np.triu_indices(60, 1)]
    assert plain.max() > 0.9  # what plain correlation would have called copies
    assert len(find_duplicates(base)[0]) == 0


@pytest.mark.parametrize("change", ["half size", "jpeg", "darker", "more contrast", "negative"])
def test_copies_are_found_after_common_changes(change: str) -> None:
    images = pictures(20)
    changed = np.stack([_changed(x, change) for x in images])
    i, j, r = find_duplicates(thumbs(images), thumbs(changed))
    assert i.tolist() == j.tolist() == list(range(20))
    assert ((r < 0) if change == "negative" else (r > 0)).all()


def _changed(x: np.ndarray, change: str) -> np.ndarray:
    picture = Image.fromarray(x)
    if change == "half size":
        return np.asarray(picture.resize((48, 48), Image.Resampling.BOX))
    if change == "jpeg":
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=60)
        return np.asarray(Image.open(file))
    if change == "negative":
        return 255 - x
    return (x * 0.6 if change == "darker" else np.clip((x - 128.0) * 1.3 + 128, 0, 255)).astype(np.uint8)


def test_constant_pictures_are_like_nothing() -> None:
    constant = np.stack([np.full(1024, v, np.uint8) for v in (0, 0, 7, 255)])
    assert len(find_duplicates(constant)[0]) == 0
    assert len(find_duplicates(constant, thumbs(pictures(3)))[0]) == 0


def test_nothing_to_compare() -> None:
    empty = np.empty((0, 1024), np.uint8)
    assert [len(x) for x in find_duplicates(empty)] == [0, 0, 0]
    assert [len(x) for x in find_duplicates(thumbs(pictures(2)), empty)] == [0, 0, 0]


def test_groups_join_chains_and_carry_the_first_row() -> None:
    links = np.array([[4, 1, 6], [1, 2, 7]])
    assert joined_groups(links, 9).tolist() == [-1, 1, 1, -1, 1, -1, 6, 6, -1]


def test_groups_grow_as_if_all_had_come_at_once() -> None:
    base = thumbs(pictures(30))
    rng = np.random.default_rng(2)
    near = np.clip(base + rng.normal(0, 2, base.shape), 0, 255).astype(np.uint8)
    everything = np.concatenate([base[:10], base[5:7], near[:2], base[7:20], base[:3], base[25:]])
    _, first, inverse, count = np.unique(
        everything, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    exact = np.where(count[inverse] > 1, first[inverse], -1).ravel()
    at_once = near_groups(everything, np.empty(0, int), exact)
    before = near_groups(everything[:14], np.empty(0, int), exact[:14])
    assert near_groups(everything, before, exact).tolist() == at_once.tolist()
    assert at_once[[10, 11, 12, 13]].tolist() == [5, 6, 0, 1]


@pytest.mark.real
def test_real_radiographs_are_told_from_their_copies(shared_data: Path) -> None:
    """26 of the 1000 NIH images lie in MedNIST at another size; no other pair comes near the threshold."""
    import tarfile

    with tarfile.open(shared_data / "mednist-64" / "CXR.tar.gz") as archive:
        small = [np.asarray(Image.open(archive.extractfile(m)).convert("L")) for m in archive if m.isfile()]
    large = [
        np.asarray(Image.open(p).convert("L"))
        for p in sorted((shared_data / "nih-chest-xray/images").rglob("*.jpg"))
    ]
    a = np.stack([thumbnail(x[None], None, 0, 255) for x in large])
    b = np.stack([thumbnail(x[None], None, 0, 255) for x in small])
    assert len(find_duplicates(a, b)[0]) == 26
    assert len(find_duplicates(a, b, threshold=0.75)[0]) == 26
    assert len(find_duplicates(a)[0]) == 1
