"""Lets torchvision be imported beside a CPU build of PyTorch that lacks its compiled operators.

timm imports torchvision for its transforms only. torchvision's Python code registers shape functions for two
compiled operators at import time; where its binary does not fit the installed torch, these are unknown and the
import fails. Declaring their schemas is enough: nothing here ever calls them.
"""

from __future__ import annotations

import importlib
import sys

import torch

_MISSING_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[torch.library.Library] = []  # kept alive: a collected Library takes its schemas with it


def ensure_torchvision() -> None:
    """Import torchvision; declare its missing operators first where, and only where, the native import fails.

    Raises whatever torchvision raises if declaring the operators does not help.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for schema in _MISSING_OPERATORS:
            library.define(schema)
        _libraries.append(library)
        importlib.import_module("torchvision")
