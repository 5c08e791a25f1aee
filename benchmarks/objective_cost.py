"""Speed and memory of every objective on the same encoder, beside supervised training; prints JSON.

    python benchmarks/objective_cost.py > benchmarks/results/objective-cost.json
    python benchmarks/objective_cost.py --sizes 32 --steps 5 --objectives vae gan

Each objective trains in a process of its own, in turns, as often as there are rounds; figures are medians. Half of the
made images have a label. MAE has a ViT, all others the same ResNet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

import numpy as np
import torch
from machine import PeakMemory, machine_facts

from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives import OBJECTIVES
from fewlabel.training import TrainingSet, fit
from fewlabel.training.compute import usual_compute
from fewlabel.types import JSON, Schedule
from fewlabel.views import light_views

NAMES = {objective.name: objective for objective in OBJECTIVES}
REFERENCE = "supervised"
IMAGES = 512


def run(name: str, size_px: int, batch_size: int, steps: int, encoder: str) -> JSON:
    """Images a second and peak memory of a short training in this process."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (IMAGES, 1, size_px, size_px), dtype=np.uint8)
    labels = rng.integers(0, 2, IMAGES)
    labels[::2] = -1
    torch.manual_seed(0)
    network = EncoderSettings("vit_tiny_patch16_224" if name == "mae" else encoder, 1, size_px)
    objective = NAMES[name](Encoder(network))
    compute = usual_compute(torch.device("cuda" if torch.cuda.is_available() else "cpu"), size_px)
    data = TrainingSet((pixels,), (np.arange(IMAGES),), labels)
    fit(objective, data, light_views(size_px), Schedule(1, batch_size, 1e-3), compute=compute)
    with PeakMemory() as memory:
        plan = Schedule(steps, batch_size, 1e-3)
        found = fit(objective, data, light_views(size_px), plan, compute=compute)
    return {"images_per_second": found.images_per_second, **memory.facts()}


def measured(given: argparse.Namespace, size_px: int) -> list[JSON]:
    """A row an objective, with the ratio of its speed to that of supervised training in the same round."""
    names = [REFERENCE, *(name for name in given.objectives if name != REFERENCE)]
    rounds = [{name: _alone(given, name, size_px) for name in names} for _ in range(given.rounds)]
    rows = []
    for name in names:
        speeds = [one[name]["images_per_second"] for one in rounds]
        ratios = [one[name]["images_per_second"] / one[REFERENCE]["images_per_second"] for one in rounds]
        rows.append(
            {
                "objective": name,
                "size_px": size_px,
                "images_per_second": round(statistics.median(speeds), 1),
                "ratio": round(statistics.median(ratios), 3),
                "peak_memory_mib": round(max(one[name]["peak_memory_mib"] for one in rounds)),
            }
        )
    return rows


def _alone(given: argparse.Namespace, name: str, size_px: int) -> JSON:
    argued = [f"--batch={given.batch}", f"--steps={given.steps}", f"--encoder={given.encoder}"]
    command = [sys.executable, __file__, f"--sizes={size_px}", *argued, "--one", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main(arguments: list[str] | None = None) -> None:
    """Print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--one", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--objectives", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args(arguments)
    if given.one:
        print(json.dumps(run(given.one, given.sizes[0], given.batch, given.steps, given.encoder)))
        return
    facts = machine_facts()
    rows = [row for size_px in given.sizes for row in measured(given, size_px)]
    settings = {"encoder": given.encoder, "batch": given.batch, "steps": given.steps, "rounds": given.rounds}
    print(json.dumps({"benchmark": "objective_cost", "settings": settings, "rows": rows, **facts}, indent=1))


if __name__ == "__main__":
    main()
