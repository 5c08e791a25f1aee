"""Memory and time of large contrastive batches in micro-batches; prints JSON.

    python benchmarks/micro_batch.py > benchmarks/results/micro-batch.json

SimCLR with ResNet-18 on 64 px views of made images, each setting in a process of its own: batch 128 at once, and batch
4,096 in pieces.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import numpy as np
import torch
from machine import PeakMemory, machine_facts

from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives import SimCLR
from fewlabel.phantoms import radiographs
from fewlabel.training import TrainingSet, fit
from fewlabel.types import JSON, Schedule
from fewlabel.views import medical_views

SIZE_PX, STORED_PX = 64, 128
SETTINGS = ((128, None), (4096, 128), (4096, 64))


def run(batch: int, micro_batch: int | None, steps: int) -> JSON:
    """Peak memory and speed of a short training in this process."""
    made = (radiographs(256, size_px=STORED_PX).pixels * 255).astype(np.uint8)[:, None]
    rows = np.arange(max(batch, 256)) % 256  # the store is mapped, so its size is not what is measured
    torch.manual_seed(0)
    objective = SimCLR(Encoder(EncoderSettings("resnet18", 1, SIZE_PX)))
    schedule = Schedule(steps, batch, 1e-3, micro_batch=micro_batch)
    with PeakMemory() as memory:
        result = fit(objective, TrainingSet((made,), (rows,)), medical_views(SIZE_PX), schedule)
    return {
        "batch": batch,
        "micro_batch": micro_batch,
        "images_per_second": round(result.images_per_second, 1),
        "loss": round(result.history[-1]["loss"], 4),
        **memory.facts(),
    }


def main() -> None:
    """Print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=2)
    given = parser.parse_args()
    if given.one is not None:
        batch, micro_batch = SETTINGS[given.one]
        print(json.dumps(run(batch, micro_batch, given.steps * (1 if micro_batch else 5))))
        return
    facts = machine_facts()
    rows = [
        json.loads(
            subprocess.check_output(
                [sys.executable, __file__, "--one", str(i), "--steps", str(given.steps)], text=True
            )
        )
        for i in range(len(SETTINGS))
    ]
    ratios = [round(row["peak_memory_mib"] / rows[0]["peak_memory_mib"], 3) for row in rows]
    print(json.dumps({"benchmark": "micro_batch", "rows": rows, "memory_ratios": ratios, **facts}, indent=1))


if __name__ == "__main__":
    main()
