"""`fewlabel index` and `fewlabel search`: a run's encoder, a collection, and an index of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fewlabel.collection import Collection
from fewlabel.pipeline.runs import read_json
from fewlabel.report.similar import Picture, SimilarPage, write_similar
from fewlabel.search import CaseIndex, Hit, NoIndex, begin_index, open_index, shown_labels, usual_place
from fewlabel.tasks.retrieval import (
    Embedder,
    Indexed,
    Query,
    case_query,
    index_cases,
    missing_cases,
    similar_cases,
)
from fewlabel.training.weights import ENCODER, load_encoder
from fewlabel.types import JSON, FewlabelError, ProgressCallback


@dataclass(frozen=True)
class Found:
    """What a search gave. missing: one sentence where the index is behind the collection, else ""."""

    query: Query
    hits: list[Hit]
    place: str
    missing: str = ""
    labels: list[str] = field(default_factory=list)

    def to_json(self) -> JSON:
        """For other programs: facts on each hit as the collection has them."""
        hits = [
            {
                "rank": rank,
                "similarity": hit.similarity,
                "case": hit.case,
                "patient": hit.patient,
                "facts": hit.facts,
            }
            for rank, hit in enumerate(self.hits, start=1)
        ]
        asked = {"name": self.query.name, "patient": self.query.patient}
        return {"query": asked, "index": self.place, "hits": hits, "missing": self.missing}


def load_embedder(run: str | Path) -> Embedder:
    """The encoder of a run made by `pretrain`, `learn` or `evaluate`. Raises FewlabelError where it is not finished."""
    folder = Path(run).absolute()
    if (folder / "model" / "model.json").exists():
        said = read_json(folder / "model" / "model.json", "fewlabel learn")
        path, size_px, store_px = folder / "model" / ENCODER, said["size_px"], said["store_px"]
    else:
        said = read_json(folder / "pretrain.json", "fewlabel pretrain")
        path, size_px, store_px = folder / ENCODER, said["settings"]["size_px"], said["store_px"]
    return Embedder(load_encoder(path), int(size_px), int(store_px), str(folder))


def index_collection(
    collection: str | Path,
    model: str | Path,
    *,
    to: str | None = None,
    rebuild: bool = False,
    progress: ProgressCallback | None = None,
) -> Indexed:
    """Make the index of a collection, or bring it up to date; only what is new or has changed is embedded.

    model: a run. to: a folder or postgresql://...; None = "index" in the collection's folder. rebuild: make it anew,
    whatever is there. Raises FewlabelError as `index_cases` does.
    """
    opened, embedder = Collection.open(collection), load_embedder(model)
    place = to or usual_place(str(collection))
    if rebuild:
        index = begin_index(place, embedder.origin(opened))
    else:
        index = _open_or_begin(place, embedder, opened)
    return index_cases(opened, index, embedder, progress=progress)


def _open_or_begin(place: str, embedder: Embedder, collection: Collection) -> CaseIndex:
    try:
        return open_index(place)
    except NoIndex:
        return begin_index(place, embedder.origin(collection))


def delete_patient(collection: str | Path, patient: str, *, index: str | None = None) -> int:
    """Remove a patient from the index of a collection; returns how many cases went.

    Raises FewlabelError where there is no index or no case of that patient.
    """
    opened = open_index(index or usual_place(str(collection)))
    count = opened.delete_patient(patient)
    if not count:
        raise FewlabelError(f"The index at {opened.place} has no case of patient {patient!r}: check the id.")
    return count


def search_collection(
    collection: str | Path,
    file: str | Path | None = None,
    *,
    case: str | None = None,
    index: str | None = None,
    model: str | Path | None = None,
    k: int = 10,
    where: str | None = None,
    exclude_patient: bool = False,
    patient: str | None = None,
    page: str | Path | None = None,
) -> Found:
    """The cases of a collection that are most similar to a file, or to one of its own cases.

    file: anything that the readers read; it is treated as `fewlabel predict` would. case: a case_id instead. index: as
    `to` of `index_collection`. model: the run whose encoder made the index; None = where it was then. patient: whose
    the query is; None = as the file or the collection says. page: a file to write, one page with the pictures.
    Raises FewlabelError, one sentence, for every mistake of the user.
    """
    if (file is None) == (case is None):
        raise FewlabelError(
            "A search needs one query: give an image file, or a case of the collection with --case."
        )
    opened = Collection.open(collection)
    found = open_index(index or usual_place(str(collection)))
    query = (
        case_query(found, case) if case is not None else _file_query(found, opened, Path(str(file)), model)
    )
    if patient is not None:
        query = Query(query.name, query.vector, patient, query.case, query.square)
    hits = similar_cases(
        found, query, k=k, where=where, exclude_patient=exclude_patient or patient is not None
    )
    labels = [shown_labels(hit.facts, opened.labels.values()) for hit in hits]
    answer = Found(query, hits, found.place, missing_cases(opened, found), labels)
    if page is not None:
        _write_page(Path(page), opened, answer, found.origin.store_px, found.origin.channels)
    return answer


def _file_query(index: CaseIndex, collection: Collection, file: Path, model: str | Path | None) -> Query:
    if not file.is_file():
        raise FewlabelError(f"There is no file {file}: give one image to search with, or a case with --case.")
    run = Path(model or index.origin.run)
    if not run.exists():
        raise FewlabelError(
            f"The model that made the index at {index.place} was at {run} and is gone: say with --model where it is."
        )
    embedder = load_embedder(run)
    index.origin.check_same(embedder.origin(collection), index.place)
    return embedder.embed_file(file, index.origin.max_side_px)


def _write_page(path: Path, collection: Collection, found: Found, store_px: int, channels: int) -> None:
    squares = collection.square(store_px, channels=channels)
    rows = {case: row for row, case in enumerate(collection.column("case:case_id"))}

    def picture(case: str) -> np.ndarray | None:
        return squares[rows[case]] if case in rows else None

    query = found.query
    asked = query.square if query.square is not None else picture(query.case)
    facts = [_facts(hit, labels) for hit, labels in zip(found.hits, found.labels, strict=True)]
    hits = [
        Picture(hit.case, picture(hit.case), hit.similarity, told)
        for hit, told in zip(found.hits, facts, strict=True)
    ]
    patient = {"patient": query.patient} if query.patient else {}
    write_similar(
        path,
        SimilarPage(collection.name, Picture(query.name, asked, None, patient), tuple(hits), found.missing),
    )


def _facts(hit: Hit, labels: str) -> dict[str, str]:
    said = {"patient": hit.patient, "view": str(hit.facts.get("view") or ""), "labels": labels}
    return {name: text for name, text in said.items() if text}
