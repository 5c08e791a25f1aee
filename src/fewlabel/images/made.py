"""The mark of a made image in its PNG file, so that nobody takes it for a patient's, wherever the file goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from PIL.PngImagePlugin import PngInfo

MADE_KEY = "Made image"
"""Keyword of a text chunk in the file; whatever it says, the image is made."""
MADE_TEXT = "Made by a generator (fewlabel). It shows no patient."
MADE_NOTE = "made image: the file says that a generator made it and that it shows no patient"
"""What provenance says of it."""


def write_made_png(path: Path, pixels: np.ndarray, about: str = "") -> None:
    """Write an image (C, H, W) uint8, C 1 or 3, as a PNG file with the mark. about: more on how it was made."""
    info = PngInfo()
    info.add_text(MADE_KEY, f"{MADE_TEXT} {about}".strip())
    picture = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    PillowImage.fromarray(np.ascontiguousarray(picture)).save(path, format="PNG", pnginfo=info)
