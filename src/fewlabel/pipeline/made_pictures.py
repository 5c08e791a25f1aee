"""The block `generated` of results.json: images that the run made, with pictures, each of them marked as made.

Reconstructions and interpolations where the pretraining left a decoder; samples, what is told of copies and the Fréchet
distance where the run has a generator. Originals are test images, as elsewhere in the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fewlabel.evaluation.frechet import frechet_with_interval
from fewlabel.evaluation.memorisation import Judged
from fewlabel.networks import Encoder
from fewlabel.objectives import VAE, Autoencoder
from fewlabel.objectives.generator import Generator
from fewlabel.pipeline.arms import Task, encoder_features
from fewlabel.pipeline.figures import marked, save_grid, to_picture
from fewlabel.pipeline.made_images import ImageCheck, sampled
from fewlabel.pipeline.pretraining import Pretrained
from fewlabel.training import mix_seed
from fewlabel.training.weights import GENERATOR, load_generator
from fewlabel.types import JSON
from fewlabel.views import draw_view, plain_view

RECONSTRUCTED, A_ROW = 16, 8
"""How many test images are shown beside what is decoded of them, and in a row of the picture."""
PAIRS, STEPS = 4, 7
"""Interpolations, and images on the way of each."""
SAMPLES_A_CLASS = 8
DRAWN = 512
"""Samples that the figures are of, all classes together."""


def generated_results(task: Task, pretrained: Pretrained, out: Path, *, seed: int = 0) -> JSON:
    """{"generated": ...} with pictures in out/figures; {} for a run that makes no image.

    The generator is out/generator.safetensors, where there is one.
    """
    found: JSON = {}
    if pretrained.reconstructor is not None:
        found |= _decoded(task, pretrained.reconstructor, out, seed)
    if (out / GENERATOR).exists():
        found |= _samples(task, pretrained, load_generator(out / GENERATOR), out, seed)
    return {"generated": found} if found else {}


@torch.no_grad()
def _decoded(task: Task, model: Autoencoder | VAE, out: Path, seed: int) -> JSON:
    """Test images beside their reconstructions, and ways between the latent vectors of two of them."""
    rng = np.random.default_rng(mix_seed("decoded", seed))
    rows = rng.permutation(task.split.test)
    model.eval()
    shown = _plain(task, rows[:RECONSTRUCTED])
    device = next(model.parameters()).device
    again = model.reconstruct(shown.to(device)).cpu()
    lines = []
    for start in range(0, len(shown), A_ROW):
        block = slice(start, start + A_ROW)
        lines += [_pictures(shown[block]), [marked(one) for one in _pictures(again[block])]]
    _save(lines, out / "figures" / "reconstructions.png")
    found: JSON = {
        "objective": type(model).__name__,
        "reconstructions": {"figure": "figures/reconstructions.png", "images": len(shown)},
    }
    pairs = _pairs(task, rows)
    if pairs:
        ways = [_way(model, _plain(task, np.array(pair)).to(device)) for pair in pairs]
        _save(ways, out / "figures" / "interpolations.png")
        found["interpolations"] = {"figure": "figures/interpolations.png", "ways": len(ways), "steps": STEPS}
    return found


def _plain(task: Task, rows: np.ndarray) -> torch.Tensor:
    """The whole images of some rows as the encoder sees them, (n, C, S, S) in [0, 1]."""
    images = torch.from_numpy(np.array(task.pixels[rows]))
    return draw_view(images, plain_view(task.size_px), torch.Generator())


def _pictures(images: torch.Tensor) -> list[np.ndarray]:
    return [to_picture(image.numpy()) for image in images]


def _save(lines: Sequence[Sequence[np.ndarray]], path: Path) -> None:
    """Lines of unequal length are filled up with nothing."""
    longest = max(len(line) for line in lines)
    nothing = np.full_like(lines[0][0], 128)
    save_grid([[*line, *[nothing] * (longest - len(line))] for line in lines], path)


def _pairs(task: Task, rows: np.ndarray) -> list[tuple[int, int]]:
    """Test images of two patients, and of two classes where there are such; each image once, in the order of rows."""
    patients, left, pairs = task.collection.patients(), [int(row) for row in rows], list[tuple[int, int]]()
    classed = task.classes > 0

    def differ(a: int, b: int) -> bool:
        return patients[a] != patients[b] and not (classed and task.y[a] == task.y[b])

    while left and len(pairs) < PAIRS:
        first = left.pop(0)
        other = next((row for row in left if differ(first, row)), None)
        if other is not None:
            left.remove(other)
            pairs.append((first, other))
    return pairs


def _way(model: Autoencoder | VAE, ends: torch.Tensor) -> list[np.ndarray]:
    """Original, images on the straight line between the two latent vectors, original."""
    first, last = model.embed(ends)
    shares = torch.linspace(0, 1, STEPS, device=first.device)[:, None]
    between = model.decoder((1 - shares) * first + shares * last).cpu()
    originals = _pictures(ends.cpu())
    return [originals[0], *(marked(one) for one in _pictures(between)), originals[1]]


def _samples(task: Task, pretrained: Pretrained, generator: Generator, out: Path, seed: int) -> JSON:
    """Samples in the shares of the classes among the labels, and what is measured of them."""
    check = ImageCheck.of_task(task, pretrained.encoder)
    counts = np.bincount(task.y[task.train].astype(int), minlength=task.classes)
    codes = np.repeat(
        np.arange(task.classes), np.maximum(1, np.round(DRAWN * counts / counts.sum()).astype(int))
    )
    images = sampled(generator, codes, torch.Generator().manual_seed(mix_seed("samples", seed)))
    looks = check.looks(images)
    judged = check.copies.judge(looks)
    kept = ~judged.too_close
    found: JSON = {"memorisation": _memorisation(task, check, judged), "samples": None}
    shown = [images[kept & (codes == code)][:SAMPLES_A_CLASS] for code in range(task.classes)]
    if kept.any():
        unit = [torch.from_numpy(some).float() / 255 for some in shown]
        lines = [[marked(one) for one in _pictures(some)] for some in unit if len(some)]
        _save(lines, out / "figures" / "samples.png")
        names = [task.target.classes[code] for code, some in enumerate(shown) if len(some)]
        found["samples"] = {"figure": "figures/samples.png", "classes": names}
    if kept.sum() >= 2:
        found["frechet"] = _frechet(task, pretrained.encoder, looks["features"][kept], seed)
    return found


def _frechet(task: Task, encoder: Encoder, samples: np.ndarray, seed: int) -> JSON:
    """The distance of samples (S, F) to test images, and as floor that of as many training images to them."""
    features = encoder_features(task, [encoder])(0)
    test, train = task.split.test, task.split.train
    some = np.random.default_rng(mix_seed("frechet", seed)).permutation(len(samples))[: len(train)]
    found = frechet_with_interval(
        features[test],
        samples[some],
        task.collection.patients()[test],
        paired=False,
        spare=features[train],
        seed=seed,
    )
    distance = found.distance
    return {
        "value": distance.value, "low": distance.low, "high": distance.high, "n": distance.n,
        "patients": distance.patients, "samples": len(some), "floor": found.floor, "floor_n": found.floor_n,
    }  # fmt: skip


def _memorisation(task: Task, check: ImageCheck, judged: Judged) -> JSON:
    share = check.copies.share(judged)
    return {
        "drawn": len(judged.too_close),
        "kept": int((~judged.too_close).sum()),
        "share": {"value": share.value, "low": share.low, "high": share.high},
        "of_held_out": check.copies.of_held_out,
        "quantile": check.copies.quantile,
        "training": len(task.split.train),
        "held_out": len(task.split.val),
        "held_out_patients": share.patients,
    }
