"""Which row of a label file speaks of which image."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fewlabel.collection.labels import BLANK, LabelTable
from fewlabel.types import FewlabelError

_SUFFIX = re.compile(
    r"(\.nii\.gz|\.tar\.gz|\.(png|jpe?g|tiff?|bmp|gif|webp|dcm|dicom|ima|nii|npz|npy|mha|mhd|nrrd|zip|tgz|tar|gz))$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Matching:
    """How a label file and images came together.

    column: the column that names the image; by: what of the image it was compared with ("file name", ...).
    rows: for each image, the rows of the label file on it. unmatched: rows that fit no image.
    ambiguous: cells that fit several images equally well and were therefore given to none.
    """

    column: str
    by: str
    rows: list[list[int]]
    unmatched: list[int]
    ambiguous: tuple[str, ...] = ()

    @property
    def matched(self) -> int:
        """How many images have a row."""
        return sum(bool(r) for r in self.rows)


def match_rows(
    table: LabelTable,
    names: Sequence[str],
    *,
    file_column: str | None = None,
    identities: Mapping[str, Sequence[str]] | None = None,
) -> Matching:
    """Find the rows of each image by its file name; where none fits, by what the image says of itself.

    names: relative paths, "/" between folders. identities: further values of each image, such as
    {"patient_id": [...]}, to be tried where no column holds file names.
    Raises FewlabelError with three examples of each side where nothing fits.
    """
    columns = (
        list(table.columns)
        if file_column is None
        else [checked_name(file_column, table.columns, table.path.name)]
    )
    best = _best(_by_name(table, c, names) for c in columns)
    if best is None and identities:
        best = _best(
            _by_identity(table, c, key, values) for key, values in identities.items() for c in columns
        )
    if best is None:
        best = _best(_by_folder(table, c, names) for c in columns)
    if best is None:
        raise FewlabelError(_no_match(table, names, file_column))
    return best


def could_match(table: LabelTable, names: Sequence[str], file_column: str | None = None) -> bool:
    """Whether any row fits any image by its name, before a single image is read."""
    try:
        return match_rows(table, names, file_column=file_column).matched > 0
    except FewlabelError:
        return False


def checked_name(name: str, known: Iterable[str], where: str) -> str:
    """`name`, if it is one of `known`; else FewlabelError with the closest ones."""
    known = list(known)
    if name in known:
        return name
    lowered = {k.lower(): k for k in reversed(known)}
    close = [lowered[c] for c in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
    if close:
        raise FewlabelError(f'{where} has no "{name}": did you mean {_or(close)}?')
    some = ", ".join(f'"{k}"' for k in known[:12]) + (
        f" and {len(known) - 12} more" if len(known) > 12 else ""
    )
    raise FewlabelError(f'{where} has no "{name}": there is {some or "nothing"}')


def _best(found: Iterable[Matching]) -> Matching | None:
    """The one that fits most images; of equals the first."""
    best = max(found, key=lambda m: m.matched, default=None)
    return best if best is not None and best.matched else None


def _by_name(table: LabelTable, column: str, names: Sequence[str]) -> Matching:
    index: dict[str, list[int]] = defaultdict(list)
    for image, name in enumerate(names):
        last = path_parts(name)[-1].lower()
        for key in {last, stem(last)}:
            index[key].append(image)
    rows: list[list[int]] = [[] for _ in names]
    unmatched, ambiguous = [], []
    for row, cell in enumerate(table.columns[column]):
        images = _named(cell, index, names)
        if len(images) > 1:
            ambiguous.append(cell)
        elif images:
            rows[images[0]].append(row)
        else:
            unmatched.append(row)
    return Matching(column, "file name", rows, unmatched, tuple(dict.fromkeys(ambiguous)))


def _named(cell: str, index: dict[str, list[int]], names: Sequence[str]) -> list[int]:
    """The images that a cell names best: by most path components that agree, counted from the end."""
    if cell.lower() in BLANK:
        return []
    parts = path_parts(cell.lower())
    if not parts:
        return []
    images = index.get(parts[-1]) or index.get(stem(parts[-1])) or []
    if len(images) < 2:
        return images
    scores = [_agreement(parts, path_parts(names[i].lower())) for i in images]
    return [i for i, s in zip(images, scores, strict=True) if s == max(scores)]


def _agreement(cell: list[str], name: list[str]) -> tuple[int, bool]:
    folders = 0
    for a, b in zip(reversed(cell[:-1]), reversed(name[:-1]), strict=False):
        if a != b:
            break
        folders += 1
    return folders, cell[-1] == name[-1]


def _by_identity(table: LabelTable, column: str, key: str, values: Sequence[str]) -> Matching:
    return _by_value(table, column, key.replace("_", " "), [[v] if v else [] for v in values])


def _by_folder(table: LabelTable, column: str, names: Sequence[str]) -> Matching:
    """Rows on a folder or an archive: one row for all images in it. Only where the cells differ from row to
    row.
    """
    cells = table.columns[column]
    if len(set(cells)) < 0.5 * len(cells):
        return Matching(column, "folder name", [[] for _ in names], list(range(len(cells))))
    folders = [path_parts(name)[:-1] for name in names]
    return _by_value(table, column, "folder name", [[*f, *map(stem, f)] for f in folders])


def _by_value(table: LabelTable, column: str, by: str, values: Sequence[Sequence[str]]) -> Matching:
    where: dict[str, list[int]] = defaultdict(list)
    for row, cell in enumerate(table.columns[column]):
        if cell.lower() not in BLANK:
            where[cell].append(row)
    rows = [list(dict.fromkeys(r for v in of_image for r in where.get(v, ()))) for of_image in values]
    used = {r for of_image in rows for r in of_image}
    return Matching(column, by, rows, [r for r in range(len(table)) if r not in used])


def stem(name: str) -> str:
    """A file's name without a suffix that images and archives have; dots in ids stay."""
    return _SUFFIX.sub("", name)


def path_parts(name: str) -> list[str]:
    """Folders and file name; an entry of an archive ("a.zip!/b.png") or volume ("v.nii#00003") lies inside
    it.
    """
    flat = name.replace("\\", "/").replace("!/", "/").replace("#", "/")
    return [p for p in flat.split("/") if p not in ("", ".")]


def _or(names: Sequence[str]) -> str:
    quoted = [f'"{n}"' for n in names]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " or " + quoted[-1]


def _no_match(table: LabelTable, names: Sequence[str], file_column: str | None) -> str:
    column = file_column or next(iter(table.columns))
    cells = ", ".join(f'"{c}"' for c in list(dict.fromkeys(table.columns[column]))[:3])
    files = ", ".join(f'"{n}"' for n in names[:3])
    searched = f'its column "{column}" has' if file_column else f'no column fits; the first, "{column}", has'
    return (
        f"{table.path.name} matches none of the {len(names)} images: {searched} {cells}, the images "
        f"are {files}: "
        f"name the column that holds the file names (file_column, --file-column) or give the right label file"
    )
