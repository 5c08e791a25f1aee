"""How fast `fit` pretrains with SimCLR, beside the bare network; prints JSON.

    python benchmarks/pretrain_throughput.py
    python benchmarks/pretrain_throughput.py --data my-collection --encoder resnet50 --size 224

The same network with the same loss and optimizer is run on views that lie ready in memory, in turns with `fit`:
`ratio` is the share of that bare speed which `fit` reaches with gathering images, drawing views and bookkeeping.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from machine import PeakMemory, machine_facts

from fewlabel.collection import Collection
from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives import SimCLR
from fewlabel.phantoms import radiographs
from fewlabel.training import Compute, FitResult, TrainingSet, fit
from fewlabel.training.compute import lay_out, measure_compute
from fewlabel.training.optimizers import make_optimizer
from fewlabel.types import JSON, Batch, Schedule
from fewlabel.views import draw_views, medical_views


def images_for(given: argparse.Namespace) -> np.ndarray:
    """(N, C, 2S, 2S) images: made ones, or those of a collection; views are drawn from twice their size."""
    side = 2 * given.size
    if given.data:
        return Collection.open(given.data).square(side, channels=given.channels)
    made = radiographs(min(512, 4 * given.batch), size_px=side, seed=0).pixels
    return np.repeat((made * 255).astype(np.uint8)[:, None], given.channels, axis=1)


def objective_for(given: argparse.Namespace) -> SimCLR:
    """A new SimCLR with weights from seed 0."""
    torch.manual_seed(0)
    small = given.encoder.startswith("resnet") and given.size <= 32
    return SimCLR(Encoder(EncoderSettings(given.encoder, given.channels, given.size, small)))


def run_fit(images: np.ndarray, given: argparse.Namespace, steps: int, compute: Compute) -> FitResult:
    """`steps` steps of the real loop, without files; the objective is new each time."""
    schedule = Schedule(steps, given.batch, 1e-3)
    data = TrainingSet((images,), (np.arange(len(images)),))
    views = medical_views(given.size)
    return fit(objective_for(given), data, views, schedule, health_every=steps + 1, compute=compute)


class Bare:
    """Forward, backward and optimizer step on two views that lie ready on the device, in the fastest setting."""

    def __init__(self, images: np.ndarray, given: argparse.Namespace) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.objective = objective_for(given).to(self.device)
        batch = torch.from_numpy(np.ascontiguousarray(images[: given.batch])).to(self.device)
        views = draw_views(batch, medical_views(given.size), 2, torch.Generator().manual_seed(0))
        self.compute = measure_compute(self.objective, Batch(views), self.device)
        lay_out(self.objective, self.compute.channels_last)
        if self.compute.channels_last:
            views = tuple(view.contiguous(memory_format=torch.channels_last) for view in views)
        self.batch = Batch(views)
        self.optimizer = make_optimizer(self.objective, Schedule(1, given.batch, 1e-3))
        self.images = len(batch)

    def run(self, steps: int) -> float:
        """Images a second."""
        self._wait()
        started = time.perf_counter()
        for _ in range(steps):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.compute.precision == "bf16"):
                loss = self.objective.loss(self.batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        self._wait()
        return self.images * steps / (time.perf_counter() - started)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def measure(given: argparse.Namespace) -> JSON:
    """All rounds; which of the two goes first changes from round to round."""
    facts = machine_facts()
    images = images_for(given)
    bare = Bare(images, given)
    bare.run(2)
    run_fit(images, given, 2, bare.compute)
    fits: list[FitResult] = []
    bares: list[float] = []
    with PeakMemory() as memory:
        for number in range(given.rounds):
            for which in ("fit", "bare") if number % 2 == 0 else ("bare", "fit"):
                if which == "fit":
                    fits.append(run_fit(images, given, given.steps, bare.compute))
                else:
                    bares.append(bare.run(given.steps))
    waiting, seconds = sum(one.waiting_seconds for one in fits), sum(one.seconds for one in fits)
    speeds = [one.images_per_second for one in fits]
    return {
        "benchmark": "pretrain_throughput",
        "settings": {
            key: str(value) if isinstance(value, Path) else value for key, value in vars(given).items()
        },
        "images": "a collection" if given.data else "made",
        "compute": bare.compute.name,
        "seconds_a_step": dict(bare.compute.seconds),
        "images_per_second": round(statistics.median(speeds), 1),
        "images_per_second_rounds": [round(speed, 1) for speed in speeds],
        "seconds": round(seconds, 3),
        "waiting_seconds": round(waiting, 3),
        "computing_seconds": round(seconds - waiting, 3),
        "bare_images_per_second": round(statistics.median(bares), 1),
        "bare_images_per_second_rounds": [round(speed, 1) for speed in bares],
        "ratio": round(statistics.median(a / b for a, b in zip(speeds, bares, strict=True)), 3),
        **memory.facts(),
        **facts,
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure as the command line says and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a collection; made images by default")
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--size", type=int, default=64, help="side of a view in pixels")
    parser.add_argument("--channels", type=int, default=1, choices=(1, 3))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20, help="steps in a round")
    parser.add_argument("--rounds", type=int, default=4)
    print(json.dumps(measure(parser.parse_args(arguments)), indent=1))


if __name__ == "__main__":
    main()
