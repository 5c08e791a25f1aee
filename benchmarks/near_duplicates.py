"""How well copies are told from other people's images; prints JSON.

The evidence for docs/decisions/near-duplicates.md:

    python benchmarks/near_duplicates.py ../shared/data

For each pair of sets: the lowest correlation of a true copy and the highest of any other pair, for plain
correlation of thumbnails and for correlation of fine detail. Copies between NIH and MedNIST were marked by
nobody: they are the pairs above the widest gap, which lies at the same place for both measures.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from fewlabel.collection import Collection, import_images
from fewlabel.collection.duplicates import THRESHOLD, detail
from fewlabel.collection.resample import area_resample, thumbnail

SOURCES = {
    "nih": "nih-chest-xray/images",
    "mednist": "mednist-64/CXR.tar.gz",
    "idrid": "idrid/grading_512px",
    "iq-oth": "iq-oth-lung-ct",
    "pneumoniamnist": "pneumoniamnist/pneumoniamnist.npz",
    "hannover": "hannover-chest-xray/png",
}


def plain(thumbnails: np.ndarray) -> np.ndarray:
    """Unit vectors whose products are plain correlations."""
    x = thumbnails.astype(np.float32)
    x -= x.mean(axis=1, keepdims=True)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)


def pair_values(a: np.ndarray, b: np.ndarray | None) -> np.ndarray:
    """All correlations between two sets, or within one, from high to low."""
    r = a @ (a if b is None else b).T
    return np.sort(r[np.triu_indices(len(a), 1)] if b is None else r.ravel())[::-1]


def gap(values: np.ndarray, most: int = 200) -> dict[str, float]:
    """The widest gap among the highest values: how many pairs lie above it, and its two edges."""
    top = values[:most]
    at = int(np.argmax(top[:-1] - top[1:]))
    return {
        "pairs": at + 1,
        "lowest_above": round(float(top[at]), 3),
        "highest_below": round(float(top[at + 1]), 3),
    }


def against_groups(collection: Collection, index: Path) -> dict[str, float]:
    """Agreement with the published groups of IQ-OTH (48 px, plain correlation above 0.98, chains joined)."""
    group_of = {r["file"]: int(r["near_dup_group_r098"]) for r in csv.DictReader(index.open())}
    groups = np.array([group_of[Path(n).name] for n in collection.column("case_id")])
    upper = np.triu_indices(len(groups), 1)
    same = (groups[:, None] == groups[None])[upper]
    large = np.stack([area_resample(collection.pixels(r), 48, 48).ravel() for r in range(len(collection))])
    published = pair_values_unsorted(plain(large))[upper] > 0.98
    r = pair_values_unsorted(detail(collection.thumbnails()))[upper]
    found = np.abs(r) >= THRESHOLD
    return {
        "published_pairs": int(published.sum()),
        "of_them_found": round(float(found[published].mean()), 3),
        "found_pairs": int(found.sum()),
        "of_them_in_one_published_group": round(float(same[found].mean()), 3),
    }


def pair_values_unsorted(a: np.ndarray) -> np.ndarray:
    """(N, N) correlations."""
    return a @ a.T


def changed(x: np.ndarray) -> dict[str, np.ndarray]:
    """One image (H, W) uint8 after what happens to images on their way into a data set."""
    picture = Image.fromarray(x)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=30)
    h, w = x.shape
    return {
        "64 px": np.asarray(picture.resize((64, 64), Image.Resampling.BILINEAR)),
        "JPEG quality 30": np.asarray(Image.open(file)),
        "gamma 0.7": (255 * (x / 255) ** 0.7).astype(np.uint8),
        "contrast x 1.3, clipped": np.clip((x - 128.0) * 1.3 + 128, 0, 255).astype(np.uint8),
        "negative": 255 - x,
        "cropped by 1 %": x[h // 100 : h - h // 100, w // 100 : w - w // 100],
        "cropped by 3 %": x[3 * h // 100 : h - 3 * h // 100, 3 * w // 100 : w - 3 * w // 100],
        "turned by 1 degree": np.asarray(picture.rotate(1, Image.Resampling.BILINEAR)),
        "mirrored": x[:, ::-1],
    }


def survival(collection: Collection, count: int = 200) -> dict[str, float]:
    """The share of copies that are still found after each change."""
    found: dict[str, list[bool]] = {}
    own = detail(collection.thumbnails()[:count])
    for row in range(count):
        for name, x in changed(np.asarray(collection.pixels(row)[0])).items():
            r = detail(thumbnail(x[None], None, 0, 255)[None])[0] @ own[row]
            found.setdefault(name, []).append(abs(float(r)) >= THRESHOLD)
    return {name: round(float(np.mean(hits)), 3) for name, hits in found.items()}


def main(data: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sets = {}
        for name, source in SOURCES.items():
            import_images(data / source, Path(folder) / name)
            sets[name] = Collection.open(Path(folder) / name)
        thumbs = {name: c.thumbnails() for name, c in sets.items()}
        gaps = {}
        for measure in (plain, detail):
            x = {name: measure(t) for name, t in thumbs.items()}
            gaps[measure.__name__] = {
                "nih with mednist": gap(pair_values(x["nih"], x["mednist"])),
                **{f"within {name}": gap(pair_values(x[name], None)) for name in SOURCES if name != "iq-oth"},
            }
        iq = against_groups(sets["iq-oth"], data / "iq-oth-lung-ct" / "index.csv")
        result = {"threshold": THRESHOLD, "gaps": gaps, "iq-oth": iq, "found_after": survival(sets["nih"])}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
