"""Made-up results of images and sentences, as evaluation writes them, and the pictures that they name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
from example import JSON, made_chest

LONG_SENTENCE = (
    "In comparison with the study of the previous day there is a new patchy opacity in the left lower lobe with "
    "obscuration of the left hemidiaphragm, which in the appropriate clinical setting could represent pneumonia, "
    "aspiration or atelectasis, while the right lung remains clear and the heart is of normal size."
)
SENTENCES = ["There is an opacity.", "The lungs are clear.", "No pleural effusion.", LONG_SENTENCE]


def retrieval() -> JSON:
    """Three kinds of search with two encoders, and queries of each kind."""
    kinds = [
        ("image-image", "image to image", "ConVIRT", 0.612),
        ("image-image", "image to image", "random init", 0.231),
        ("text-image", "sentence to image", "ConVIRT", 0.574),
        ("image-text", "image to sentence", "ConVIRT", 0.548),
    ]
    return {
        "modes": [
            {"key": key, "label": label, "encoder": encoder, "rows": [_row(k, value) for k in (5, 10, 50)]}
            | ({"ranking": _ranking(value)} if key == "image-image" else {})
            for key, label, encoder, value in kinds
        ],
        "queries": [
            query(mode, index) for mode in ("image-image", "text-image", "image-text") for index in range(3)
        ],
        "note": "The sentences were made from labels, so they say no more than the labels do.",
    }


def _row(k: int, value: float) -> JSON:
    value -= 0.001 * k
    return {
        "k": k, "value": value, "low": value - 0.07, "high": value + 0.06, "n": 120, "candidates": 1300,
        "patients": 90, "chance": 0.204,
    }  # fmt: skip


def _ranking(value: float) -> list[JSON]:
    labels = {"recall@1": "Recall@1", "r_precision": "R-precision", "map_at_r": "MAP@R"}
    return [
        {
            "name": name, "label": label, "value": value - 0.1 * place, "low": value - 0.1 * place - 0.05,
            "high": value - 0.1 * place + 0.04, "n": 118, "patients": 90, "chance": 0.21 - 0.05 * place,
        }
        for place, (name, label) in enumerate(labels.items())
    ]  # fmt: skip


def query(mode: str, index: int, hits: int = 10) -> JSON:
    """One query with its hits; every third hit is wrong."""
    asks, answers = mode.split("-")
    truth = ("opacity", "not opacity")[index % 2]
    return {
        "mode": mode,
        "query": _item(asks, f"figures/retrieval-{index}-query.png", SENTENCES[index]) | {"truth": truth},
        "hits": [
            _item(answers, f"figures/retrieval-{index}-{place}.png", SENTENCES[place % 4])
            | {
                "truth": truth if place % 3 else "another class",
                "right": bool(place % 3),
                "similarity": 0.9 - 0.031 * place,
            }
            for place in range(1, hits + 1)
        ],
    }


def _item(kind: str, figure: str, text: str) -> JSON:
    return {"figure": figure, "text": None} if kind == "image" else {"figure": None, "text": text}


def zero_shot() -> JSON:
    """Two measures, two probes to compare with, two classes."""
    return {
        "rows": [
            {"name": "auroc", "value": 0.781, "low": 0.742, "high": 0.818, "n": 624, "patients": 501},
            {"name": "balanced_accuracy", "value": 0.702, "low": 0.664, "high": 0.739, "n": 624, "patients": 501},
        ],
        "prompts": [
            {"class": "opacity", "sentences": ["There is opacity.", "An opacity is seen in the left lung."]},
            {"class": "not opacity", "sentences": ["There is no opacity.", "The lungs are clear."]},
        ],
        "compared": [
            {"label": f"linear probe, {labels} labels", "name": "auroc", "value": value, "low": value - 0.06,
             "high": value + 0.05}
            for labels, value in ((10, 0.733), (4708, 0.871))
        ],
        "note": "",
    }  # fmt: skip


def similarity() -> JSON:
    """Six maps, the first with its range."""
    cases = [
        {
            "sentence": SENTENCES[index % 4],
            "figure": f"figures/similarity-{index}.png",
            "map_figure": f"figures/similarity-{index}-map.png",
            "case": f"images/person-{index:04d}.png",
            "truth": ("opacity", "not opacity")[index % 2],
        }
        for index in range(6)
    ]
    cases[0] |= {"low": -0.112, "high": 0.634}
    return {"cases": cases, "note": ""}


def image_text() -> JSON:
    """All three blocks."""
    return {"retrieval": retrieval(), "zero_shot": zero_shot(), "similarity": similarity()}


def write_pictures(folder: Path, side_px: int = 64) -> None:
    """Every picture that `image_text` names, below folder/figures."""
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    names = [f"retrieval-{index}-{name}" for index in range(3) for name in ("query", *range(1, 11))]
    names += [f"similarity-{index}{end}" for index in range(6) for end in ("", "-map")]
    rng = np.random.default_rng(4)
    for name in names:
        PIL.Image.fromarray(made_chest(rng, side_px)).save(figures / f"{name}.png")
