"""Commands that make collections, and images to try things out with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewlabel.cli.options import Cluster, one_of
from fewlabel.cli.program import app
from fewlabel.cli.progress import Bar

Column = Annotated[str | None, typer.Option(help="Name of that column in the label file.")]


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="Folder, archive, .npz or image file; or medmnist:NAME.")],
    to: Annotated[Path, typer.Option(help="Folder of the collection; made, or added to.")],
    labels: Annotated[
        str | None, typer.Option(help="A CSV file, or the word folders for folder names.")
    ] = None,
    file_column: Column = None,
    patient_column: Column = None,
    study_column: Column = None,
    view_column: Column = None,
    split_column: Column = None,
    text_column: Column = None,
    max_side: Annotated[int, typer.Option(help="Larger images are shrunk to this side in pixels.")] = 512,
    slices: Annotated[
        bool, typer.Option("--slices", help="Make every slice of a volume an image of its own.")
    ] = False,
    unlisted: Annotated[
        str, typer.Option(help='What "A|B" columns say of C: negative, or "not mentioned".')
    ] = "negative",
    workers: Annotated[int | None, typer.Option(help="Processes; all cores by default.")] = None,
    cluster: Cluster = None,
) -> None:
    """Read images (and labels) of any kind into a collection."""
    from fewlabel.collection import import_images
    from fewlabel.types import FewlabelError

    if unlisted not in ("negative", "not mentioned"):
        raise FewlabelError(f'--unlisted is {unlisted!r}: use negative or "not mentioned".')
    with Bar("importing") as progress:
        summary = import_images(
            source,
            to,
            labels="folders" if labels == "folders" else Path(labels) if labels else None,
            file_column=file_column,
            patient_column=patient_column,
            study_column=study_column,
            view_column=view_column,
            split_column=split_column,
            text_column=text_column,
            max_side_px=max_side,
            slices=slices,
            unlisted="negative" if unlisted == "negative" else "not mentioned",
            workers=workers,
            cluster=cluster,
            progress=progress,
        )
    print(summary)


@app.command()
def phantoms(
    out: Annotated[Path, typer.Argument(help="A new folder for the made images.")],
    kind: Annotated[str, typer.Option(help="radiographs, or fundi with grades.")] = "radiographs",
    count: Annotated[
        int, typer.Option(help="How many radiographs; of fundi how many patients, two images each.")
    ] = 2500,
    size: Annotated[int, typer.Option("--size", help="Side in pixels.")] = 64,
    difficulty: Annotated[
        str, typer.Option(help="Of radiographs: usual, or easy for large, dense opacities.")
    ] = "usual",
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
) -> None:
    """Make images with known findings, and labels.csv; to try things out without patients' data."""
    from fewlabel.phantoms import EASY, write_fundi, write_radiographs

    one_of("--kind", kind, ("radiographs", "fundi"))
    one_of("--difficulty", difficulty, ("usual", "easy"))
    if kind == "fundi":
        write_fundi(out, count, seed, size_px=size)
    else:
        write_radiographs(
            out, count, seed=seed, size_px=size, difficulty=EASY if difficulty == "easy" else None
        )
    print(f"made {kind} and labels.csv: {out}")
