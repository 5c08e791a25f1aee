"""Features of images by a frozen encoder, taken once and cached."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fewlabel.cluster import map_on_cluster
from fewlabel.files import replacing
from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.training import Ahead, channels_last
from fewlabel.views import draw_view, plain_view

SHARD = 4096
"""Images in a task of a cluster: some seconds of work on one core."""


def weights_fingerprint(module: nn.Module) -> str:
    """A short hash over all weights and buffers: two encoders with the same one give the same features."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.inference_mode()
def extract_features(
    encoder: nn.Module, pixels: np.ndarray, *, size_px: int, batch_size: int = 256
) -> np.ndarray:
    """Features (N, F) float32 of images (N, C, S, S) (uint8 or uint16), the whole image, in evaluation mode.

    The encoder is left in the mode it was in. Memory: a few batches at a time; only the result grows with N.
    """
    was_training = encoder.training
    encoder.eval()
    device = next(encoder.parameters()).device
    parts = []
    with Ahead(plain_views(pixels, size_px, batch_size, device)) as views:
        for view in views:
            parts.append(encoder(view).float().cpu().numpy())
    encoder.train(was_training)
    return np.concatenate(parts)


def extract_features_on_cluster(
    encoder: Encoder, pixels: np.memmap, address: str, *, size_px: int, batch_size: int = 256
) -> np.ndarray:
    """As `extract_features`, in pieces as tasks of the Ray cluster at `address`.

    pixels: a memory map of a file (as `Collection.square` gives) that all machines see under the same path.
    """
    rows = [(start, min(start + SHARD, len(pixels))) for start in range(0, len(pixels), SHARD)]
    store = (str(Path(str(pixels.filename)).absolute()), pixels.dtype.str, pixels.shape, pixels.offset)
    parts: dict[int, np.ndarray] = {}
    settings = replace(encoder.settings, weights=None)
    weights = {key: value.detach().cpu().numpy() for key, value in encoder.state_dict().items()}
    for place, part in map_on_cluster(address, _shard, rows, settings, weights, store, size_px, batch_size):
        parts[place] = part
    return np.concatenate([parts[place] for place in range(len(rows))])


def _shard(
    rows: tuple[int, int],
    settings: EncoderSettings,
    weights: dict[str, np.ndarray],
    store: tuple[str, str, tuple[int, ...], int],
    size_px: int,
    batch_size: int,
) -> np.ndarray:
    path, dtype, shape, offset = store
    pixels = np.memmap(path, dtype=dtype, mode="r", shape=shape, offset=offset)
    encoder = Encoder(settings)
    encoder.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in weights.items()})
    channels_last(encoder)
    encoder.to("cuda" if torch.cuda.is_available() else "cpu")
    return extract_features(encoder, pixels[slice(*rows)], size_px=size_px, batch_size=batch_size)


def plain_views(
    pixels: np.ndarray, size_px: int, batch_size: int, device: torch.device
) -> Iterator[torch.Tensor]:
    """Views (B, C, size, size) of the whole images."""
    generator = torch.Generator()  # a plain view draws nothing that matters
    for start in range(0, len(pixels), batch_size):
        images = torch.from_numpy(np.array(pixels[start : start + batch_size])).to(device)
        view = draw_view(images, plain_view(size_px), generator)
        yield view.contiguous(memory_format=torch.channels_last)


def cached_features(
    encoder: Encoder,
    pixels: np.ndarray,
    *,
    size_px: int,
    fingerprint: str,
    folder: Path | None,
    cluster: str | None = None,
) -> np.ndarray:
    """As `extract_features`, kept in `folder` under the encoder's and the collection's fingerprints.

    A cache file that cannot be read is made again. cluster: address of a Ray cluster that is to take them.
    """

    def extract() -> np.ndarray:
        if cluster is None:
            return extract_features(encoder, pixels, size_px=size_px)
        assert isinstance(pixels, np.memmap)  # as Collection.square gives
        return extract_features_on_cluster(encoder, pixels, cluster, size_px=size_px)

    if folder is None:
        return extract()
    path = folder / f"{weights_fingerprint(encoder)}-{fingerprint[:16]}-{pixels.shape[-1]}to{size_px}.npy"
    cached = _read(path)
    if cached is not None and len(cached) == len(pixels):
        return cached
    features = extract()
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, features, allow_pickle=False)
    return features


def _read(path: Path) -> np.ndarray | None:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # missing, or cut short
        return None
