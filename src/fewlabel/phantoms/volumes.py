"""Made chest CT volumes in HU with nodules of known place and size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from fewlabel.types import FewlabelError

AIR_HU, LUNG_HU, FAT_HU, MUSCLE_HU, BLOOD_HU, BONE_HU = -1000, -850, -90, 45, 40, 400


@dataclass(frozen=True)
class Nodule:
    """A round nodule: centre (z, y, x) in voxels, may lie between them; radius in mm; density in HU."""

    centre_voxel: tuple[float, float, float]
    radius_mm: float
    density_hu: float


@dataclass(frozen=True)
class MadeVolume:
    """A made chest CT.

    pixels: shape (D, H, W), int16, HU; z from the apex down, y from front to back, x from right to left.
    spacing_mm: (z, y, x). mask: shape (D, H, W), uint8; 0 outside nodules, k inside nodule k (from 1).
    """

    pixels: np.ndarray
    spacing_mm: tuple[float, float, float]
    nodules: tuple[Nodule, ...]
    mask: np.ndarray


def ct_volume(
    *,
    shape: tuple[int, int, int] = (32, 80, 96),
    field_mm: tuple[float, float, float] = (260.0, 300.0, 360.0),
    seed: int = 0,
    nodules: int = 3,
    noise_hu: float = 25.0,
) -> MadeVolume:
    """A chest-like volume of `shape` (D, H, W) that spans `field_mm`, with nodules of 5 to 12 mm radius.

    Structures have soft edges a voxel wide (partial volume); `noise_hu` is the standard deviation of Gaussian
    noise. Nodules lie wholly in aerated lung and do not touch. Raises FewlabelError where they find no room.
    """
    if min(shape) < 16:
        raise FewlabelError(f"shape is {shape}: expected at least 16 voxels along each axis")
    rng = np.random.default_rng(seed)
    spacing_mm = (field_mm[0] / shape[0], field_mm[1] / shape[1], field_mm[2] / shape[2])
    z, y, x = _coordinates_mm(shape, spacing_mm)
    volume, air = _anatomy(rng, z, y, x, edge_mm=max(spacing_mm[1:]) / 3)
    mask = np.zeros(shape, dtype=np.uint8)
    placed: list[Nodule] = []
    room = air > 0.9
    for number in range(1, nodules + 1):
        nodule = _place(rng, room, (z, y, x), spacing_mm)
        distance = _distance_mm(nodule, shape, spacing_mm)
        share = expit((nodule.radius_mm - distance) / (min(spacing_mm) / 4))
        volume += share * (nodule.density_hu - volume)
        mask[distance <= nodule.radius_mm] = number
        room &= distance > nodule.radius_mm + 2 * max(spacing_mm)
        placed.append(nodule)
    volume += rng.normal(0, noise_hu, shape)
    pixels = np.clip(np.round(volume), -1024, 3071).astype(np.int16)
    return MadeVolume(pixels, spacing_mm, tuple(placed), mask)


def _coordinates_mm(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance of each voxel's centre from the middle of the volume, one open grid an axis."""
    z, y, x = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing_mm, strict=True))
    return z[:, None, None], y[None, :, None], x[None, None, :]


def _ellipse(
    y: np.ndarray, x: np.ndarray, half_y_mm: np.ndarray | float, half_x_mm: np.ndarray | float, edge: float
) -> np.ndarray:
    """1 inside an axial ellipse, 0 outside, soft over about `edge` mm."""
    radius = np.hypot(y / half_y_mm, x / half_x_mm)
    return expit((1 - radius) * np.minimum(half_y_mm, half_x_mm) / edge)


def _anatomy(
    rng: np.random.Generator, z: np.ndarray, y: np.ndarray, x: np.ndarray, edge_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """HU without nodules and noise, and the share of aerated lung at each voxel."""
    size = rng.uniform(0.92, 1.05)
    outer_y, outer_x = 105 * size, 155 * size
    volume = AIR_HU + (FAT_HU - AIR_HU) * _ellipse(y, x, outer_y, outer_x, edge_mm) + 0 * z
    volume += (MUSCLE_HU - FAT_HU) * _ellipse(y, x, outer_y - 14, outer_x - 14, edge_mm)
    ribs = _ellipse(y, x, outer_y - 22, outer_x - 22, edge_mm) - _ellipse(
        y, x, outer_y - 30, outer_x - 30, edge_mm
    )
    tilt = np.cos(2 * np.pi * (z + 0.35 * y) / 32) > 0.25
    volume += (BONE_HU - MUSCLE_HU) * ribs * tilt
    apex = np.sqrt(np.clip((z - z.min() + 12) / 90, 0.05, 1))  # the lungs widen from the apex down
    half_y, half_x = (outer_y - 34) * apex, 56 * size * apex
    heart = _ellipse(y + 22, x - 18, 48 * size, 55 * size, edge_mm) * expit(z / 12)
    air = np.zeros(np.broadcast_shapes(z.shape, y.shape, x.shape))
    for side in (-1, 1):
        air += _ellipse(y, x - side * 66 * size, half_y, half_x, edge_mm)
    diaphragm = 95 - 20 * _ellipse(y, np.abs(x) - 66, 60, 45, 30)
    air *= (1 - heart) * expit((diaphragm - z) / (edge_mm * 2))
    volume += air * (LUNG_HU - volume) + (1 - air) * heart * (BLOOD_HU - volume)
    volume += _ellipse(y - 58, x, 17, 19, edge_mm) * (BONE_HU / 2 - volume)
    volume += _ellipse(y - 5, x, 8, 8, edge_mm) * expit(-z / 5) * (AIR_HU - volume)
    texture = gaussian_filter(rng.standard_normal(air.shape), 0.8)
    vessels = np.clip(texture / texture.std() - 1.8, 0, 1)
    return volume + air * vessels * 450, air


def _place(
    rng: np.random.Generator,
    room: np.ndarray,
    axes: tuple[np.ndarray, np.ndarray, np.ndarray],
    spacing_mm: tuple[float, float, float],
) -> Nodule:
    radius_mm = rng.uniform(5, 12)
    candidates = np.argwhere(room)
    for index in rng.permutation(len(candidates))[:300]:
        centre = candidates[index] + rng.uniform(-0.5, 0.5, 3)
        nodule = Nodule(
            (float(centre[0]), float(centre[1]), float(centre[2])), radius_mm, rng.uniform(-20, 80)
        )
        near = _distance_mm(nodule, room.shape, spacing_mm) <= radius_mm + min(spacing_mm)
        at_border = (centre * spacing_mm < radius_mm).any()
        at_border |= ((np.array(room.shape) - 1 - centre) * spacing_mm < radius_mm).any()
        if not at_border and room[near].all():
            return nodule
    raise FewlabelError(
        f"no room for another nodule of {radius_mm:.0f} mm in a volume of {room.shape} voxels: ask for fewer"
    )


def _distance_mm(
    nodule: Nodule, shape: tuple[int, ...], spacing_mm: tuple[float, float, float]
) -> np.ndarray:
    z, y, x = (
        ((np.arange(n) - c) * mm) ** 2
        for n, c, mm in zip(shape, nodule.centre_voxel, spacing_mm, strict=True)
    )
    return np.sqrt(z[:, None, None] + y[None, :, None] + x[None, None, :])
