"""What a file is, by its first bytes: never by its extension."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Literal

Kind = Literal["dicom", "dicom?", "nifti", "raster", "tiff", "zip", "tar", "packed", "npz", "none"]

HEAD = 1024
_RASTER_MAGIC = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"BM",
    b"GIF87a",
    b"GIF89a",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n",
    b"\xff\x4f\xff\x51",
)
_TIFF_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_OTHER: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "a PDF document"),
    (b"\x93NUMPY", "a bare NumPy array (.npy), whose axes are not stated; save it as TIFF or NIfTI"),
    (b"\x89HDF\r\n", "an HDF5 file; export its images as NIfTI, TIFF or PNG"),
    (b"ObjectType", "a MetaImage file (.mha, .mhd), which is not read; convert it to NIfTI"),
    (b"NDims", "a MetaImage file (.mha, .mhd), which is not read; convert it to NIfTI"),
    (b"NRRD000", "an NRRD file, which is not read; convert it to NIfTI"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive, which is not opened; unpack it and import the folder"),
    (b"Rar!", "a RAR archive, which is not opened; unpack it and import the folder"),
    (b"\x28\xb5\x2f\xfd", "Zstandard-compressed data, which is not opened; decompress it first"),
    (b"PAR1", "a Parquet table"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"\x80\x02", "a Python pickle, which is never loaded"),
    (b"\x80\x04", "a Python pickle, which is never loaded"),
    (b"\x80\x05", "a Python pickle, which is never loaded"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; run `git lfs pull`"),
)
_OPENERS: tuple[tuple[bytes, Callable[[IO[bytes]], Any]], ...] = (
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\x00", lzma.LZMAFile),
)
PACKING_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)
"""What the standard library's decompressors raise on damaged data."""


def unpacked(file: IO[bytes]) -> IO[bytes]:
    """The content of a gzip, bzip2 or xz stream, or the file itself when it is neither."""
    magic = file.read(6)
    file.seek(0)
    for start, opener in _OPENERS:
        if magic.startswith(start):
            return opener(file)
    return file


def sniff(path: Path) -> tuple[Kind, str]:
    """What the file is: its kind, and for kind "none" the reason why it is not an image.

    "dicom?" has no preamble and may turn out not to be DICOM; "packed" is one compressed file that is neither
    a tar archive nor NIfTI.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            if not head:
                return "none", "the file is empty"
            packed = any(head.startswith(start) for start, _ in _OPENERS)
            if packed:
                file.seek(0)
                return _inside(unpacked(file))
    except OSError as error:
        return "none", f"the file cannot be opened: {error.strerror or error}"
    return _kind(head, path)


def _inside(stream: IO[bytes]) -> tuple[Kind, str]:
    try:
        head = stream.read(HEAD)
    except PACKING_ERRORS as error:
        return "none", f"the compressed data is damaged: {error}"
    if not head:
        return "none", "the compressed file is empty"
    if is_nifti(head):
        return "nifti", ""
    return ("tar", "") if is_tar(head) else ("packed", "")


def _kind(head: bytes, path: Path) -> tuple[Kind, str]:
    if head[128:132] == b"DICM":
        return "dicom", ""
    if is_nifti(head):
        return "nifti", ""
    if head.startswith(_TIFF_MAGIC):
        return "tiff", ""
    if head.startswith(_RASTER_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or _is_pnm(head):
        return "raster", ""
    if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
        return _zip_kind(path)
    if is_tar(head):
        return "tar", ""
    if _may_be_dicom(head):
        return "dicom?", ""
    return "none", f"not an image: {_describe(head, path)}"


def is_nifti(head: bytes) -> bool:
    """Single-file NIfTI-1 or -2, either byte order."""
    if len(head) < 348:
        return False
    size = {struct.unpack(order + "i", head[:4])[0] for order in "<>"}
    return (348 in size and head[344:347] == b"n+1") or (540 in size and head[4:7] == b"n+2")


def is_tar(head: bytes) -> bool:
    """A tar header: the POSIX/GNU magic, or a right checksum (the old format)."""
    if len(head) < 512:
        return False
    if head[257:262] == b"ustar":
        return True
    try:
        stated = int(head[148:156].strip(b" \x00"), 8)
    except ValueError:
        return False
    return stated > 256 and stated == sum(head[:148]) + 8 * 32 + sum(head[156:512])


def _is_pnm(head: bytes) -> bool:
    return head[:1] == b"P" and head[1:2] in b"456" and head[2:3] in (b"\n", b" ", b"\r", b"\t")


def _may_be_dicom(head: bytes) -> bool:
    """A data set without preamble starts with an element of group 0002 or 0008, in either byte order."""
    if len(head) < 16:
        return False
    for order in "<>":
        group, element = struct.unpack(order + "HH", head[:4])
        if group in (0x0002, 0x0008) and element <= 0x1200:
            return True
    return False


def _zip_kind(path: Path) -> tuple[Kind, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # on damaged archives zipfile raises many things
        return "none", f"a damaged zip archive: {error}"
    if names and all(name.endswith(".npy") for name in names):
        return "npz", ""
    if "[Content_Types].xml" in names or "mimetype" in names:
        return "none", "not an image: an Office document"
    return "zip", ""


def _describe(head: bytes, path: Path) -> str:
    if path.name.upper() == "DICOMDIR":
        return "DICOMDIR, the index of a DICOM medium"
    for magic, what in _OTHER:
        if head.startswith(magic):
            return what
    if len(head) >= 348 and 348 in {struct.unpack(order + "i", head[:4])[0] for order in "<>"}:
        return "the header of a NIfTI or ANALYZE pair (.hdr, .img); convert it to a single .nii file"
    if head[4:8] == b"ftyp":
        return "a video or an HEIF/AVIF photo"
    if _is_text(head):
        return f"a text file ({path.suffix.lower() or 'no extension'})"
    return "its content is of no format that is read here"


def _is_text(head: bytes) -> bool:
    if b"\x00" in head:
        return head.startswith((b"\xff\xfe", b"\xfe\xff"))
    printable = sum(byte >= 32 or byte in b"\t\n\r\f" for byte in head)
    return printable >= 0.97 * len(head)
