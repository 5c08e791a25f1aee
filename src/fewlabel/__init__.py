"""Fewlabel: many medical images, few labels. Nothing heavy is imported before it is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewlabel.collection import Collection, import_images
    from fewlabel.pipeline import EvaluateSettings, PretrainSettings, evaluate, learn, predict, pretrain
    from fewlabel.types import FewlabelError, Image, Metric, Schedule

__version__ = "0.1.0"

_HOME = {
    "Collection": "collection",
    "import_images": "collection",
    "pretrain": "pipeline",
    "evaluate": "pipeline",
    "learn": "pipeline",
    "predict": "pipeline",
    "PretrainSettings": "pipeline",
    "EvaluateSettings": "pipeline",
    "FewlabelError": "types",
    "Image": "types",
    "Metric": "types",
    "Schedule": "types",
}

__all__ = [
    "Collection",
    "EvaluateSettings",
    "FewlabelError",
    "Image",
    "Metric",
    "PretrainSettings",
    "Schedule",
    "evaluate",
    "import_images",
    "learn",
    "predict",
    "pretrain",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"fewlabel.{_HOME[name]}"), name)
    raise AttributeError(f"module 'fewlabel' has no attribute {name!r}")
