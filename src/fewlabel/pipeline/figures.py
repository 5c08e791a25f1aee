"""Pictures for the report: views of eight images, single cases, maps of similarity, places that match."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import torch
from matplotlib import colormaps
from scipy.ndimage import binary_erosion

from fewlabel.report.style import SIMILARITY_COLOURS
from fewlabel.tasks.evidence import PlaceMatch
from fewlabel.types import FewlabelError
from fewlabel.views import ViewSettings, draw_views, plain_view, to_unit_range

TILE_PX = 112
MAP_OPACITY = 0.45
MARKS = 3
MADE_COLOUR = "#f4c430"
"""Of the label on made images, and of the report's note on them."""
OUTLINE = np.array([255, 140, 60], np.uint8)
"""Colour of what is known to be there; the maps' colours have no such orange."""


def to_picture(image: np.ndarray, side_px: int = TILE_PX) -> np.ndarray:
    """One image (C, S, S) in [0, 1] -> (side, side, 3) uint8, enlarged without inventing detail."""
    grey = np.repeat(image, 3, axis=0) if image.shape[0] == 1 else image
    picture = PIL.Image.fromarray((np.clip(grey, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0))
    return np.asarray(picture.resize((side_px, side_px), PIL.Image.Resampling.BICUBIC))


def save_grid(rows: Sequence[Sequence[np.ndarray]], path: Path, gap_px: int = 4) -> None:
    """Pictures (side, side, 3) in rows of equal length -> one PNG on a neutral ground."""
    side = rows[0][0].shape[0]
    step = side + gap_px
    canvas = np.full((len(rows) * step - gap_px, len(rows[0]) * step - gap_px, 3), 128, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            canvas[i * step : i * step + side, j * step : j * step + side] = picture
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(canvas).save(path)


def marked(picture: np.ndarray, text: str = "made") -> np.ndarray:
    """A picture (side, side, 3) uint8 with a small label burned into its lower left corner."""
    image = PIL.Image.fromarray(picture)
    draw = PIL.ImageDraw.Draw(image)
    font = PIL.ImageFont.load_default(size=max(9.0, image.height / 9))
    left, top, right, bottom = draw.textbbox((4, image.height - 3), text, font=font, anchor="lb")
    draw.rectangle((left - 4, top - 3, right + 3, bottom + 3), fill=MADE_COLOUR)
    draw.text((4, image.height - 3), text, fill="black", anchor="lb", font=font)
    return np.asarray(image)


def views_figure(
    pixels: np.ndarray, rows: np.ndarray, settings: ViewSettings, path: Path, seed: int = 0
) -> None:
    """Eight images (columns): as they are, and four of their random views below."""
    images = torch.from_numpy(np.ascontiguousarray(pixels[rows[:8]]))
    generator = torch.Generator().manual_seed(seed)
    grid = [to_unit_range(images), *draw_views(images, settings, 4, generator)]
    save_grid([[to_picture(image.numpy()) for image in line] for line in grid], path)


def unit_image(pixels: np.ndarray, row: int, size_px: int | None = None) -> np.ndarray:
    """One image of the collection, (C, S, S) in [0, 1]; size_px: S, None = as it is stored."""
    image = to_unit_range(torch.from_numpy(np.array(pixels[row : row + 1])))
    return draw_views(image, plain_view(size_px or image.shape[-1]), 1, torch.Generator())[0][0].numpy()


def case_figure(pixels: np.ndarray, row: int, path: Path, *, mask: np.ndarray | None = None) -> None:
    """One image of the collection as a PNG; mask: (h, w) bool, whose outline is drawn in it."""
    plain = unit_image(pixels, row)
    picture = to_picture(plain, side_px=max(224, plain.shape[-1]))
    if mask is not None:
        picture = _outlined(picture, mask)
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(picture).save(path)


def _outlined(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture (side, side, 3) with the outline of a mask (h, w), two pixels wide."""
    shape = PIL.Image.fromarray(mask.astype(np.uint8)).resize(
        picture.shape[1::-1], PIL.Image.Resampling.NEAREST
    )
    inside = np.asarray(shape).astype(bool)
    return np.where((inside & ~binary_erosion(inside, iterations=2))[..., None], OUTLINE, picture)


def similarity_figure(image: np.ndarray, similarity: np.ndarray, path: Path) -> tuple[float, float]:
    """One image under its similarity map as a PNG of the size of `case_figure`; returns the map's range.

    image: (C, S, S) in [0, 1]. similarity: (h, w), any finite numbers; it is enlarged bilinearly and coloured
    from its own lowest (dark) to its own highest (bright) value, and these two are returned for the caption.
    FewlabelError: the map has another shape, holds no number, or one that is not finite.
    """
    if similarity.ndim != 2 or not similarity.size or not np.isfinite(similarity).all():
        raise FewlabelError(
            f"the similarity map has shape {similarity.shape} and {np.isfinite(similarity).sum()} finite values: "
            "give one finite number for each place of an (h, w) grid"
        )
    low, high = float(similarity.min()), float(similarity.max())
    map_figure(image, similarity, low, high, path)
    return low, high


def map_figure(image: np.ndarray, found: np.ndarray, low: float, high: float, path: Path) -> None:
    """One image under a map as a PNG of the size of `case_figure`, coloured from `low` (dark) to `high` (bright).

    image: (C, S, S) in [0, 1]. found: (h, w), enlarged bilinearly; values outside of the range have its ends' colours.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(_under_map(image, found, low, high)).save(path)


def _under_map(image: np.ndarray, similarity: np.ndarray, low: float, high: float) -> np.ndarray:
    """The image (C, S, S) under a map (h, w) coloured from `low` to `high`, (side, side, 3) uint8."""
    side = max(224, image.shape[-1])
    share = (similarity.astype(np.float64) - low) / ((high - low) or 1.0)
    smooth = PIL.Image.fromarray(share.astype(np.float32)).resize((side, side), PIL.Image.Resampling.BILINEAR)
    colours = 255 * colormaps[SIMILARITY_COLOURS](np.asarray(smooth))[..., :3]  # (side, side, 3)
    mixed = (1 - MAP_OPACITY) * to_picture(image, side) + MAP_OPACITY * colours
    return mixed.round().astype(np.uint8)


def match_figure(query: np.ndarray, hit: np.ndarray, match: PlaceMatch, path: Path) -> tuple[float, float]:
    """Query and hit side by side, each under its map of matches to the other, as one PNG; returns the colours' range.

    query, hit: (C, S, S) in [0, 1], one side. Both maps have one scale of colours. The same number stands on the three
    pairs of places that match best among those that are each other's best match.
    """
    low = float(min(match.of_query.min(), match.of_hit.min()))
    high = float(max(match.of_query.max(), match.of_hit.max()))
    sides = [
        PIL.Image.fromarray(_under_map(image, found, low, high))
        for image, found in ((query, match.of_query), (hit, match.of_hit))
    ]
    for number, (of_query, in_hit, _) in enumerate(match.mutual()[:MARKS], start=1):
        _mark(sides[0], of_query, match.of_query.shape, number)
        _mark(sides[1], in_hit, match.of_hit.shape, number)
    width, height = sides[0].size
    canvas = PIL.Image.new("RGB", (2 * width + 8, height), (128, 128, 128))
    canvas.paste(sides[0], (0, 0))
    canvas.paste(sides[1], (width + 8, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path)
    return low, high


def _mark(picture: PIL.Image.Image, place: int, grid: tuple[int, ...], number: int) -> None:
    """A number in a disc on the middle of a place."""
    row, column = divmod(place, grid[1])
    x, y = (column + 0.5) * picture.width / grid[1], (row + 0.5) * picture.height / grid[0]
    radius = picture.width / 26
    draw = PIL.ImageDraw.Draw(picture)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill="white", outline="black", width=2)
    font = PIL.ImageFont.load_default(size=1.4 * radius)
    draw.text((x, y), str(number), fill="black", anchor="mm", font=font)
