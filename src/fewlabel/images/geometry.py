"""Where slices lie in space: order, spacing, tilt, gaps, and the affine. Plain numpy, no file format.

DICOM gives positions in LPS mm (x to the left, y to the back, z to the head); affines here map to RAS+ mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
TILT_DEG = 0.5
"""Drift of the slices against their normal beyond which the volume is called tilted."""
UNEVEN_SHARE = 0.02
"""Deviation from the median slice distance, as a share of it (plus 0.01 mm), that makes spacing uneven."""


@dataclass(frozen=True)
class Stack:
    """The geometry of parallel slices in order.

    order: indices of the slices, ascending along the normal.
    spacing_mm: distance of neighbouring slices along the normal.
    step_mm: (3,) from one slice's origin to the next one's, LPS mm.
    origin_mm: (3,) position of the first slice, LPS mm.
    """

    order: tuple[int, ...]
    spacing_mm: float
    step_mm: np.ndarray
    origin_mm: np.ndarray
    warnings: tuple[str, ...]


def unit_normal(orientation: Sequence[float] | None) -> np.ndarray | None:
    """Normal of the image plane from ImageOrientationPatient (6 cosines); None when they are not a plane."""
    if orientation is None or len(orientation) != 6:
        return None
    cosines = np.asarray(orientation, float)
    normal = np.cross(cosines[:3], cosines[3:])
    length = float(np.linalg.norm(normal))
    if not np.isfinite(cosines).all() or not 0.9 < length < 1.1:
        return None
    return normal / length


def stack(
    positions: Sequence[Sequence[float]], orientation: Sequence[float], tilt_stated: float = 0.0
) -> Stack:
    """Orders two or more parallel slices and says what is odd about them.

    positions: (N, 3) ImagePositionPatient, all different along the normal.
    orientation: the 6 cosines shared by all.
    tilt_stated: GantryDetectorTilt in degrees, 0 if absent.
    """
    points = np.asarray(positions, float)
    normal = unit_normal(orientation)
    if normal is None or len(points) < 2:
        raise ValueError("a stack needs two or more slices and a valid orientation")
    heights = points @ normal
    order = np.argsort(heights, kind="stable")
    points, heights = points[order], heights[order]
    gaps = np.diff(heights)
    spacing, warnings = _spacing(gaps)
    drift = points[-1] - points[0]
    cosine = min(1.0, float(drift @ normal) / float(np.linalg.norm(drift)))
    warnings += _tilt(float(np.degrees(np.arccos(cosine))), tilt_stated)
    step = drift / np.linalg.norm(drift) * spacing / cosine
    return Stack(tuple(int(i) for i in order), spacing, step, points[0], tuple(warnings))


def _spacing(gaps: np.ndarray) -> tuple[float, list[str]]:
    """Median gap where slices are even (also when some are missing), mean where the distance truly varies."""
    median = float(np.median(gaps))
    odd = np.abs(gaps - median) > UNEVEN_SHARE * median + 0.01
    if not odd.any():
        return median, []
    multiples = np.round(gaps / median)
    missing = odd & (multiples >= 2) & (np.abs(gaps - multiples * median) < 0.1 * median)
    if (odd == missing).all() and odd.mean() < 0.5:
        count = int((multiples[missing] - 1).sum())
        where = ", ".join(str(int(i) + 1) for i in np.flatnonzero(missing)[:5])
        return median, [f"missing slices: {count} of {median:.3g} mm, after slice {where} of {len(gaps) + 1}"]
    mean = float(gaps.mean())
    return mean, [
        f"uneven slice spacing: {gaps.min():.3g} to {gaps.max():.3g} mm, median {median:.3g} mm; "
        f"the mean {mean:.3g} mm is given as spacing"
    ]


def _tilt(angle_deg: float, stated_deg: float) -> list[str]:
    if angle_deg > TILT_DEG:
        header = f"; the header states {abs(stated_deg):.3g}" if stated_deg else ""
        return [f"gantry tilt of {angle_deg:.1f} degrees: slices are shifted against each other{header}"]
    if abs(stated_deg) > TILT_DEG:
        return [f"the header states a gantry tilt of {abs(stated_deg):.3g} degrees, the positions show none"]
    return []


def affine_ras(
    origin_mm: np.ndarray,
    orientation: Sequence[float],
    step_mm: np.ndarray,
    spacing_hw_mm: tuple[float, float],
) -> np.ndarray:
    """(4, 4): voxel (i, j, k) = (column, row, slice), that is pixels[c, k, j, i], to RAS+ mm."""
    cosines = np.asarray(orientation, float)
    affine = np.eye(4)
    affine[:3, 0] = cosines[:3] * spacing_hw_mm[1]
    affine[:3, 1] = cosines[3:] * spacing_hw_mm[0]
    affine[:3, 2] = step_mm
    affine[:3, 3] = origin_mm
    return LPS_TO_RAS @ affine
