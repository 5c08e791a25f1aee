"""One scale for all features, or one for each? Measured on validation patients; prints JSON.

The evidence for docs/decisions/probe-scaling.md:

    python benchmarks/probe_scaling.py COLLECTION RUN TARGET

RUN was made by `fewlabel learn` or `pretrain` on COLLECTION. The strength is chosen on one half of the validation
patients and the AUROC taken on the other half, and the other way round. Test images are not touched.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from fewlabel.adaptation.features import cached_features
from fewlabel.adaptation.probe import Scaling, fit_linear_probe, validation_score
from fewlabel.collection import Collection
from fewlabel.pipeline.runs import read_json, read_split
from fewlabel.splits import nested_budgets
from fewlabel.training.weights import ENCODER, load_encoder
from fewlabel.types import JSON, FewlabelError

BUDGETS = (10, 25, 50, 100, 250)


def features_of(collection: Collection, folder: Path) -> np.ndarray:
    """Features (N, F) of all images by the run's encoder."""
    made = read_json(folder / "pretrain.json", "fewlabel pretrain")
    settings = made["settings"]
    pixels = collection.square(made["store_px"], channels=settings["channels"])
    return cached_features(
        load_encoder(folder / ENCODER),
        pixels,
        size_px=settings["size_px"],
        fingerprint=collection.fingerprint,
        folder=None,
    )


def score(
    x: np.ndarray, y: np.ndarray, rows: np.ndarray, halves: list[np.ndarray], scaling: Scaling
) -> float:
    """Mean AUROC of both halves of validation, each with the strength that is best on the other one."""
    found = []
    for chosen_on, measured_on in (halves, halves[::-1]):
        probe = fit_linear_probe(
            x[rows],
            y[rows],
            x[chosen_on],
            y[chosen_on],
            kind="binary",
            classes=2,
            scaling=scaling,
        )
        found.append(validation_score("binary", y[measured_on], probe.logits(x[measured_on])))
    return float(np.mean(found))


def measure(given: argparse.Namespace) -> JSON:
    """Both scalings at every budget, over seeds. Raises FewlabelError for a target that is not binary."""
    collection = Collection.open(given.collection)
    target = collection.target(given.target)
    if target.kind != "binary":
        raise FewlabelError(f"{given.target} is a {target.kind}: give a binary target.")
    folder = given.run / "pretrain" / "seed-0" if (given.run / "pretrain").is_dir() else given.run
    split = read_split(folder / "split.csv", collection)
    if split is None:
        raise FewlabelError(
            f"{given.run} was not made on {given.collection}: give the collection of the run."
        )
    x, y, patients = features_of(collection, folder), target.values, collection.patients()
    usable = split.within(np.flatnonzero(target.usable))
    own = x / np.maximum(x[split.train].std(axis=0), 1e-6)
    versions = {"one scale": x, "one for each": own}
    halves = [usable.val[np.isin(patients[usable.val] % 2, half)] for half in (0, 1)]
    budgets = [b for b in BUDGETS if b < len(usable.train)] + [len(usable.train)]
    rows = []
    for budget in budgets:
        values: dict[str, list[float]] = {name: [] for name in versions}
        for seed in range(given.seeds):
            drawn = usable.train[
                nested_budgets(y[usable.train], patients[usable.train], [budget], seed=seed)[budget]
            ]
            for name, features in versions.items():
                scaling = Scaling.of(features[split.train])
                values[name].append(score(features, y, drawn, halves, scaling))
        gaps = np.subtract(values["one scale"], values["one for each"])
        rows.append(
            {
                "labels": budget,
                **{name: round(float(np.mean(found)), 4) for name, found in values.items()},
                "difference": round(float(gaps.mean()), 4),
                "deviation_over_seeds": round(float(gaps.std()), 4),
            }
        )
    return {
        "benchmark": "probe_scaling",
        "validation_images": len(usable.val),
        "seeds": given.seeds,
        "auroc": rows,
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure as the command line says and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("collection", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("target")
    parser.add_argument("--seeds", type=int, default=10)
    print(json.dumps(measure(parser.parse_args(arguments)), indent=1))


if __name__ == "__main__":
    main()
