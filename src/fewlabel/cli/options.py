"""Options that several commands share, and the settings that they make."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fewlabel.pipeline import EvaluateSettings, PretrainSettings

Out = Annotated[
    Path, typer.Option("--out", help="Folder for the results; the same command continues an unfinished run.")
]
DropLeaks = Annotated[
    bool, typer.Option("--drop-leaks", help="Leave leaking images out of training instead of stopping.")
]
EncoderName = Annotated[str, typer.Option("--encoder", help="A network that timm knows.")]
Weights = Annotated[
    str | None, typer.Option(help="Pretrained weights: a .safetensors file, hf-hub:owner/name, or default.")
]
Size = Annotated[
    int | None, typer.Option("--size", help="Image size in pixels; 64, or less for small images.")
]
Steps = Annotated[int, typer.Option(help="Pretraining steps.")]
BatchSize = Annotated[int, typer.Option(help="Images in a step; two views are made of each.")]
MicroBatch = Annotated[
    int | None,
    typer.Option(help="Images at a time: less memory, the same loss, one more forward pass."),
]
Cluster = Annotated[
    str | None,
    typer.Option(help="Work on the Ray cluster at this address; its machines must see the same files."),
]
StartSize = Annotated[
    int | None,
    typer.Option(help="Views begin at this size in pixels and grow to --size; full size by default."),
]
Objective = Annotated[
    str, typer.Option(help="simclr, moco, byol, barlow, vicreg, mae; or convirt, with --reports.")
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
TextEncoderName = Annotated[
    str | None,
    typer.Option("--text-encoder", help="A BERT's hub name or folder; by default one of your own texts."),
]
FrozenLayers = Annotated[
    int | None, typer.Option(help="Layers of it that stay as they are; half by default.")
]
TextViewName = Annotated[str, typer.Option("--text-view", help="sentence, clause or section.")]
Prompts = Annotated[
    Path | None,
    typer.Option(help='Sentences for each class in a JSON file: {"class": ["sentence", ...], ...}.'),
]
DropPriors = Annotated[
    bool, typer.Option("--drop-priors", help="Leave out sentences on earlier studies (unchanged, new, ...).")
]
HeadLayers = Annotated[int, typer.Option(help="Layers of the projection head.")]
Checkpointing = Annotated[
    bool, typer.Option("--checkpointing", help="For big networks: less memory, a third more time.")
]
PositivesFrom = Annotated[
    str, typer.Option("--positives", help="views of one image; or two images of one patient, or study.")
]
Rate = Annotated[float, typer.Option("--learning-rate", help="Peak learning rate.")]
Optimizer = Annotated[str, typer.Option(help="adamw, adam, sgd or lars.")]
Temperature = Annotated[
    float | None, typer.Option(help="Temperature of the contrast; 0.2, and 0.1 for convirt.")
]
Views = Annotated[
    str | None, typer.Option(help="medical; simclr or convirt for those papers'. By default the objective's.")
]
Flips = Annotated[bool, typer.Option("--flips", help="Left-right flips, where the anatomy allows them.")]
Loss = Annotated[str, typer.Option(help="nt-xent (the paper's) or info-nce.")]
Seed = Annotated[int, typer.Option(help="Seed of split, weights, views and order.")]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard files.")]
TargetName = Annotated[
    str, typer.Option("--target", help='A label column, or "column=value", or "column>number".')
]
Where = Annotated[
    str | None, typer.Option(help="Evaluate on these images only: an SQL expression over the columns.")
]
Budgets = Annotated[
    str | None, typer.Option(help="Numbers of labels, such as 10,50,250; all labels are added.")
]
HeadlineBudget = Annotated[
    int,
    typer.Option(help="The report's first sentence is about the budget nearest to this; fix it beforehand."),
]
Seeds = Annotated[int, typer.Option(help="How often labels are drawn and networks initialised.")]
ValidationLabels = Annotated[
    int | None, typer.Option(help="Use at most this many validation labels; all by default.")
]
NoSupervised = Annotated[
    bool, typer.Option("--no-supervised", help="Leave out training from scratch, the slowest arm.")
]
RecipeName = Annotated[
    str,
    typer.Option("--recipe", help="probe; or simclr-v2: also fine-tune and distil at every budget."),
]
Student = Annotated[str, typer.Option(help="With simclr-v2: network of the small student, by timm's name.")]
Column = Annotated[str | None, typer.Option(help="Name of that column in the label file.")]


def pretrain_settings(**chosen: Any) -> PretrainSettings:
    """How to pretrain, from the options. Raises FewlabelError for a word that is none of those allowed."""
    from typing import get_args

    from fewlabel.pipeline import PretrainSettings
    from fewlabel.pipeline.settings import ObjectiveName

    one_of("--views", chosen["views"] or "medical", ("medical", "simclr", "convirt"))
    one_of("--objective", chosen["objective"], get_args(ObjectiveName))
    one_of("--positives", chosen["positives"], ("views", "patient", "study"))
    one_of("--loss", chosen["loss"], ("nt-xent", "info-nce"))
    one_of("--optimizer", chosen["optimizer"], ("adamw", "adam", "sgd", "lars"))
    return PretrainSettings(**chosen)


def text_settings(encoder: str | None, frozen: int | None, view: Any, drop_priors: bool) -> Any:
    """What to read reports with, from the options. Raises FewlabelError as `pretrain_settings` does."""
    from fewlabel.pipeline.settings import TextSettings

    one_of("--text-view", view, ("sentence", "clause", "section"))
    return TextSettings(encoder, frozen, view, drop_priors=drop_priors)


def evaluate_settings(
    target: str,
    where: str | None,
    budgets: str | None,
    headline_budget: int,
    seeds: int,
    validation_labels: int | None,
    no_supervised: bool,
    recipe: Any,
    student: str,
    prompts: Path | None,
) -> EvaluateSettings:
    """How to evaluate, from the options. Raises FewlabelError as `pretrain_settings` does."""
    from fewlabel.pipeline import EvaluateSettings, SimCLRv2Settings
    from fewlabel.types import FewlabelError

    one_of("--recipe", recipe, ("probe", "simclr-v2"))
    try:
        numbers = (
            tuple(int(part) for part in budgets.split(",") if part.strip() != "all") if budgets else None
        )
    except ValueError:
        raise FewlabelError(
            f"--budgets is {budgets!r}: give whole numbers with commas between, such as 10,50,250."
        ) from None
    return EvaluateSettings(
        target,
        where,
        numbers,
        seeds,
        headline_budget=headline_budget,
        validation_labels=validation_labels,
        supervised=not no_supervised,
        recipe=recipe,
        simclr_v2=SimCLRv2Settings(student=student),
        prompts=str(prompts) if prompts else None,
    )


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise FewlabelError unless the value of an option is one of those allowed."""
    from fewlabel.types import FewlabelError

    if value not in allowed:
        raise FewlabelError(f"{option} is {value!r}: use {', '.join(allowed[:-1])} or {allowed[-1]}.")
