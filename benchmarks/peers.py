"""Pretraining speed beside `lightly` used as its README does; prints JSON.

    pip install -e ".[peers]"
    python benchmarks/peers.py > benchmarks/results/peers-speed.json
    python benchmarks/peers.py --workers 2 > benchmarks/results/peers-speed-workers.json

SimCLR with ResNet-18 on views of 64 px, batch 128, from made PNG files of 256 and of 1024 px, in turns.
Ours reads the files once, at import, and trains from the store; the import's time is given beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from machine import machine_facts
from PIL import Image as PillowImage
from torch import nn

from fewlabel.collection import Collection, import_images
from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.networks.torchvision_shim import ensure_torchvision
from fewlabel.objectives import SimCLR
from fewlabel.phantoms import radiographs
from fewlabel.training import TrainingSet, fit
from fewlabel.types import JSON, Schedule
from fewlabel.views import medical_views

BATCH, SPEED_PX = 128, 64


class Lightly:
    """`lightly`'s README: LightlyDataset of a folder, SimCLRTransform, ResNet-18, its head and loss, SGD."""

    def __init__(self, folder: Path, size_px: int, workers: int, seed: int) -> None:
        ensure_torchvision()
        import torchvision
        from lightly.data import LightlyDataset
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead
        from lightly.transforms import SimCLRTransform

        torch.manual_seed(seed)
        backbone = torchvision.models.resnet18()
        backbone.fc = nn.Identity()
        self.backbone, self.head = backbone, SimCLRProjectionHead(512, 512, 128)
        self.criterion = NTXentLoss(temperature=0.5)
        parameters = [*self.backbone.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.SGD(parameters, lr=0.1, weight_decay=1e-6)
        dataset = LightlyDataset(str(folder), transform=SimCLRTransform(input_size=size_px, cj_prob=0.5))
        self.loader = torch.utils.data.DataLoader(
            dataset, batch_size=BATCH, shuffle=True, drop_last=True, num_workers=workers
        )

    def steps(self) -> Iterator[float]:
        """Train for ever; yields the seconds that each step waited for its batch."""
        while True:
            waited = time.perf_counter()
            for (first, second), _, _ in self.loader:
                wait = time.perf_counter() - waited
                self.backbone.train()
                loss = self.criterion(self.head(self.backbone(first)), self.head(self.backbone(second)))
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                yield wait
                waited = time.perf_counter()

    @torch.inference_mode()
    def features(self, pixels: np.ndarray, size_px: int) -> np.ndarray:
        """(N, 512) of grey uint8 images (N, 1, S, S), as three equal channels, normalised as in training."""
        from lightly.transforms.utils import IMAGENET_NORMALIZE

        self.backbone.eval()
        mean, std = (torch.tensor(IMAGENET_NORMALIZE[k]).view(3, 1, 1) for k in ("mean", "std"))
        parts = []
        for start in range(0, len(pixels), 256):
            x = torch.from_numpy(np.array(pixels[start : start + 256])).float() / 255
            x = nn.functional.interpolate(x, [size_px, size_px], mode="bilinear", antialias=True)
            parts.append(self.backbone((x.expand(-1, 3, -1, -1) - mean) / std).numpy())
        return np.concatenate(parts)


def write_folder(pixels: np.ndarray, folder: Path) -> None:
    """Grey images (N, H, W) uint8 as PNG files."""
    folder.mkdir(parents=True)
    for number, image in enumerate(pixels):
        PillowImage.fromarray(image).save(folder / f"{number:05d}.png")


def speed_of_lightly(folder: Path, workers: int, steps: int) -> tuple[float, float]:
    """(images a second, share of the time spent waiting) after two steps to warm up."""
    training = Lightly(folder, SPEED_PX, workers, seed=0).steps()
    for _ in range(2):
        next(training)
    started = time.perf_counter()
    waited = sum(next(training) for _ in range(steps))
    seconds = time.perf_counter() - started
    training.close()
    return BATCH * steps / seconds, waited / seconds


def speed_of_ours(collection: Collection, steps: int) -> tuple[float, float, str]:
    """(images a second, share waiting, setting) of `fit`, the measurement of the setting included in no number."""
    pixels = collection.square(2 * SPEED_PX, channels=1)
    torch.manual_seed(0)
    objective = SimCLR(Encoder(EncoderSettings("resnet18", 1, SPEED_PX)))
    data = TrainingSet((pixels,), (np.arange(len(pixels)),))
    result = fit(objective, data, medical_views(SPEED_PX), Schedule(steps, BATCH, 1e-3), health_every=10**6)
    return result.images_per_second, result.waiting_seconds / result.seconds, result.compute.name


def speed(given: argparse.Namespace) -> JSON:
    """Rounds in turns for each size of files."""
    facts, rows = machine_facts(), []
    for side in (256, 1024):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            made = radiographs(24, size_px=side, seed=0).pixels
            images = (made * 255).round().astype(np.uint8)[np.arange(given.images) % len(made)]
            write_folder(images, folder / "files")
            started = time.perf_counter()
            import_images(folder / "files", folder / "collection", max_side_px=2 * SPEED_PX)
            imported = time.perf_counter() - started
            collection = Collection.open(folder / "collection")
            speed_of_ours(collection, 3)
            theirs, ours = [], []
            for number in range(given.rounds):
                for who in ("lightly", "ours") if number % 2 == 0 else ("ours", "lightly"):
                    if who == "ours":
                        ours.append(speed_of_ours(collection, given.steps))
                    else:
                        theirs.append(speed_of_lightly(folder / "files", given.workers, given.steps))
        rows.append(
            {
                "file_px": side,
                "images_per_second": round(statistics.median(one[0] for one in ours), 1),
                "lightly_images_per_second": round(statistics.median(one[0] for one in theirs), 1),
                "ratio": round(statistics.median(a[0] / b[0] for a, b in zip(ours, theirs, strict=True)), 2),
                "waiting": round(statistics.median(one[1] for one in ours), 4),
                "lightly_waiting": round(statistics.median(one[1] for one in theirs), 4),
                "compute": ours[0][2],
                "import_images_per_second": round(given.images / imported, 1),
            }
        )
    settings = {"batch": BATCH, "size_px": SPEED_PX, "steps": given.steps, "rounds": given.rounds}
    return {"benchmark": "peers_speed", **settings, "lightly_workers": given.workers, "rows": rows, **facts}


def main() -> None:
    """Print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=0, help="loader processes of lightly")
    parser.add_argument("--images", type=int, default=768)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    print(json.dumps(speed(parser.parse_args()), indent=1))


if __name__ == "__main__":
    main()
