"""How fast features are taken, beside the bare forward pass of the same encoder; prints JSON.

    python benchmarks/feature_throughput.py > benchmarks/results/feature-throughput.json

In turns: `extract_features` from a memory-mapped store of twice the size, and the encoder alone on views that lie
ready. Memory is looked at for two collections, one four times as large as the other.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import PeakMemory, machine_facts

from fewlabel.adaptation.features import extract_features
from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.training import channels_last
from fewlabel.types import JSON


def store(folder: Path, count: int, side_px: int) -> np.memmap:
    """(count, 1, side, side) uint8 on disk; noise, which computes as long as an image does."""
    path = folder / f"{count}.npy"
    made = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 1, side_px, side_px))
    rng = np.random.default_rng(0)
    for start in range(0, count, 512):
        made[start : start + 512] = rng.integers(0, 256, made[start : start + 512].shape, dtype=np.uint8)
    made.flush()
    del made
    return np.load(path, mmap_mode="r")


@torch.inference_mode()
def bare(encoder: Encoder, count: int, size_px: int, batch_size: int) -> float:
    """Images a second of the forward pass alone."""
    view = torch.rand(batch_size, 1, size_px, size_px).contiguous(memory_format=torch.channels_last)
    started = time.perf_counter()
    for _ in range(count // batch_size):
        encoder(view)
    return count // batch_size * batch_size / (time.perf_counter() - started)


def ours(encoder: Encoder, pixels: np.ndarray, size_px: int) -> float:
    """Images a second of `extract_features`."""
    started = time.perf_counter()
    extract_features(encoder, pixels, size_px=size_px)
    return len(pixels) / (time.perf_counter() - started)


def measure(given: argparse.Namespace) -> JSON:
    """All rounds, and the peak of memory over two sizes of collections."""
    facts = machine_facts()
    torch.manual_seed(0)
    encoder = Encoder(EncoderSettings(given.encoder, 1, given.size)).eval()
    channels_last(encoder)
    with tempfile.TemporaryDirectory() as folder:
        small = store(Path(folder), given.count, 2 * given.size)
        large = store(Path(folder), 4 * given.count, 2 * given.size)
        ours(encoder, small[:512], given.size)
        bare(encoder, 512, given.size, 256)
        pairs = []
        for number in range(given.rounds):
            if number % 2 == 0:
                a, b = ours(encoder, small, given.size), bare(encoder, given.count, given.size, 256)
            else:
                b, a = bare(encoder, given.count, given.size, 256), ours(encoder, small, given.size)
            pairs.append((a, b))
        peaks = []
        for pixels in (small, large):
            with PeakMemory(private=True) as memory:
                ours(encoder, pixels, given.size)
            peaks.append(memory.facts()["peak_memory_mib"])
    return {
        "benchmark": "feature_throughput",
        "encoder": given.encoder,
        "size_px": given.size,
        "images_per_second": round(statistics.median(a for a, _ in pairs), 1),
        "bare_images_per_second": round(statistics.median(b for _, b in pairs), 1),
        "ratio": round(statistics.median(a / b for a, b in pairs), 3),
        "images": [given.count, 4 * given.count],
        "peak_memory_mib": peaks,
        **facts,
    }


def main() -> None:
    """Print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--count", type=int, default=3072)
    parser.add_argument("--rounds", type=int, default=4)
    print(json.dumps(measure(parser.parse_args()), indent=1))


if __name__ == "__main__":
    main()
