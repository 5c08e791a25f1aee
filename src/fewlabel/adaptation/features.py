"""Features of images by a frozen encoder, taken once and cached."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fewlabel.training import replace_file
from fewlabel.views import draw_view, plain_view


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

    The encoder is left in the mode it was in. Memory: one batch at a time; only the result grows with N.
    """
    was_training = encoder.training
    encoder.eval()
    device = next(encoder.parameters()).device
    generator = torch.Generator()  # a plain view draws nothing that matters
    parts = []
    for start in range(0, len(pixels), batch_size):
        images = torch.from_numpy(np.array(pixels[start : start + batch_size])).to(device)
        view = draw_view(images, plain_view(size_px), generator)
        parts.append(encoder(view.contiguous(memory_format=torch.channels_last)).float().cpu().numpy())
    encoder.train(was_training)
    return np.concatenate(parts)


def cached_features(
    encoder: nn.Module, pixels: np.ndarray, *, size_px: int, fingerprint: str, folder: Path | None
) -> np.ndarray:
    """As `extract_features`, kept in `folder` under the encoder's and the collection's fingerprints.

    A cache file that cannot be read is made again.
    """
    if folder is None:
        return extract_features(encoder, pixels, size_px=size_px)
    path = folder / f"{weights_fingerprint(encoder)}-{fingerprint[:16]}-{pixels.shape[-1]}to{size_px}.npy"
    cached = _read(path)
    if cached is not None and len(cached) == len(pixels):
        return cached
    features = extract_features(encoder, pixels, size_px=size_px)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        np.save(file, features, allow_pickle=False)
    replace_file(temporary, path)
    return features


def _read(path: Path) -> np.ndarray | None:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # missing, or cut short
        return None
