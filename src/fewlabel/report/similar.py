"""One page with the pictures of a query and of the cases that are most similar to it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL.Image

from fewlabel.files import write_text
from fewlabel.report.canvas import data_uri
from fewlabel.report.page import render
from fewlabel.report.words import number
from fewlabel.types import JSON

SIDE_PX = 224


@dataclass(frozen=True)
class Picture:
    """An image with what is to be said of it.

    pixels: (C, S, S) of uint8 or uint16, C 1 or 3; None = not at hand. similarity: with the query. facts: by name.
    """

    name: str
    pixels: np.ndarray | None
    similarity: float | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SimilarPage:
    """What stands on the page. note: one sentence of warning, "" for none."""

    collection: str
    query: Picture
    hits: tuple[Picture, ...]
    note: str = ""


def write_similar(path: Path, page: SimilarPage) -> None:
    """Write the page; it needs no other file. Raises FewlabelError where it cannot be written."""
    context = {
        "collection": page.collection,
        "query": _shown(page.query),
        "hits": [_shown(hit) for hit in page.hits],
        "warnings": [page.note] if page.note else [],
        "made_images": False,
    }
    write_text(path, render("similar.html", context))


def _shown(picture: Picture) -> JSON:
    return {
        "name": picture.name,
        "src": None if picture.pixels is None else _png(picture.pixels),
        "similarity": number(picture.similarity),
        "facts": picture.facts,
    }


def _png(pixels: np.ndarray) -> str:
    """As a data URI; small images are enlarged."""
    eight_bit = pixels if pixels.dtype == np.uint8 else (pixels // 257).astype(np.uint8)
    image = PIL.Image.fromarray(np.repeat(eight_bit, 3 // len(eight_bit), axis=0).transpose(1, 2, 0))
    if image.width < SIDE_PX:
        image = image.resize((SIDE_PX, SIDE_PX), PIL.Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.convert("L" if len(pixels) == 1 else "RGB").save(stream, "PNG")
    return data_uri(stream.getvalue(), "image/png")
