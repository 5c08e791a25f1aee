"""What a short command leaves out: the import of a folder, the only target there is, a place for the run, the texts."""

from __future__ import annotations

import re
from pathlib import Path

from fewlabel.collection import Collection, import_images
from fewlabel.collection.joining import LOOKS_LIKE_PATIENT
from fewlabel.collection.labels import read_label_file
from fewlabel.pipeline.settings import PretrainSettings, TextSettings
from fewlabel.reports import PairedTexts, find_reports
from fewlabel.types import FewlabelError, ProgressCallback

RUNS = Path("runs")
IMPORTED = "-collection"
_CASES = "cases.parquet"
_STUDY = re.compile(r"(study|exam|accession)[ _-]*(id|nr|no|number|uid|instance ?uid)?", re.IGNORECASE)
_TABLES = (".csv", ".tsv")


def open_or_import(
    collection: Collection | str | Path, table: str | Path | None, progress: ProgressCallback | None = None
) -> Collection:
    """The collection; a folder of images with a table is imported into "<folder>-collection" first, or added to.

    table: a CSV or TSV file with the labels and ids of the images; anything else says nothing of them.
    Columns called patient or study, or
    much the same, say who and when. Raises FewlabelError as `Collection.open` and `import_images` do.
    """
    if isinstance(collection, Collection):
        return collection
    path = Path(collection)
    labels = Path(table) if table and str(table).lower().endswith(_TABLES) else None
    if labels is None or (path / _CASES).exists() or not path.is_dir():
        return Collection.open(path)
    columns = list(read_label_file(labels).columns)
    to = path.parent / f"{path.absolute().name or 'images'}{IMPORTED}"
    if (to / _CASES).exists() and any(
        one["source"] != str(path.resolve()) for one in Collection.open(to).history
    ):
        raise FewlabelError(
            f"{path} is no collection, and {to} was made of other images: run fewlabel import to a new folder."
        )
    import_images(
        path,
        to,
        labels=labels,
        patient_column=_called(columns, LOOKS_LIKE_PATIENT),
        study_column=_called(columns, _STUDY),
        progress=progress,
    )
    return Collection.open(to)


def _called(columns: list[str], pattern: re.Pattern[str]) -> str | None:
    return next((name for name in columns if pattern.fullmatch(name.strip())), None)


def only_target(collection: Collection) -> str:
    """The label column with two to ten classes. Raises FewlabelError, naming them, unless there is exactly one."""
    found = []
    for name in collection.labels:
        target = collection.target(name)
        if target.kind != "number" and 2 <= sum(count > 0 for count in target.counts.values()) <= 10:
            found.append(name)
    if len(found) == 1:
        return found[0]
    there = (
        f"{len(found)} columns that could be learned ({', '.join(found[:12])})"
        if found
        else "no label column"
    )
    raise FewlabelError(
        f"No target was named and {collection.name} has {there}: say what to learn with --target, or import labels."
    )


def usual_folder(collection: Collection, target: str, settings: PretrainSettings) -> Path:
    """runs/<collection>-<target>-<objective>, so that the same command finds its run again."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", f"{collection.name}-{target}").strip("-")
    return RUNS / f"{plain}-{settings.objective}"


def paired_texts(
    collection: Collection, reports: str | Path, settings: TextSettings, text_column: str | None = None
) -> PairedTexts:
    """The images with the texts at `reports`. Raises FewlabelError as `find_reports` and `Reports.pair` do."""
    found = find_reports(reports, collection, text_column=text_column)
    return found.pair(collection, keep=settings.keep, drop_priors=settings.drop_priors)
