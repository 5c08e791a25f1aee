"""One chunk of sources becomes one part of the pixel store; this is all that a worker process runs.

A chunk is done when its rows stand in `.staging/00012.json`, which is written last. A run that was killed is
continued from the chunks that are done, and a chunk gives the same bytes whenever and wherever it is read.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from fewlabel import images
from fewlabel.collection.resample import area_resample, cast_like, fitted_size, resample_mask, thumbnail
from fewlabel.collection.store import ALIGNMENT, STAGING, part_path, thumbnails_path
from fewlabel.files import replacing, write_bytes
from fewlabel.types import JSON, FewlabelError, Image, ProgressCallback

CRASHED = "the decoder crashed on this file"


@dataclass(frozen=True)
class Chunk:
    """Sources that are read together into the part `part` of the collection at `root`."""

    root: Path
    part: int
    sources: tuple[images.Source, ...]
    max_side_px: int
    crashed: tuple[int, ...] = ()  # positions in `sources` on which a worker died

    @property
    def key(self) -> str:
        """Changes with everything that the result depends on."""
        what = [[s.name, s.stamp, s.kind, s.index] for s in self.sources]
        return hashlib.sha256(json.dumps([self.part, self.max_side_px, what]).encode()).hexdigest()

    @property
    def staged(self) -> Path:
        """The file of rows that says that the chunk is done."""
        return self.root / STAGING / f"{self.part:05d}.json"

    def result(self) -> JSON | None:
        """Rows and quarantine of the chunk where an earlier run has finished it; None otherwise."""
        try:
            found: JSON = json.loads(self.staged.read_text())
            sizes = [part_path(self.root, self.part).stat().st_size] if found["rows"] else []
        except (OSError, ValueError):
            return None
        if found["key"] != self.key or sizes != [found["size"]] * len(sizes):
            return None
        return found

    def to_json(self) -> str:
        """One line of text for another process."""
        return json.dumps(asdict(self), default=str)

    @staticmethod
    def from_json(text: str) -> Chunk:
        """The chunk that `to_json` wrote."""
        d = json.loads(text)
        sources = tuple(
            images.Source(**{**s, "paths": tuple(map(Path, s["paths"])), "notes": tuple(s["notes"])})
            for s in d["sources"]
        )
        return Chunk(Path(d["root"]), d["part"], sources, d["max_side_px"], tuple(d["crashed"]))


def read_chunk(chunk: Chunk, progress: ProgressCallback | None = None) -> None:
    """Read every source, write the part, then its rows. Raises OSError where the disk cannot take it.

    What cannot be read, whatever the reason, becomes a line of quarantine; the rest goes on.
    """
    rows: list[JSON] = []
    refused: list[JSON] = []
    pixels_path, thumbs_path = part_path(chunk.root, chunk.part), thumbnails_path(chunk.root, chunk.part)
    with (
        replacing(pixels_path) as pixels,
        replacing(thumbs_path) as thumbs,
        pixels.open("wb") as pixels_file,
        thumbs.open("wb") as thumbs_file,
    ):
        for position, source in enumerate(chunk.sources):
            if progress:
                progress(position, len(chunk.sources), source.name)
            row, thumb, record, problem = _read_source(source, chunk, crashed=position in chunk.crashed)
            if problem:
                refused.append(problem)
                continue
            rows.append({**row, "offset": _append(pixels_file, record), "slot": len(rows)})
            thumbs_file.write(thumb)
        size = pixels_file.tell()
    if not rows:
        pixels_path.unlink()
        thumbs_path.unlink()
    done = {"key": chunk.key, "size": size, "rows": rows, "quarantine": refused}
    write_bytes(chunk.staged, json.dumps(done).encode(), lasting=False)


def _append(file: IO[bytes], record: list[bytes]) -> int:
    offset = file.tell()
    size = sum(file.write(piece) for piece in record)
    file.write(bytes(-size % ALIGNMENT))
    return offset


def _read_source(
    source: images.Source, chunk: Chunk, *, crashed: bool
) -> tuple[JSON, bytes, list[bytes], JSON | None]:
    """(row, thumbnail, pieces of the record, None), or the problem last."""
    if crashed:
        return {}, b"", [], _problem(source, CRASHED, again=False)
    try:
        image = images.read(source)
        flags = images.quality_flags(image)
        digest = _pixel_hash(image)
        image = shrunk(image, chunk.max_side_px)
        return *_encoded(source, image, flags, digest), None
    except FewlabelError as error:
        return {}, b"", [], _problem(source, str(error), again=False)
    except MemoryError:
        return {}, b"", [], _problem(source, "there is not enough memory to read it", again=True)
    except Exception as error:  # a decoder may raise anything; the import must go on
        return (
            {},
            b"",
            [],
            _problem(source, f"could not be read ({type(error).__name__}: {error})", again=True),
        )


def _problem(source: images.Source, reason: str, *, again: bool) -> JSON:
    """again: the next import tries once more, because the fault may not lie in the file."""
    for path in source.paths:  # extracted members lie under names that mean nothing to the user
        reason = reason.replace(str(path), source.name)
    return {"name": source.name, "reason": " ".join(reason.split()), "stamp": source.stamp, "again": again}


def _encoded(
    source: images.Source, image: Image, flags: tuple[str, ...], digest: str
) -> tuple[JSON, bytes, list[bytes]]:
    low, high = image.display_range or full_range(image)
    pixels = np.ascontiguousarray(image.pixels, dtype=image.pixels.dtype.newbyteorder("<"))
    mask = image.valid if image.valid is not None and not image.valid.all() else None
    record = [pixels.tobytes()] + ([] if mask is None else [np.packbits(mask).tobytes()])
    row: JSON = {
        "source": source.name,
        "source_kind": source.kind,
        "stamp": source.stamp,
        "split": source.split,
        "source_labels": source.labels,
        "patient_id": image.patient_id,
        "study_id": image.study_id,
        "series_id": image.series_id,
        "view": image.view,
        "modality": image.modality,
        "spacing_mm": None if image.spacing_mm is None else [float(s) for s in image.spacing_mm],
        "shape": list(pixels.shape),
        "dtype": image.pixels.dtype.name,
        "display_low": float(low),
        "display_high": float(high),
        "has_padding": mask is not None,
        "affine": None if image.affine is None else [float(v) for v in image.affine.ravel()],
        "provenance": "\n".join(image.provenance),
        "warnings": "\n".join(image.warnings),
        "quality": ", ".join(flags),
        "file_hash": _file_hash(source),
        "pixel_hash": digest,
        "nbytes": len(record[0]),
        "attributes": {k: v if isinstance(v, str) else float(v) for k, v in sorted(image.attributes.items())},
    }
    return row, thumbnail(pixels, mask, low, high).tobytes(), record


def shrunk(image: Image, max_side_px: int) -> Image:
    """The image with its longer in-plane side at most `max_side_px`, area-resampled; spacing and affine
    follow.
    """
    height, width = image.pixels.shape[-2:]
    if max(height, width) <= max_side_px:
        return image
    size = fitted_size(height, width, max_side_px)
    planes = np.empty((*image.pixels.shape[:-2], *size), image.pixels.dtype)
    valid = None if image.valid is None else np.empty((*image.valid.shape[:-2], *size), bool)
    for depth in range(image.pixels.shape[1]) if image.pixels.ndim == 4 else [...]:
        mask = None if image.valid is None else image.valid[depth]
        at: Any = (slice(None), depth) if image.pixels.ndim == 4 else depth
        planes[at] = cast_like(area_resample(image.pixels[at], *size, valid=mask), image.pixels.dtype)
        if valid is not None and mask is not None:
            valid[depth] = resample_mask(mask, *size)
    step = (height / size[0], width / size[1])
    spacing = image.spacing_mm
    if spacing is not None:
        spacing = (*spacing[:-2], spacing[-2] * step[0], spacing[-1] * step[1])
    note = f"area-resampled from {height} x {width} to {size[0]} x {size[1]} pixels"
    return replace(
        image,
        pixels=planes,
        valid=valid,
        spacing_mm=spacing,
        affine=_stepped(image.affine, step),
        provenance=(*image.provenance, note),
    )


def _stepped(affine: np.ndarray | None, step: tuple[float, float]) -> np.ndarray | None:
    """The affine of (column, row, slice) after each pixel became `step` = (rows, columns) pixels wide."""
    if affine is None:
        return None
    moved = np.array(affine, dtype=float)
    moved[:, 0] *= step[1]
    moved[:, 1] *= step[0]
    moved[:3, 3] += affine[:3, 0] * (step[1] - 1) / 2 + affine[:3, 1] * (step[0] - 1) / 2
    return moved


def full_range(image: Image) -> tuple[float, float]:
    """What to draw black and white by default: 0..255 of 8 bits, else the valid extremes."""
    if image.pixels.dtype == np.uint8:
        return 0.0, 255.0
    shown = image.pixels if image.valid is None else image.pixels[:, image.valid]
    return (float(shown.min()), float(shown.max())) if shown.size else (0.0, 1.0)


def _pixel_hash(image: Image) -> str:
    """Of the pixels as they were decoded, so that the same picture in another file format is found."""
    pixels = np.ascontiguousarray(image.pixels, dtype=image.pixels.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{image.pixels.dtype.name} {pixels.shape}".encode())
    digest.update(pixels.data)
    return digest.hexdigest()


def _file_hash(source: images.Source) -> str:
    """Of the bytes of all files of the source; entries of one container share it."""
    if len(source.paths) == 1:
        return _bytes_hash(source.paths[0], source.paths[0].stat().st_mtime_ns)
    parts = "".join(_bytes_hash(p, p.stat().st_mtime_ns) for p in source.paths)
    return hashlib.sha256(parts.encode()).hexdigest()


@lru_cache(maxsize=8)
def _bytes_hash(path: Path, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
