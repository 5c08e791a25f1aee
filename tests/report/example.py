"""Made-up results of runs, as evaluation writes them: yes/no, classes, a number, one that cannot tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

JSON = dict[str, Any]

ARMS = [
    {"key": "simclr", "label": "SimCLR, linear probe", "role": "method"},
    {"key": "simclr-knn", "label": "SimCLR, nearest neighbours", "role": "method"},
    {"key": "random", "label": "random-init features, linear probe", "role": "control"},
    {"key": "supervised", "label": "supervised from scratch", "role": "reference"},
    {"key": "pixels", "label": "pixels, logistic regression", "role": "baseline"},
    {"key": "statistics", "label": "six image statistics", "role": "control"},
]
# ceiling and loss at 10 labels of each arm; what is lost shrinks as a power of the labels
CURVES = {
    "simclr": (0.972, 0.075, 0.33),
    "simclr-knn": (0.955, 0.105, 0.36),
    "random": (0.915, 0.16, 0.30),
    "supervised": (0.968, 0.29, 0.50),
    "pixels": (0.93, 0.19, 0.28),
    "statistics": (0.80, 0.12, 0.40),
}
BUDGETS = [10, 25, 50, 100, 250, 4708]
BINARY_METRICS = [
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "sensitivity_at_90_specificity",
    "brier",
    "calibration_error",
]


def binary() -> JSON:
    """Pneumonia yes or no: every block is there."""
    rng = np.random.default_rng(0)
    return {
        "format": 1,
        "title": "Pneumonia in chest/",
        "made_images": False,
        "smoke": False,
        "target": {"name": "Pneumonia", "kind": "binary", "classes": ["0", "1"], "where": None},
        "metric": "auroc",
        "metric_labels": {"auroc": "AUROC", "average_precision": "Average precision"},
        "higher_is_better": True,
        "arms": ARMS,
        "budgets": BUDGETS,
        "seeds": [0, 1, 2, 3, 4],
        "metrics": [row for name in BINARY_METRICS for row in _metrics(rng, name)],
        "differences": _differences(rng),
        "headline": _saved(50, "230", "120", "more than 4,708", "4.6", "2.4", "more than 94"),
        "labels_saved": [
            _saved(10, "92", "55", "180", "9.2", "5.5", "18"),
            _saved(25, "150", "80", "700", "6.0", "3.2", "28"),
            _saved(50, "230", "120", "more than 4,708", "4.6", "2.4", "more than 94"),
            _saved(100, "more than 4,708", "310", "more than 4,708", "more than 47", "3.1", "more than 47"),
            {
                "status": "cannot be told",
                "sentence": "With 250 labels it cannot be told how many labels are saved.",
                "arm": "simclr",
                "reference": "supervised",
                "budget": 250,
                "equivalent": None,
                "factor": None,
            },
        ],
        "roc": [_roc(arm, budget) for budget in (50, 4708) for arm in ("simclr", "random", "supervised")],
        "calibration": [
            _calibration(rng, arm, budget) for budget in (50, 4708) for arm in ("simclr", "supervised")
        ],
        "abstention": _abstention(),
        "embedding": _embedding(rng, ["0", "1"], 624),
        "views_figure": "figures/views.png",
        "mistakes": [_mistake(index) for index in range(16)],
        "health": _health(rng),
        "data": _data(
            {"train": {"0": 1214, "1": 3494}, "val": {"0": 135, "1": 389}, "test": {"0": 234, "1": 390}}
        ),
        "warnings": [
            "Random-init features come within 0.02 of SimCLR at 4,708 labels: a shortcut such as brightness "
            "or a border may be enough for this task.",
        ],
        "settings": _settings(),
        "versions": {"fewlabel": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
        "seconds": {"pretrain": 4210.5, "supervised": 803.2, "total": 5400.0},
    }


def category() -> JSON:
    """Three classes in CT, made images, no ROC."""
    rng = np.random.default_rng(1)
    classes = ["normal", "benign", "malignant"]
    return binary() | {
        "title": "Kind of nodule in ct/",
        "made_images": True,
        "target": {
            "name": "Kind of nodule",
            "kind": "category",
            "classes": classes,
            "where": "View Position = 'PA'",
        },
        "roc": [],
        "calibration": [_calibration(rng, "simclr", 4708)],
        "mistakes": [
            _mistake(i) | {"truth": "malignant", "prediction": "normal", "probability": 0.9} for i in range(7)
        ],
        "embedding": _embedding(rng, classes, 2400),
        "data": _data(
            {"train": {"malignant": 400, "normal": 300, "benign": 80}, "test": {"normal": 100, "benign": 26}}
        ),
    }


def regression() -> JSON:
    """Age from a radiograph: mean absolute error, lower is better."""
    rng = np.random.default_rng(2)
    truth = rng.normal(55, 16, 500)
    results = binary()
    for row in results["differences"]:
        row.update(name="mae", value=-10 * row["value"], low=-10 * row["high"], high=-10 * row["low"])
    return results | {
        "title": "Age in chest/",
        "target": {"name": "Age", "kind": "number", "classes": [], "where": None},
        "metric": "mae",
        "metric_labels": {"mae": "Mean absolute error", "r2": "R²"},
        "higher_is_better": False,
        "metrics": [row for name in ("mae", "r2") for row in _metrics(rng, name)],
        "roc": None,
        "calibration": None,
        "abstention": None,
        "scatter": {
            "truth": truth.tolist(),
            "prediction": (0.6 * truth + 22 + rng.normal(0, 7, 500)).tolist(),
        },
        "embedding": _embedding(rng, [], 500),
        "data": _data({}),
        "mistakes": [
            _mistake(index) | {"truth": 81.0, "prediction": 42.31, "probability": None} for index in range(3)
        ],
    }


def cannot_be_told() -> JSON:
    """A small and honest run: no headline figure, no pretraining, little else."""
    results = binary()
    sentence = (
        "With 25 labels, SimCLR cannot be told apart from supervised from scratch (AUROC 0.71 against 0.69): "
        "whether labels are saved, these 202 test images do not say."
    )
    unknown = {
        "equivalent": None,
        "factor": None,
        "arm": "simclr",
        "reference": "supervised",
        "status": "cannot be told",
    }
    return results | {
        "headline": unknown | {"budget": 25, "sentence": sentence},
        "labels_saved": [
            unknown | {"budget": budget, "sentence": "It cannot be told."} for budget in BUDGETS
        ],
        "health": None,
        "embedding": None,
        "views_figure": None,
        "mistakes": [],
        "smoke": True,
    }


def slim(results: JSON) -> JSON:
    """The same run with two methods, two budgets and few points: quick to draw."""
    arms, budgets = ("simclr", "supervised"), (50, 4708)
    kept = {
        key: [row for row in results[key] if row["arm"] in arms and row["budget"] in budgets]
        for key in ("metrics", "differences", "roc", "calibration", "labels_saved")
    }
    kept["metrics"] = [row for row in kept["metrics"] if row["name"] in ("auroc", "brier")]
    kept["differences"] = [row for row in kept["differences"] if row["reference"] == "supervised"]
    kept["roc"] = kept["roc"][:1]
    kept["arms"] = [arm for arm in results["arms"] if arm["key"] in arms]
    short = {key: results["embedding"][key][:20] for key in ("x", "y", "label")}
    return results | kept | {"budgets": list(budgets), "embedding": results["embedding"] | short}


def write_run(folder: Path, results: JSON) -> Path:
    """A run folder as evaluation leaves it: results.json, run.json and the pictures."""
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "run.json").write_text(json.dumps({"seed": 0, "note": "from run.json"}))
    rng = np.random.default_rng(3)
    row = [np.hstack([made_chest(rng, 96) for _ in range(8)]) for _ in range(3)]
    PIL.Image.fromarray(np.vstack(row)).save(figures / "views.png")
    for index in range(16):
        PIL.Image.fromarray(made_chest(rng, 112)).save(figures / f"mistake-{index}.png")
    return folder


def _value(name: str, arm: str, budget: int) -> float:
    ceiling, loss, power = CURVES[arm]
    auroc = ceiling - loss * (budget / 10) ** -power
    lower = {
        "mae": 22 - 16 * auroc,
        "r2": 2 * auroc - 1.3,
        "brier": 0.32 * (1.1 - auroc),
        "calibration_error": 0.4 * (1.05 - auroc),
    }
    return lower.get(name, auroc - 0.04 * BINARY_METRICS.index(name) if name in BINARY_METRICS else auroc)


def _metrics(rng: np.random.Generator, name: str) -> list[JSON]:
    rows = []
    scale = 10.0 if name == "mae" else 1.0
    for arm in ARMS:
        for budget in BUDGETS:
            value, half = _value(name, arm["key"], budget), scale * (0.012 + 0.07 / np.sqrt(budget / 5))
            seeds = (value + half * rng.normal(0, 0.5, 5)).tolist()
            rows.append(
                {
                    "arm": arm["key"], "budget": budget, "name": name, "value": value,
                    "low": value - half * 1.2, "high": value + half * 0.8, "n": 624, "patients": 624,
                    "per_seed": seeds,
                    "unit": "years" if name == "mae" else "",
                }
            )  # fmt: skip
    return rows


def _differences(rng: np.random.Generator) -> list[JSON]:
    rows = []
    for reference in ("supervised", "random", "pixels", "statistics", "simclr-knn"):
        for budget in BUDGETS:
            value = _value("auroc", "simclr", budget) - _value("auroc", reference, budget)
            half = 0.01 + 0.08 / np.sqrt(budget / 5)
            rows.append(
                {
                    "arm": "simclr", "reference": reference, "budget": budget, "name": "auroc",
                    "value": value, "low": value - half, "high": value + half,
                    "p": float(rng.uniform(0, 0.002) if value > half else 0.21),
                    "n": 624, "patients": 624,
                }
            )  # fmt: skip
    return rows


def _saved(
    budget: int, text: str, low: str, high: str, factor: str, factor_low: str, factor_high: str
) -> JSON:
    return {
        "status": "saved",
        "sentence": f"With {budget} labels, SimCLR is as good as supervised learning from scratch with "
        f"{text} ({low} to {high}).",
        "arm": "simclr",
        "reference": "supervised",
        "budget": budget,
        "equivalent": {"text": text, "low_text": low, "high_text": high},
        "factor": {"text": factor, "low_text": factor_low, "high_text": factor_high},
    }


def _roc(arm: str, budget: int) -> JSON:
    fpr = np.linspace(0, 1, 101)
    auroc = _value("auroc", arm, budget)
    tpr = fpr ** ((1 - auroc) / auroc)
    band = 0.05 * np.sqrt(fpr * (1 - fpr)) * 2
    return {
        "arm": arm, "budget": budget, "fpr": fpr.tolist(), "tpr": tpr.tolist(),
        "tpr_low": np.clip(tpr - band, 0, 1).tolist(), "tpr_high": np.clip(tpr + band, 0, 1).tolist(),
    }  # fmt: skip


def _calibration(rng: np.random.Generator, arm: str, budget: int) -> JSON:
    count = rng.integers(12, 160, 10).tolist()
    return {
        "arm": arm,
        "budget": budget,
        **_bent(1.0 if arm == "simclr" else 1.2, count),
        "before": _bent(0.5 if arm == "simclr" else 2.0, count),
        "scores": [
            {"name": name, "before": _interval(before), "after": _interval(after)}
            for name, before, after in (
                ("calibration_error", 0.113, 0.037), ("brier", 0.148, 0.121), ("log_loss", 0.512, 0.377),
            )
        ],
    }  # fmt: skip


def _bent(bend: float, count: list[int]) -> JSON:
    predicted = np.linspace(0.04, 0.96, 10)
    observed = predicted**bend / (predicted**bend + (1 - predicted) ** bend)
    return {"predicted": predicted.tolist(), "observed": observed.tolist(), "count": count}


def _interval(value: float) -> JSON:
    return {"value": value, "low": 0.8 * value, "high": 1.3 * value}


def _abstention() -> JSON:
    """12 % are wrong of all, 7.1 % of the most confident 80 %; one risk is too low to be promised."""
    coverage = np.linspace(0.05, 1, 96)
    risk = 0.12 * coverage ** (np.log(0.071 / 0.12) / np.log(0.8))
    return {
        "arm": "simclr", "budget": 4708, "n": 624, "patients": 624,
        "error": _interval(0.12), "aurc": _interval(0.036),
        "curve": {
            "coverage": coverage.tolist(), "risk": risk.tolist(),
            "low": (0.6 * risk).tolist(), "high": (1.5 * risk).tolist(),
        },
        "delta": 0.05, "validation_patients": 311,
        "asked": [
            {"risk": 0.01, "threshold": None},
            {
                "risk": 0.05, "threshold": 0.8731, "bound": 0.0463, "answered": 381,
                "coverage": {"value": 0.611, "low": 0.57, "high": 0.65},
                "achieved": {"value": 0.0375, "low": 0.021, "high": 0.056},
            },
            {
                "risk": 0.1, "threshold": 0.0, "bound": 0.0961, "answered": 624,
                "coverage": {"value": 1.0, "low": 1.0, "high": 1.0}, "achieved": _interval(0.12),
            },
        ],
    }  # fmt: skip


def _embedding(rng: np.random.Generator, classes: list[str], n: int) -> JSON:
    which = rng.integers(0, max(len(classes), 4), n)
    x, y = (rng.normal(0, 8, n) + 18 * np.cos(which * 2.2), rng.normal(0, 9, n) + 16 * np.sin(which * 2.2))
    label = (
        [classes[i % len(classes)] for i in which]
        if classes
        else (55 + 0.7 * x + rng.normal(0, 6, n)).tolist()
    )
    return {
        "method": "t-SNE of the test features, seed 0", "x": x.tolist(), "y": y.tolist(), "label": label,
        "kind": "category" if classes else "number",
    }  # fmt: skip


def _mistake(index: int) -> JSON:
    return {
        "case": f"test/NORMAL/person-{index:04d}_virus_with_a_rather_long_file_name_{index}.png",
        "truth": str(index % 2), "prediction": str(1 - index % 2),
        "probability": 0.02 + 0.01 * index if index % 2 else 0.98 - 0.01 * index,
        "figure": f"figures/mistake-{index}.png",
    }  # fmt: skip


def _health(rng: np.random.Generator) -> JSON:
    step = np.arange(0, 3000, 50)
    decay = np.exp(-step / 700)
    return {
        "step": step.tolist(),
        "loss": (4.1 + 1.9 * decay + rng.normal(0, 0.03, len(step))).tolist(),
        "alignment": (0.5 + 0.6 * decay).tolist(),
        "uniformity": (-3.1 + 1.8 * decay).tolist(),
        "effective_rank": (48 - 40 * decay).tolist(),
        "warnings": [],
    }


def _data(label_counts: JSON) -> JSON:
    return {
        "images": 5856, "patients": 5856, "train": 4708, "val": 524, "test": 624, "train_patients": 4708,
        "val_patients": 524, "test_patients": 624, "label_counts": label_counts,
        "uncertain": 0, "not_mentioned": 3,
        "spacing_mm": "not stated", "modalities": {"DX": 5856}, "image_sizes": "28 x 28",
        "quarantine": [
            {"file": "scans/broken-07.dcm", "reason": "it ends after 41,000 of 131,072 bytes"},
            {"file": "scans/report.pdf", "reason": "a PDF holds no pixels"},
            {"file": "notes/.DS_Store", "reason": "not an image"},
        ],
        "quarantine_total": 5, "exact_duplicate_groups": 27, "near_duplicate_groups": 41,
        "dropped_for_leakage": 8,
        "split": "official", "pretraining_images": 4708, "validation_labels": 524,
    }  # fmt: skip


def _settings() -> JSON:
    return {
        "command": "fewlabel learn chest/ --target Pneumonia --out run/",
        "seed": 0,
        "pretrain": {
            "objective": "simclr", "temperature": 0.2, "network": "resnet18", "pretrained": None,
            "schedule": {"steps": 3000, "batch_size": 256, "learning_rate": 0.003, "weight_decay": 1e-4},
        },
        "views": {"crop": [0.5, 1.0], "rotation_deg": 10, "flip": False, "blur": True},
        "probe": {"strengths": [0.001, 0.01, 0.1, 1, 10], "standardise": True},
        "bootstrap": {"draws": 2000, "by": "patient and seed"},
    }  # fmt: skip


def made_chest(rng: np.random.Generator, size: int) -> np.ndarray:
    """Two dark lungs, ribs and a bright spot: (size, size) uint8."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    lungs = sum(np.exp(-((((x - s * 0.42) / 0.27) ** 2 + ((y + 0.05) / 0.52) ** 2) ** 2)) for s in (-1, 1))
    spot = np.exp(-((x - rng.uniform(-0.5, 0.5)) ** 2 + (y - rng.uniform(-0.3, 0.4)) ** 2) / 0.02)
    ribs = 0.06 * np.cos(16 * y + 4 * np.abs(x))
    grey = 0.75 - 0.55 * lungs + 0.25 * spot + ribs + rng.normal(0, 0.03, x.shape)
    return np.asarray(np.clip(grey * np.exp(-(x**4 + y**4) * 0.6), 0, 1) * 255, np.uint8)
