"""The command line: parses arguments, calls one function, prints. Nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from fewlabel.pipeline import EvaluateSettings, PretrainSettings
    from fewlabel.types import ProgressCallback

INTERRUPTED = 130
"""Exit status after Ctrl-C, 128 + SIGINT."""

app = typer.Typer(
    help="Many medical images, few labels: from a folder of images to a report that says how many labels were saved.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

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
Grades = Annotated[
    str | None, typer.Option(help="The target is graded: its grades from least to most, such as 0,1,2,3,4.")
]
Referable = Annotated[
    str | None,
    typer.Option(help="With --grades: the grade from which on an image is referable; the middle one."),
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
    typer.Option(
        "--recipe",
        help="probe; or also: simclr-v2, fine-tune and distil; metric, Siamese and triplets; grading.",
    ),
]
Student = Annotated[str, typer.Option(help="With simclr-v2: network of the small student, by timm's name.")]
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
    with _progress("importing") as progress:
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
    grades: Grades = None,
    referable: Referable = None,
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

    pretraining = _pretrain_settings(
        text=_text_settings(text_encoder, frozen_layers, text_view, drop_priors),
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
    evaluation = _evaluate_settings(
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
        grades,
        referable,
    )
    with _progress("evaluating") as progress:
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
            bar=_is_terminal(),
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

    settings = _pretrain_settings(
        text=_text_settings(text_encoder, frozen_layers, text_view, drop_priors),
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
            progress=_is_terminal() and launched_rank() == 0,
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
    grades: Grades = None,
    referable: Referable = None,
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

    settings = _evaluate_settings(
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
        grades,
        referable,
    )
    with _progress("evaluating") as progress:
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


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A run made by fewlabel learn or evaluate.")],
    files: Annotated[list[Path], typer.Argument(help="Image files or folders.")],
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

    with _progress("predicting") as progress:
        predictions = pipeline.predict(
            run, files, out=out, abstain_above_risk=abstain_above_risk, progress=progress
        )
    print(f"{predictions.summary}: {out}")
    for row in [row for row in predictions.rows if row["status"] != "ok"][:10]:
        print(f"unreadable: {row['file']}: {row['reason']}", file=sys.stderr)
    if predictions.unreadable:
        raise typer.Exit(1 if predictions.unreadable == len(predictions.rows) else 3)


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
def report(run: Annotated[Path, typer.Argument(help="A run made by fewlabel learn or evaluate.")]) -> None:
    """Write report.html again from results.json."""
    from fewlabel.report import write_report

    print(write_report(run))


@app.command()
def phantoms(
    out: Annotated[Path, typer.Argument(help="A new folder for the made images.")],
    count: Annotated[int, typer.Option(help="How many radiographs.")] = 2500,
    size: Annotated[int, typer.Option("--size", help="Side in pixels.")] = 64,
    difficulty: Annotated[str, typer.Option(help="usual, or easy for large, dense opacities.")] = "usual",
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
) -> None:
    """Make radiographs with known findings, and labels.csv; to try things out without patients' data."""
    from fewlabel.phantoms import EASY, write_radiographs

    _one_of("--difficulty", difficulty, ("usual", "easy"))
    write_radiographs(out, count, seed=seed, size_px=size, difficulty=EASY if difficulty == "easy" else None)
    print(f"{count} made radiographs and labels.csv: {out}")


def _pretrain_settings(**chosen: Any) -> PretrainSettings:
    from typing import get_args

    from fewlabel.pipeline import PretrainSettings
    from fewlabel.pipeline.settings import ObjectiveName

    _one_of("--views", chosen["views"] or "medical", ("medical", "simclr", "convirt"))
    _one_of("--objective", chosen["objective"], get_args(ObjectiveName))
    _one_of("--positives", chosen["positives"], ("views", "patient", "study"))
    _one_of("--loss", chosen["loss"], ("nt-xent", "info-nce"))
    _one_of("--optimizer", chosen["optimizer"], ("adamw", "adam", "sgd", "lars"))
    return PretrainSettings(**chosen)


def _text_settings(encoder: str | None, frozen: int | None, view: Any, drop_priors: bool) -> Any:
    from fewlabel.pipeline.settings import TextSettings

    _one_of("--text-view", view, ("sentence", "clause", "section"))
    return TextSettings(encoder, frozen, view, drop_priors=drop_priors)


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    from fewlabel.types import FewlabelError

    if value not in allowed:
        raise FewlabelError(f"{option} is {value!r}: use {', '.join(allowed[:-1])} or {allowed[-1]}.")


def _evaluate_settings(
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
    grades: str | None,
    referable: str | None,
) -> EvaluateSettings:
    from typing import get_args

    from fewlabel.pipeline import EvaluateSettings, SimCLRv2Settings
    from fewlabel.pipeline.evaluating import Recipe
    from fewlabel.types import FewlabelError

    _one_of("--recipe", recipe, get_args(Recipe))
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
        grades=tuple(grade.strip() for grade in grades.split(",")) if grades else None,
        referable=referable,
    )


def _print_learned(learned: Any) -> None:
    for warning in learned.results["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    print(learned.headline)
    print(f"report: {learned.report}")


def _is_terminal() -> bool:
    return sys.stderr.isatty()


class _progress:  # noqa: N801
    """A progress bar on a terminal; nothing where output goes to a file. Started by its first call."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> ProgressCallback:
        return self.show

    def show(self, done: int, total: int, what: str) -> None:
        if not _is_terminal():
            return
        if self.bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                "{task.description}",
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[what]}"),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=total, what=what)
        self.bar.update(self.task, completed=done, total=total, what=what)

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()


def main() -> NoReturn:
    """Run the command line. Every mistake is one sentence on stderr and a non-zero exit; no traceback."""
    from fewlabel.types import FewlabelError

    interrupted = "stopped; the same command continues where it was."
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except FewlabelError as error:
        _stop(f"error: {error}", 1)
    except (KeyboardInterrupt, typer.Abort):
        _stop(interrupted, INTERRUPTED)
    except Exception as error:
        if hasattr(error, "format_message"):  # typer's own: a wrong option, a missing argument
            _stop(f"error: {error.format_message().rstrip('.')}. See fewlabel --help.", 2)
        _unexpected(error)
    if code == INTERRUPTED:  # typer's answer to Ctrl-C
        _stop(interrupted, INTERRUPTED)
    sys.exit(code or 0)


def _stop(text: str, code: int) -> NoReturn:
    print(" ".join(text.split()), file=sys.stderr)
    sys.exit(code)


def _unexpected(error: Exception) -> NoReturn:
    """A fault of the program: one sentence for the user, the details in a file for the maintainers."""
    import tempfile
    import traceback

    if isinstance(error, MemoryError):
        _stop("error: there is not enough memory: use a smaller --batch-size or --size.", 1)
    if isinstance(error, OSError):
        _stop(f"error: {error}: check that the disk has space and that the folder may be written.", 1)
    with tempfile.NamedTemporaryFile("w", prefix="fewlabel-", suffix=".log", delete=False) as file:
        traceback.print_exception(error, file=file)
    _stop(
        f"error: something unexpected happened ({type(error).__name__}: {error}); finished work is kept. "
        f"Please report it with {file.name}.",
        70,
    )
