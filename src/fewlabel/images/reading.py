"""One source, or one file of any kind, to `Image`. Format modules are loaded when they are first needed."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from fewlabel.images.sniffing import sniff
from fewlabel.images.source import Source
from fewlabel.types import Image, UnreadableImage


def read(source: Source) -> Image:
    """Decodes one source of a scan.

    Returns:
        the image as `fewlabel.types.Image` describes it; (C, H, W) for one slice of a volume.

    Raises:
        UnreadableImage: with the true reason.
    """
    if source.kind == "npz":
        from fewlabel.images.medmnist import read_entry

        image = read_entry(source)
    elif source.kind == "series":
        from fewlabel.images.series import read_series

        image = read_series(source.paths)
    elif source.index >= 0:
        image = _slice(_kept(source.paths[0], source.stamp), source.index)
    else:
        image = read_file(source.paths[0])
    return replace(image, provenance=image.provenance + source.notes) if source.notes else image


def read_file(path: Path) -> Image:
    """Decodes one file, whatever it is called.

    Raises:
        UnreadableImage: with the true reason, also for archives and other collections of images.
    """
    path = Path(path)
    kind, reason = sniff(path)
    if kind == "none":
        raise UnreadableImage(reason)
    if kind in ("dicom", "dicom?"):
        from fewlabel.images.dicom import read_dicom

        return read_dicom(path)
    if kind == "nifti":
        from fewlabel.images.nifti import read_nifti

        return read_nifti(path)
    if kind == "tiff":
        from fewlabel.images.tiff import read_tiff

        return read_tiff(path)
    if kind == "raster":
        from fewlabel.images.raster import read_raster

        return read_raster(path)
    raise UnreadableImage("an archive, not one image: import it, and its members are read one by one")


@lru_cache(maxsize=1)
def _kept(path: Path, stamp: str) -> Image:
    """The last volume stays in memory, because its slices are read one after the other."""
    return read_file(path)


def _slice(image: Image, index: int) -> Image:
    if image.pixels.ndim != 4 or not index < image.pixels.shape[1]:
        raise UnreadableImage(f"it has no slice {index}: its shape is {image.pixels.shape}")
    depth = image.pixels.shape[1]
    return replace(
        image,
        pixels=image.pixels[:, index].copy(),
        spacing_mm=None if image.spacing_mm is None else image.spacing_mm[1:],
        valid=None if image.valid is None else image.valid[index].copy(),
        affine=None,
        provenance=(*image.provenance, f"slice {index} of {depth}"),
    )
