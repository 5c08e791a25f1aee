"""Pretraining speed and quality over time, beside `lightly` used as its README does; prints JSON.

    pip install -e ".[peers]"
    python benchmarks/peers.py speed > benchmarks/results/peers-speed.json
    python benchmarks/peers.py quality > benchmarks/results/peers-quality.json

speed: SimCLR with ResNet-18 on views of 64 px, batch 128, from made PNG files of 256 and of 1024 px, in turns.
Ours reads the files once, at import, and trains from the store; the import's time is given beside it.
quality: PneumoniaMNIST, official split: AUROC on test of nearest neighbours and of a linear probe with all labels while
training goes on; the clock stands still during evaluation. Nothing is chosen on these figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine_facts
from main_job import data_folder, import_source
from PIL import Image as PillowImage
from sklearn.metrics import roc_auc_score
from torch import nn

from fewlabel.adaptation.features import extract_features
from fewlabel.adaptation.probe import Scaling, fit_linear_probe, fit_neighbour_probe
from fewlabel.collection import Collection, import_images
from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.networks.torchvision_shim import ensure_torchvision
from fewlabel.objectives import SimCLR
from fewlabel.phantoms import radiographs
from fewlabel.training import TrainingSet, Watch, fit, mix_seed
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


def scores(x: dict[str, np.ndarray], y: dict[str, np.ndarray]) -> tuple[float, float]:
    """AUROC on test of nearest neighbours and of a linear probe; x, y of "train", "val" and "test".

    Both probes choose their settings on validation, and are the same for both competitors.
    """
    given = x["train"], y["train"], x["val"], y["val"]
    knn = fit_neighbour_probe(*given, kind="binary", classes=2)
    linear = fit_linear_probe(*given, kind="binary", classes=2, scaling=Scaling.of(x["train"]))
    on_knn, on_linear = (probe.predict(x["test"])[:, 1] for probe in (knn, linear))
    return float(roc_auc_score(y["test"], on_knn)), float(roc_auc_score(y["test"], on_linear))


def quality(given: argparse.Namespace) -> JSON:
    """Curves of both over training seconds, one a seed; the two take turns."""
    facts = machine_facts()
    collection = import_source("pneumoniamnist", data_folder(), given.work)
    parts, y = collection.column("case:split"), collection.target("label").values.astype(int)
    rows = {part: np.flatnonzero(parts == part) for part in ("train", "val", "test")}
    train, labels = rows["train"], {part: y[mine] for part, mine in rows.items()}
    small = collection.square(28, channels=1)
    large = collection.square(given.size, channels=1)
    curves: list[JSON] = []

    def add(who: str, seed: int, seconds: float, features: Callable[[np.ndarray], np.ndarray]) -> None:
        knn, probe = scores({part: features(mine) for part, mine in rows.items()}, labels)
        row = {"who": who, "seed": seed, "seconds": round(seconds, 1), "knn": round(knn, 4)}
        curves.append({**row, "probe": round(probe, 4)})
        print(json.dumps(curves[-1]), file=sys.stderr, flush=True)

    def run_ours(seed: int) -> None:
        torch.manual_seed(mix_seed("initial weights", seed))
        objective = SimCLR(Encoder(EncoderSettings("resnet18", 1, given.size)), temperature=0.2)
        clock = {"started": time.perf_counter(), "stopped": 0.0}

        def look(model: nn.Module) -> float:
            now = time.perf_counter()
            seconds = now - clock["started"] - clock["stopped"]
            add("fewlabel", seed, seconds, lambda rows: _ours(objective, large[rows], given.size))
            clock["stopped"] += time.perf_counter() - now
            return seconds

        data = TrainingSet((large,), (train,))
        schedule = Schedule(given.steps, given.batch, 1e-3, warmup_steps=given.steps // 20, seed=seed)
        watch = Watch(look, max(1, given.steps // given.points), patience=given.steps)
        fit(objective, data, medical_views(given.size), schedule, watch=watch)

    def run_lightly(seed: int) -> None:
        with tempfile.TemporaryDirectory() as name:
            write_folder(np.array(small[train])[:, 0], Path(name) / "files")
            model = Lightly(Path(name) / "files", 32, given.workers, seed)
            seconds, due, last = 0.0, given.seconds / given.points, time.perf_counter()
            for _ in model.steps():
                seconds += time.perf_counter() - last
                if seconds >= due:
                    add("lightly", seed, seconds, lambda rows: model.features(small[rows], 32))
                    due += given.seconds / given.points
                if seconds >= given.seconds:
                    break
                last = time.perf_counter()

    for seed in range(given.seeds):
        for run in (run_lightly, run_ours) if seed % 2 == 0 else (run_ours, run_lightly):
            run(seed)
    settings = {"steps": given.steps, "batch": given.batch, "size_px": given.size, "seeds": given.seeds}
    return {"benchmark": "peers_quality", **settings, "curves": curves, **facts}


def _ours(objective: Any, pixels: np.ndarray, size_px: int) -> np.ndarray:
    return extract_features(objective.encoder, pixels, size_px=size_px)


def main() -> None:
    """Print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("speed", "quality"))
    parser.add_argument("--workers", type=int, default=0, help="loader processes of lightly")
    parser.add_argument("--images", type=int, default=768)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64, help="quality: of ours")
    parser.add_argument("--size", type=int, default=32, help="quality: of ours")
    parser.add_argument("--seconds", type=float, default=200, help="quality: of lightly's training")
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--work", type=Path, default=Path(__file__).resolve().parents[1] / ".work")
    given = parser.parse_args()
    given.steps = given.steps or {"speed": 12, "quality": 2000}[given.what]
    print(json.dumps({"speed": speed, "quality": quality}[given.what](given), indent=1))


if __name__ == "__main__":
    main()
