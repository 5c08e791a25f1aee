"""Made colour fundus photographs with the lesions of diabetic retinopathy by grade.

Grades follow the international clinical scale (Wilkinson et al. 2003): 0 none; 1 microaneurysms only; 2 also
haemorrhages and hard exudates; 3 many haemorrhages in all four quadrants; 4 new vessels at the disc and a
haemorrhage in front of the retina.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from scipy.special import expit

from fewlabel.files import write_text
from fewlabel.phantoms.notes import NOTE, NOTE_NAME
from fewlabel.types import FewlabelError

SMALLEST_SIZE_PX = 32
GRADE_SHARES = (0.3, 0.15, 0.25, 0.15, 0.15)
SAME_GRADE = 0.7
"""How often the second eye of a patient has the grade of the first; else it is one grade off."""
COLUMNS = ("file", "Patient ID", "eye", "Retinopathy grade", "made")
COUNTS = {  # grade -> (microaneurysms, haemorrhages, exudates), each (fewest, most)
    0: ((0, 0), (0, 0), (0, 0)),
    1: ((2, 6), (0, 0), (0, 0)),
    2: ((5, 10), (2, 6), (2, 8)),
    3: ((8, 16), (20, 28), (4, 12)),
    4: ((8, 16), (12, 24), (4, 12)),
}
KINDS = ("microaneurysm", "haemorrhage", "exudate", "new vessels", "preretinal haemorrhage")
RED, DARK_RED, YELLOW = (-0.26, -0.22, -0.09), (-0.30, -0.24, -0.09), (0.16, 0.30, 0.12)
LOOKS = {  # kind -> (smallest radius, largest radius, change of RGB); the visible disc has radius 1
    "microaneurysm": (0.011, 0.018, RED),
    "haemorrhage": (0.025, 0.055, DARK_RED),
    "exudate": (0.015, 0.035, YELLOW),
}


@dataclass(frozen=True)
class MadeFundus:
    """A made fundus photograph.

    pixels: shape (3, H, W), uint8 RGB; black outside the round field. grade: 0 to 4.
    lesions: (kind, row, column, radius) in pixels. mask: shape (H, W), uint8; 0 elsewhere, k inside a lesion
    of kind KINDS[k - 1].
    """

    pixels: np.ndarray
    grade: int
    lesions: tuple[tuple[str, float, float, float], ...]
    mask: np.ndarray


def fundus(grade: int, *, size_px: int = 128, seed: int = 0) -> MadeFundus:
    """A made fundus of the given grade, size_px x size_px. Raises FewlabelError for another grade."""
    if grade not in COUNTS or size_px < SMALLEST_SIZE_PX:
        raise FewlabelError(
            f"grade is {grade} and size_px {size_px}: expected a grade 0 to 4 and at least {SMALLEST_SIZE_PX} px"
        )
    rng = np.random.default_rng([seed, grade])
    line = ((np.arange(size_px) + 0.5) / size_px * 2 - 1) / 0.96
    x, y = np.meshgrid(line, line)
    disc = (float(rng.choice([-1, 1])) * rng.uniform(0.40, 0.50), rng.uniform(-0.08, 0.08))
    image = _retina(rng, x, y, disc)
    mask = np.zeros(x.shape, dtype=np.uint8)
    lesions = []
    for kind, lx, ly, radius in _lesions(rng, grade, disc):
        covered = _draw_lesion(rng, image, x, y, kind, (lx, ly), radius)
        mask[covered] = KINDS.index(kind) + 1
        row, column = ((v * 0.96 + 1) / 2 * size_px - 0.5 for v in (ly, lx))
        lesions.append((kind, row, column, radius * 0.96 / 2 * size_px))
    field = expit((1 - np.hypot(x, y)) / 0.01)
    image = (image + rng.normal(0, 0.012, image.shape)) * field
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return MadeFundus(pixels, grade, tuple(lesions), mask)


def write_fundi(folder: Path | str, patients: int, seed: int = 0, *, size_px: int = 96) -> Path:
    """Write the made fundi of both eyes of `patients` below `folder`, and return the path of labels.csv, written last.

    images/F00001_left.png ...; labels.csv has one row an image: file (relative to `folder`), Patient ID, eye,
    Retinopathy grade (0 to 4), and made, which is 1 in every row. MADE_IMAGES.txt says that they are made. The same
    arguments give the same bytes. Raises FewlabelError for fewer than 1 patient, or images of less than 32 px.
    """
    if patients < 1 or size_px < SMALLEST_SIZE_PX:
        raise FewlabelError(
            f"{patients} patients and images of {size_px} px were asked for: at least 1 and {SMALLEST_SIZE_PX} px are "
            "needed."
        )
    folder, rng = Path(folder), np.random.default_rng([seed, 5])
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / NOTE_NAME).write_text(NOTE.format(seed=seed), encoding="utf-8")
    rows = []
    for number in range(patients):
        first = int(rng.choice(len(GRADE_SHARES), p=GRADE_SHARES))
        other = first if rng.random() < SAME_GRADE else int(np.clip(first + rng.choice([-1, 1]), 0, 4))
        for eye, grade in (("left", first), ("right", other)):
            made = fundus(grade, size_px=size_px, seed=int(rng.integers(2**31)))
            name = f"images/F{number + 1:05d}_{eye}.png"
            PillowImage.fromarray(made.pixels.transpose(1, 2, 0)).save(folder / name)
            rows.append((name, f"F{number + 1:05d}", eye, made.grade, 1))
    table = io.StringIO(newline="")
    csv.writer(table).writerows([COLUMNS, *rows])
    write_text(folder / "labels.csv", table.getvalue())
    return folder / "labels.csv"


def _retina(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, disc: tuple[float, float]) -> np.ndarray:
    """Background, macula, vessels and optic disc; shape (3, H, W), about [0, 1]."""
    colour = np.array([0.72, 0.36, 0.17]) * rng.uniform(0.85, 1.12, 3)
    light = 1 - 0.28 * (x**2 + y**2) + rng.uniform(-0.08, 0.08) * x
    mottle = gaussian_filter(rng.standard_normal(x.shape), len(x) / 40)
    image = colour[:, None, None] * (light + 0.025 * mottle / mottle.std())
    macula = np.exp(-((x + 0.12 * np.sign(disc[0])) ** 2 + (y - disc[1] - 0.03) ** 2) / 0.045)
    image -= macula * np.array([0.14, 0.12, 0.06])[:, None, None]
    vessels = _vessels(rng, x, y, disc)
    image -= vessels * np.array([0.22, 0.18, 0.07])[:, None, None]
    nerve = expit((0.14 - np.hypot(x - disc[0], (y - disc[1]) * 0.92)) / 0.012) * (1 - 0.5 * vessels)
    return image + nerve * (np.array([0.97, 0.80, 0.50])[:, None, None] - image) * 0.85


def _vessels(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, disc: tuple[float, float]) -> np.ndarray:
    """Share of vessel at each pixel: four arcades from the disc round the macula, each with four branches."""
    points = np.concatenate([_arcade(rng, disc, up, bend) for up in (-1, 1) for bend in (0.55, 0.95)])
    distance, nearest = cKDTree(points[:, :2]).query(np.stack([x, y], axis=-1))
    return np.exp(-((distance / points[nearest, 2]) ** 2))


def _arcade(rng: np.random.Generator, disc: tuple[float, float], upward: int, bend: float) -> np.ndarray:
    """Points (M, 3) along one arcade and its branches: x, y, half width."""
    t = np.linspace(0, 1, 160)
    towards = -np.sign(disc[0])
    x = disc[0] + towards * (1.25 * t**1.3) * (1.15 - 0.3 * bend)
    y = disc[1] + upward * bend * 0.75 * np.sin(np.pi * 0.72 * t) + 0.012 * np.sin(14 * t + rng.uniform(0, 6))
    paths = [np.stack([x, y, 0.024 * (1 - 0.5 * t)], axis=1)]
    for start in rng.choice(np.arange(20, 140), 4, replace=False):
        length, angle, curl = rng.uniform(0.25, 0.5), rng.uniform(0.2, 1.2), rng.uniform(-0.5, 0.5)
        branch_x = x[start] + towards * length * t * np.cos(angle + curl * t)
        branch_y = y[start] + upward * length * t * np.sin(angle + curl * t)
        paths.append(np.stack([branch_x, branch_y, 0.013 * (1 - 0.5 * t)], axis=1))
    return np.concatenate(paths)


def _lesions(
    rng: np.random.Generator, grade: int, disc: tuple[float, float]
) -> list[tuple[str, float, float, float]]:
    """(kind, x, y, radius); places are drawn round the four quadrants in turn, outside the optic disc."""
    drawn = []
    for kind, (fewest, most) in zip(LOOKS, COUNTS[grade], strict=True):
        for i in range(rng.integers(fewest, most + 1)):
            radius = rng.uniform(*LOOKS[kind][:2])
            x, y = _place(rng, i % 4, disc)
            drawn.append((kind, x, y, radius))
    if grade == 4:
        drawn.append(("new vessels", disc[0], disc[1], 0.17))
        x, y = _place(rng, int(rng.integers(4)), disc)
        drawn.append(("preretinal haemorrhage", 0.8 * x, 0.8 * y, rng.uniform(0.12, 0.18)))
    return drawn


def _place(rng: np.random.Generator, quadrant: int, disc: tuple[float, float]) -> tuple[float, float]:
    while True:
        angle = (quadrant + rng.random()) * np.pi / 2
        distance = 0.85 * np.sqrt(rng.random())
        x, y = distance * np.cos(angle), distance * np.sin(angle)
        if np.hypot(x - disc[0], y - disc[1]) > 0.22:
            return float(x), float(y)


def _draw_lesion(
    rng: np.random.Generator,
    image: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    kind: str,
    centre: tuple[float, float],
    radius: float,
) -> np.ndarray:
    """Draw a lesion into `image` in place; returns where it is, shape (H, W), bool, one pixel at least."""
    dx, dy = x - centre[0], y - centre[1]
    distance, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
    if kind == "new vessels":
        loops = 0.5 + 0.5 * np.cos(angle * rng.integers(9, 13) + 25 * distance)
        profile = expit((radius - distance) / 0.02) * np.clip(2.5 * loops - 1.5, 0, 1)
        change = RED
    elif kind == "preretinal haemorrhage":  # blood that settles: boat-shaped, with a level surface
        profile = expit((radius - distance) / 0.012) * expit((dy + 0.25 * radius) / 0.012)
        change = DARK_RED
    else:
        uneven = 0.0 if kind == "microaneurysm" else 0.16
        bends = sum(np.sin(k * angle + rng.uniform(0, 6)) for k in (2, 3, 5))
        edge = radius * (1 + uneven * bends)
        profile = expit((edge - distance) / 0.006)
        change = LOOKS[kind][2]
    profile = np.maximum(profile, np.exp(-distance / 0.008) * (distance == distance.min()))
    image += profile * np.array(change)[:, None, None]
    return (profile > 0.5) | (distance == distance.min())
