"""Commands that train and evaluate."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from fewlabel.cli.options import (
    Cluster,
    DropLeaks,
    Out,
    ReportsAt,
    TensorBoard,
    TextColumn,
    evaluation_options,
    pretraining_options,
    with_options,
    with_three_stages,
)
from fewlabel.cli.program import app
from fewlabel.cli.progress import Bar, is_terminal

Folder = Annotated[Path, typer.Argument(help="A collection made by fewlabel import, or a folder of images.")]
Target = Annotated[
    str | None,
    typer.Option(help='A label column, "column=value" or "column>number"; the only one by default.'),
]
LearnOut = Annotated[
    Path | None,
    typer.Option(help="Folder for the results, below runs/ by default; the same command continues it."),
]
PretrainOn = Annotated[
    list[Path] | None, typer.Option(help="A further collection to pretrain on; may be repeated.")
]


@app.command()
@with_three_stages
@with_options(evaluation_options, "evaluation")
@with_options(pretraining_options, "pretraining")
def learn(
    collection: Folder,
    pretraining: Any,
    evaluation: Any,
    target: Target = None,
    out: LearnOut = None,
    reports: ReportsAt = None,
    text_column: TextColumn = None,
    pretrain_on: PretrainOn = None,
    pretraining_seeds: Annotated[int, typer.Option(help="How many encoders to pretrain.")] = 1,
    drop_leaks: DropLeaks = False,
    tensorboard: TensorBoard = False,
) -> None:
    """The main job: pretrain without labels, learn from few, evaluate, and write report.html."""
    from fewlabel import pipeline

    with Bar("evaluating") as progress:
        learned = pipeline.learn(
            collection,
            target,
            out,
            reports=reports,
            text_column=text_column,
            pretrain_on=pretrain_on or (),
            pretraining=pretraining,
            evaluation=evaluation,
            pretraining_seeds=pretraining_seeds,
            drop_leaks=drop_leaks,
            tensorboard=tensorboard,
            bar=is_terminal(),
            progress=progress,
        )
    _print_ended(learned.results["warnings"], learned.headline, learned.report)


@app.command("cross-validate")
@with_options(evaluation_options, "evaluation")
@with_options(pretraining_options, "pretraining")
def cross_validate(
    collection: Folder,
    pretraining: Any,
    evaluation: Any,
    target: Target = None,
    folds: Annotated[int, typer.Option(help="Parts of the patients; each is tested once.")] = 5,
    out: LearnOut = None,
    reports: ReportsAt = None,
    text_column: TextColumn = None,
    pretrain_on: PretrainOn = None,
    drop_leaks: DropLeaks = False,
) -> None:
    """As learn, but every patient is tested once: pretrain and evaluate in each of several folds.

    Budgets are labels in a fold, by default --headline-budget and all of them.
    """
    from fewlabel import pipeline

    with Bar("evaluating") as progress:
        done = pipeline.cross_validate(
            collection,
            target,
            out,
            folds=folds,
            reports=reports,
            text_column=text_column,
            pretrain_on=pretrain_on or (),
            pretraining=pretraining,
            evaluation=evaluation,
            drop_leaks=drop_leaks,
            bar=is_terminal(),
            progress=progress,
        )
    _print_ended(done.results["warnings"], done.headline, done.page)


@app.command()
@with_options(pretraining_options, "settings")
def pretrain(
    collections: Annotated[list[Path], typer.Argument(help="One or more collections.")],
    out: Out,
    settings: Any,
    reports: ReportsAt = None,
    text_column: TextColumn = None,
    drop_leaks: DropLeaks = False,
    tensorboard: TensorBoard = False,
    cluster: Cluster = None,
    processes: Annotated[int, typer.Option(help="With --cluster: processes that train together.")] = 1,
) -> None:
    """Pretrain an encoder without labels; test patients are held out of every collection."""
    from fewlabel import pipeline
    from fewlabel.collection import Collection
    from fewlabel.processes import launched_rank
    from fewlabel.types import FewlabelError

    opened = [Collection.open(path) for path in collections]
    texts = pipeline.paired_texts(opened[0], reports, settings.text, text_column) if reports else None
    if cluster and texts:
        raise FewlabelError("--cluster came with --reports, which it does not take yet: leave --cluster out.")
    if cluster:
        pretrained = pipeline.pretrain_on_cluster(
            opened, out, settings, address=cluster, processes=processes, drop=drop_leaks
        )
    else:
        pretrained = pipeline.pretrain(
            opened,
            out,
            settings,
            texts=texts,
            drop=drop_leaks,
            tensorboard=tensorboard,
            progress=is_terminal() and launched_rank() == 0,
        )
    if launched_rank() != 0:
        return
    for warning in pretrained.fit.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{pretrained.fit.steps} steps on {pretrained.images} images: {out / 'encoder.safetensors'}")


@app.command()
@with_options(evaluation_options, "settings")
def evaluate(
    collection: Annotated[Path, typer.Argument(help="A collection with labels.")],
    target: Annotated[
        str, typer.Option("--target", help='A label column, or "column=value", or "column>number".')
    ],
    model: Annotated[Path, typer.Option(help="A run made by fewlabel pretrain or learn.")],
    out: Out,
    settings: Any,
    reports: ReportsAt = None,
    text_column: TextColumn = None,
    drop_leaks: DropLeaks = False,
    cluster: Cluster = None,
) -> None:
    """Evaluate a pretrained encoder on a target, against its baselines, and write report.html."""
    from fewlabel import pipeline

    with Bar("evaluating") as progress:
        learned = pipeline.evaluate(
            collection,
            target,
            model,
            out,
            evaluation=settings,
            reports=reports,
            text_column=text_column,
            drop_leaks=drop_leaks,
            cluster=cluster,
            progress=progress,
        )
    _print_ended(learned.results["warnings"], learned.headline, learned.report)


@app.command()
@with_options(partial(pretraining_options, objective="vae"), "pretraining")
def anomalies(
    collection: Annotated[Path, typer.Argument(help="A collection with labels.")],
    normal: Annotated[
        str,
        typer.Option(help="Which images are normal: an SQL expression over the columns; all others are not."),
    ],
    out: Out,
    pretraining: Any,
    where: Annotated[
        str | None, typer.Option(help="Use these images only: an SQL expression over the columns.")
    ] = None,
    specificity: Annotated[
        float, typer.Option(help="Thresholds leave this share of normal validation images below.")
    ] = 0.95,
    patches: Annotated[int, typer.Option(help="Normal places that are kept to compare with.")] = 5_000,
    drop_leaks: DropLeaks = False,
) -> None:
    """Learn from normal images alone what is not normal, and write anomalies.html on how well it tells."""
    from fewlabel import pipeline

    settings = pipeline.AnomalySettings(normal, where, specificity, patches)
    found = pipeline.find_anomalies(
        collection, settings, out, pretraining=pretraining, drop_leaks=drop_leaks, bar=is_terminal()
    )
    _print_ended(found.results["warnings"], found.headline, found.page)


def _print_ended(warnings: list[str], headline: str, page: Path) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(headline)
    print(f"report: {page}")
