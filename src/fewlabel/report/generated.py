"""The section about images that the run made: samples, reconstructions, interpolations, and what is told of copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewlabel.report.contract import picture
from fewlabel.report.results import Results
from fewlabel.report.words import count, is_number, percent, percent_interval, value_with_interval
from fewlabel.types import JSON

_DECODERS = {"Autoencoder": "the autoencoder", "VAE": "the VAE"}


def generated(run: Path, results: Results) -> JSON | None:
    """Pictures and figures of made images; None for a run that made none."""
    given = results.raw.get("generated")
    if not given:
        return None
    objective = str(given.get("objective") or "")
    return {
        "decoder": _DECODERS.get(objective, objective),
        "reconstructions": _figure(run, given.get("reconstructions")),
        "interpolations": _figure(run, given.get("interpolations")),
        "samples": _figure(run, given.get("samples")),
        "classes": [results.class_name(name) for name in (given.get("samples") or {}).get("classes") or []],
        "copies": _copies(given.get("memorisation")),
        "frechet": _frechet(given.get("frechet")),
    }


def _figure(run: Path, given: JSON | None) -> JSON | None:
    source = picture(run, (given or {}).get("figure"))
    return {**(given or {}), "picture": source} if source else None


def _copies(given: JSON | None) -> JSON | None:
    """How many samples lie too close to training images, in words."""
    if not given:
        return None
    share = given["share"]
    return {
        "drawn": count(given.get("drawn")),
        "kept": count(given.get("kept")),
        "none_kept": given.get("kept") == 0,
        "share": percent(share.get("value")),
        "interval": percent_interval(share),
        "of_held_out": percent(given.get("of_held_out")),
        "quantile": percent(given.get("quantile")),
        "training": count(given.get("training")),
        "held_out": count(given.get("held_out")),
        "patients": count(given.get("held_out_patients")),
        "verdict": _verdict(share, given.get("of_held_out")),
    }


def _verdict(share: JSON, of_held_out: Any) -> str:
    """What the share says beside that of real images, which cannot be copies."""
    low, high = share["low"], share["high"]
    if not (is_number(low) and is_number(high) and is_number(of_held_out)):
        return ""
    if low > of_held_out:
        return "More than among real images: the generator repeats images that it learned from."
    if high < of_held_out:
        return "Fewer than among real images: nothing speaks for copies."
    return "About as many as among real images: nothing speaks for copies."


def _frechet(given: JSON | None) -> JSON | None:
    """The distance of samples to test images, and that of real training images to them."""
    if not given:
        return None
    floor = {"value": given.get("floor")}
    apart = is_number(given.get("low")) and is_number(floor["value"]) and given["low"] > floor["value"]
    sentence = (
        "In the encoder's features the samples lie farther from test images than real training images do: they are not "
        "as real ones."
        if apart
        else "In the encoder's features the samples are not told from real images."
    )
    lines = [("Samples that are kept", "samples", given), ("Real training images", "floor_n", floor)]
    return {
        "sentence": sentence if is_number(floor["value"]) else "",
        "lines": [
            {"name": name, "n": count(given.get(n)), **value_with_interval(row)} for name, n, row in lines
        ],
        "images": count(given.get("n")),
        "patients": count(given.get("patients")),
    }
