"""Memory and time of pretraining a big encoder, with and without computing activations twice; prints JSON.

    python benchmarks/big_encoder.py > benchmarks/results/big-encoder.json
    python benchmarks/big_encoder.py --encoder resnet101 --size 224 --batch 32

SimCLR with a 3-layer head, each setting in a process of its own.
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
from fewlabel.training import TrainingSet, fit
from fewlabel.training.compute import usual_compute
from fewlabel.types import JSON, Schedule
from fewlabel.views import medical_views


def run(given: argparse.Namespace) -> JSON:
    """Peak memory and seconds a step of a short training in this process."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (given.batch, 1, given.size, given.size), dtype=np.uint8)
    torch.manual_seed(0)
    settings = EncoderSettings(given.encoder, 1, given.size, checkpointing=given.one == "checkpointing")
    objective = SimCLR(Encoder(settings), head_layers=3)
    compute = usual_compute(torch.device("cuda" if torch.cuda.is_available() else "cpu"), given.size)
    data = TrainingSet((pixels,), (np.arange(len(pixels)),))
    with PeakMemory() as memory:
        plan = Schedule(given.steps, given.batch, 1e-3)
        found = fit(objective, data, medical_views(given.size), plan, compute=compute)
    return {
        "setting": given.one,
        "compute": compute.name,
        "seconds_a_step": round(found.seconds / given.steps, 2),
        "loss": round(found.history[-1]["loss"], 4),
        **memory.facts(),
    }


def main() -> None:
    """Print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--one", choices=("plain", "checkpointing"), help=argparse.SUPPRESS)
    parser.add_argument("--encoder", default="resnet152")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=2)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(run(given)))
        return
    facts, rows = machine_facts(), []
    argued = [f"--{key}={value}" for key, value in vars(given).items() if key != "one"]
    for one in ("checkpointing", "plain"):
        done = subprocess.run(
            [sys.executable, __file__, *argued, "--one", one], stdout=subprocess.PIPE, text=True, check=False
        )
        died = {"setting": one, "ended": f"with status {done.returncode}: it did not fit into memory"}
        rows.append(json.loads(done.stdout) if done.returncode == 0 else died)
    settings = {key: value for key, value in vars(given).items() if key != "one"}
    print(json.dumps({"benchmark": "big_encoder", **settings, "rows": rows, **facts}, indent=1))


if __name__ == "__main__":
    main()
