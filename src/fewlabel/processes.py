"""The processes of one training run: how many, which one this is, and what they tell each other.

Without torch.distributed, or before it is started, there is one process and nothing is sent.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def launched_processes() -> tuple[int, int]:
    """(processes a machine, machines) as torchrun, Ray or SLURM's srun has started them; (1, 1) for none of them."""
    environment = os.environ
    if "WORLD_SIZE" in environment:
        world = int(environment["WORLD_SIZE"])
        local = int(environment.get("LOCAL_WORLD_SIZE", world))
    elif "SLURM_NTASKS" in environment and _is_task_of_srun():
        world = int(environment["SLURM_NTASKS"])
        local = world // int(environment.get("SLURM_NNODES", "1"))
    else:
        return 1, 1
    return local, world // local


def _is_task_of_srun() -> bool:
    """A batch script and an interactive shell of SLURM have its variables too, and start one process."""
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    return "SLURM_STEP_NUM_TASKS" in os.environ and "SLURM_PROCID" in os.environ and not interactive


def launched_rank() -> int:
    """Number of this process from 0 as it was started, also before torch.distributed is."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ.get("RANK", "0"))
    return int(os.environ["SLURM_PROCID"]) if launched_processes() != (1, 1) else 0


def gathered(x: torch.Tensor) -> torch.Tensor:
    """The x (n, ...) of all processes one below the other, (world * n, ...), without gradients."""
    if world_size() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def summed(x: torch.Tensor) -> torch.Tensor:
    """The sum of x over all processes, without gradients; x itself is kept."""
    if world_size() == 1:
        return x
    total = x.clone()
    dist.all_reduce(total)
    return total
