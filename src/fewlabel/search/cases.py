"""What an index knows beside vectors: what it was made of, and the facts on each case."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fewlabel.collection import Collection
from fewlabel.collection.tables import LABEL_PREFIX
from fewlabel.types import JSON, FewlabelError, LabelColumn, LabelState

_STORAGE = (
    "root", "stamp", "source_kind", "spacing_mm", "shape", "dtype", "display_low", "display_high", "has_padding",
    "affine", "provenance", "warnings", "file_hash", "exact_group", "near_group", "part", "slot", "offset", "nbytes",
    "mask",
)  # fmt: skip
"""Columns of a collection that say where a file or a record lies and nothing of the case."""
HASHES = ("pixel_hash", "facts_hash")
"""Columns that tell whether a case has changed since."""
_FRIENDLY = {
    "view": re.compile(r"view([ _-]*position)?|projection", re.IGNORECASE),
    "age": re.compile(r"(patient[ _-]*)?age([ _-]*\(?(in[ _-]*)?(years?|y)\)?)?", re.IGNORECASE),
    "sex": re.compile(r"(patient[ _-]*)?(sex|gender)", re.IGNORECASE),
}
"""Facts that files and tables call by several names."""


class NoIndex(FewlabelError):
    """Where an index was looked for there is none."""


@dataclass(frozen=True)
class Origin:
    """What the vectors of an index come from. Only vectors of the same model and preprocessing can be compared.

    model: fingerprint of the encoder's weights. run: the folder it was taken from. encoder: the network's name.
    collection: the folder of the images. dim: K. size_px: side of what the encoder sees, drawn from squares of
    `store_px` with `channels`; images with a side above `max_side_px` are shrunk to it before.
    """

    model: str
    run: str
    encoder: str
    collection: str
    dim: int
    size_px: int
    store_px: int
    channels: int
    max_side_px: int

    def to_json(self) -> JSON:
        """For a file or a table."""
        return asdict(self)

    @staticmethod
    def from_json(found: JSON) -> Origin:
        """What `to_json` gave. Raises KeyError where something is missing."""
        return Origin(**{one.name: found[one.name] for one in fields(Origin)})

    def command(self, place: str, extra: str = "") -> str:
        """The command that fills the index at `place`."""
        usual = place == usual_place(self.collection)
        return (
            f"fewlabel index {self.collection} --model {self.run}{'' if usual else f' --to {place}'}{extra}"
        )

    def check_same(self, other: Origin, place: str) -> None:
        """Raise FewlabelError where vectors of `other` cannot be compared with those of the index at `place`."""
        if self.model != other.model:
            raise FewlabelError(
                f"The index at {place} was made by model {self.model} ({self.encoder} of {self.run}), and {other.run} "
                f"holds model {other.model} ({other.encoder}): give the model that made it, or make the index anew "
                f"with `{other.command(place, ' --rebuild')}`."
            )
        differing = [
            f"{name} {getattr(self, name)} and not {getattr(other, name)}"
            for name in ("dim", "size_px", "store_px", "channels", "max_side_px")
            if getattr(self, name) != getattr(other, name)
        ]
        if differing:
            raise FewlabelError(
                f"The index at {place} was made with other preprocessing ({', '.join(differing)}): make it anew with "
                f"`{other.command(place, ' --rebuild')}`."
            )


@dataclass(frozen=True)
class Hit:
    """A case that was found: its cosine with the query in [-1, 1], and the facts that are known of it, by column."""

    similarity: float
    facts: JSON = field(default_factory=dict)

    @property
    def case(self) -> str:
        """Its id in the collection."""
        return str(self.facts["case_id"])

    @property
    def patient(self) -> str:
        """ "" where it is not known."""
        return str(self.facts.get("patient_id") or "")


def left_out_mark(patient: str) -> str:
    """What an index keeps of a patient who was removed, so that he stays out: no name, but the same for the same id."""
    return hashlib.sha256(f"fewlabel left out {patient}".encode()).hexdigest()


def without_left_out(facts: pa.Table, left_out: frozenset[str]) -> pa.Table:
    """The facts on cases of other patients than those."""
    if not left_out:
        return facts
    out = [
        patient for patient in facts["patient_id"].unique().to_pylist() if left_out_mark(patient) in left_out
    ]
    return facts.filter(pc.invert(pc.is_in(facts["patient_id"], pa.array(out, pa.string()))))


def usual_place(collection: str) -> str:
    """Where the index of a collection lies unless another place is asked for: in its folder."""
    return f"{collection.rstrip('/')}/index"


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, K) at length 1, float32; zeros stay zeros, whose cosine with everything is 0.

    Raises FewlabelError for NaN or infinity.
    """
    if not np.isfinite(vectors).all():
        raise FewlabelError("Features hold NaN or infinity: the model is broken; pretrain it again.")
    exact = vectors.astype(np.float64)
    return (exact / np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def case_facts(collection: Collection) -> pa.Table:
    """What a collection says of its cases, one row a case: ids, view, labels, numbers, texts, and `HASHES`.

    Labels are as in the collection: 1, 0, -1 (uncertain), -2 (not mentioned) where they are binary. Whatever a table or
    file called them, there are also columns view, age (years) and sex, where there is something to fill them with.
    """
    table = collection.cases.replace_schema_metadata(None)
    table = _with_friendly(table.drop_columns([name for name in _STORAGE if name in table.column_names]))
    return table.append_column("facts_hash", pa.array(_hashes(table), pa.string()))


def _hashes(table: pa.Table) -> list[str]:
    found = []
    for batch in table.to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            found.append(hashlib.sha256(json.dumps(row, default=str).encode()).hexdigest()[:16])
    return found


@dataclass(frozen=True)
class Difference:
    """How a collection differs from an index of it.

    new, changed: rows of the collection that the index lacks, or whose pixels it knows otherwise. facts: rows of which
    it knows the pixels, but other facts. gone: ids of cases that the collection no longer has.
    """

    new: np.ndarray
    changed: np.ndarray
    facts: np.ndarray
    gone: tuple[str, ...]

    @property
    def none(self) -> bool:
        """Whether there is nothing to do."""
        return not (len(self.new) or len(self.changed) or len(self.facts) or self.gone)


def difference(facts: pa.Table, known: Mapping[str, tuple[str, str]]) -> Difference:
    """What has come about since. facts: of the collection. known: the `HASHES` of each case in the index, by id."""
    new: list[int] = []
    changed: list[int] = []
    other: list[int] = []
    ids = facts["case_id"].to_pylist()
    hashes = zip(*(facts[name].to_pylist() for name in HASHES), strict=True)
    for row, (case, (pixels, said)) in enumerate(zip(ids, hashes, strict=True)):
        there = known.get(case)
        if there is None:
            new.append(row)
        elif there[0] != pixels:
            changed.append(row)
        elif there[1] != said:
            other.append(row)
    gone = tuple(known.keys() - set(ids))
    as_rows = [np.array(one, dtype=np.int64) for one in (new, changed, other)]
    return Difference(as_rows[0], as_rows[1], as_rows[2], gone)


def _with_friendly(table: pa.Table) -> pa.Table:
    """With columns view, age and sex: what the first column says that is called so, or much so, and says anything.

    A column that is called so itself goes first, and nothing is added where it is another's by case alone.
    """
    for name, pattern in _FRIENDLY.items():
        named = sorted(
            (one for one in table.column_names if pattern.fullmatch(one)), key=lambda one: one != name
        )
        if not named or any(one.lower() == name and one != name for one in named):
            continue
        kind = pa.float64() if name == "age" else pa.string()
        filled = pc.coalesce(*(_filled(table[one], kind) for one in named))
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, filled)
        else:
            table = table.append_column(name, filled)
    return table


def _filled(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Of one type, null where there is nothing; text that is no number is nothing where numbers are asked for."""
    if pa.types.is_string(column.type):
        blank = pc.equal(pc.utf8_trim_whitespace(column), "")
        column = pc.if_else(blank, None, column)
        if pa.types.is_floating(kind):
            column = pc.if_else(pc.match_substring_regex(column, r"^\d+(\.\d+)?$"), column, None)
    return column.cast(kind)


def shown_labels(facts: JSON, labels: Iterable[LabelColumn]) -> str:
    """The labels of a case in a few words: what is positive or uncertain, classes and numbers."""
    words = []
    for label in labels:
        stored = f"{LABEL_PREFIX}{label.name}"
        value = facts.get(stored, facts.get(label.name))
        if value is None or value == "" or value != value:
            continue
        if label.kind != "binary":
            words.append(f"{label.name} {value:g}" if label.kind == "number" else f"{label.name} {value}")
        elif value in (LabelState.POSITIVE, LabelState.UNCERTAIN):
            words.append(label.name + ("?" if value == LabelState.UNCERTAIN else ""))
    return ", ".join(words)
