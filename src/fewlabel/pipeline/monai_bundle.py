"""The files of a MONAI bundle beside its network: metadata, an inference configuration, a licence note.

The layout is that of the MONAI bundle specification, with a TorchScript network and no pickled model.pt. Written
without MONAI.
"""

from __future__ import annotations

from pathlib import Path

from fewlabel.files import write_text
from fewlabel.pipeline.model_card import NOT_A_DEVICE, UNKNOWN, RunFacts, classifier_measures
from fewlabel.pipeline.runs import versions, write_json
from fewlabel.types import JSON

SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)
WRITTEN_FOR = {
    "monai": "1.5.0",
    "pytorch-ignite": "0.4.11",
    "fire": "0.5",
    "pillow": "10.3",
    "nibabel": "5.2",
}
"""The oldest versions that the bundle is meant for."""
_TASKS = {"number": "Regression", "ordinal": "Grading"}
"""What is done where it is no classification."""
_LICENCE = """The licence of this model has not been stated.

Whoever passes the bundle on puts its licence here, after a look at the terms of the images and labels that it was
trained on. The configurations in configs/ were written by Fewlabel and are under Apache-2.0.
"""


def write_bundle_files(folder: Path, facts: RunFacts) -> None:
    """Write configs/metadata.json, configs/inference.json and LICENSE into the bundle."""
    write_json(folder / "configs" / "metadata.json", metadata(facts))
    write_json(folder / "configs" / "inference.json", inference(facts.classifier.encoder.settings.channels))
    write_text(folder / "LICENSE", _LICENCE)


def metadata(facts: RunFacts) -> JSON:
    """The content of metadata.json, by the schema of July 2024."""
    found, made = versions(), "made images" if facts.made else "images"
    target = facts.classifier.target
    task = _TASKS.get(facts.classifier.probe.kind, "Classification")
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported by fewlabel {found['fewlabel']}"},
        "monai_version": WRITTEN_FOR["monai"],
        "pytorch_version": found["torch"].split("+")[0],
        "numpy_version": found["numpy"],
        "required_packages_version": {k: v for k, v in WRITTEN_FOR.items() if k != "monai"},
        "name": facts.title,
        "task": f"{task} of {target} in single 2-D images",
        "description": f"{facts.classifier.encoder.settings.name} pretrained without labels, with a calibrated "
        f"{'ordinal' if facts.classifier.cuts else 'linear'} probe for {target}, trained on {made} of "
        f"{facts.model.get('trained_on')}; see docs/README.md.",
        "authors": UNKNOWN,
        "copyright": f"{UNKNOWN}; see LICENSE",
        "data_source": f"{facts.model.get('trained_on')}, {made}; where it can be had is {UNKNOWN}",
        "data_type": "2-D images",
        "image_classes": "display range mapped to [0, 1]",
        "pred_classes": ", ".join(facts.outputs),
        "eval_metrics": _measured(facts),
        "intended_use": NOT_A_DEVICE,
        "network_data_format": _data_format(facts),
    }


def _measured(facts: RunFacts) -> JSON:
    """Values with all labels, each with its interval, images and patients."""
    wanted = ("value", "low", "high", "n", "patients")
    return {row["name"]: {key: row.get(key) for key in wanted} for row in classifier_measures(facts)}


def _data_format(facts: RunFacts) -> JSON:
    channels = facts.classifier.encoder.settings.channels
    is_number = facts.classifier.probe.kind == "number"
    modalities = facts.data.get("modalities") or {}
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": ", ".join(modalities) or "n/a",
        "num_channels": channels,
        "spatial_shape": ["*", "*"],
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
        "channel_def": {"0": "grey"} if channels == 1 else {"0": "red", "1": "green", "2": "blue"},
    }
    prediction = {
        "type": "tuples" if is_number else "probabilities",
        "format": "value" if is_number else "classes",
        "num_channels": len(facts.outputs),
        "spatial_shape": [],
        "dtype": "float32",
        "value_range": [] if is_number else [0, 1],
        "is_patch_data": False,
        "channel_def": {str(place): name for place, name in enumerate(facts.outputs)},
    }
    return {"inputs": {"image": image}, "outputs": {"pred": prediction}}


def inference(channels: int) -> JSON:
    """The content of inference.json: from the files of a folder to output/predictions.csv, one image at a time."""
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/output'",
        "patterns": ["*.png", "*.jpg", "*.jpeg", "*.bmp", "*.nii", "*.nii.gz"],
        "found": "$[glob.glob(os.path.join(@dataset_dir, '**', p), recursive=True) for p in @patterns]",
        "files": "$sorted(sum(@found, []))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device)",
        "network": "$@network_def.to(@device).eval()",
        "axial": {
            "_target_": "Orientation",
            "axcodes": "LPS",
            "labels": [["L", "R"], ["P", "A"], ["I", "S"]],
        },
        "percentiles": {
            "_target_": "ScaleIntensityRangePercentiles",
            "lower": 0.5,
            "upper": 99.5,
            "b_min": 0.0,
            "b_max": 1.0,
            "clip": False,
        },
        "preprocessing": {"_target_": "Compose", "transforms": _transforms(channels)},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': f} for f in @files]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {"_target_": "SimpleInferer"},
        "handlers": [
            {
                "_target_": "ClassificationSaver",
                "output_dir": "@output_dir",
                "batch_transform": "$lambda batch: [item['image'].meta for item in batch]",
                "output_transform": "$monai.handlers.from_engine(['pred'])",
            }
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "val_handlers": "@handlers",
            "amp": False,
        },
        "run": ["$@evaluator.run()"],
    }


def _transforms(channels: int) -> list[JSON]:
    """Read, turn, map intensities, make grey or colour. MONAI reads pictures and NIfTI with the columns first."""
    grey = "x[:1] if len(x) < 3 else 0.299 * x[:1] + 0.587 * x[1:2] + 0.114 * x[2:3]"
    colour = "x[:3] if len(x) >= 3 else x[:1].repeat(3, 1, 1)"
    steps = [
        "@axial(x)[..., 0] if x.ndim == 4 else x",
        "x.transpose(-1, -2)",
        "x / 255.0 if x.dtype == torch.uint8 else @percentiles(x.float())",
        grey if channels == 1 else colour,
    ]
    return [
        {"_target_": "LoadImaged", "keys": "image", "dtype": None},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        *({"_target_": "Lambdad", "keys": "image", "func": f"$lambda x: {step}"} for step in steps),
        {"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float32"},
    ]
