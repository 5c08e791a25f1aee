"""Slices of one DICOM series -> volumes: which files belong together, and reading them as one Image."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from fewlabel.images.dicom import Header, read_dicom
from fewlabel.images.dicom_header import numbers, open_dataset, orientation_of, position_of
from fewlabel.images.geometry import affine_ras, stack, unit_normal
from fewlabel.images.intensities import as_integers, drawing_range
from fewlabel.images.source import Entry, Rejected, Source, check_size
from fewlabel.types import Image, UnreadableImage

MERGED = ("CT", "MR", "PT")
"""Modalities whose single-frame slices are put together into volumes."""
SAME_PLACE_MM = 0.01
SAME_ORIENTATION = 0.01
"""Largest difference of direction cosines within one volume, about half a degree."""


@dataclass(frozen=True)
class Slice:
    """A DICOM file with its header."""

    entry: Entry
    header: Header

    @property
    def folder(self) -> str:
        return str(PurePosixPath(self.entry.name).parent)


def group(slices: Iterable[Slice]) -> tuple[list[Source], list[Rejected]]:
    """Puts the slices of each series together; files that are no part of a volume stay single images.

    A series is split where orientation or size differ, and where positions repeat as often everywhere (time
    points, echoes): each part is a volume of its own. Localizers stay single. Copies of one DICOM object, and
    lone second slices at one position, are rejected with the name of the slice that is used.
    """
    sources: list[Source] = []
    rejected: list[Rejected] = []
    candidates: dict[tuple[str, str], list[Slice]] = defaultdict(list)
    for item in sorted(slices, key=lambda item: item.entry.name):
        header = item.header
        whole = header.modality in MERGED and header.frames == 1 and header.position and header.orientation
        if whole and header.series and not header.localizer:
            candidates[item.folder, header.series].append(item)
        else:
            notes = ["a localizer: not part of the volume of its series"] if header.localizer else []
            sources.append(single(item.entry, *notes))
    for folder, members in _join_folders(candidates):
        found, refused = _volumes(folder, members)
        sources += found
        rejected += refused
    return sources, rejected


def single(entry: Entry, *notes: str) -> Source:
    """A DICOM file that is an image of its own."""
    return Source(entry.name, (entry.path,), "dicom", stamp=entry.stamp, notes=notes)


def _join_folders(candidates: dict[tuple[str, str], list[Slice]]) -> list[tuple[str, list[Slice]]]:
    """A series spread over several folders is one series, unless they hold copies of the same objects."""
    by_series: dict[str, dict[str, list[Slice]]] = defaultdict(dict)
    for (folder, series), members in candidates.items():
        by_series[series][folder] = members
    joined: list[tuple[str, list[Slice]]] = []
    for folders in by_series.values():
        instances = [{item.header.instance for item in members} for members in folders.values()]
        if len(set().union(*instances)) == sum(map(len, instances)):
            members = [item for part in folders.values() for item in part]
            joined.append((_common_folder(list(folders)), members))
        else:
            joined += list(folders.items())
    return joined


def _common_folder(folders: list[str]) -> str:
    parts = [PurePosixPath(folder).parts for folder in folders]
    common = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return str(PurePosixPath(*common)) if common else "."


def _volumes(folder: str, members: list[Slice]) -> tuple[list[Source], list[Rejected]]:
    kept, rejected = _without_copies(members)
    parts: list[list[Slice]] = []
    for plane in _same_plane(kept):
        stacks, refused = _same_places(plane)
        parts += stacks
        rejected += refused
    if max(map(len, parts)) == 1:
        return [single(item.entry) for item in members], []
    parts.sort(key=lambda part: (-len(part), part[0].entry.name))
    prefix = "" if folder == "." else f"{folder}/"
    base = f"{prefix}series-{members[0].header.series}"
    note = f"its series is split into {len(parts)} parts by orientation, size or repeated positions"
    notes = (note,) if len(parts) > 1 else ()
    sources = []
    for number, part in enumerate(parts, start=1):
        if len(part) == 1:
            sources.append(single(part[0].entry, *notes))
            continue
        name = base if number == 1 else f"{base}-part{number}"
        paths = tuple(item.entry.path for item in part)
        sources.append(Source(name, paths, "series", stamp=_stamp(part), notes=notes))
    return sources, rejected


def _stamp(part: list[Slice]) -> str:
    lines = "\n".join(f"{item.entry.name} {item.entry.stamp}" for item in part)
    return f"{len(part)}-{hashlib.sha256(lines.encode()).hexdigest()[:24]}"


def _without_copies(members: list[Slice]) -> tuple[list[Slice], list[Rejected]]:
    """Of copies of one object the largest file is kept: a smaller one may be cut short."""
    kept: dict[str, Slice] = {}
    rejected = []
    for item in sorted(members, key=lambda item: (-item.entry.path.stat().st_size, item.entry.name)):
        instance = item.header.instance or item.entry.name
        if instance in kept:
            used = kept[instance].entry.name
            reason = f"a copy of {used}: the same DICOM object (SOPInstanceUID) in the same series"
            rejected.append(Rejected(item.entry.name, reason))
        else:
            kept[instance] = item
    return sorted(kept.values(), key=lambda item: item.entry.name), rejected


def _same_plane(members: list[Slice]) -> list[list[Slice]]:
    planes: list[list[Slice]] = []
    for item in members:
        for plane in planes:
            other = plane[0].header
            turn = np.abs(np.subtract(other.orientation, item.header.orientation)).max()
            if other.size == item.header.size and turn <= SAME_ORIENTATION:
                plane.append(item)
                break
        else:
            planes.append([item])
    return planes


def _same_places(plane: list[Slice]) -> tuple[list[list[Slice]], list[Rejected]]:
    """Sorts by position; k slices at every place make k volumes, otherwise one at each place is used."""
    normal = unit_normal(plane[0].header.orientation)
    heights = {id(item): float(np.asarray(item.header.position) @ normal) for item in plane}
    places: list[list[Slice]] = []
    for item in sorted(plane, key=lambda item: (heights[id(item)], item.header.rank, item.entry.name)):
        if places and heights[id(item)] - heights[id(places[-1][0])] < SAME_PLACE_MM:
            places[-1].append(item)
        else:
            places.append([item])
    places = [sorted(place, key=lambda item: (item.header.rank, item.entry.name)) for place in places]
    repeats = {len(place) for place in places}
    if len(repeats) == 1:
        return [[place[k] for place in places] for k in range(repeats.pop())], []
    rejected = [
        Rejected(
            item.entry.name, f"at the same position of its series as {place[0].entry.name}, the one used"
        )
        for place in places
        for item in place[1:]
    ]
    return [[place[0] for place in places]], rejected


def read_series(paths: tuple[Path, ...]) -> Image:
    """Reads the slices of one series, given in geometrical order, as one volume.

    Returns:
        pixels (1, D, H, W) or (3, D, H, W); D ascends along the slice normal. spacing_mm[0] is the distance
        of slices along that normal, from their positions. Tilt, uneven spacing and missing slices are in
        `warnings`.

    Raises:
        UnreadableImage: one of the slices cannot be read, or they do not fit together.
    """
    images = [_read_slice(path) for path in paths]
    first = images[0]
    check_size(len(images), *first.pixels.shape, what="the series")
    if any(image.pixels.shape != first.pixels.shape for image in images):
        raise UnreadableImage("the slices of the series differ in size or number of channels")
    tags = ["ImagePositionPatient", "ImageOrientationPatient", "GantryDetectorTilt"]
    headers = [open_dataset(path, tags)[0] for path in paths]
    tilt = (numbers(headers[0], "GantryDetectorTilt") or [0.0])[0]
    orientation = orientation_of(headers[0])
    positions = [position_of(header) for header in headers]
    if unit_normal(orientation) is None or not all(positions):
        raise UnreadableImage("the slices of the series have no usable positions any more")
    geometry = stack(positions, orientation, tilt)
    pixels, dtype_note = _stacked([images[i].pixels for i in geometry.order])
    valid = _stacked_masks([images[i] for i in geometry.order])
    plane = first.spacing_mm
    affine = None
    if plane is not None:
        affine = affine_ras(geometry.origin_mm, orientation, geometry.step_mm, (plane[0], plane[1]))
    notes = (f"{len(images)} slices sorted by position along the slice normal, spacing from the positions",)
    shared, varied = _shared_lines([image.provenance for image in images])
    return replace(
        first,
        pixels=pixels,
        valid=valid,
        spacing_mm=None if plane is None else (geometry.spacing_mm, *plane),
        affine=affine,
        display_range=_drawing(images, pixels, valid),
        provenance=shared + varied + notes + dtype_note,
        warnings=_shared_lines([image.warnings for image in images])[0] + geometry.warnings,
    )


def _read_slice(path: Path) -> Image:
    try:
        return read_dicom(path)
    except UnreadableImage as error:
        raise UnreadableImage(f"the slice {path.name} of the series cannot be read: {error}") from error


def _stacked(slices: list[np.ndarray]) -> tuple[np.ndarray, tuple[str, ...]]:
    """(C, H, W) slices -> (C, D, H, W) of one type that holds them all."""
    dtypes = {item.dtype for item in slices}
    if len(dtypes) == 1:
        return np.stack(slices, axis=1), ()
    common = np.stack([item.astype(np.float64) for item in slices], axis=1)
    whole = all(dtype.kind in "iu" for dtype in dtypes)
    merged = as_integers(common) if whole else common.astype(np.float32)
    return merged, (f"slices of different types are stored as {merged.dtype.name}",)


def _stacked_masks(images: list[Image]) -> np.ndarray | None:
    if all(image.valid is None for image in images):
        return None
    shape = images[0].pixels.shape[1:]
    return np.stack([np.ones(shape, bool) if image.valid is None else image.valid for image in images])


def _drawing(images: list[Image], pixels: np.ndarray, valid: np.ndarray | None) -> tuple[float, float]:
    """The commonest window of the slices; percentiles of the whole volume where they state none."""
    counted = Counter(image.display_range for image in images if image.display_range)
    window = min(counted, key=lambda window: (-counted[window], window))
    return window if counted[window] > 1 else drawing_range(pixels, valid)[0]


def _shared_lines(lines: list[tuple[str, ...]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Lines that all slices share, and one example with a count of those that only some have."""
    shared = tuple(line for line in lines[0] if all(line in other for other in lines))
    some = {line for other in lines for line in other} - set(shared)
    if not some:
        return shared, ()
    example = sorted(some)[0]
    return shared, (f"differs between slices ({len(some)} variants), for example: {example}",)
