"""Networks that a recipe keeps in the run's folder, so that they are not trained again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from fewlabel.adaptation.finetune import TrainedNetwork
from fewlabel.adaptation.probe import Calibration
from fewlabel.training import load_tensors, mix_seed, save_tensors
from fewlabel.types import FewlabelError

Network = TypeVar("Network", bound=nn.Module)


def begun(name: str, start: Callable[[], Network]) -> Network:
    """What `start` makes, with new layers whose weights are drawn from the name."""
    with torch.random.fork_rng():
        torch.manual_seed(mix_seed("new layers", name))
        return start()


def put_weights(objective: nn.Module, path: Path) -> dict[str, str]:
    """Give the objective the weights that lie at `path`, on the device and in the mode of use; the file's metadata.

    Raises FewlabelError where the file is damaged, or of another network.
    """
    tensors, metadata = load_tensors(path)
    try:
        objective.load_state_dict(tensors)
    except RuntimeError as error:
        raise _not_of_this_run(path) from error
    objective.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return metadata


def _not_of_this_run(path: Path) -> FewlabelError:
    return FewlabelError(f"{path} is damaged or of another run: delete it, and it is trained again.")


def write_network(path: Path, trained: TrainedNetwork) -> None:
    """Keep a trained network with what turns its outputs into answers."""
    told = {
        "calibration": asdict(trained.calibration),
        "centre": trained.centre,
        "spread": trained.spread,
    }
    untyped: Any = trained.objective
    save_tensors(untyped.state_dict(), path, {"trained": json.dumps(told)})


def read_network(path: Path, objective: Any, size_px: int) -> TrainedNetwork:
    """What `write_network` kept; objective: one of the same kind, which is given the weights.

    Raises FewlabelError as `put_weights` does.
    """
    metadata = put_weights(objective, path)
    try:
        told = json.loads(metadata["trained"])
        calibration = Calibration(**told["calibration"])
        return TrainedNetwork(objective, size_px, calibration, told["centre"], told["spread"])
    except (KeyError, TypeError, ValueError) as error:
        raise _not_of_this_run(path) from error
