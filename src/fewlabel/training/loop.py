"""fit(): the only training loop."""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

import lightning_fabric
import numpy as np
import torch
from lightning_fabric.plugins import MixedPrecision
from torch import nn

from fewlabel.training.checkpoint import load_checkpoint, replace_file, save_checkpoint
from fewlabel.training.data import TrainingSet, mix_seed
from fewlabel.training.health import measure_health
from fewlabel.training.optimizers import learning_rate, make_optimizer
from fewlabel.types import JSON, Batch, FewlabelError, Schedule
from fewlabel.views import ViewSettings, draw_views

Precision = Literal["auto", "32", "bf16"]


def channels_last(module: nn.Module) -> None:
    """Lay convolution weights out channel by channel, the faster order on CPU and GPU; in place."""
    untyped: Any = module  # torch's annotations of Module.to leave memory_format out
    untyped.to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Watch:
    """Early stopping on validation images.

    score: objective -> number, higher is better; called every `every` steps, in evaluation mode, without gradients.
    patience: stop after this many calls without a better score. The best weights are restored at the end; they are
        held in memory, so that a run continued from a checkpoint looks for them from there on.
    """

    score: Callable[[nn.Module], float]
    every: int
    patience: int


@dataclass
class FitResult:
    """steps: optimizer steps that stand behind the weights (all runs together); seconds: of this run.
    images_per_second: source images; waiting_seconds: gathering images and drawing views; history: metrics.jsonl.
    """

    steps: int = 0
    seconds: float = 0.0
    waiting_seconds: float = 0.0
    images_per_second: float = 0.0
    best_score: float | None = None
    best_step: int | None = None
    precision: str = "32"
    warnings: list[str] = field(default_factory=list)
    history: list[JSON] = field(default_factory=list)


def choose_precision(size_px: int) -> str:
    """ "bf16" where the processor computes in it and images are large enough to gain, else "32".

    On processors with AVX-512 BF16, bf16 was measured to be slower than fp32 at small sizes.
    """
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "32"
    capability = torch.backends.cpu.get_cpu_capability()
    has_bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported() and "AVX512" in capability
    return "bf16" if has_bf16 and size_px >= 32 else "32"


def fit(
    objective: nn.Module,
    data: TrainingSet,
    views: ViewSettings,
    schedule: Schedule,
    *,
    out: Path | None = None,
    settings: JSON | None = None,
    watch: Watch | None = None,
    precision: Precision = "auto",
    checkpoint_every: int = 200,
    log_every: int = 20,
    health_every: int = 100,
    tensorboard: bool = False,
    progress: str = "",
) -> FitResult:
    """Train `objective` in place for `schedule.steps` steps.

    objective: a module with `encoder`, `view_count` and `loss(batch) -> scalar`.
    out: folder for checkpoints and metrics.jsonl; the same call again continues from there, and ends, on one CPU,
        with the same weights bit for bit. None = nothing is written.
    settings: what makes this run this run; a checkpoint made with other settings is refused.
    progress: text before the progress bar; "" = no bar.
    Raises FewlabelError for an impossible schedule, when loss or weights are no numbers any more (the last good
    checkpoint stays), for a checkpoint of another run, or on a full disk.
    """
    _check_schedule(schedule)
    chosen = choose_precision(views.size_px) if precision == "auto" else precision
    world = int(os.environ.get("WORLD_SIZE", "1"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # The plugin rather than the word "bf16-mixed", which has Fabric announce it on the terminal at every call.
    plugins: list[Any] = [MixedPrecision("bf16-mixed", device)] if chosen == "bf16" else []
    fabric = lightning_fabric.Fabric(devices=world if world > 1 else 1, plugins=plugins)
    fabric.launch()
    run = _Run(fabric, objective, data, views, schedule, out, settings or {}, FitResult(precision=chosen))
    with torch.random.fork_rng(), _bar(progress, schedule.steps) as report:
        run.resume()
        run.train(watch, checkpoint_every, log_every, health_every, tensorboard, report)
    return run.result


def _check_schedule(schedule: Schedule) -> None:
    for what, number in (("steps", schedule.steps), ("batch_size", schedule.batch_size)):
        if number < 1:
            raise FewlabelError(f"The schedule's {what} is {number}: at least 1 is needed.")
    rate = schedule.learning_rate
    if not (np.isfinite(rate) and rate > 0):
        raise FewlabelError(f"The schedule's learning_rate is {rate}: a number above 0 is needed.")


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
        }
        if data.sources[0].ndim == 4:
            channels_last(objective)
        self.optimizer = make_optimizer(objective, schedule)
        self.model: Any
        self.model, self.wrapped = fabric.setup(objective, self.optimizer)
        self.model.mark_forward_method("loss")
        self.step = 0

    def resume(self) -> None:
        if self.out is None:
            return
        self.step, warning = load_checkpoint(self.out, self.objective, self.optimizer, self.settings)
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
        best = _Best(watch) if watch else None
        started, first = time.perf_counter(), self.step
        self.objective.train()
        while self.step < self.schedule.steps:
            loss = self._one_step()
            elapsed = time.perf_counter() - started
            batch = min(self.schedule.batch_size, len(self.data))
            self.result.images_per_second = batch * (self.step - first) / max(elapsed, 1e-9)
            report(self.step, f"loss {loss:.3f}  {self.result.images_per_second:.0f} images/s")
            last = self.step == self.schedule.steps
            if self.step % log_every == 0 or last:
                self._log(loss, health_every, writer, last)
            if self.step % checkpoint_every == 0 or last:
                self._save()
            if best and (self.step % best.watch.every == 0 or last) and best.stop(self.objective, self.step):
                break
        if best:
            best.restore(self.objective)
            self.result.best_score, self.result.best_step = best.score, best.step
        self.result.steps = self.step
        self.result.seconds = time.perf_counter() - started
        if writer:
            writer.close()

    def _one_step(self) -> float:
        torch.manual_seed(mix_seed("dropout", self.schedule.seed, self.step, self.fabric.global_rank))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.schedule)
        waited = time.perf_counter()
        batch = self._batch(self.step)
        self.result.waiting_seconds += time.perf_counter() - waited
        with self.fabric.autocast():  # Fabric enters it by itself only where it wraps the module, as for DDP
            loss = self.model.loss(batch)
        value = float(loss.detach())
        if not np.isfinite(value):
            self._stop(f"The loss became {value} at step {self.step + 1}")
        self.wrapped.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.wrapped.step()
        self.step += 1
        return value

    def _save(self) -> None:
        """A checkpoint, unless the weights are broken: a finite loss may come before a gradient that is not."""
        if not all(bool(torch.isfinite(p).all()) for p in self.objective.parameters()):
            self._stop(f"The weights are no numbers any more after step {self.step}")
        if self.out and self.fabric.is_global_zero:
            save_checkpoint(self.out, self.objective, self.optimizer, self.step, self.settings)

    def _stop(self, what: str) -> NoReturn:
        kept = f" The last good checkpoint is in {self.out}." if self.out else ""
        raise FewlabelError(
            f"{what}: lower the learning rate (now {self.schedule.learning_rate:g}) or raise the warm-up.{kept}"
        )

    def _batch(self, step: int) -> Batch:
        indices = self.data.batch_indices(step, self.schedule.batch_size, self.schedule.seed)
        rank, world = self.fabric.global_rank, self.fabric.world_size
        indices = indices[rank::world]
        generator = torch.Generator().manual_seed(mix_seed("views", self.schedule.seed, step, rank))
        images = self.fabric.to_device(self.data.images(indices))
        views = draw_views(images, self.views, self.objective.view_count, generator)
        if views[0].dim() == 4:
            views = tuple(view.contiguous(memory_format=torch.channels_last) for view in views)
        labels = None
        if self.data.labels is not None:
            labels = self.fabric.to_device(torch.from_numpy(self.data.labels[indices]))
        return Batch(views=views, labels=labels)

    def _log(self, loss: float, health_every: int, writer: Any, last: bool) -> None:
        row: JSON = {"step": self.step, "loss": loss, "learning_rate": self.optimizer.param_groups[0]["lr"]}
        if hasattr(self.objective, "embed") and (self.step % health_every == 0 or last):
            health = self._health()
            row.update({k: round(v, 5) for k, v in asdict(health).items()})
            if health.warning and health.warning not in self.result.warnings:
                self.result.warnings.append(health.warning)
        self.result.history.append(row)
        if self.out and self.fabric.is_global_zero:
            with (self.out / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
        if writer:
            for key, value in row.items():
                if key != "step":
                    writer.add_scalar(key, value, self.step)

    @torch.no_grad()
    def _health(self) -> Any:
        count = min(256, len(self.data))
        indices = np.linspace(0, len(self.data) - 1, count).astype(np.int64)
        generator = torch.Generator().manual_seed(mix_seed("health", self.schedule.seed))
        images = self.fabric.to_device(self.data.images(np.unique(indices)))
        first, second = draw_views(images, self.views, 2, generator)
        self.objective.eval()
        health = measure_health(
            self.objective.embed(first), self.objective.embed(second), self.objective.encoder(first)
        )
        self.objective.train()
        return health

    def _rewrite_metrics(self) -> None:
        if self.out and self.fabric.is_global_zero:
            self.out.mkdir(parents=True, exist_ok=True)
            temporary = self.out / "metrics.jsonl.part"
            temporary.write_text("".join(json.dumps(row) + "\n" for row in self.result.history))
            replace_file(temporary, self.out / "metrics.jsonl")

    def _tensorboard(self) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise FewlabelError(
                'TensorBoard is not installed: run pip install "fewlabel[tensorboard]".'
            ) from error
        return SummaryWriter(str(self.out or "."))


class _Best:
    """The best validation score so far and the weights that gave it."""

    def __init__(self, watch: Watch) -> None:
        self.watch, self.score, self.step, self.waited = watch, -np.inf, 0, 0
        self.weights: dict[str, torch.Tensor] | None = None

    @torch.no_grad()
    def stop(self, objective: nn.Module, step: int) -> bool:
        objective.eval()
        score = self.watch.score(objective)
        objective.train()
        if score > self.score:
            self.score, self.step, self.waited = score, step, 0
            self.weights = copy.deepcopy(objective.state_dict())
        else:
            self.waited += 1
        return self.waited >= self.watch.patience

    def restore(self, objective: nn.Module) -> None:
        if self.weights is not None:
            objective.load_state_dict(self.weights)


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
