"""Commands that train and evaluate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fewlabel.cli.options import (
    BatchSize,
    Budgets,
    Checkpointing,
    Cluster,
    DropLeaks,
    DropPriors,
    EncoderName,
    Flips,
    FrozenLayers,
    HeadLayers,
    HeadlineBudget,
    Loss,
    MicroBatch,
    NoSupervised,
    Objective,
    Optimizer,
    Out,
    PositivesFrom,
    Prompts,
    Rate,
    RecipeName,
    ReportsAt,
    Seed,
    Seeds,
    Size,
    StartSize,
    Steps,
    Student,
    TargetName,
    Temperature,
    TensorBoard,
    TextColumn,
    TextEncoderName,
    TextViewName,
    ValidationLabels,
    Views,
    Weights,
    Where,
    evaluate_settings,
    pretrain_settings,
    text_settings,
)
from fewlabel.cli.program import app
from fewlabel.cli.progress import Bar, is_terminal


@app.command()
def learn(
    collection: Annotated[
        Path, typer.Argument(help="A collection made by fewlabel import, or a folder of images.")
    ],
    target: Annotated[
        str | None,
        typer.Option(
            "--target", help='A label column, "column=value" or "column>number"; the only one by default.'
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder for the results, below runs/ by default; the same command continues it."
        ),
    ] = None,
    reports: ReportsAt = None,
    text_column: TextColumn = None,
    text_encoder: TextEncoderName = None,
    frozen_layers: FrozenLayers = None,
    text_view: TextViewName = "sentence",
    drop_priors: DropPriors = False,
    prompts: Prompts = None,
    pretrain_on: Annotated[
        list[Path] | None, typer.Option(help="A further collection to pretrain on; may be repeated.")
    ] = None,
    where: Where = None,
    budgets: Budgets = None,
    headline_budget: HeadlineBudget = 50,
    seeds: Seeds = 5,
    pretraining_seeds: Annotated[int, typer.Option(help="How many encoders to pretrain.")] = 1,
    validation_labels: ValidationLabels = None,
    no_supervised: NoSupervised = False,
    recipe: RecipeName = "probe",
    student: Student = "resnet18",
    objective: Objective = "simclr",
    encoder: EncoderName = "resnet18",
    weights: Weights = None,
    size: Size = 64,
    steps: Steps = 1000,
    batch_size: BatchSize = 256,
    micro_batch: MicroBatch = None,
    start_size: StartSize = None,
    head_layers: HeadLayers = 2,
    checkpointing: Checkpointing = False,
    positives: PositivesFrom = "views",
    learning_rate: Rate = 1e-3,
    optimizer: Optimizer = "adamw",
    temperature: Temperature = None,
    views: Views = None,
    flips: Flips = False,
    loss: Loss = "nt-xent",
    seed: Seed = 0,
    drop_leaks: DropLeaks = False,
    tensorboard: TensorBoard = False,
) -> None:
    """The main job: pretrain without labels, learn from few, evaluate, and write report.html."""
    from fewlabel import pipeline

    pretraining = pretrain_settings(
        text=text_settings(text_encoder, frozen_layers, text_view, drop_priors),
        objective=objective,
        encoder=encoder,
        weights=weights,
        size_px=size,
        steps=steps,
        batch_size=batch_size,
        micro_batch=micro_batch,
        start_size_px=start_size,
        head_layers=head_layers,
        checkpointing=checkpointing,
        positives=positives,
        learning_rate=learning_rate,
        optimizer=optimizer,
        temperature=temperature,
        views=views,
        flips=flips,
        loss=loss,
        seed=seed,
    )
    evaluation = evaluate_settings(
        target or "",
        where,
        budgets,
        headline_budget,
        seeds,
        validation_labels,
        no_supervised,
        recipe,
        student,
        prompts,
    )
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
    _print_learned(learned)


@app.command()
def pretrain(
    collections: Annotated[list[Path], typer.Argument(help="One or more collections.")],
    out: Out,
    reports: ReportsAt = None,
    text_column: TextColumn = None,
    text_encoder: TextEncoderName = None,
    frozen_layers: FrozenLayers = None,
    text_view: TextViewName = "sentence",
    drop_priors: DropPriors = False,
    objective: Objective = "simclr",
    encoder: EncoderName = "resnet18",
    weights: Weights = None,
    size: Size = 64,
    steps: Steps = 1000,
    batch_size: BatchSize = 256,
    micro_batch: MicroBatch = None,
    start_size: StartSize = None,
    head_layers: HeadLayers = 2,
    checkpointing: Checkpointing = False,
    positives: PositivesFrom = "views",
    learning_rate: Rate = 1e-3,
    optimizer: Optimizer = "adamw",
    temperature: Temperature = None,
    views: Views = None,
    flips: Flips = False,
    loss: Loss = "nt-xent",
    seed: Seed = 0,
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

    settings = pretrain_settings(
        text=text_settings(text_encoder, frozen_layers, text_view, drop_priors),
        objective=objective,
        encoder=encoder,
        weights=weights,
        size_px=size,
        steps=steps,
        batch_size=batch_size,
        micro_batch=micro_batch,
        start_size_px=start_size,
        head_layers=head_layers,
        checkpointing=checkpointing,
        positives=positives,
        learning_rate=learning_rate,
        optimizer=optimizer,
        temperature=temperature,
        views=views,
        flips=flips,
        loss=loss,
        seed=seed,
    )
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
def evaluate(
    collection: Annotated[Path, typer.Argument(help="A collection with labels.")],
    target: TargetName,
    model: Annotated[Path, typer.Option(help="A run made by fewlabel pretrain or learn.")],
    out: Out,
    reports: ReportsAt = None,
    text_column: TextColumn = None,
    prompts: Prompts = None,
    where: Where = None,
    budgets: Budgets = None,
    headline_budget: HeadlineBudget = 50,
    seeds: Seeds = 5,
    validation_labels: ValidationLabels = None,
    no_supervised: NoSupervised = False,
    recipe: RecipeName = "probe",
    student: Student = "resnet18",
    drop_leaks: DropLeaks = False,
    cluster: Cluster = None,
) -> None:
    """Evaluate a pretrained encoder on a target, against its baselines, and write report.html."""
    from fewlabel import pipeline

    settings = evaluate_settings(
        target,
        where,
        budgets,
        headline_budget,
        seeds,
        validation_labels,
        no_supervised,
        recipe,
        student,
        prompts,
    )
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
    _print_learned(learned)


def _print_learned(learned: Any) -> None:
    for warning in learned.results["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    print(learned.headline)
    print(f"report: {learned.report}")
