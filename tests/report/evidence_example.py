"""Made-up results about single images, as evaluation writes them, and the pictures that they name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
from example import JSON, made_chest


def evidence() -> JSON:
    """Six test images with three cases each; of the first the neighbours think otherwise."""
    return {
        "k": 3,
        "labels": 4708,
        "arm": "simclr",
        "wrong_where": [
            {"name": "agree", "value": 0.041, "low": 0.02, "high": 0.065, "n": 580},
            {"name": "disagree", "value": 0.43, "low": 0.28, "high": 0.59, "n": 44},
        ],
        "cases": [_case(index) for index in range(6)],
        "note": "",
    }


def _case(index: int) -> JSON:
    classes = ("opacity", "not opacity")
    called = classes[index % 2]
    return {
        "query": {
            "figure": f"figures/query-{index}.png", "truth": classes[0], "case": f"test/person-{index}.png",
            "prediction": called, "probability": 0.83 - 0.05 * index, "right": index % 2 == 0,
        },
        "hits": [
            {
                "figure": f"figures/hit-{place}.png", "truth": classes[place > 0], "case": f"train/P{place}.png",
                "agrees": classes[place > 0] == called, "similarity": 0.97 - 0.02 * place,
            }
            for place in range(3)
        ],
        "agreement": 1 / 3, "disagrees": index == 0,
        "match": {"figure": "figures/match.png", "low": 0.12, "high": 0.87} if index == 0 else None,
    }  # fmt: skip


def few_shot() -> JSON:
    """Two encoders, one and five examples; ten were too many."""
    rows = [
        {
            "arm": arm, "label": label, "shots": shots, "value": value, "low": value - 0.05, "high": value + 0.04,
            "draw_low": value - 0.2, "draw_high": value + 0.15, "n": 624, "patients": 601,
        }
        for arm, label, first in (("simclr", "SimCLR", 0.7), ("random", "random init", 0.6))
        for shots, value in ((1, first + 0.03), (5, first + 0.15))
    ]  # fmt: skip
    note = "10 examples a class: left out, since opacity has 7 training patients."
    return {"shots": [1, 5], "episodes": 200, "rows": rows, "chance": 0.5, "note": note}


def worth_a_look() -> JSON:
    """One of each kind, and a suspected label without a picture."""
    shared = {
        "case": "train/a.png",
        "part": "train",
        "label": "opacity",
        "other_case": "",
        "other_figure": None,
    }
    return {
        "findings": [
            shared
            | {
                "what": "copy with another label", "why": "the same picture as val/b.png (pixel for pixel).",
                "suggested": "not opacity", "score": 1.0, "figure": "figures/query-0.png", "other_case": "val/b.png",
                "other_figure": "figures/query-1.png",
            },
            shared
            | {
                "what": "suspected label", "why": "A probe without this patient says not opacity 0.93.",
                "suggested": "not opacity", "score": 0.871, "figure": "figures/query-2.png", "part": "test",
            },
            shared
            | {
                "what": "suspected label", "why": "Of the nearest 90% are not.", "suggested": "not opacity",
                "score": 0.5, "figure": None,
            },
            shared
            | {"what": "outlier", "why": "Far.", "suggested": "", "label": "", "score": 7.25, "figure": None},
        ],
        "counts": {"copy with another label": 2, "copy in another part": 0, "suspected label": 31, "outlier": 1},
        "images": 5856, "labelled": 5800, "notes": ["Volumes were left out."], "file": "worth_a_look.csv",
    }  # fmt: skip


def single_images() -> JSON:
    """All three blocks."""
    return {"evidence": evidence(), "few_shot": few_shot(), "worth_a_look": worth_a_look()}


def write_case_pictures(folder: Path, side_px: int = 64) -> None:
    """Every picture that `single_images` names, below folder/figures."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    for name in [*(f"query-{i}" for i in range(6)), *(f"hit-{i}" for i in range(3)), "match"]:
        PIL.Image.fromarray(made_chest(rng, side_px)).save(folder / "figures" / f"{name}.png")
