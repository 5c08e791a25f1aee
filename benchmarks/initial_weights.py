"""Residual blocks that start open or closed: what SimCLR has learned after so many steps; prints JSON.

    python benchmarks/initial_weights.py > benchmarks/results/initial-weights.json

On made radiographs. timm's ResNets start with the last scale of each residual block at 0 ("closed"); `Encoder` sets it
to 1 ("open"). After training, a linear probe with 10 labels and with all looks for the reticular pattern.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
from few_labels_over_steps import aurocs

from fewlabel.adaptation.features import extract_features
from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives import SimCLR
from fewlabel.phantoms import EASY, MadeRadiographs, radiographs
from fewlabel.splits import Split, draw_split
from fewlabel.training import TrainingSet, fit, mix_seed
from fewlabel.types import JSON, Schedule
from fewlabel.views import medical_views

SIZE_PX, BATCH, FEW, DRAWS = 32, 64, 10, 5


def simclr(start: str, seed: int) -> SimCLR:
    """SimCLR with ResNet-18 whose residual blocks start "open" or "closed"."""
    torch.manual_seed(mix_seed("initial weights", seed))
    objective = SimCLR(Encoder(EncoderSettings("resnet18", 1, SIZE_PX)), temperature=0.2)
    if start == "closed":
        for module in objective.encoder.modules():
            if hasattr(module, "zero_init_last"):
                module.zero_init_last()
    return objective


def probes(features: np.ndarray, made: MadeRadiographs, split: Split) -> tuple[float, float]:
    """Test AUROC of a linear probe with FEW labels (mean over draws) and with all."""
    y, patients = made.reticulation.astype(int), np.array(made.patients)

    def on_test(labels: int, draw: int) -> float:
        return aurocs(features, y, split, patients, labels, draw, "chosen")[1]

    return float(np.mean([on_test(FEW, draw) for draw in range(DRAWS)])), on_test(len(split.train), 0)


def measure(start: str, steps: int, seed: int, count: int) -> JSON:
    """One pretraining and its probes."""
    made = radiographs(count, size_px=SIZE_PX, seed=seed, difficulty=EASY)
    pixels = np.round(made.pixels * 255).astype(np.uint8)[:, None]
    split = draw_split(np.unique(made.patients, return_inverse=True)[1], seed=seed)
    objective = simclr(start, seed)
    schedule = Schedule(steps, BATCH, 1e-3, warmup_steps=max(1, steps // 20), seed=seed)
    result = fit(objective, TrainingSet((pixels,), (split.train,)), medical_views(SIZE_PX), schedule)
    few, everything = probes(extract_features(objective.encoder, pixels, size_px=SIZE_PX), made, split)
    return {
        "start": start, "steps": steps, "seed": seed, "loss": round(result.history[-1]["loss"], 4),
        "auroc_few": round(few, 4), "auroc_all": round(everything, 4),
    }  # fmt: skip


def main() -> None:
    """Print one row for each start, number of steps and seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, nargs="+", default=[200, 400, 800])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--count", type=int, default=1500)
    given = parser.parse_args()
    started = time.perf_counter()
    rows = [
        measure(start, steps, seed, given.count)
        for steps in given.steps
        for seed in range(given.seeds)
        for start in ("closed", "open")
    ]
    about = (
        f"Made radiographs, reticular pattern, {given.count} images of {SIZE_PX} px, ResNet-18, batch {BATCH}, "
        f"few = {FEW} labels (mean over {DRAWS} draws)"
    )
    seconds = round(time.perf_counter() - started)
    print(json.dumps({"about": about, "few": FEW, "seconds": seconds, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
