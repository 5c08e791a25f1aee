"""`import_images`: from a folder, an archive or a file of images to a collection, whatever happens on the
way.

Images are read in chunks by several processes into new parts, then everything is made true at once by
replacing cases.parquet. Until then a reader sees the collection as it was; a run that was killed leaves parts
that no row names, and the next run takes up those that are complete.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fewlabel import images
from fewlabel.collection.chunks import Chunk
from fewlabel.collection.duplicates import near_groups
from fewlabel.collection.joining import Joined, Roles, join_file, join_folders, join_own
from fewlabel.collection.labels import LabelTable, TypedColumn, Unlisted, read_label_file
from fewlabel.collection.matching import could_match, match_rows
from fewlabel.collection.store import CASES, LOCK, STAGING, is_disk_full, locked, read_thumbnails
from fewlabel.collection.summary import ImportSummary, facts_of, nothing_found, nothing_read
from fewlabel.collection.tables import State, commit, fingerprints, open_cases, read_state
from fewlabel.collection.workers import disk_full, read_chunks, read_chunks_on_cluster
from fewlabel.types import JSON, FewlabelError, ProgressCallback

MEDMNIST = "medmnist:"
_CHUNKS = 64
_SMALLEST_CHUNK, _LARGEST_CHUNK = 4, 1024


def import_images(
    source: str | Path,
    to: str | Path,
    *,
    labels: str | Path | Literal["folders"] | None = None,
    file_column: str | None = None,
    patient_column: str | None = None,
    study_column: str | None = None,
    view_column: str | None = None,
    split_column: str | None = None,
    text_column: str | None = None,
    max_side_px: int = 512,
    slices: bool = False,
    unlisted: Unlisted = "negative",
    workers: int | None = None,
    cluster: str | None = None,
    progress: ProgressCallback | None = None,
) -> ImportSummary:
    """Read all images of `source` into the collection in the folder `to`, or add to it what is new.

    source: a folder, an archive, one file, or "medmnist:<name>" to be downloaded.
    labels: a CSV or TSV file; "folders" to take the folders' names; None = what the source itself says.
    file_column ... text_column: the columns of the label file that hold it; the file column is found if not
        named.
    max_side_px: images with a longer side are area-resampled to it. slices: volumes become single slices.
    unlisted: what a cell such as "Edema|Effusion" says of the labels that it does not list.
    workers: processes that read; None = one for each core. cluster: address of a Ray cluster whose machines read
        instead; they must see `source` and `to` under the same paths.

    Sources that were imported before and have not changed are not read again. Files that cannot be read are
    listed in quarantine.csv. The same call after a kill, a full disk or Ctrl-C goes on where it stopped and
    ends with the same bytes. Raises FewlabelError with one sentence; the collection then is what it was
    before.
    """
    started = time.monotonic()
    roles = Roles(file_column, patient_column, study_column, view_column, split_column, text_column)
    table = None
    if labels is not None and labels != "folders":
        table = read_label_file(labels)
        roles.checked(table)
    elif any((file_column, patient_column, study_column, view_column, split_column, text_column)):
        raise FewlabelError("columns were named and no label file was given: give one (labels, --labels)")
    if max_side_px < 8 or (workers is not None and workers < 1):
        raise FewlabelError(
            f"max_side_px is {max_side_px} (at least 8) and workers is {workers} (at least 1)"
        )
    root = Path(to)
    if cluster:  # the machines of a cluster have other working folders
        root = root.absolute()
        source = source if str(source).startswith(MEDMNIST) else Path(source).absolute()
    made = _checked_places(source, root)
    run = _Import(root, max_side_px, slices, workers or len(os.sched_getaffinity(0)), cluster, progress)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root):
            try:
                return run.run(source, labels, table, roles, unlisted, started)
            except FewlabelError:
                run.clean_after_mistake(made)
                raise
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(root) from None
        raise FewlabelError(f"{root} cannot be written: {error.strerror or error}") from None


@dataclass
class _Plan:
    """What a scan found, compared with what the collection has."""

    where: str
    new: list[images.Source]
    changed: set[str]
    unchanged: int
    rejected: list[images.Rejected]
    kept_quarantine: list[JSON]
    added: int = 0  # images read for the first time
    replaced: int = 0  # images read again because their file has changed


@dataclass
class _Import:
    """One import into the collection at `root`, which is locked meanwhile."""

    root: Path
    max_side_px: int
    slices: bool
    workers: int
    cluster: str | None
    progress: ProgressCallback | None

    def run(
        self,
        source: str | Path,
        labels: str | Path | None,
        table: LabelTable | None,
        roles: Roles,
        unlisted: Unlisted,
        started: float,
    ) -> ImportSummary:
        state = read_state(self.root)
        if state.rows and state.facts.max_side_px != self.max_side_px:
            raise FewlabelError(
                f"{self.root} was imported with max_side_px={state.facts.max_side_px} and "
                f"{self.max_side_px} was asked for: all images of a collection share it, so use the "
                f"same or another folder"
            )
        before = (state.to_table() if state.rows else None, list(state.quarantine), state.facts.to_json())
        state.facts.max_side_px = self.max_side_px
        place = _place_of(source)
        plan = self._scan(state, place, set() if table is None else {table.path.absolute()})
        if table is not None:
            _check_before_reading(table, plan, state, roles)
        self._read(state, plan)
        at = [i for i, row in enumerate(state.rows) if row["root"] == plan.where]
        joined = Joined()
        if table is not None:
            joined = join_file(state, at, table, roles, unlisted)
            state.facts.label_notes[table.path.name] = list(joined.notes)
        elif labels == "folders":
            joined = join_folders(state, at)
            state.facts.label_notes["folders"] = list(joined.notes)
        self._finish(state, before, plan, labels)
        return _summary(self.root, state, plan, joined, time.monotonic() - started)

    def _scan(self, state: State, place: Path, apart: set[Path]) -> _Plan:
        """apart: files in the source that are meant to be no images, such as the label file."""
        if self.progress:
            self.progress(0, 0, "looking through the source")
        sources, rejected = images.scan(
            place, scratch=self.root / STAGING / "scratch", slices=self.slices, workers=self.workers
        )
        where = str(place.resolve())
        rejected = [r for r in rejected if (place / r.name).absolute() not in apart]
        known = {r["source"]: r["stamp"] for r in state.rows if r["root"] == where}
        refused = {q["name"]: q for q in state.quarantine if q["root"] == where and not q["again"]}
        new = []
        kept = [q for q in state.quarantine if q["root"] != where]
        for s in sources:
            if s.name in refused and refused[s.name]["stamp"] == s.stamp:
                kept.append(refused[s.name])
            elif known.get(s.name) != s.stamp:
                new.append(s)
        if not sources and not known:
            raise FewlabelError(nothing_found(place, rejected))
        changed = {s.name for s in new if s.name in known}
        unchanged = sum(known.get(s.name) == s.stamp for s in sources)
        return _Plan(where, new, changed, unchanged, rejected, kept)

    def _read(self, state: State, plan: _Plan) -> None:
        """Read the new sources and put their rows into the state; old rows keep their places."""
        for folder in ("pixels", "thumbnails", STAGING):
            (self.root / folder).mkdir(exist_ok=True)
        chunks = self._chunks(plan.new, 1 + max((r["part"] for r in state.rows), default=-1))
        pending = [c for c in chunks if c.result() is None]
        begun = len(plan.new) - sum(len(c.sources) for c in pending)

        def on_source() -> None:
            nonlocal begun
            begun = min(begun + 1, len(plan.new))
            if self.progress:
                self.progress(begun, len(plan.new), "reading images")

        if self.cluster:
            read_chunks_on_cluster(pending, self.cluster, on_source=on_source)
        else:
            read_chunks(pending, workers=self.workers, on_source=on_source)
        rows: list[JSON] = []
        quarantine = plan.kept_quarantine + [
            {"root": plan.where, "name": r.name, "reason": r.reason, "stamp": "", "again": True}
            for r in plan.rejected
        ]
        for chunk in chunks:
            found = chunk.result()
            if found is None:
                raise FewlabelError(f"{chunk.staged} has gone while the import ran: run it again")
            rows += [{**row, "part": chunk.part} for row in found["rows"]]
            quarantine += [{"root": plan.where, **q} for q in found["quarantine"]]
        state.quarantine = sorted(quarantine, key=lambda q: (q["root"], q["name"]))
        if not rows and not state.rows:
            raise FewlabelError(nothing_read(state.quarantine))
        plan.replaced = sum(row["source"] in plan.changed for row in rows)
        plan.added = len(rows) - plan.replaced
        if plan.new:
            _take_in(state, plan, rows)
            self._find_duplicates(state, fresh=bool(plan.changed))

    def _chunks(self, sources: Sequence[images.Source], first_part: int) -> list[Chunk]:
        size = min(max(-(-len(sources) // _CHUNKS), _SMALLEST_CHUNK), _LARGEST_CHUNK)
        starts = range(0, len(sources), size)
        return [
            Chunk(
                self.root.absolute(),
                first_part + number,
                tuple(sources[start : start + size]),
                self.max_side_px,
            )
            for number, start in enumerate(starts)
        ]

    def _find_duplicates(self, state: State, *, fresh: bool) -> None:
        """Exact ones by hash, near ones by thumbnail; fresh: forget earlier groups, because rows have
        changed.
        """
        first: dict[str, int] = {}
        copies = Counter(r["pixel_hash"] for r in state.rows)
        for i, row in enumerate(state.rows):
            number = first.setdefault(row["pixel_hash"], i)
            row["exact_group"] = number if copies[row["pixel_hash"]] > 1 else -1
        exact = np.array([r["exact_group"] for r in state.rows])
        old = 0 if fresh else sum("near_group" in r for r in state.rows)
        known = np.array([r["near_group"] for r in state.rows[:old]], dtype=np.int64)
        parts, slots = (np.array([r[k] for r in state.rows]) for k in ("part", "slot"))
        thumbnails = read_thumbnails(self.root, parts, slots)
        for row, group in zip(state.rows, near_groups(thumbnails, known, exact, self.progress), strict=True):
            row["near_group"] = int(group)

    def _finish(self, state: State, before: tuple, plan: _Plan, labels: str | Path | None) -> None:
        """Commit where anything has changed, then remove what no row names."""
        facts = state.facts
        facts.facts = facts_of(state)
        table = state.to_table()
        facts.fingerprint, facts.pixel_fingerprint = fingerprints(state)
        old_table, old_quarantine, old_facts = before
        same = old_table is not None and old_table.equals(table) and old_quarantine == state.quarantine
        if not same or old_facts != facts.to_json():
            facts.history.append(
                {
                    "source": plan.where,
                    "labels": "" if labels is None else Path(labels).name,
                    "slices": self.slices,
                    "added": plan.added,
                    "changed": plan.replaced,
                }
            )
            commit(self.root, state, table)
        self._sweep({r["part"] for r in state.rows})

    def _sweep(self, parts: set[int]) -> None:
        shutil.rmtree(self.root / STAGING, ignore_errors=True)
        for folder in ("pixels", "thumbnails"):
            for path in (self.root / folder).iterdir():
                if path.name not in {f"{p:05d}.bin" for p in parts}:
                    path.unlink()
        for path in self.root.glob(".*.*.*"):
            if path.name.split(".")[1] in ("cases", "collection", "quarantine"):
                path.unlink()

    def clean_after_mistake(self, made: bool) -> None:
        """Leave no trace of an import that could not begin; keep what was read where it can go on."""
        if list((self.root / STAGING).glob("*.json")) or (self.root / CASES).exists():
            return
        for folder in (STAGING, "pixels", "thumbnails"):
            shutil.rmtree(self.root / folder, ignore_errors=True)
        (self.root / LOCK).unlink(missing_ok=True)
        if made:
            self.root.rmdir()


def _checked_places(source: str | Path, root: Path) -> bool:
    """Refuse what must not be touched, before anything is. Returns whether the destination has to be made."""
    if root.is_file():
        raise FewlabelError(f"{root} is a file: the collection goes into a folder, name another destination")
    theirs = (
        root.exists() and any(root.iterdir()) and not (root / CASES).exists() and not (root / LOCK).exists()
    )
    if theirs:
        raise FewlabelError(f"{root} has files in it and is no collection: name an empty or a new folder")
    if (root / CASES).exists():
        open_cases(root).close()
    if not str(source).startswith(MEDMNIST):
        place = Path(source)
        if not place.exists():
            raise FewlabelError(
                f"there is nothing at {source}: give the folder, archive or file that holds the images"
            )
        a, b = place.resolve(), root.resolve()
        if a == b or a in b.parents or b in a.parents:
            raise FewlabelError(
                f"{root} and the source {source} lie inside each other: name a destination outside"
            )
        if place.is_dir() and not any(place.iterdir()):
            raise FewlabelError(f"the folder {source} is empty: give the folder that holds the images")
    return not root.exists()


def _place_of(source: str | Path) -> Path:
    if str(source).startswith(MEDMNIST):
        from fewlabel.images.medmnist import medmnist_npz  # hardly any import needs it

        return medmnist_npz(str(source), Path.home() / ".medmnist")
    return Path(source)


def _check_before_reading(table: LabelTable, plan: _Plan, state: State, roles: Roles) -> None:
    """A wrong label file is told of now and not after an hour of reading. DICOM may still match by its
    header.
    """
    if any(s.kind in ("dicom", "series") for s in plan.new):
        return
    known = (r["source"] for r in state.rows if r["root"] == plan.where)
    names = list(dict.fromkeys([*(s.name for s in plan.new), *known]))  # a changed source is in both
    if not could_match(table, names, roles.file) and not any(
        r["patient_id"] for r in state.rows if r["root"] == plan.where
    ):
        match_rows(table, names, file_column=roles.file)


def _take_in(state: State, plan: _Plan, rows: list[JSON]) -> None:
    """Changed sources keep their place (or lose it, if unreadable now), new ones go to the end."""
    place = {
        r["source"]: i
        for i, r in enumerate(state.rows)
        if r["root"] == plan.where and r["source"] in plan.changed
    }
    taken = {r["case_id"] for r in state.rows}
    for row in rows:
        row |= {"root": plan.where, "text": "", "mask": ""}
        if row["source"] in place:
            i = place.pop(row["source"])
            row |= {k: state.rows[i][k] for k in ("case_id", "text", "mask")}
            row |= {k: row[k] or state.rows[i][k] for k in ("patient_id", "study_id", "view", "split")}
            state.rows[i] = row
        else:
            row["case_id"] = _free_id(row["source"], Path(plan.where).name, taken)
            taken.add(row["case_id"])
            state.rows.append(row)
            for name, column in state.columns.items():
                grown = (
                    [*column.values, column.empty] if len(column.values) < len(state.rows) else column.values
                )
                state.columns[name] = TypedColumn(name, column.kind, grown, column.origin)
    gone = set(place.values())
    if gone:
        state.rows = [r for i, r in enumerate(state.rows) if i not in gone]
        for name, column in state.columns.items():
            values = [v for i, v in enumerate(column.values) if i not in gone]
            state.columns[name] = TypedColumn(name, column.kind, values, column.origin)
    fresh = [i for i, r in enumerate(state.rows) if r.get("source_labels")]
    join_own(state, fresh, [state.rows[i].pop("source_labels") for i in fresh])


def _free_id(name: str, folder: str, taken: set[str]) -> str:
    """The source's name; where another source has it, with the folder's name before it, and then a number."""
    number, free = 1, name
    while free in taken:
        free = f"{folder}/{name}" if number == 1 else f"{folder}~{number}/{name}"
        number += 1
    return free


def _summary(root: Path, state: State, plan: _Plan, joined: Joined, seconds: float) -> ImportSummary:
    rows = state.rows
    named = {r["patient_id"] for r in rows if r["patient_id"]}
    return ImportSummary(
        path=root,
        images=len(rows),
        patients=len(named) + sum(not r["patient_id"] for r in rows),
        added=plan.added,
        changed=plan.replaced,
        unchanged=plan.unchanged,
        quarantined=len(state.quarantine),
        exact_duplicates=sum(r["exact_group"] >= 0 for r in rows),
        near_duplicates=sum(r["near_group"] >= 0 for r in rows),
        labels_matched=joined.matched,
        labels_unmatched=joined.unmatched,
        rows_unmatched=joined.rows_unmatched,
        notes=tuple(state.facts.facts),
        labels=tuple(c.name for c in state.facts.labels),
        reasons=dict(Counter(q["reason"] for q in state.quarantine).most_common()),
        seconds=seconds,
    )
