"""Made frontal chest radiographs with known findings.

A radiograph is drawn as a sum of attenuations along the beam (soft tissue, air in the lungs, heart, bones,
findings), then exposed: a random black level, gain and gamma, and noise. Positions are in body coordinates: x
from -1 (image left, the patient's right) to 1, y from -1 (neck) to 1 (abdomen); each image has a small pose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from fewlabel.types import FewlabelError

LEFT, RIGHT = 1.0, -1.0  # sign of x on the image: the patient faces the viewer
SMALLEST_SIZE_PX = 16
CHEST_WIDTH_MM = 350.0  # what an image shows from left to right
NET_FREQUENCY = (
    24.0  # of a reticular pattern, radians in body coordinates: lines every 4 px of an image of 32
)
GLYPHS = {
    "L": "100100100100111",
    "R": "110101110101101",
    "A": "010101111101101",
    "P": "110101110100100",
}


@dataclass(frozen=True)
class Difficulty:
    """How hard the findings are to see.

    contrast_range: attenuation that an opacity adds at its centre; lung is about 0.35 below soft tissue.
    radius_range: radius of an opacity in body coordinates (the image is 2 wide).
    noise: its standard deviation in the thinnest part, images being in [0, 1]; it grows with thickness.
    clutter: strength of vessels and lung texture, which look like small opacities; 1 is usual.
    exposure: how much black level, gain and gamma vary; 1 is usual, 0 not at all.
    pose: how much rotation, shift and scale vary; 1 is usual (6 degrees, 5 %, 6 %), 0 not at all.
    reticulation_range: root mean square of the attenuation of a reticular pattern where the lung is full of air.
    opacity_share, effusion_share, reticulation_share: share of patients who have the finding.
    """

    contrast_range: tuple[float, float] = (0.20, 0.32)
    radius_range: tuple[float, float] = (0.15, 0.25)
    noise: float = 0.015
    clutter: float = 1.0
    exposure: float = 1.0
    pose: float = 1.0
    opacity_share: float = 0.45
    effusion_share: float = 0.22
    reticulation_range: tuple[float, float] = (0.06, 0.12)
    reticulation_share: float = 0.2


EASY = Difficulty(
    contrast_range=(0.5, 0.8),
    radius_range=(0.26, 0.38),
    noise=0.01,
    clutter=0.4,
    exposure=0.6,
    pose=0.3,
    reticulation_range=(0.15, 0.25),
    reticulation_share=0.45,
)
"""Large, dense opacities and coarse nets in images that differ little otherwise: for a demonstration of minutes."""


@dataclass(frozen=True)
class MadeRadiographs:
    """N made radiographs and the truth about them.

    pixels: shape (N, H, W), float32 in [0, 1]; dense tissue is bright.
    patients: N patient ids; a patient has 1 to 3 images that share the anatomy.
    opacity, effusion, reticulation: shape (N,), bool. Reticulation is a net of fine lines over both lungs.
    side: of the opacity, "left" or "right" of the patient, "none" without one; effusion_side likewise.
    centre_px: shape (N, 2), row and column of the opacity's centre; NaN without one.
    radius_px, contrast: shape (N,), of the opacity as in `Difficulty`; 0 without one.
    opacity_mask: shape (N, H, W), bool, True where the opacity adds more than half of its contrast.
    views: "PA" or "AP" for each image. ages: shape (N,), years.
    """

    pixels: np.ndarray
    patients: tuple[str, ...]
    opacity: np.ndarray
    effusion: np.ndarray
    reticulation: np.ndarray
    side: tuple[str, ...]
    effusion_side: tuple[str, ...]
    centre_px: np.ndarray
    radius_px: np.ndarray
    contrast: np.ndarray
    opacity_mask: np.ndarray
    views: tuple[str, ...]
    ages: np.ndarray


@dataclass(frozen=True)
class _Anatomy:
    """What a patient's images share; lengths in body coordinates."""

    age_years: int
    build: float
    lung_width: float
    lung_top: float
    base: float
    heart: float
    rib_spacing: float
    rib_phase: float
    bone: float
    soft_tissue: float
    aeration: float
    vessels: np.ndarray  # (K, 6): start x, y; end x, y; radius; strength
    waves: np.ndarray  # (M, 4): frequency x, y; phase; strength


@dataclass(frozen=True)
class _Finding:
    """An opacity (x, y, radius, contrast, outline) or an effusion (contrast is its height) on one side."""

    side: float
    contrast: float
    x: float = 0.0
    y: float = 0.0
    radius: float = 0.0
    outline: tuple[float, ...] = ()


class _Net(NamedTuple):
    """A reticular pattern, fixed in the patient: plane waves of about one length, in all directions.

    waves: (M, 3), angular frequency x and y, phase. contrast: as in `Difficulty`.
    """

    waves: np.ndarray
    contrast: float


class _Shot(NamedTuple):
    """One image of a patient with its truth."""

    pixels: np.ndarray
    opacity: _Finding | None
    effusion: _Finding | None
    reticulation: _Net | None
    mask: np.ndarray
    centre_px: tuple[float, float]
    view: str


def radiographs(
    n: int, *, size_px: int = 64, seed: int = 0, difficulty: Difficulty | None = None
) -> MadeRadiographs:
    """`n` made radiographs of size_px x size_px; the first m of n are the same for every n.

    Raises FewlabelError for n < 1 or size_px < 16.
    """
    if n < 1 or size_px < SMALLEST_SIZE_PX:
        raise FewlabelError(
            f"n is {n} and size_px {size_px}: expected at least 1 image of {SMALLEST_SIZE_PX} px"
        )
    shots: list[_Shot] = []
    patients: list[str] = []
    ages: list[int] = []
    while len(shots) < n:
        number = int(patients[-1][1:]) if patients else 0
        rng = np.random.default_rng([seed, number])
        anatomy, taken = _patient(rng, size_px, difficulty or Difficulty())
        shots += taken
        patients += [f"P{number + 1:05d}"] * len(taken)
        ages += [anatomy.age_years] * len(taken)
    return _gather(shots[:n], patients[:n], ages[:n], size_px)


def _gather(shots: list[_Shot], patients: list[str], ages: list[int], size_px: int) -> MadeRadiographs:
    opacities = [shot.opacity for shot in shots]
    return MadeRadiographs(
        pixels=np.stack([shot.pixels for shot in shots]),
        patients=tuple(patients),
        opacity=np.array([o is not None for o in opacities]),
        effusion=np.array([shot.effusion is not None for shot in shots]),
        reticulation=np.array([shot.reticulation is not None for shot in shots]),
        side=tuple(_side_name(o) for o in opacities),
        effusion_side=tuple(_side_name(shot.effusion) for shot in shots),
        centre_px=np.array([shot.centre_px for shot in shots]),
        radius_px=np.array([o.radius * size_px / 2 if o else 0.0 for o in opacities]),
        contrast=np.array([o.contrast if o else 0.0 for o in opacities]),
        opacity_mask=np.stack([shot.mask for shot in shots]),
        views=tuple(shot.view for shot in shots),
        ages=np.array(ages),
    )


def _side_name(finding: _Finding | None) -> str:
    if finding is None:
        return "none"
    return "left" if finding.side == LEFT else "right"


def _patient(rng: np.random.Generator, size_px: int, difficulty: Difficulty) -> tuple[_Anatomy, list[_Shot]]:
    """A patient's anatomy and 1 to 3 images; opacity and effusion are there in an image 9 times of 10."""
    anatomy = _draw_anatomy(rng, difficulty)
    opacity = _draw_opacity(rng, anatomy, difficulty) if rng.random() < difficulty.opacity_share else None
    effusion = None
    if rng.random() < difficulty.effusion_share:
        effusion = _Finding(side=float(rng.choice([LEFT, RIGHT])), contrast=rng.uniform(0.24, 0.55))
    reticulation = _draw_net(rng, difficulty) if rng.random() < difficulty.reticulation_share else None
    taken = []
    for _ in range(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2])):
        still = rng.random(2) < 0.9
        view = "AP" if rng.random() < 0.35 else "PA"
        shot = _shoot(
            rng,
            anatomy,
            opacity if still[0] else None,
            effusion if still[1] else None,
            reticulation,
            view,
            size_px,
            difficulty,
        )
        taken.append(shot)
    return anatomy, taken


def _draw_anatomy(rng: np.random.Generator, difficulty: Difficulty) -> _Anatomy:
    age_years = int(np.clip(rng.normal(55, 17), 18, 95))
    k, m = 16, 10
    side = rng.choice([LEFT, RIGHT], k)
    angle = rng.uniform(-1.3, 1.3, k)
    length = rng.uniform(0.15, 0.45, k)
    start = np.stack([side * rng.uniform(0.14, 0.22, k), rng.uniform(-0.15, 0.08, k)])
    end = start + length * np.stack([side * np.cos(angle), np.sin(angle)])
    width, strength = rng.uniform(0.012, 0.03, k), rng.uniform(0.03, 0.10, k) * difficulty.clutter
    frequency = rng.normal(0, 9, (2, m))
    waves = np.stack(
        [*frequency, rng.uniform(0, 2 * np.pi, m), rng.uniform(0, 0.016, m) * difficulty.clutter]
    )
    return _Anatomy(
        age_years=age_years,
        build=rng.uniform(0.84, 1.15),
        lung_width=rng.uniform(0.60, 0.78),
        lung_top=rng.uniform(-0.86, -0.74),
        base=rng.uniform(0.28, 0.55),
        heart=rng.uniform(0.95, 1.25) + 0.003 * (age_years - 55),
        rib_spacing=rng.uniform(0.15, 0.19),
        rib_phase=rng.uniform(0, 1),
        bone=rng.uniform(0.8, 1.2) - 0.006 * (age_years - 55),
        soft_tissue=rng.uniform(0.54, 0.70),
        aeration=rng.uniform(0.22, 0.46),
        vessels=np.column_stack([*start, *end, width, strength]),
        waves=waves.T,
    )


def _draw_opacity(rng: np.random.Generator, anatomy: _Anatomy, difficulty: Difficulty) -> _Finding:
    """An opacity whose centre lies in aerated lung, clear of heart and diaphragm."""
    radius = rng.uniform(*difficulty.radius_range)
    side = float(rng.choice([LEFT, RIGHT]))
    for _ in range(1000):
        u, y = rng.uniform(0.18, anatomy.lung_width), rng.uniform(anatomy.lung_top, anatomy.base)
        inside = u < _lung_edge(anatomy, y, 0.0) - 0.6 * radius
        if inside and y < anatomy.base - 0.4 * radius and _heart(anatomy, side * u, y, 1.0) < 0.1:
            break
    return _Finding(
        side=side,
        contrast=rng.uniform(*difficulty.contrast_range),
        x=side * u,
        y=y,
        radius=radius,
        outline=tuple(rng.uniform(0.05, 0.18, 3)) + tuple(rng.uniform(0, 2 * np.pi, 3)),
    )


def _draw_net(rng: np.random.Generator, difficulty: Difficulty) -> _Net:
    m = 24
    direction, frequency = rng.uniform(0, np.pi, m), NET_FREQUENCY * rng.uniform(0.85, 1.15, m)
    waves = np.stack(
        [frequency * np.cos(direction), frequency * np.sin(direction), rng.uniform(0, 2 * np.pi, m)]
    )
    return _Net(waves.T, rng.uniform(*difficulty.reticulation_range))


def _shoot(
    rng: np.random.Generator,
    anatomy: _Anatomy,
    opacity: _Finding | None,
    effusion: _Finding | None,
    reticulation: _Net | None,
    view: str,
    size_px: int,
    difficulty: Difficulty,
) -> _Shot:
    """One exposure: body coordinates of the pose, attenuation, findings, exposure, marker, noise."""
    turn, shift, scale = _draw_pose(rng, difficulty.pose)
    x, y = _body_coordinates(size_px, turn, shift, scale)
    breath = rng.normal(0, 0.03)
    attenuation, air = _chest(anatomy, x, y, view, breath)
    if effusion is not None:
        fluid = _fluid(anatomy, effusion, x, y, breath) * air
        attenuation, air = attenuation + anatomy.aeration * fluid, air - fluid
    if reticulation is not None:
        attenuation = attenuation + _mesh(reticulation, x, y) * air * (0.6 + 0.4 * expit(y / 0.1))
    mask, centre_px = np.zeros(x.shape, dtype=bool), (np.nan, np.nan)
    if opacity is not None:
        profile = _blob(opacity, x, y)
        patches = 1 + 0.25 * gaussian_filter(rng.standard_normal(x.shape), size_px / 32) * size_px / 18
        attenuation = attenuation + opacity.contrast * profile * patches * (0.35 + 0.65 * air)
        mask = profile > 0.5
        centre_px = _pixel_of(opacity, size_px, turn, shift, scale)
    pixels = _expose(rng, attenuation, difficulty)
    if rng.random() < 0.8:
        _burn_marker(pixels, rng, view)
    return _Shot(pixels.astype(np.float32), opacity, effusion, reticulation, mask, centre_px, view)


def _draw_pose(rng: np.random.Generator, amount: float) -> tuple[float, np.ndarray, float]:
    """Rotation in radians, shift (x, y) in body coordinates, scale."""
    turn = np.deg2rad(np.clip(rng.normal(0, 3), -6, 6)) * amount
    shift = rng.uniform(-0.05, 0.05, 2) * 2 * amount
    return float(turn), shift, float(np.exp(rng.uniform(-0.06, 0.06) * amount))


def _body_coordinates(
    size_px: int, turn: float, shift: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    line = (np.arange(size_px) + 0.5) / size_px * 2 - 1
    column, row = np.meshgrid(line, line)
    column, row = (column - shift[0]) / scale, (row - shift[1]) / scale
    cosine, sine = np.cos(turn), np.sin(turn)
    return cosine * column + sine * row, -sine * column + cosine * row


def _pixel_of(
    finding: _Finding, size_px: int, turn: float, shift: np.ndarray, scale: float
) -> tuple[float, float]:
    """Row and column of a finding's centre: the inverse of `_body_coordinates`."""
    cosine, sine = np.cos(turn), np.sin(turn)
    column = scale * (cosine * finding.x - sine * finding.y) + shift[0]
    row = scale * (sine * finding.x + cosine * finding.y) + shift[1]
    return (row + 1) / 2 * size_px - 0.5, (column + 1) / 2 * size_px - 0.5


def _chest(
    anatomy: _Anatomy, x: np.ndarray, y: np.ndarray, view: str, breath: float
) -> tuple[np.ndarray, np.ndarray]:
    """Attenuation of a chest without findings, and the share of aerated lung in [0, 1] at each pixel."""
    u = np.abs(x)
    heart = _heart(anatomy, x, y - breath / 2, 1.14 if view == "AP" else 1.0)
    middle = _mediastinum(anatomy, x, y)
    lung = np.zeros_like(x)
    for side in (LEFT, RIGHT):
        lung += _lung(anatomy, side * x, y, side, breath)
    air = lung * (1 - 0.75 * heart) * (1 - 0.8 * middle)
    half_width = anatomy.build * (0.27 + 0.8 * expit((y + 0.74) / 0.06) - 0.06 * expit((y - 0.1) / 0.2))
    body = expit((half_width - u) / 0.025)
    thickness = anatomy.soft_tissue + 0.06 * y - 0.10 * np.clip(u / half_width, 0, 1) ** 4
    soft = body * thickness + 0.12 * expit((y - anatomy.base - 0.12 - breath) / 0.05) * body
    soft += 0.10 * heart + 0.12 * middle - anatomy.aeration * air
    soft -= 0.10 * np.exp(-((x / 0.045) ** 2)) * expit((-0.2 - y) / 0.05)  # trachea
    soft += _in_lung(anatomy, x, y) * air
    return soft + anatomy.bone * _bones(anatomy, x, y, view) * body, air


def _lung_edge(anatomy: _Anatomy, y: np.ndarray | float, breath: float) -> np.ndarray:
    """Distance of a lung's outer border from the midline at height y."""
    base = anatomy.base + breath
    up = np.clip((base - y) / (base - anatomy.lung_top), 0, 1)
    return anatomy.lung_width * np.sqrt(1 - up**2.4) * (1 - 0.05 * up)


def _lung(anatomy: _Anatomy, u: np.ndarray, y: np.ndarray, side: float, breath: float) -> np.ndarray:
    """One lung field, 0 to 1; u grows from the midline outwards."""
    outer = expit((_lung_edge(anatomy, y, breath) - u) / 0.018)
    inner = expit((u - 0.10) / 0.02)
    return outer * inner * expit((_dome(anatomy, u, side, breath) - y) / 0.02)


def _dome(anatomy: _Anatomy, u: np.ndarray, side: float, breath: float) -> np.ndarray:
    """Height of the diaphragm: a dome, lower at the outer angle; the right one stands higher."""
    across = (u - 0.28) / (anatomy.lung_width - 0.28)
    return anatomy.base + breath + 0.03 * side + 0.15 * np.clip(across, -0.6, 1.2) ** 2


def _heart(anatomy: _Anatomy, x: np.ndarray | float, y: np.ndarray | float, magnified: float) -> np.ndarray:
    size = anatomy.heart * magnified
    dx, dy = np.asarray(x) - 0.13 * size, np.asarray(y) - (anatomy.base - 0.13)
    along, across = 0.80 * dx + 0.60 * dy, -0.60 * dx + 0.80 * dy
    ellipse = (along / (0.40 * size)) ** 2 + (across / (0.25 * size)) ** 2
    return expit((1 - ellipse) / 0.12)


def _mediastinum(anatomy: _Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The band between the lungs with the aortic knob, which grows a little with age, and the hila."""
    band = expit((0.12 + 0.03 * np.cos(3 * y) - np.abs(x - 0.02)) / 0.02)
    knob = 0.075 + 0.0008 * (anatomy.age_years - 55)
    aorta = expit((1 - ((x - 0.12) ** 2 + (y + 0.36) ** 2) / knob**2) / 0.3)
    hila = 0.5 * np.exp(-(((np.abs(x) - 0.17) / 0.07) ** 2) - ((y + 0.06) / 0.12) ** 2)
    return np.clip(band + aorta + hila, 0, 1)


def _bones(anatomy: _Anatomy, x: np.ndarray, y: np.ndarray, view: str) -> np.ndarray:
    u = np.abs(x)
    chest = expit((_lung_edge(anatomy, y, 0) + 0.07 - u) / 0.02) * expit((0.62 - y) / 0.05)
    chest *= expit((u - 0.08) / 0.02)
    behind = (y - 0.42 * (u - 0.12) ** 2) / anatomy.rib_spacing + anatomy.rib_phase
    front = (y - 0.55 * (0.75 - u)) / (1.15 * anatomy.rib_spacing) + 1.7 * anatomy.rib_phase
    ribs = 0.075 * np.clip(np.cos(2 * np.pi * behind) + 0.15, 0, 1)
    ribs += 0.04 * np.clip(np.cos(2 * np.pi * front) - 0.1, 0, 1) * expit((u - 0.25) / 0.05)
    wall = 0.07 * np.exp(-(((u - _lung_edge(anatomy, y, 0) - 0.03) / 0.03) ** 2)) * expit((0.5 - y) / 0.05)
    spine = 0.09 * expit((0.075 - u) / 0.012) * (1 + 0.25 * np.cos(2 * np.pi * y / 0.13))
    spine *= 1 - 0.6 * expit((y - anatomy.base) / 0.06)
    slope = -0.62 - 0.22 * (u - 0.08) + 0.18 * u**2
    collar = (
        0.15 * expit((0.034 - np.abs(y - slope)) / 0.01) * expit((u - 0.07) / 0.02) * expit((0.8 - u) / 0.03)
    )
    outwards = 0.62 if view == "AP" else 0.80
    scapula = 0.06 * expit((0.14 - np.abs(u - outwards - 0.12 * (y + 0.4))) / 0.02) * expit((0.05 - y) / 0.05)
    return ribs * chest + wall + spine + collar + scapula * expit((y + 0.62) / 0.04)


def _in_lung(anatomy: _Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Vessels (tapering segments from the hila) and a fine texture, both fixed in the patient."""
    vessels = np.zeros_like(x)
    for x0, y0, x1, y1, radius, strength in anatomy.vessels:
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        square = (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2
        vessels += strength * np.exp(-square / (radius * (1.1 - 0.6 * along)) ** 2)
    for fx, fy, phase, strength in anatomy.waves:
        vessels += strength * np.sin(fx * x + fy * y + phase)
    return vessels


def _mesh(net: _Net, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Attenuation of a reticular pattern: mean 0, root mean square about its contrast."""
    field = sum(np.sin(fx * x + fy * y + phase) for fx, fy, phase in net.waves) * np.sqrt(2 / len(net.waves))
    return net.contrast * np.clip(field, -2, 2)


def _blob(finding: _Finding, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Profile of an opacity, 1 at its centre: soft, with an uneven outline."""
    dx, dy = x - finding.x, y - finding.y
    angle = np.arctan2(dy, dx)
    amounts, phases = finding.outline[:3], finding.outline[3:]
    bent = 1 + sum(
        a * np.cos((k + 2) * angle + p) for k, (a, p) in enumerate(zip(amounts, phases, strict=True))
    )
    return np.exp(-np.log(2) * (np.hypot(dx, dy) / (finding.radius * bent)) ** 4)


def _fluid(anatomy: _Anatomy, finding: _Finding, x: np.ndarray, y: np.ndarray, breath: float) -> np.ndarray:
    """Fluid in the outer angle above the diaphragm, with a surface that climbs the wall: a blunted base."""
    u = finding.side * x
    climb = np.clip(u / anatomy.lung_width, 0, 1.1) ** 4
    surface = anatomy.base + breath + 0.15 - finding.contrast * (0.30 + 0.70 * climb)
    return expit((y - surface) / 0.025) * (u > 0)


def _expose(rng: np.random.Generator, attenuation: np.ndarray, difficulty: Difficulty) -> np.ndarray:
    """Detector and display: blur, noise that grows with thickness, black level, gain, gamma. In [0, 1]."""
    level, gain, gamma = rng.uniform(-1, 1, 3) * difficulty.exposure
    thick = np.clip(gaussian_filter(attenuation, attenuation.shape[0] / 160), 0, 1.4)
    noise = rng.standard_normal(thick.shape) * difficulty.noise * np.exp(thick)
    shown = np.clip(thick + noise, 0, None) ** np.exp(0.25 * gamma)
    return np.clip(0.04 + 0.05 * level + 0.92 * np.exp(0.18 * gain) * shown, 0, 1)


def _burn_marker(pixels: np.ndarray, rng: np.random.Generator, view: str) -> None:
    """Burn a side letter, and AP where it is AP, into an upper corner of `pixels`, in place."""
    size_px = len(pixels)
    letter = "L" if rng.random() < 0.5 else "R"
    dot = max(1, size_px // 64)
    row = int(rng.uniform(0.02, 0.10) * size_px)
    column = int((rng.uniform(0.82, 0.90) if letter == "L" else rng.uniform(0.03, 0.10)) * size_px)
    for text, top in ((letter, row), ("AP" if view == "AP" else "", row + 6 * dot)):
        for i, glyph in enumerate(text):
            bits = np.array([int(bit) for bit in GLYPHS[glyph]]).reshape(5, 3)
            drawn = np.kron(bits, np.ones((dot, dot)))
            left = column + 4 * dot * (i if letter == "R" else i - len(text) + 1)
            part = pixels[top : top + 5 * dot, left : left + 3 * dot]
            np.maximum(part, 0.95 * drawn[: part.shape[0], : part.shape[1]], out=part)
