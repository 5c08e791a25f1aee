"""NT-Xent over N: ours in tiles, the plain matrix, and pytorch-metric-learning's; time and memory; prints JSON.

    pip install -e ".[peers]"
    python benchmarks/contrast.py > benchmarks/results/contrast.json

Forward and backward of N pairs of 128 numbers. Times are taken in turns in one process; memory is how far resident
memory grows at its highest, in a process of its own. Where (2N)^2 numbers would not fit, only ours is run, once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import machine_facts

from fewlabel.objectives import info_nce, nt_xent
from fewlabel.types import JSON

WIDTH, TEMPERATURE = 128, 0.2
# At 1,024 pairs pytorch-metric-learning asks for 32 GiB: (positive pairs) x (negative pairs) numbers.
LARGEST = {"ours": 65536, "pytorch-metric-learning": 256}  # pairs that are run; others 8,192
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def plain(z1: torch.Tensor, z2: torch.Tensor) -> torch.Tensor:
    """NT-Xent as one (2N, 2N) matrix."""
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    similarity = (z @ z.T / TEMPERATURE).fill_diagonal_(float("-inf"))
    return F.cross_entropy(similarity, torch.arange(len(z)).roll(len(z1)))


def plain_info_nce(z1: torch.Tensor, z2: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE as one (N, N) matrix."""
    similarity = F.normalize(z1, dim=1) @ F.normalize(z2, dim=1).T / TEMPERATURE
    same = torch.arange(len(z1))
    return (F.cross_entropy(similarity, same) + F.cross_entropy(similarity.T, same)) / 2


def metric_learning(z1: torch.Tensor, z2: torch.Tensor) -> torch.Tensor:
    """pytorch-metric-learning's NTXentLoss, as its documentation says for two views."""
    from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

    return SelfSupervisedLoss(NTXentLoss(temperature=TEMPERATURE))(z1, z2)


LOSSES: dict[str, Loss] = {
    "ours": lambda a, b: nt_xent(a, b, temperature=TEMPERATURE),
    "plain": plain,
    "pytorch-metric-learning": metric_learning,
    "ours, InfoNCE": lambda a, b: info_nce(a, b, temperature=TEMPERATURE),
    "plain, InfoNCE": plain_info_nce,
}


def once(name: str, pairs: int) -> float:
    """Seconds for forward and backward."""
    z1, z2 = torch.randn(2, pairs, WIDTH, generator=torch.Generator().manual_seed(0)).requires_grad_()
    started = time.perf_counter()
    torch.autograd.grad(LOSSES[name](z1, z2), (z1, z2))
    return time.perf_counter() - started


def alone(name: str, pairs: int) -> tuple[float, float]:
    """(MiB by which resident memory grows at its highest, seconds) in a process that has warmed up on few pairs."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from contrast import once; from machine import PeakMemory\n"
        "once(sys.argv[2], 64)\n"
        "with PeakMemory() as memory: seconds = once(sys.argv[2], int(sys.argv[3]))\n"
        "print(memory.peak_mib - memory.start_mib, seconds)"
    )
    folder = str(Path(__file__).parent)
    told = subprocess.check_output([sys.executable, "-c", code, folder, name, str(pairs)], text=True)
    memory, seconds = map(float, told.split())
    return memory, seconds


def measure(pairs: int, rounds: int) -> list[JSON]:
    """One row for each loss that fits."""
    names = [name for name in LOSSES if pairs <= LARGEST.get(name, 8192)]
    for name in names:
        once(name, min(pairs, 256))
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            once(name, min(pairs, 512))  # so that none pays for what the one before it left in the caches
            times[name].append(once(name, pairs))
    rows = []
    for name in names:
        memory, seconds = alone(name, pairs)
        taken = statistics.median(times[name] or [seconds])
        row = {"loss": name, "pairs": pairs, "milliseconds": round(1000 * taken, 3)}
        rows.append({**row, "memory_mib": round(memory, 1)})
    return rows


def main() -> None:
    """Print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pairs", type=int, nargs="+", default=[64, 128, 256, 512, 1024, 2048, 4096, 8192, 65536]
    )
    given = parser.parse_args()
    facts = machine_facts()
    rows: list[JSON] = []
    for pairs in given.pairs:
        rows += measure(pairs, 21 if pairs <= 1024 else 3 if pairs <= 8192 else 0)
    print(json.dumps({"benchmark": "contrast", "width": WIDTH, "rows": rows, **facts}, indent=1))


if __name__ == "__main__":
    main()
