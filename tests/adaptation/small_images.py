"""Small made images of two classes, few of which have a label that may be seen, for the tests of adaptation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fewlabel.adaptation import finetune
from fewlabel.adaptation.finetune import LabelledImages
from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.training import fit, loop

SIZE, COUNT = 16, 96
ROWS, VAL, TEST = np.arange(8), np.arange(56, 76), np.arange(76, 96)
UNLABELLED = np.arange(56)
"""All training images, those of ROWS among them."""


def made() -> LabelledImages:
    """A bright spot in the upper left, or in the lower right, on noise."""
    rng = np.random.default_rng(0)
    y = np.arange(COUNT) % 2
    pixels = rng.integers(0, 120, (COUNT, 1, SIZE, SIZE))
    for image, lower in zip(pixels, y, strict=True):
        at = 9 if lower else 2
        image[0, at : at + 5, at : at + 5] += 110
    return LabelledImages(pixels.astype(np.uint8), y, ROWS, VAL, "binary", 2, SIZE)


def small_encoder() -> Encoder:
    """timm's own small network for tests."""
    return Encoder(EncoderSettings("test_resnet", 1, SIZE))


def checkpoints_every(steps: int, patch: pytest.MonkeyPatch) -> None:
    """Training on labels writes checkpoints that often, and at its last step."""
    patch.setattr(
        finetune, "fit", lambda *given, **named: fit(*given, **{**named, "checkpoint_every": steps})
    )


def stop_at_checkpoint(number: int, patch: pytest.MonkeyPatch) -> None:
    """The `number`-th checkpoint is written, and then the run is interrupted."""
    save, written = loop._Run._save, []

    def stop(run: Any) -> None:
        save(run)
        written.append(run.step)
        if len(written) == number:
            raise KeyboardInterrupt

    patch.setattr(loop._Run, "_save", stop)
