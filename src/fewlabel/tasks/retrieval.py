"""Similar cases: the index of a collection is brought up to date, and asked with images that are in it or not.

Images are compared by the cosine of their features h by a frozen encoder, as `evaluation.retrieval` measures it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from fewlabel.adaptation.features import extract_features, weights_fingerprint
from fewlabel.collection import Collection, square_image
from fewlabel.images import read_file
from fewlabel.networks import Encoder
from fewlabel.search import (
    CaseIndex,
    Hit,
    Origin,
    case_facts,
    difference,
    left_out_mark,
    unit,
    without_left_out,
)
from fewlabel.types import FewlabelError, ProgressCallback

BLOCK = 8192
"""Images between two steps of an index; after a kill no more than so many are embedded again."""


@dataclass(frozen=True)
class Embedder:
    """An encoder with the sizes of its images, taken from a run.

    size_px: side of what the encoder sees; store_px: of the squares that this is drawn from.
    """

    encoder: Encoder
    size_px: int
    store_px: int
    run: str

    def origin(self, collection: Collection) -> Origin:
        """What an index of the collection by this encoder is made of."""
        settings = self.encoder.settings
        return Origin(
            model=weights_fingerprint(self.encoder),
            run=self.run,
            encoder=settings.name,
            collection=str(collection.path),
            dim=self.encoder.dim,
            size_px=self.size_px,
            store_px=self.store_px,
            channels=settings.channels,
            max_side_px=collection.max_side_px,
        )

    def embed_rows(
        self, collection: Collection, rows: np.ndarray, progress: ProgressCallback | None = None
    ) -> np.ndarray:
        """Unit vectors (n, F) of some images of a collection."""
        squares = collection.square(self.store_px, channels=self.encoder.settings.channels, progress=progress)
        return unit(extract_features(self.encoder, squares[rows], size_px=self.size_px))

    def embed_file(self, path: Path, max_side_px: int) -> Query:
        """A file as `fewlabel predict` would see it. Raises UnreadableImage for what is no 2-D image.

        max_side_px: of the collection that is asked.
        """
        image = read_file(path)
        channels = self.encoder.settings.channels
        square = square_image(image, self.store_px, channels=channels, max_side_px=max_side_px)
        features = extract_features(self.encoder, square[None], size_px=self.size_px)
        return Query(str(path), unit(features)[0], image.patient_id, square=square)


@dataclass(frozen=True)
class Query:
    """What is asked with: a unit vector (F,) and whose it is ("" = not known).

    case: its id where it is a case of the index, which is then never found. square: (C, S, S), where it is a file.
    """

    name: str
    vector: np.ndarray
    patient: str = ""
    case: str = ""
    square: np.ndarray | None = None


@dataclass(frozen=True)
class Indexed:
    """What an index run did. new, changed, facts, gone: cases; total: in the index now."""

    place: str
    new: int
    changed: int
    facts: int
    gone: int
    total: int

    def __str__(self) -> str:
        done = {
            "added": self.new,
            "embedded again": self.changed,
            "with new facts": self.facts,
            "removed": self.gone,
        }
        said = ", ".join(f"{count} {what}" for what, count in done.items() if count) or "nothing to do"
        return f"{self.place}: {self.total} cases ({said})"


def index_cases(
    collection: Collection,
    index: CaseIndex,
    embedder: Embedder,
    *,
    progress: ProgressCallback | None = None,
) -> Indexed:
    """Bring an index up to date with a collection: new cases are added, changed ones replaced, gone ones removed.

    It goes in steps of `BLOCK` images; a run that was stopped goes on with the next call. Raises FewlabelError for an
    index by another model or preprocessing, and while another process writes to it.
    """
    index.origin.check_same(embedder.origin(collection), index.place)
    if len(index) and index.fingerprint == collection.fingerprint:
        return Indexed(index.place, 0, 0, 0, 0, len(index))
    facts = without_left_out(case_facts(collection), index.left_out)
    found = difference(facts, index.known())
    places = collection_rows(collection, facts)
    rows = np.sort(np.concatenate([found.new, found.changed]))
    changed = set(facts["case_id"].take(pa.array(found.changed)).to_pylist())
    leaving, other = list(found.gone), facts.take(pa.array(found.facts)) if len(found.facts) else None
    for block in _blocks(rows):
        vectors = embedder.embed_rows(collection, places[block], progress)
        table = facts.take(pa.array(block))
        replaced = [case for case in table["case_id"].to_pylist() if case in changed]
        last = not len(rows) or block[-1] == rows[-1]
        index.change(
            remove=[*leaving, *replaced],
            add=(vectors, table),
            facts=other,
            fingerprint=collection.fingerprint if last else "",
        )
        leaving, other = [], None
        if progress:
            progress(int(np.searchsorted(rows, block[-1], side="right")), len(rows), "images")
    if not len(rows):
        index.change(remove=leaving, facts=other, fingerprint=collection.fingerprint)
    return Indexed(
        index.place, len(found.new), len(found.changed), len(found.facts), len(found.gone), len(index)
    )


def collection_rows(collection: Collection, facts: pa.Table) -> np.ndarray:
    """(n,) the row of the collection for each row of facts on some of its cases, in its order."""
    if len(facts) == len(collection):
        return np.arange(len(collection))
    return np.flatnonzero(
        np.isin(collection.column("case:case_id").astype(str), facts["case_id"].to_pylist())
    )


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK]


def missing_cases(collection: Collection, index: CaseIndex) -> str:
    """One sentence on what came to the collection since the index was filled, and the command; "" for nothing."""
    if index.fingerprint == collection.fingerprint:
        return ""
    known, ids = index.known(), collection.column("case:case_id")
    patients = collection.column("case:patient_id") if index.left_out else [""] * len(ids)
    missing = sum(
        case not in known and not (patient and left_out_mark(patient) in index.left_out)
        for case, patient in zip(ids, patients, strict=True)
    )
    gone = len(known.keys() - set(ids))
    if not (missing or gone):
        return ""
    said = f"{missing} of {len(collection)} images of {collection.path} are not in the index"
    if gone:
        said += f", and {gone} of its cases are no longer in the collection"
    here = replace(index.origin, collection=str(collection.path))  # it may have been moved
    return f"{said}: bring it up to date with `{here.command(index.place)}`."


def case_query(index: CaseIndex, case: str) -> Query:
    """A case of the index as query. Raises FewlabelError for one that it does not have."""
    found = index.vector_of(case)
    if found is None:
        raise FewlabelError(
            f"The index at {index.place} has no case {case!r}: give a case_id as in cases.parquet, or add new images "
            f"with `{index.origin.command(index.place)}`."
        )
    vector, hit = found
    return Query(case, vector, hit.patient, case)


def similar_cases(
    index: CaseIndex, query: Query, *, k: int = 10, where: str | None = None, exclude_patient: bool = False
) -> list[Hit]:
    """The k most similar cases, best first; fewer where `where` and the patient leave fewer.

    where: an SQL expression over the facts on cases. exclude_patient: leave the query's own patient out. Raises
    FewlabelError for a k below 1 or above the number of cases, a patient that is to be left out and not known, a
    mistake in the expression, and where nothing is left to be found.
    """
    if not 1 <= k <= len(index):
        raise FewlabelError(
            f"{k} similar cases were asked for and the index at {index.place} holds {len(index)}: ask for 1 to "
            f"{len(index)}."
        )
    if exclude_patient and not query.patient and not query.case:
        raise FewlabelError(
            f"{query.name} does not say whose it is, so its patient cannot be left out: name him with --patient."
        )
    patient = query.patient if exclude_patient else ""
    hits = index.nearest(query.vector, k, where=where, without_patient=patient, without_case=query.case)
    if not hits:
        left = f" where {where}" if where else ""
        others = " of other patients" if patient else ""
        raise FewlabelError(f"The index at {index.place} holds no case{others}{left}: ask for others.")
    return hits
