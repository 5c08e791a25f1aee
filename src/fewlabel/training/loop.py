"""fit(): the only training loop."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from torch import nn

from fewlabel.files import write_text
from fewlabel.processes import launched_processes
from fewlabel.training.checkpoint import load_checkpoint, save_checkpoint
from fewlabel.training.compute import (
    WORTH_MEASURING,
    Compute,
    check_compute,
    lay_out,
    measure_compute,
    usual_compute,
)
from fewlabel.training.data import TrainingSet, mix_seed
from fewlabel.training.feeding import Ahead, Piece, batches, pieces_of, views_of
from fewlabel.training.health import Health, measure_health
from fewlabel.training.optimizers import learning_rate, make_optimizer
from fewlabel.training.sync_batchnorm import synchronise_batchnorm
from fewlabel.training.watching import Best, Watch
from fewlabel.types import JSON, Batch, FewlabelError, Schedule
from fewlabel.views import ViewSettings, draw_view, draw_views

if TYPE_CHECKING:
    import lightning_fabric

COMPUTE = "compute.json"


@dataclass
class FitResult:
    """steps, seconds: of training that stand behind the weights, all runs together.
    images_per_second, waiting_seconds (for images that were not ready): of this run. history: metrics.jsonl;
    compute: number format and memory layout.
    """

    steps: int = 0
    seconds: float = 0.0
    waiting_seconds: float = 0.0
    images_per_second: float = 0.0
    best_score: float | None = None
    best_step: int | None = None
    compute: Compute = field(default_factory=Compute)
    warnings: list[str] = field(default_factory=list)
    history: list[JSON] = field(default_factory=list)


def fit(
    objective: nn.Module,
    data: TrainingSet,
    views: ViewSettings,
    schedule: Schedule,
    *,
    out: Path | None = None,
    settings: JSON | None = None,
    watch: Watch | None = None,
    compute: Compute | None = None,
    checkpoint_every: int = 200,
    log_every: int = 20,
    health_every: int = 100,
    tensorboard: bool = False,
    progress: str = "",
) -> FitResult:
    """Train `objective` in place for `schedule.steps` steps.

    objective: a module with `encoder`, `view_count` and `loss(batch) -> scalar`. It may have `after_step(step, steps)`,
        called after each optimizer step without gradients, for weights that follow others;
        `parameter_groups() -> {name: parameters}` with `rate_scale(name, step) -> float`, for rates that differ;
        `steps(batch)`, which yields (names of groups, loss): each loss updates these groups alone before the next is
        asked for, as a GAN needs; `views_of(views) -> one ViewSettings a view`, where views differ in kind; and, beside
        `embed`, `warning(embeddings) -> a sentence or ""`, for what may go wrong with this objective alone.
    out: folder for checkpoints and metrics.jsonl; the same call again continues from there, and ends, on one CPU,
        with the same weights bit for bit. None = nothing is written.
    compute: number format and memory layout; None = the fastest, by a short measurement (kept in compute.json), or for
        runs of fewer than 100 steps the one that usually is.
    settings: what makes this run this run; a checkpoint made with other settings is refused.
    progress: text before the progress bar; "" = no bar.
    Raises FewlabelError for an impossible schedule, for bf16 where that would end the process, when loss or weights are
    no numbers any more (the last good checkpoint stays), for a checkpoint of another run, or on a full disk.
    """
    _check_schedule(schedule, views)
    fabric = _launch()
    with torch.random.fork_rng(), _bar(progress, schedule.steps) as report:
        chosen = compute or _choose_compute(fabric, objective, data, views, schedule, out)
        check_compute(chosen, fabric.device)
        run = _Run(fabric, objective, data, views, schedule, out, settings or {}, FitResult(compute=chosen))
        run.resume()
        run.train(watch, checkpoint_every, log_every, health_every, tensorboard, report)
    return run.result


def _launch() -> lightning_fabric.Fabric:
    """One process, or one of those that torchrun, SLURM or a Ray cluster has started."""
    import lightning_fabric  # takes seconds, and who only predicts needs none of it
    from lightning_fabric.plugins.environments import LightningEnvironment

    local, nodes = launched_processes()
    alone = LightningEnvironment() if local * nodes == 1 else None  # whatever SLURM's variables say
    if (
        "SLURM_NTASKS" in os.environ
    ):  # Fabric insists on it, and a batch script's value may not be that of its step
        os.environ["SLURM_NTASKS_PER_NODE"] = str(local)
    fabric = lightning_fabric.Fabric(devices=local, num_nodes=nodes, plugins=alone)
    fabric.launch()
    return fabric


def _check_schedule(schedule: Schedule, views: ViewSettings) -> None:
    numbers = {"steps": schedule.steps, "batch_size": schedule.batch_size}
    numbers |= {"micro_batch": schedule.micro_batch} if schedule.micro_batch is not None else {}
    for what, number in numbers.items():
        if number < 1:
            raise FewlabelError(f"The schedule's {what} is {number}: at least 1 is needed.")
    rate = schedule.learning_rate
    if not (np.isfinite(rate) and rate > 0):
        raise FewlabelError(f"The schedule's learning_rate is {rate}: a number above 0 is needed.")
    if schedule.decay not in ("cosine", "constant"):
        raise FewlabelError(f"The schedule's decay is {schedule.decay!r}: choose cosine or constant.")
    start = schedule.start_size_px
    if start is not None and not 8 <= start <= views.size_px:
        raise FewlabelError(
            f"The schedule's start_size_px is {start}: it must lie from 8 to the views' {views.size_px} px."
        )


def _read_compute(path: Path) -> Compute:
    try:
        return Compute.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FewlabelError(
            f"{path} is damaged ({error}): delete it, and the setting is measured again, perhaps to another result."
        ) from error


_measured: dict[tuple[object, ...], Compute] = {}


def _choose_compute(
    fabric: lightning_fabric.Fabric,
    objective: Any,
    data: TrainingSet,
    views: ViewSettings,
    schedule: Schedule,
    out: Path | None,
) -> Compute:
    """What an interrupted run used; else what is measured to be fastest; short runs take what usually is."""
    kept = out / COMPUTE if out else None
    if kept and kept.exists():
        return _read_compute(kept)
    if data.sources[0].ndim != 4:
        chosen = Compute("32", False)
    elif schedule.steps < WORTH_MEASURING:
        chosen = usual_compute(fabric.device, views.size_px)
    else:
        count = int(np.clip(32 * (64 / views.size_px) ** 2, 4, min(32, schedule.batch_size, len(data))))
        settings = getattr(objective.encoder, "settings", None)
        trained = sum(p.requires_grad for p in objective.parameters())
        key = (
            type(objective),
            settings,
            trained,
            views.size_px,
            fabric.device.type,
            torch.get_num_threads(),
        )
        if key not in _measured:  # every process measures, since a loss may need all of them
            images = data.images(np.arange(count))
            generator = torch.Generator().manual_seed(0)
            drawn = tuple(draw_view(images, one, generator) for one in views_of(objective, views))
            labels, patients = (
                None if given is None else torch.from_numpy(given[:count])
                for given in (data.labels, data.patients)
            )
            text = data.texts.padded(data.texts.first[data.texts.study[:count]]) if data.texts else None
            batch = Batch(drawn, labels, text, patients)
            _measured[key] = measure_compute(objective, batch, fabric.device)
        chosen = _measured[key] = fabric.broadcast(_measured[key])  # what the first process measured
    if kept and fabric.is_global_zero:
        write_text(kept, json.dumps(asdict(chosen)))
    return chosen


class _Run:
    """The state of one call of `fit`."""

    def __init__(
        self,
        fabric: lightning_fabric.Fabric,
        objective: nn.Module,
        data: TrainingSet,
        views: ViewSettings,
        schedule: Schedule,
        out: Path | None,
        settings: JSON,
        result: FitResult,
    ) -> None:
        self.fabric, self.data, self.views = fabric, data, views
        self.objective: Any = objective
        self.schedule, self.out, self.result = schedule, out, result
        self.settings = {
            **settings,
            "schedule": asdict(schedule),
            "views": asdict(views),
            "images": len(data),
            "sentences": len(data.texts) if data.texts else None,
            "per_class": data.per_class,
            "labelled_share": data.labelled_share,
        }
        self.batch_size = min(schedule.batch_size, data.units)
        if self.batch_size < fabric.world_size:
            raise FewlabelError(
                f"A batch of {self.batch_size} images cannot be shared by {fabric.world_size} processes: "
                "raise the batch size or start fewer."
            )
        lay_out(objective, result.compute.channels_last)
        synchronise_batchnorm(objective, fabric.device)
        self.optimizer = make_optimizer(objective, schedule)
        self.model: Any
        self.model, self.wrapped = fabric.setup(objective, self.optimizer)
        for method in ("loss", "embed_views"):
            if hasattr(objective, method):
                self.model.mark_forward_method(method)
        self.step = 0
        self.best: Best | None = None
        self.watched: JSON = {}
        self.pieces_a_step = len(self._pieces(0))
        if self.pieces_a_step > 1 and not hasattr(objective, "contrast"):
            raise FewlabelError(
                f"micro_batch is for objectives that contrast images with each other, and {type(objective).__name__} "
                "does not: lower the batch size instead."
            )
        if fabric.world_size > 1 and hasattr(objective, "steps"):
            raise FewlabelError(
                f"{type(objective).__name__} updates parts of its weights in turn, which {fabric.world_size} processes "
                "cannot share: start it as one process."
            )

    def _pieces(self, step: int) -> list[Piece]:
        size_px = self.schedule.size_at(step, self.views.size_px)
        return pieces_of(step, self.data, self.schedule, size_px)

    def resume(self) -> None:
        if self.out is None:
            return
        self.step, warning, self.watched = load_checkpoint(
            self.out, self.objective, self.optimizer, self.settings
        )
        if warning:
            self.result.warnings.append(warning)
        metrics = self.out / "metrics.jsonl"
        if metrics.exists():
            for line in metrics.read_text().splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:  # the last line of a killed run
                    break
                if row["step"] <= self.step:
                    self.result.history.append(row)
                    self.result.seconds = row["seconds"]
        self._rewrite_metrics()

    def train(
        self,
        watch: Watch | None,
        checkpoint_every: int,
        log_every: int,
        health_every: int,
        tensorboard: bool,
        report: Callable[[int, str], None],
    ) -> None:
        writer = self._tensorboard() if tensorboard else None
        keeper = self.out if self.fabric.is_global_zero else None
        self.best = Best(watch, keeper) if watch else None
        if self.best and self.out:
            self.best.resume(self.out, self.watched)
        started, first = time.perf_counter(), self.step
        self.objective.train()
        made = batches(
            (piece for step in range(first, self.schedule.steps) for piece in self._pieces(step)),
            self.data,
            views_of(self.objective, self.views),
            self.schedule,
            device=self.fabric.device,
            channels_last=self.result.compute.channels_last,
        )
        with Ahead(made) as feeder:
            self._train(feeder, started, checkpoint_every, log_every, health_every, writer, report)
        if self.best:
            self.best.restore(self.objective)
            self.result.best_score, self.result.best_step = self.best.score, self.best.step
        self.result.steps = self.step
        if writer:
            writer.close()

    def _train(
        self,
        feeder: Ahead[Batch],
        started: float,
        checkpoint_every: int,
        log_every: int,
        health_every: int,
        writer: Any,
        report: Callable[[int, str], None],
    ) -> None:
        first, before, best = self.step, self.result.seconds, self.best
        while self.step < self.schedule.steps and not (best and best.is_over):
            loss = self._one_step(feeder)
            elapsed = time.perf_counter() - started
            self.result.seconds = before + elapsed
            self.result.images_per_second = self.batch_size * (self.step - first) / max(elapsed, 1e-9)
            report(self.step, f"loss {loss:.3f}  {self.result.images_per_second:.0f} images/s")
            last = self.step == self.schedule.steps
            if self.step % log_every == 0 or last:
                self._log(loss, health_every, writer, last)
            if best and (self.step % best.watch.every == 0 or last):
                best.look(self.objective, self.step)
            if self.step % checkpoint_every == 0 or last:
                self._save()

    def _one_step(self, feeder: Ahead[Batch]) -> float:
        rate, scale = self._rate(self.step), getattr(self.objective, "rate_scale", None)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * (scale(group["name"], self.step) if scale else 1.0)
        waited = time.perf_counter()
        batches = [next(feeder) for _ in range(self.pieces_a_step)]
        self.result.waiting_seconds += time.perf_counter() - waited
        value = self._update(batches)
        if hasattr(self.objective, "after_step"):
            with torch.no_grad():
                self.objective.after_step(self.step, self.schedule.steps)
        self.step += 1
        return value

    def _update(self, batches: list[Batch]) -> float:
        """One update of the weights, or one for each of the objective's own steps; the loss, or their sum."""
        if hasattr(self.objective, "steps"):
            return sum(self._own_steps(batches[0]))
        self.wrapped.zero_grad(set_to_none=True)
        value = self._backward(batches[0]) if len(batches) == 1 else self._backward_in_pieces(batches)
        self.wrapped.step()
        return value

    def _own_steps(self, batch: Batch) -> Iterator[float]:
        """The objective's steps in turn: each updates the parameters of its groups alone, and the next sees that."""
        self._seed_dropout(0)
        steps = self.objective.steps(batch)
        while True:
            with self._autocast():
                step = next(steps, None)
            if step is None:
                return
            groups, loss = step
            value = self._checked(loss)
            self.wrapped.zero_grad(set_to_none=True)
            moved = [group["params"] for group in self.optimizer.param_groups if group["name"] in groups]
            # Of the others no gradient is computed, and the optimizer leaves weight and moments alone.
            self.fabric.backward(loss, inputs=[one for parameters in moved for one in parameters])
            self.wrapped.step()
            yield value

    def _rate(self, step: int) -> float:
        """The schedule's rate of a step, halved as often as the looks so far have led to."""
        return learning_rate(step, self.schedule) * (self.best.rate_factor if self.best else 1.0)

    def _backward(self, batch: Batch) -> float:
        self._seed_dropout(0)
        with self._autocast():
            loss = self.model.loss(batch)
        value = self._checked(loss)
        self.fabric.backward(loss)
        return value

    def _backward_in_pieces(self, batches: list[Batch]) -> float:
        """Gradient caching: embed all pieces, take the gradient of the whole loss by the embeddings, embed each piece
        once more and send its share of that gradient back. Dropout repeats itself; batch-norm remembers once."""
        remembered = [buffer.clone() for buffer in self.objective.buffers()]
        embedded = []
        with torch.no_grad(), self._autocast():
            for number, batch in enumerate(batches):
                self._seed_dropout(number)
                embedded.append(self.objective.embed_views(batch))
        for buffer, before in zip(self.objective.buffers(), remembered, strict=True):
            buffer.copy_(before)
        whole = [torch.cat(parts).float().requires_grad_() for parts in zip(*embedded, strict=True)]
        loss = self.objective.contrast(*whole)
        value = self._checked(loss)
        gradients = torch.autograd.grad(loss, whole)
        first = 0
        for number, batch in enumerate(batches):
            last = first + len(batch.views[0])
            self._seed_dropout(number)
            alone = self.fabric.world_size == 1 or number == len(batches) - 1
            with nullcontext() if alone else self.fabric.no_backward_sync(self.model), self._autocast():
                again = self.model.embed_views(batch)
                surrogate = sum(
                    (z.float() * g[first:last]).sum() for z, g in zip(again, gradients, strict=True)
                )
                self.fabric.backward(surrogate)
            first = last
        return value

    def _seed_dropout(self, piece: int) -> None:
        torch.manual_seed(mix_seed("dropout", self.schedule.seed, self.step, self.fabric.global_rank, piece))

    def _autocast(self) -> torch.autocast:
        bf16 = self.result.compute.precision == "bf16"
        return torch.autocast(self.fabric.device.type, torch.bfloat16, enabled=bf16)

    def _checked(self, loss: torch.Tensor) -> float:
        value = float(loss.detach())
        if not np.isfinite(value):
            self._stop(f"The loss became {value} at step {self.step + 1}")
        return value

    def _save(self) -> None:
        """A checkpoint, unless the weights are broken: a finite loss may come before a gradient that is not."""
        if not all(bool(torch.isfinite(p).all()) for p in self.objective.parameters()):
            self._stop(f"The weights are no numbers any more after step {self.step}")
        if self.out and self.fabric.is_global_zero:
            watched = self.best.state() if self.best else {}
            save_checkpoint(self.out, self.objective, self.optimizer, self.step, self.settings, watched)

    def _stop(self, what: str) -> NoReturn:
        kept = f" The last good checkpoint is in {self.out}." if self.out else ""
        raise FewlabelError(
            f"{what}: lower the learning rate (now {self.schedule.learning_rate:g}) or raise the warm-up.{kept}"
        )

    def _log(self, loss: float, health_every: int, writer: Any, last: bool) -> None:
        row: JSON = {"step": self.step, "loss": loss, "learning_rate": self._rate(self.step - 1)}
        row["seconds"] = round(self.result.seconds, 3)
        if hasattr(self.objective, "embed") and (self.step % health_every == 0 or last):
            health, warnings = self._health()
            row.update({k: round(v, 5) for k, v in asdict(health).items()})
            self.result.warnings += [said for said in warnings if said and said not in self.result.warnings]
        self.result.history.append(row)
        if self.out and self.fabric.is_global_zero:
            with (self.out / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
        if writer:
            for key, value in row.items():
                if key != "step":
                    writer.add_scalar(key, value, self.step)

    @torch.no_grad()
    def _health(self) -> tuple[Health, list[str]]:
        """The health of embeddings and features, and what is to be said of it."""
        count = min(256, len(self.data))
        indices = np.linspace(0, len(self.data) - 1, count).astype(np.int64)
        generator = torch.Generator().manual_seed(mix_seed("health", self.schedule.seed))
        images = self.data.images(np.unique(indices)).to(self.fabric.device)
        first, second = draw_views(images, self.views, 2, generator)
        self.objective.eval()
        embedded = self.objective.embed(first)
        health = measure_health(embedded, self.objective.embed(second), self.objective.encoder(first))
        own = [self.objective.warning(embedded)] if hasattr(self.objective, "warning") else []
        self.objective.train()
        return health, [health.warning, *own]

    def _rewrite_metrics(self) -> None:
        if self.out and self.fabric.is_global_zero:
            rows = (json.dumps(row) + "\n" for row in self.result.history)
            write_text(self.out / "metrics.jsonl", "".join(rows))

    def _tensorboard(self) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise FewlabelError(
                'TensorBoard is not installed: run pip install "fewlabel[tensorboard]".'
            ) from error
        return SummaryWriter(str(self.out or "."))


@contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A progress bar with images/s and time left; nothing where no title is given."""
    if not title:
        yield lambda step, text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, text="")
        yield lambda step, text: bar.update(task, completed=step, text=text)
