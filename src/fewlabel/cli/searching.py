"""Commands that make an index of a collection, and find similar cases by it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewlabel.cli.program import app
from fewlabel.cli.progress import Bar

if TYPE_CHECKING:
    from fewlabel.pipeline.searching import Found

Indexed = Annotated[Path, typer.Argument(help="A collection made by fewlabel import.")]


@app.command()
def index(
    collection: Indexed,
    model: Annotated[
        Path | None, typer.Option(help="A run made by fewlabel pretrain or learn, whose encoder is used.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(help="A folder, or postgresql://user@host/database; by default COLLECTION/index."),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make it anew from the collection, whatever is there.")
    ] = False,
    delete_patient: Annotated[
        str | None,
        typer.Option(help="Remove this patient from the index and keep him out of it until --rebuild."),
    ] = None,
) -> None:
    """Make the index of a collection for fewlabel search; again: add what is new."""
    from fewlabel.pipeline import searching
    from fewlabel.types import FewlabelError

    if delete_patient is not None:
        if rebuild:
            raise FewlabelError(
                "--delete-patient came with --rebuild, which would bring the patient back: give one."
            )
        count = searching.delete_patient(collection, delete_patient, index=to)
        print(f"{count} cases of patient {delete_patient} removed")
        return
    if model is None:
        raise FewlabelError("No model was given: name the run whose encoder is to be used with --model.")
    with Bar("indexing") as progress:
        print(searching.index_collection(collection, model, to=to, rebuild=rebuild, progress=progress))


@app.command()
def search(
    collection: Indexed,
    query: Annotated[Path | None, typer.Argument(help="An image file to find similar cases to.")] = None,
    case: Annotated[str | None, typer.Option(help="Ask with this case of the collection instead.")] = None,
    k: Annotated[int, typer.Option("--k", help="How many cases to find.")] = 10,
    where: Annotated[
        str | None,
        typer.Option(help="Find only cases for which this holds: an SQL expression over the columns."),
    ] = None,
    exclude_patient: Annotated[
        bool, typer.Option("--exclude-patient", help="Leave out the query's own patient.")
    ] = False,
    patient: Annotated[str | None, typer.Option(help="The query's patient, who is left out.")] = None,
    at: Annotated[
        str | None, typer.Option("--index", help="Where the index is; by default COLLECTION/index.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="The run that made the index, where it is no longer in its place.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Also write one page with the pictures.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Find the cases of a collection that are most similar to an image."""
    from fewlabel.pipeline.searching import search_collection

    found = search_collection(
        collection,
        query,
        case=case,
        index=at,
        model=model,
        k=k,
        where=where,
        exclude_patient=exclude_patient,
        patient=patient,
        page=report,
    )
    if json:
        _print_json(found)
        return
    if found.missing:
        print(f"warning: {found.missing}", file=sys.stderr)
    _print_table(found)
    if report:
        print(f"report: {report}")


def _print_json(found: Found) -> None:
    import json

    print(json.dumps(found.to_json(), indent=1, default=str))


def _print_table(found: Found) -> None:
    """In columns, without a frame, so that other programs can read it, too."""
    header = ("rank", "similarity", "case", "patient", "view", "labels")
    lines = [
        (str(rank), f"{hit.similarity:.3f}", hit.case, hit.patient, str(hit.facts.get("view") or ""), labels)
        for rank, (hit, labels) in enumerate(zip(found.hits, found.labels, strict=True), start=1)
    ]
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    for line in (header, *lines):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
