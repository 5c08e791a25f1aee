"""Made vectors and facts for tests of indexes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from fewlabel.search import Origin, unit

DIM = 12
ORIGIN = Origin(
    "abc", "/runs/chest", "resnet18", "chest", DIM, size_px=32, store_px=64, channels=1, max_side_px=512
)
OTHER = replace(ORIGIN, model="xyz", run="/runs/other")


def made_vectors(count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors (count, DIM) around a few centres, as features of similar images lie."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(8, DIM))
    return unit(centres[rng.integers(8, size=count)] + 0.4 * rng.normal(size=(count, DIM)))


def made_facts(rows: Sequence[int], said: str = "0") -> pa.Table:
    """Facts on cases c0, c1, ...; two cases a patient, PA and AP in turns."""
    return pa.table(
        {
            "case_id": [f"c{i}" for i in rows],
            "patient_id": [f"p{i // 2}" for i in rows],
            "view": ["PA" if i % 2 else "AP" for i in rows],
            "Patient Age": [float(20 + i % 50) for i in rows],
            "Effusion": pa.array([i % 3 - 1 for i in rows], pa.int8()),
            "text": [f"case {i}" for i in rows],
            "pixel_hash": [f"pixels {i}" for i in rows],
            "facts_hash": [said for _ in rows],
        }
    )


def nearest_by_hand(
    vectors: np.ndarray, query: np.ndarray, k: int, allowed: Sequence[int]
) -> list[tuple[str, float]]:
    """(case, cosine) of the k nearest of the allowed rows, by sorting all of them."""
    cosines = vectors.astype(np.float64) @ query.astype(np.float64)
    best = sorted(allowed, key=lambda row: -cosines[row])[:k]
    return [(f"c{row}", round(float(cosines[row]), 4)) for row in best]
