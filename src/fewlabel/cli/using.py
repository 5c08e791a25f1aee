"""Commands that use what was trained."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fewlabel.cli.options import Grades, split_words
from fewlabel.cli.program import app
from fewlabel.cli.progress import Bar

Files = Annotated[list[Path], typer.Argument(help="Image files or folders.")]


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A run made by fewlabel learn or evaluate.")],
    files: Files,
    out: Annotated[Path, typer.Option(help="The CSV file to write.")] = Path("predictions.csv"),
    abstain_above_risk: Annotated[
        float | None,
        typer.Option(
            help="Answer only where at most this share of answers is wrong, such as 0.05; all by default."
        ),
    ] = None,
) -> None:
    """Predict on new files, one row each. Exit status 3 if some could not be read, 1 if none could."""
    from fewlabel import pipeline

    with Bar("predicting") as progress:
        predictions = pipeline.predict(
            run, files, out=out, abstain_above_risk=abstain_above_risk, progress=progress
        )
    print(f"{predictions.summary}: {out}")
    _end_with_unreadable(predictions.rows)


@app.command()
def score(
    run: Annotated[Path, typer.Argument(help="A run made by fewlabel anomalies.")],
    files: Files,
    out: Annotated[Path, typer.Option(help="The folder for scores.csv and the maps.")] = Path("scores"),
) -> None:
    """Score how unlike normal images new files are, with maps. Exit status as of predict."""
    from fewlabel import pipeline

    with Bar("scoring") as progress:
        scored = pipeline.score_files(run, files, out, progress=progress)
    print(f"{scored.summary}: {scored.table}")
    _end_with_unreadable(scored.rows)


def _end_with_unreadable(rows: list[dict[str, str]]) -> None:
    """Say which files could not be read; exit status 3 if there are some, 1 if it was all of them."""
    unreadable = [row for row in rows if row["status"] != "ok"]
    for row in unreadable[:10]:
        print(f"unreadable: {row['file']}: {row['reason']}", file=sys.stderr)
    if unreadable:
        raise typer.Exit(1 if len(unreadable) == len(rows) else 3)


@app.command()
def inspect(
    collection: Annotated[Path, typer.Argument(help="A collection made by fewlabel import.")],
    target: Annotated[str, typer.Option(help="The label column to inspect.")],
    model: Annotated[
        Path | None, typer.Option(help="A run whose encoder says what is alike; without one, copies only.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder to write worth_a_look.csv to.")] = Path("."),
    grades: Grades = None,
) -> None:
    """List labels and images worth a second look: suspected labels, contradicting copies, outliers."""
    from fewlabel import pipeline

    inspected = pipeline.inspect_labels(collection, target, model, out, grades=split_words(grades))
    for note in inspected.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{inspected.summary}: {inspected.path}")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run made by fewlabel learn or evaluate.")],
    to: Annotated[str, typer.Option(help="onnx, torchscript or monai-bundle.")],
    out: Annotated[Path, typer.Option(help="A new folder for the network and its model card.")],
) -> None:
    """Write the classifier for other programs, checked against the run, with a model card."""
    from fewlabel import pipeline

    exported = pipeline.export_model(run, to, out)
    print(f"{exported.model}: at most {exported.equality.largest:.1e} from the run")
    print(f"model card: {exported.card}")


@app.command()
def generate(
    run: Annotated[Path, typer.Argument(help="A run made by fewlabel learn with --objective vae-gan.")],
    out: Annotated[Path, typer.Option(help="A new folder for the made images and their table.")],
    class_name: Annotated[
        str | None, typer.Option("--class", help="The class to make images of; by default each.")
    ] = None,
    count: Annotated[int, typer.Option(help="How many images of a class.")] = 100,
    seed: Annotated[int, typer.Option(help="The same seed makes the same images.")] = 0,
) -> None:
    """Make images of a class, each marked as made; those too close to a training image are left out."""
    from fewlabel import pipeline

    with Bar("making images") as progress:
        made = pipeline.generate(run, out, class_name=class_name, count=count, seed=seed, progress=progress)
    print(f"{made.summary}: {made.out}")


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A run made by fewlabel learn or evaluate.")]) -> None:
    """Write report.html again from results.json."""
    from fewlabel.report import write_report

    print(write_report(run))
