"""Options that several commands share: single ones, and groups that make settings."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

Out = Annotated[
    Path, typer.Option("--out", help="Folder for the results; the same command continues an unfinished run.")
]
DropLeaks = Annotated[
    bool, typer.Option("--drop-leaks", help="Leave leaking images out of training instead of stopping.")
]
Cluster = Annotated[
    str | None,
    typer.Option(help="Work on the Ray cluster at this address; its machines must see the same files."),
]
ReportsAt = Annotated[
    str | None,
    typer.Option(
        "--reports", help="A CSV file, a folder of .txt, DICOM or a public set's files; or column:NAME."
    ),
]
TextColumn = Annotated[
    str | None, typer.Option(help="The column of the reports' table that holds the texts.")
]
Grades = Annotated[
    str | None, typer.Option(help="The target is graded: its grades from least to most, such as 0,1,2,3,4.")
]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard files.")]

Command = Callable[..., None]


def with_options(make: Callable[..., Any], name: str) -> Callable[[Command], Command]:
    """A decorator: the command has the options of `make` after its own, and is given what `make` makes of them.

    make: a function whose parameters are options. name: the command's parameter for its result.
    """

    def decorate(command: Command) -> Command:
        group = inspect.signature(make, eval_str=True).parameters
        own = inspect.signature(command, eval_str=True).parameters

        @functools.wraps(command)
        def run(**given: Any) -> None:
            chosen = {key: given.pop(key) for key in group}
            command(**given, **{name: make(**chosen)})

        shown = [*(option for key, option in own.items() if key != name), *group.values()]
        asked = [
            option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in shown
        ]  # whatever has a default may then come before what has none
        run.__signature__ = inspect.Signature(asked)  # type: ignore[attr-defined]
        run.__annotations__ = {option.name: option.annotation for option in asked}
        return run

    return decorate


THREE_STAGES = {"vae-gan": "vae", "autoencoder-gan": "autoencoder"}
"""Objectives of `learn` that are short for the first stage with the recipe three-stage."""


def with_three_stages(command: Command) -> Command:
    """A decorator: the command takes the objectives of `THREE_STAGES` and is given what they are short for.

    Raises FewlabelError where such a one came with another recipe.
    """

    @functools.wraps(command)
    def run(**given: Any) -> None:
        objective, recipe = given["objective"], given["recipe"]
        if objective in THREE_STAGES:
            if recipe not in ("probe", "three-stage"):
                from fewlabel.types import FewlabelError

                raise FewlabelError(
                    f"--objective {objective} is short for --objective {THREE_STAGES[objective]} --recipe three-stage, "
                    f"and came with --recipe {recipe}: leave one of them out."
                )
            given |= {"objective": THREE_STAGES[objective], "recipe": "three-stage"}
        command(**given)

    return run


def pretraining_options(
    text_encoder: Annotated[
        str | None, typer.Option(help="A BERT's hub name or folder; by default one of your own texts.")
    ] = None,
    frozen_layers: Annotated[
        int | None, typer.Option(help="Layers of it that stay as they are; half by default.")
    ] = None,
    text_view: Annotated[str, typer.Option(help="sentence, clause or section.")] = "sentence",
    drop_priors: Annotated[
        bool,
        typer.Option("--drop-priors", help="Leave out sentences on earlier studies (unchanged, new, ...)."),
    ] = False,
    objective: Annotated[
        str,
        typer.Option(
            help="simclr, moco, byol, barlow, vicreg, mae, autoencoder, vae; convirt with --reports; with learn also "
            "vae-gan and autoencoder-gan, short for --recipe three-stage."
        ),
    ] = "simclr",
    encoder: Annotated[str, typer.Option(help="A network that timm knows.")] = "resnet18",
    weights: Annotated[
        str | None,
        typer.Option(help="Pretrained weights: a .safetensors file, hf-hub:owner/name, or default."),
    ] = None,
    size: Annotated[int, typer.Option(help="Image size in pixels; 64, or less for small images.")] = 64,
    steps: Annotated[int, typer.Option(help="Pretraining steps.")] = 1000,
    batch_size: Annotated[int, typer.Option(help="Images in a step; two views are made of each.")] = 256,
    micro_batch: Annotated[
        int | None,
        typer.Option(help="Images at a time: less memory, the same loss, one more forward pass."),
    ] = None,
    start_size: Annotated[
        int | None,
        typer.Option(help="Views begin at this size in pixels and grow to --size; full size by default."),
    ] = None,
    head_layers: Annotated[
        int | None,
        typer.Option(help="Layers of the projection head; 2, and 3 with the recipe simclr-v2."),
    ] = None,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="For big networks: less memory, a third more time.")
    ] = False,
    positives: Annotated[
        str, typer.Option(help="views of one image; or two images of one patient, or study.")
    ] = "views",
    pair_share: Annotated[
        float | None,
        typer.Option(help="With --positives: share of pairs that are of two images, where there are two; 1."),
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    optimizer: Annotated[str, typer.Option(help="adamw, adam, sgd or lars.")] = "adamw",
    temperature: Annotated[
        float | None, typer.Option(help="Temperature of the contrast; 0.2, and 0.1 for convirt.")
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(help="medical; light; simclr or convirt for those papers'. By default the objective's."),
    ] = None,
    flips: Annotated[
        bool, typer.Option("--flips", help="Left-right flips, where the anatomy allows them.")
    ] = False,
    loss: Annotated[str | None, typer.Option(help="Of simclr: nt-xent (the paper's) or info-nce.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of split, weights, views and order.")] = 0,
) -> Any:
    """`PretrainSettings` of the options. Raises FewlabelError for a word that is none of those allowed."""
    from typing import cast, get_args

    from fewlabel.pipeline import PretrainSettings
    from fewlabel.pipeline.settings import HEADED, ObjectiveName, TextSettings, ViewName
    from fewlabel.types import FewlabelError

    if objective in THREE_STAGES:
        first = THREE_STAGES[objective]
        raise FewlabelError(
            f"--objective {objective} also trains on labels: use it with fewlabel learn, or pretrain with --objective "
            f"{first}, and then give --recipe three-stage to fewlabel evaluate."
        )
    one_of("--text-view", text_view, ("sentence", "clause", "section"))
    one_of("--views", views or "medical", get_args(ViewName))
    one_of("--objective", objective, get_args(ObjectiveName))
    one_of("--positives", positives, ("views", "patient", "study"))
    one_of("--loss", loss or "nt-xent", ("nt-xent", "info-nce"))
    one_of("--optimizer", optimizer, ("adamw", "adam", "sgd", "lars"))
    for option, value, with_it in (
        ("--loss", loss, ("simclr",)),
        ("--head-layers", head_layers, HEADED),
        ("--temperature", temperature, (*HEADED, "convirt")),
    ):
        of_no_meaning(option, value, "--objective", objective, with_it)
    of_no_meaning("--pair-share", pair_share, "--positives", positives, ("patient", "study"))
    return PretrainSettings(
        text=TextSettings(text_encoder, frozen_layers, cast(Any, text_view), drop_priors=drop_priors),
        objective=cast(Any, objective),
        encoder=encoder,
        weights=weights,
        size_px=size,
        steps=steps,
        batch_size=batch_size,
        micro_batch=micro_batch,
        start_size_px=start_size,
        head_layers=head_layers,
        checkpointing=checkpointing,
        positives=cast(Any, positives),
        pair_share=1.0 if pair_share is None else pair_share,
        learning_rate=learning_rate,
        optimizer=cast(Any, optimizer),
        temperature=temperature,
        views=cast(Any, views),
        flips=flips,
        loss=cast(Any, loss or "nt-xent"),
        seed=seed,
    )


def evaluation_options(
    prompts: Annotated[
        Path | None,
        typer.Option(help='Sentences for each class in a JSON file: {"class": ["sentence", ...], ...}.'),
    ] = None,
    grades: Grades = None,
    referable: Annotated[
        str | None,
        typer.Option(help="With --grades: the grade from which on an image is referable; the middle one."),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Evaluate on these images only: an SQL expression over the columns.")
    ] = None,
    budgets: Annotated[
        str | None, typer.Option(help="Numbers of labels, such as 10,50,250; all labels are added.")
    ] = None,
    headline_budget: Annotated[
        int,
        typer.Option(
            help="The report's first sentence is about the budget nearest to this; fix it beforehand."
        ),
    ] = 50,
    seeds: Annotated[int, typer.Option(help="How often labels are drawn and networks initialised.")] = 5,
    validation_labels: Annotated[
        int | None, typer.Option(help="Use at most this many validation labels; all by default.")
    ] = None,
    no_supervised: Annotated[
        bool, typer.Option("--no-supervised", help="Leave out training from scratch, the slowest arm.")
    ] = False,
    recipe: Annotated[
        str,
        typer.Option(
            help="probe; or also: simclr-v2, fine-tune and distil; metric, Siamese and triplets; grading; "
            "semi-supervised, M2, GAN, Mean Teacher, FixMatch; three-stage, autoencoder or VAE, then GAN."
        ),
    ] = "probe",
    joint_steps: Annotated[
        int | None,
        typer.Option(
            help="With semi-supervised and three-stage: steps on labelled and unlabelled images, 400; with the "
            "extractor frozen half as many."
        ),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option(
            help="With simclr-v2: network of the small student, by timm's name; resnet18 by default."
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            help="With simclr-v2: whose classifier the run keeps: self-distilled, distilled (the small student) or "
            "finetune; the first by default."
        ),
    ] = None,
    balanced: Annotated[
        bool,
        typer.Option(
            "--balanced", help="With simclr-v2: classes count the same, however many images each has."
        ),
    ] = False,
) -> Any:
    """`EvaluateSettings` of the options, with no target yet. Raises FewlabelError as `pretraining_options` does."""
    from dataclasses import replace
    from typing import cast, get_args

    from fewlabel.pipeline import EvaluateSettings
    from fewlabel.pipeline.evaluating import Recipe
    from fewlabel.pipeline.simclr_v2 import KeptArm
    from fewlabel.types import FewlabelError

    one_of("--recipe", recipe, get_args(Recipe))
    one_of("--keep", keep or "self-distilled", get_args(KeptArm))
    for option, value, with_it in (
        ("--student", student, ("simclr-v2",)),
        ("--keep", keep, ("simclr-v2",)),
        ("--balanced", balanced or None, ("simclr-v2",)),
        ("--joint-steps", joint_steps, ("semi-supervised", "three-stage")),
    ):
        of_no_meaning(option, value, "--recipe", recipe, with_it)
    try:
        numbers = (
            tuple(int(part) for part in budgets.split(",") if part.strip() != "all") if budgets else None
        )
    except ValueError:
        raise FewlabelError(
            f"--budgets is {budgets!r}: give whole numbers with commas between, such as 10,50,250."
        ) from None
    usual = EvaluateSettings("")
    stages, tuned = usual.three_stages, usual.simclr_v2
    if joint_steps is None:
        joint_steps = usual.semi_supervised.steps
    return EvaluateSettings(
        "",
        where,
        numbers,
        seeds,
        headline_budget=headline_budget,
        validation_labels=validation_labels,
        supervised=not no_supervised,
        recipe=cast(Any, recipe),
        simclr_v2=replace(
            tuned,
            from_output=replace(tuned.from_output, balanced=balanced),
            from_head=replace(tuned.from_head, balanced=balanced),
            student=student or tuned.student,
            keep=cast(Any, keep or tuned.keep),
        ),
        prompts=str(prompts) if prompts else None,
        grades=split_words(grades),
        referable=referable,
        semi_supervised=replace(usual.semi_supervised, steps=joint_steps),
        three_stages=replace(
            stages, frozen_steps=max(1, joint_steps // 2), joint=replace(stages.joint, steps=joint_steps)
        ),
    )


def split_words(given: str | None) -> tuple[str, ...] | None:
    """Words with commas between; None stays."""
    return tuple(word.strip() for word in given.split(",")) if given else None


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise FewlabelError unless the value of an option is one of those allowed."""
    from fewlabel.types import FewlabelError

    if value not in allowed:
        raise FewlabelError(f"{option} is {value!r}: use {', '.join(allowed[:-1])} or {allowed[-1]}.")


def of_no_meaning(option: str, value: object, other: str, chosen: str, with_it: tuple[str, ...]) -> None:
    """Raise FewlabelError where an option was given (not None) that what another option chose does not look at."""
    from fewlabel.types import FewlabelError

    if value is not None and chosen not in with_it:
        raise FewlabelError(
            f"{option} has no meaning with {other} {chosen}, only with {' or '.join(with_it)}: leave it out."
        )
