"""The section on figures that need no label."""

from __future__ import annotations

from typing import Any

from fewlabel.report.words import count, is_number, number
from fewlabel.types import JSON

MEASURES = {
    "reconstruction_error": (
        "Reconstruction error",
        "Mean squared difference of a pixel, in [0, 1], between an image and what the decoder makes of its code; lower "
        "is better. Blurred images can have a low error.",
    ),
    "elbo": (
        "ELBO",
        "A lower bound on the logarithm of the model's density at an image; higher is better. Pixels lie in [0, 1].",
    ),
    "bits_a_dimension": (
        "Bits a pixel dimension",
        "The same bound with its sign turned, for each pixel and channel; lower is better, and below 0 where the "
        "density exceeds 1. Not comparable with published figures, which are of 256 grey levels.",
    ),
    "frechet_reconstructions": (
        "Fréchet feature distance of reconstructions",
        "How far the reconstructions lie from the images in this run's own encoder; lower is better.",
    ),
    "frechet_samples": (
        "Fréchet feature distance of samples",
        "How far as many images drawn from the VAE's prior lie from the test images in this run's own encoder; lower "
        "is better.",
    ),
}
"""What each measure is called, and what it means."""


def without_labels(given: list[JSON]) -> list[JSON]:
    """Lines of the table, in the order in which they were measured."""
    return [_line(row) for row in given]


def _line(row: JSON) -> JSON:
    label, meaning = MEASURES[row["name"]]
    floor = ""
    if is_number(row.get("floor")):
        floor = f" {count(row['floor_n'])} training images lie {small_number(row['floor'])} from them."
    return {
        "label": label,
        "unit": row.get("unit") or "",
        "meaning": meaning + floor,
        "images": count(row.get("n")),
        "patients": count(row.get("patients")),
        "value": small_number(row.get("value")),
        "interval": f"{small_number(row.get('low'))} to {small_number(row.get('high'))}",
    }


def small_number(value: Any) -> str:
    """As `number`, but two digits of what is small: errors of 0.001 are common here."""
    if not is_number(value) or abs(value) >= 0.1 or value == 0:
        return number(value)
    return f"{value:.2g}".replace("-", "−")
