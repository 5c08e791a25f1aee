"""The files of an index in a folder, and the manifest that says which of them count.

    manifest.json       replaced last: until then the index is what it was; it carries a checksum of itself
    00000012-0.npy      a segment: unit vectors (n, K) float32; zeros where a case was deleted
    00000012-0.arrow    its facts, n rows; all null where a case was deleted
    00000012.links      the links of the graph over the first rows, without the vectors

Files are never changed, only replaced by others of a later generation; each stands in the manifest with its checksum.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from fewlabel.collection.store import LOCK
from fewlabel.files import replacing, write_text
from fewlabel.search.cases import NoIndex, Origin
from fewlabel.types import JSON, FewlabelError

FORMAT = 1
MANIFEST = "manifest.json"
_OURS = re.compile(r"\.?\d{8}(-\d+)?\.(npy|arrow|links)(\.\d+)?")
BATCH_ROWS = 16_384
"""Rows of a batch of the facts, so that texts of a million reports stay within Arrow's 2 GiB a column and batch."""


@dataclass(frozen=True)
class Stored:
    """A file with its length and checksum."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Segment:
    """Some rows of an index, in order: their vectors and facts."""

    rows: int
    vectors: Stored
    facts: Stored


@dataclass(frozen=True)
class Links:
    """The graph over the first `rows` rows."""

    rows: int
    file: Stored


@dataclass(frozen=True)
class Manifest:
    """What is true of an index.

    fingerprint: of the collection that all of it agrees with; "" = with none yet. left_out: marks of patients who were
    removed.
    """

    generation: int
    origin: Origin
    fingerprint: str = ""
    segments: tuple[Segment, ...] = ()
    links: Links | None = None
    left_out: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Stored, ...]:
        """All files that count."""
        of_segments = tuple(file for one in self.segments for file in (one.vectors, one.facts))
        return of_segments if self.links is None else (*of_segments, self.links.file)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make it true, by one rename."""
    said = {"format": FORMAT, **asdict(manifest)}
    write_text(folder / MANIFEST, json.dumps({**said, "sha256": _digest(said)}, indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """What is true now. Raises FewlabelError where there is no index, a broken one, or one of another version."""
    try:
        said = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(said, dict) or said.pop("sha256", "") != _digest(said):
            raise ValueError("its checksum differs")
        if said["format"] != FORMAT:
            raise FewlabelError(
                f"The index at {folder} is of format {said['format']} and this version reads {FORMAT}: make it anew "
                "with `fewlabel index COLLECTION --model RUN --rebuild`."
            )
        return _manifest(said)
    except (FileNotFoundError, NotADirectoryError):
        raise NoIndex(
            f"There is no index at {folder}: make one with `fewlabel index COLLECTION --model RUN`."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, FewlabelError):
            raise
        raise FewlabelError(
            f"{folder / MANIFEST} is damaged ({error}): make the index anew with `fewlabel index COLLECTION --model "
            "RUN --rebuild`."
        ) from None


def _digest(said: JSON) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _manifest(said: JSON) -> Manifest:
    segments = tuple(
        Segment(int(one["rows"]), Stored(**one["vectors"]), Stored(**one["facts"]))
        for one in said["segments"]
    )
    links = said["links"] and Links(int(said["links"]["rows"]), Stored(**said["links"]["file"]))
    origin = Origin.from_json(said["origin"])
    left_out = tuple(said["left_out"])
    return Manifest(int(said["generation"]), origin, str(said["fingerprint"]), segments, links, left_out)


def store(folder: Path, name: str, write: Callable[[Path], Any]) -> Stored:
    """Write a file of the index, to last, and take its checksum."""
    with replacing(folder / name) as temporary:
        write(temporary)
        return replace(_measured(temporary), name=name)


def _measured(path: Path) -> Stored:
    with path.open("rb") as file:
        return Stored(path.name, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def check(folder: Path, manifest: Manifest, file: Stored) -> Path:
    """The path of a file, of which every byte is as it was written. Raises FewlabelError otherwise.

    FileNotFoundError where it is gone: a writer may have replaced it, then another manifest is there by now.
    """
    path = folder / file.name
    if path.stat().st_size != file.size or _measured(path) != file:
        raise FewlabelError(
            f"{path} is damaged (cut short or altered since it was written): make the index anew with "
            f"`{manifest.origin.command(str(folder), ' --rebuild')}`."
        )
    return path


def store_segment(folder: Path, name: str, vectors: np.ndarray, facts: pa.Table) -> Segment:
    """Vectors (n, K) and their n facts as a segment."""

    def write_vectors(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, np.ascontiguousarray(vectors, dtype=np.float32), allow_pickle=False)

    def write_facts(path: Path) -> None:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, facts.schema) as writer:
            writer.write_table(facts, max_chunksize=BATCH_ROWS)

    return Segment(
        len(vectors),
        store(folder, f"{name}.npy", write_vectors),
        store(folder, f"{name}.arrow", write_facts),
    )


def read_vectors(folder: Path, segment: Segment) -> np.ndarray:
    """The vectors of a segment by memory map."""
    return np.load(folder / segment.vectors.name, mmap_mode="r", allow_pickle=False)


def vectors_between(folder: Path, segments: Sequence[Segment], start: int, stop: int) -> list[np.ndarray]:
    """The vectors of rows start to stop, as views of the segments' files."""
    found, first = [], 0
    for one in segments:
        low, high = max(start - first, 0), min(stop - first, one.rows)
        if low < high:
            found.append(read_vectors(folder, one)[low:high])
        first += one.rows
    return found


def read_facts(folder: Path, segment: Segment) -> pa.Table:
    """The facts of a segment by memory map."""
    return pa.ipc.open_file(pa.memory_map(str(folder / segment.facts.name))).read_all()


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables one below the other; what one of them lacks is null, and what is text in one of them is text in all."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowTypeError:
        texts = {one.name for table in tables for one in table.schema if pa.types.is_string(one.type)}
        return pa.concat_tables([_as_text(table, texts) for table in tables], promote_options="permissive")


def _as_text(table: pa.Table, names: set[str]) -> pa.Table:
    schema = [pa.field(one.name, pa.string()) if one.name in names else one for one in table.schema]
    return table.cast(pa.schema(schema))


def store_links(folder: Path, name: str, graph: Any) -> Links:
    """The graph without its vectors, which the segments hold."""
    file = store(
        folder, f"{name}.links", lambda path: faiss.write_index(graph, str(path), faiss.IO_FLAG_SKIP_STORAGE)
    )
    return Links(int(graph.ntotal), file)


def read_links(folder: Path, links: Links, storage: Any) -> Any:
    """The graph, with `storage` as its vectors, which it takes over."""
    path = folder / links.file.name
    try:
        graph = faiss.read_index(str(path))
    except RuntimeError:
        if not path.exists():  # as any other file that is gone
            raise FileNotFoundError(path) from None
        raise
    graph.storage, graph.own_fields = storage, True
    storage.this.disown()  # it lives as long as the graph
    return graph


def holds_index(folder: Path) -> bool:
    """Whether there is an index, or what a first change left that was killed."""
    names = {path.name for path in folder.iterdir()}
    left = {name for name in names - {LOCK} if not name.startswith(f".{MANIFEST}.")}
    return MANIFEST in names or (LOCK in names and all(map(_OURS.fullmatch, left)))


def sweep(folder: Path, manifest: Manifest) -> None:
    """Remove files of earlier generations, and of processes that were killed; nothing that is not ours."""
    kept = {file.name for file in manifest.files}
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name) and path.name not in kept:
            path.unlink(missing_ok=True)
