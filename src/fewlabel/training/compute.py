"""How to compute: number format and memory layout, chosen by a short measurement on the machine at hand."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from fewlabel.training.processor import LIMIT, WITHOUT_AMX, bf16_survives
from fewlabel.types import JSON, Batch, FewlabelError, Tokens

bf16_survives()  # on import: the first convolution, of a random view say, fixes the instructions that oneDNN uses

Precision = Literal["32", "bf16"]

ROUNDS = 2
GAIN = 0.9
"""Another setting must need less than this share of the plain one's time: a short measurement is noisy."""
WORTH_MEASURING = 100
"""Steps from which a run gains more by the right setting than it loses by measuring."""


@dataclass(frozen=True)
class Compute:
    """precision: "bf16" computes convolutions and products in bfloat16 (autocast), weights stay in 32 bits.
    channels_last: whether images and convolution weights lie channel by channel in memory.
    seconds: what one step of each setting took when it was measured; empty if it was not.
    """

    precision: Precision = "32"
    channels_last: bool = True
    seconds: tuple[tuple[str, float], ...] = ()

    @staticmethod
    def from_json(kept: JSON) -> Compute:
        """Of what `dataclasses.asdict` gave, after a round through JSON."""
        return Compute(kept["precision"], kept["channels_last"], tuple((a, b) for a, b in kept["seconds"]))

    @property
    def name(self) -> str:
        """Such as "bf16, channels last"."""
        return f"{self.precision}{', channels last' if self.channels_last else ''}"


def lay_out(module: nn.Module, channels_last: bool) -> None:
    """Lay convolution weights out channel by channel, or in torch's usual order; in place."""
    untyped: Any = module  # torch's annotations of Module.to leave memory_format out
    untyped.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def channels_last(module: nn.Module) -> None:
    """`lay_out` channel by channel, as networks that only look at images are kept."""
    lay_out(module, True)


def has_bf16(device: torch.device) -> bool:
    """Whether the GPU, or the processor (AVX-512 BF16 or AMX), computes in bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return (
        "AVX512" in torch.backends.cpu.get_cpu_capability()
        and bf16_survives()
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def check_compute(compute: Compute, device: torch.device) -> None:
    """Raise FewlabelError where this setting would end the process instead of computing."""
    if compute.precision == "bf16" and device.type == "cpu" and not bf16_survives():
        raise FewlabelError(
            "Products in bf16 end a process with an illegal instruction on this processor: start again with "
            f"{LIMIT}={WITHOUT_AMX} in the environment, or compute in 32 bits."
        )


def usual_compute(device: torch.device, size_px: int) -> Compute:
    """What is usually fastest, for runs too short to measure: bf16 where there is such, but for the smallest images."""
    return Compute("bf16" if has_bf16(device) and size_px >= 32 else "32")


def measure_compute(objective: nn.Module, batch: Batch, device: torch.device) -> Compute:
    """The fastest of the settings that this device has, for forward and backward of `objective` on `batch`.

    batch: views (B, C, H, W). The objective is copied, and left as it is. A setting other than the plain one (32 bits,
    usual layout) is taken only where it is clearly faster, so the choice is never worse than plain but for noise.
    """
    candidates = [Compute("32", False), Compute("32", True)]
    if has_bf16(device):
        candidates += [Compute("bf16", False), Compute("bf16", True)]
    runs = [_step(copy.deepcopy(objective), batch, candidate, device) for candidate in candidates]
    for run in runs:
        run()  # once before the clock starts: primitives are compiled and memory is taken
    best = [float("inf")] * len(runs)
    for _ in range(ROUNDS):  # in turns, so that what else runs on the machine slows all of them
        for i, run in enumerate(runs):
            best[i] = min(best[i], _timed(run, device))
    measured = tuple((one.name, round(time_s, 5)) for one, time_s in zip(candidates, best, strict=True))
    fastest = min(range(len(best)), key=best.__getitem__)
    chosen = candidates[fastest if best[fastest] < GAIN * best[0] else 0]
    return Compute(chosen.precision, chosen.channels_last, measured)


def _step(objective: Any, batch: Batch, setting: Compute, device: torch.device) -> Callable[[], None]:
    objective.to(device).train()
    lay_out(objective, setting.channels_last)
    layout = torch.channels_last if setting.channels_last else torch.contiguous_format
    views = tuple(view.to(device).contiguous(memory_format=layout) for view in batch.views)
    labels, patients = (
        None if given is None else given.to(device) for given in (batch.labels, batch.patients)
    )
    text = Tokens(batch.text.ids.to(device), batch.text.mask.to(device)) if batch.text else None

    def run() -> None:
        objective.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=setting.precision == "bf16"):
            loss = objective.loss(Batch(views=views, labels=labels, text=text, patients=patients))
        loss.backward()

    return run


def _timed(run: Callable[[], None], device: torch.device) -> float:
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
