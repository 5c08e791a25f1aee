"""Checkpoints: one safetensors file with weights, optimizer state and step; written atomically, two kept."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from fewlabel.files import replacing
from fewlabel.types import JSON, FewlabelError

LATEST, PREVIOUS = "checkpoint.safetensors", "checkpoint-previous.safetensors"
NEXT = "checkpoint-next.safetensors"


def save_tensors(
    tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors atomically as safetensors. Raises FewlabelError when the disk is full or not writable."""
    try:
        with replacing(path) as temporary:
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, metadata)
    except (OSError, SafetensorError) as error:
        raise FewlabelError(
            f"{path} could not be written ({error}): free some space or choose another folder; "
            "the last complete checkpoint is untouched, and the same command continues from it."
        ) from error


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises FewlabelError if it is missing or broken."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise FewlabelError(
            f"{path} cannot be read as safetensors ({error}): it is missing, cut short or damaged."
        ) from error


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    settings: JSON,
    watched: JSON,
) -> None:
    """Write the state after `step` steps; the last one before it is kept beside it.

    watched: what the looks at validation images have come to so far, {} without any.
    The new one is complete on disk before the old ones are touched. Raises FewlabelError when it cannot be written.
    """
    tensors = {f"model.{k}": v for k, v in _unique_state(model).items()}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
    description = {
        "step": str(step),
        "settings": json.dumps(settings, sort_keys=True),
        "watched": json.dumps(watched),
    }
    save_tensors(tensors, folder / NEXT, description)
    if (folder / LATEST).exists():
        os.replace(folder / LATEST, folder / PREVIOUS)
    os.replace(folder / NEXT, folder / LATEST)


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, settings: JSON
) -> tuple[int, str, JSON]:
    """Restore the newest checkpoint that can be read.

    Returns (steps done, a warning or "", `watched` as it was saved); (0, "", {}) if there is none. Raises
    FewlabelError if it was made with other settings (naming them), or if checkpoints are there but all are broken.
    """
    reasons = []
    candidates = [folder / name for name in (LATEST, PREVIOUS) if (folder / name).exists()]
    for path in candidates:
        try:
            tensors, metadata = load_tensors(path)
        except FewlabelError as error:
            reasons.append(str(error))
            continue
        _check_settings(folder, json.loads(metadata.get("settings", "{}")), settings)
        _restore(tensors, model, optimizer)
        warning = f"{reasons[0]} Training goes on from the checkpoint before it." if reasons else ""
        return int(metadata["step"]), warning, json.loads(metadata.get("watched", "{}"))
    if candidates:
        raise FewlabelError(
            f"No checkpoint in {folder} can be read: {reasons[0]} Remove it to start from the beginning."
        )
    return 0, "", {}


def _unique_state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def _check_settings(folder: Path, there: JSON, here: JSON) -> None:
    there, here = flat_settings(there), flat_settings(here)
    differing = sorted(key for key in {*there, *here} if there.get(key) != here.get(key))
    if differing:
        names = "; ".join(f"{key}: {there.get(key)} there, {here.get(key)} here" for key in differing)
        raise FewlabelError(
            f"{folder} holds a run with other settings ({names}): give the same settings to continue it, "
            "or another --out to start a new one."
        )


def flat_settings(settings: JSON, prefix: str = "") -> JSON:
    """Nested settings under names such as "schedule.steps", as JSON would give them back: a tuple is a list."""
    flat: JSON = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat.update(flat_settings(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = json.loads(json.dumps(value))
    return flat


def _restore(tensors: dict[str, torch.Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise FewlabelError(
            "The checkpoint is of another network: give the settings that it was made with, or another folder."
        ) from error
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            like = parameters[int(index)]
            if (
                value.shape == like.shape
            ):  # the parameter's own memory format, so that later steps are the same
                value = torch.empty_like(like).copy_(value)
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
