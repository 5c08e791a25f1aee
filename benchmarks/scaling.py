"""How pretraining grows with the size of the views, with the batch and with the number of images; prints JSON.

    python benchmarks/scaling.py > benchmarks/results/scaling.json

One of the three is changed at a time, each setting in a process of its own: SimCLR with ResNet-18 from a mapped store
of noise on disk, of twice the views' size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from feature_throughput import store
from machine import PeakMemory, machine_facts

from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives import SimCLR
from fewlabel.training import Compute, TrainingSet, fit
from fewlabel.training.compute import usual_compute
from fewlabel.types import JSON, Schedule
from fewlabel.views import medical_views

BASE = {"images": 4096, "size_px": 64, "batch": 128}
CHANGED: dict[str, tuple[int, ...]] = {
    "size_px": (32, 64, 96, 128, 224),
    "batch": (32, 64, 128, 256, 512),
    "images": (1024, 4096, 16384, 65536),
}


def run(setting: dict[str, int], views: int, folder: Path) -> JSON:
    """Speed, waiting and memory of a training of about `views` views in this process, after one step to warm up."""
    size, batch = setting["size_px"], setting["batch"]
    pixels = store(folder, setting["images"], 2 * size)
    data = TrainingSet((pixels,), (np.arange(len(pixels)),))
    compute: Compute = usual_compute(torch.device("cuda" if torch.cuda.is_available() else "cpu"), size)
    steps = max(2, round(views * (64 / size) ** 2 / batch / 2))

    def train(steps: int) -> JSON:
        torch.manual_seed(0)
        objective = SimCLR(Encoder(EncoderSettings("resnet18", 1, size)))
        found = fit(objective, data, medical_views(size), Schedule(steps, batch, 1e-3), compute=compute)
        share = found.waiting_seconds / found.seconds
        return {"images_per_second": round(found.images_per_second, 1), "waiting": round(share, 4)}

    train(1)
    with PeakMemory() as memory:
        found = train(steps)
    return {**setting, "steps": steps, "compute": compute.name, **found, **memory.facts()}


def main() -> None:
    """Print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--views", type=int, default=8192, help="how many a setting, at 64 px")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.one:
            print(json.dumps(run(given.one, given.views, Path(folder))))
            return
    facts, rows = machine_facts(), []
    for what, values in CHANGED.items():
        for value in values:
            argued = ["--one", json.dumps({**BASE, what: value}), "--views", str(given.views)]
            told = subprocess.check_output([sys.executable, __file__, *argued], text=True)
            rows.append({"changed": what, **json.loads(told)})
    print(json.dumps({"benchmark": "scaling", "base": BASE, "rows": rows, **facts}, indent=1))


if __name__ == "__main__":
    main()
