"""How does quality at few labels change while pretraining goes on? PneumoniaMNIST at 28 px; prints JSON.

    python benchmarks/few_labels_over_steps.py > benchmarks/results/few-labels-over-steps.json

For several kinds of views and temperatures, SimCLR is probed every few steps with 47 labels (mean over draws) and with
all: with one scale for all features or one for each of its own, and with the strength of regularisation chosen on
validation or left at scikit-learn's C = 1. Validation figures are for choosing; the test figures beside
them explain the shift between validation and test, and nothing is chosen on them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from main_job import data_folder, import_source
from sklearn.linear_model import LogisticRegression
from torch import nn

from fewlabel.adaptation.features import extract_features
from fewlabel.adaptation.probe import Scaling, fit_linear_probe, validation_score
from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives import SimCLR
from fewlabel.pipeline.pretraining import split_of
from fewlabel.splits import Split, nested_budgets
from fewlabel.training import TrainingSet, Watch, fit, mix_seed
from fewlabel.types import JSON, Schedule
from fewlabel.views import ViewSettings, medical_views, simclr_views

SIZE_PX, FEW, DRAWS = 28, 47, 5
VARIANTS: dict[str, tuple[ViewSettings, float]] = {
    "Medical views, temperature 0.5": (medical_views(SIZE_PX), 0.5),
    "The paper's views, temperature 0.5": (simclr_views(SIZE_PX), 0.5),
}


def aurocs(
    x: np.ndarray, y: np.ndarray, split: Split, patients: np.ndarray, labels: int, seed: int, strength: str
) -> tuple[float, float]:
    """AUROC on validation and on test of a probe on `labels` labels; strength "chosen" on validation, or "C = 1"."""
    train, val, test = split.train, split.val, split.test
    chosen = train[nested_budgets(y[train], patients[train], [labels], seed=seed)[labels]]
    scaling = Scaling.of(x[train])
    if strength == "chosen":
        fitted = fit_linear_probe(
            x[chosen], y[chosen], x[val], y[val], kind="binary", classes=2, scaling=scaling
        )
        outputs = [fitted.logits(x[part]) for part in (val, test)]
    else:
        plain = LogisticRegression(C=1.0, max_iter=500).fit(scaling(x[chosen]), y[chosen])
        margins = [plain.decision_function(scaling(x[part])) for part in (val, test)]
        outputs = [np.stack([np.zeros_like(margin), margin], axis=1) for margin in margins]
    on_val, on_test = (
        validation_score("binary", y[part], o) for part, o in zip((val, test), outputs, strict=True)
    )
    return on_val, on_test


def curve(
    views: ViewSettings, temperature: float, work: Path, *, steps: int, every: int, batch_size: int
) -> list[JSON]:
    """One row each `every` steps: AUROC on validation and test by scaling and number of labels."""
    collection = import_source("pneumoniamnist", data_folder(), work)
    split = split_of(collection, seed=0, drop=True)
    pixels, y, patients = collection.square(SIZE_PX), collection.target("label").values, collection.patients()
    torch.manual_seed(mix_seed("initial weights", 0))
    objective = SimCLR(Encoder(EncoderSettings("resnet18", 1, SIZE_PX)), temperature=temperature)
    rows: list[JSON] = []

    def probe(model: nn.Module) -> float:
        features = extract_features(objective.encoder, pixels, size_px=SIZE_PX)
        own = features / np.maximum(features[split.train].std(axis=0), 1e-6)
        step = every * (len(rows) // 6 + 1)
        for scaling, x, strength in (
            ("one", features, "chosen"),
            ("own", own, "chosen"),
            ("own", own, "C = 1"),
        ):
            for labels in (FEW, len(split.train)):
                draws = range(DRAWS if labels == FEW else 1)
                found = [aurocs(x, y, split, patients, labels, seed, strength) for seed in draws]
                val, test = np.mean(found, axis=0).round(4).tolist()
                row = {"scaling": scaling, "strength": strength, "labels": labels, "val": val, "test": test}
                rows.append({"step": step, **row})
        return float(step)

    data = TrainingSet((pixels,), (split.train,))
    schedule = Schedule(steps, batch_size, 1e-3, warmup_steps=max(1, steps // 20))
    fit(objective, data, views, schedule, watch=Watch(probe, every, patience=steps))
    return rows


def main() -> None:
    """Print the curves of all variants."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=60)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--work", type=Path, default=Path(__file__).resolve().parents[1] / ".work")
    given = parser.parse_args()
    started, variants = time.perf_counter(), {}
    for name, (views, temperature) in VARIANTS.items():
        variants[name] = curve(
            views, temperature, given.work, steps=given.steps, every=given.every, batch_size=given.batch
        )
    about = f"PneumoniaMNIST, official split, {SIZE_PX} px, ResNet-18, batch {given.batch}, {DRAWS} draws"
    seconds = round(time.perf_counter() - started)
    print(
        json.dumps(
            {"about": about, "draws": DRAWS, "seed": 0, "seconds": seconds, "variants": variants}, indent=1
        )
    )


if __name__ == "__main__":
    main()
