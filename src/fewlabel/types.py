"""The words that everything else speaks: Image, Batch, Metric, Schedule, LabelColumn and the errors.

Shapes use one vocabulary throughout the package:

    B batch   C channels   D depth   H height   W width
    T tokens  F feature width   K embedding width   N images
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import torch


class FewlabelError(ValueError):
    """A mistake that the user can mend. Its text is one sentence: what came, what was expected, what to do."""


class UnreadableImage(FewlabelError):
    """A file that holds no image that can be read right; its text is the reason given in quarantine.csv."""


class LabelState(IntEnum):
    """The four states of a binary label cell; they stay apart all the way into losses and metrics."""

    NEGATIVE = 0
    POSITIVE = 1
    UNCERTAIN = -1
    NOT_MENTIONED = -2


LabelKind = Literal["binary", "category", "number"]
TargetKind = Literal["binary", "category", "number", "ordinal"]
"""What is learned: the kinds of label columns, and "ordinal" for classes in an order, such as grades."""


@dataclass(frozen=True)
class LabelColumn:
    """What one label column holds.

    kind: "binary" (cells are `LabelState` codes), "category" (cells are class names, null = not mentioned)
        or "number" (cells are float, NaN = missing).
    classes: the class names of a "category" column in their order; empty otherwise.
    origin: where it came from, such as "labels.csv: Finding Labels" or "folder names".
    """

    name: str
    kind: LabelKind
    classes: tuple[str, ...] = ()
    origin: str = ""


@dataclass(frozen=True)
class Image:
    """One image as it was read: full bit depth, nothing windowed, every decision on record.

    pixels: shape (C, H, W) or (C, D, H, W); uint8, uint16, int16, int32 or float32. CT is in HU.
        C is 1 (grey) or 3 (RGB).
    spacing_mm: size of a pixel in mm, in the order of the spatial axes (H, W) or (D, H, W); None if unknown.
    modality: DICOM modality code ("CT", "DX", "MR", ...); "" if unknown.
    patient_id, study_id, series_id: "" if unknown.
    view: projection such as "PA", "AP", "LATERAL"; "" if unknown.
    display_range: (low, high), the intensities to be drawn black and white; recorded, never applied to `pixels`.
    valid: shape of the spatial axes, False where the source says that there is padding; None = all valid.
    affine: (4, 4) voxel (i, j, k) -> mm (RAS+) for volumes where the source gives one; None otherwise.
    provenance: every decision that was made in reading, one plain sentence each.
    warnings: what a person should know before trusting it (gantry tilt, uneven spacing, missing slices).
    attributes: further facts worth a column: age_years, sex, body_part, laterality, ...
    """

    pixels: np.ndarray
    spacing_mm: tuple[float, ...] | None = None
    modality: str = ""
    patient_id: str = ""
    study_id: str = ""
    series_id: str = ""
    view: str = ""
    display_range: tuple[float, float] | None = None
    valid: np.ndarray | None = None
    affine: np.ndarray | None = None
    provenance: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    attributes: dict[str, str | float] = field(default_factory=dict)


class Tokens(NamedTuple):
    """Texts as token ids, padded to the longest of them.

    ids: (B, T) int64. mask: (B, T) bool, True on the real tokens, special ones included, and False on padding.
    truncated: how many of the texts were cut because they were too long.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    truncated: int = 0


@dataclass(frozen=True)
class Batch:
    """What an objective sees in one step.

    views: tuple of tensors, each (B, C, [D,] H, W), float in [0, 1].
    labels: (B,) int64 classes, -1 = no label; (B, L) int64 of 0 and 1 where an image may have several, -1 = unknown;
        or (B,) float32 for regression, NaN = no label; None if unlabelled.
    text: token ids (B, T) of the text that is paired with each image, with their mask; None without text.
    patients: (B,) int64 patient indices, -1 = unknown; None if all are.
    """

    views: tuple[torch.Tensor, ...]
    labels: torch.Tensor | None = None
    text: Tokens | None = None
    patients: torch.Tensor | None = None


@dataclass(frozen=True)
class Metric:
    """A result: a value with its 95 % interval.

    n: how many images it was computed on; patients: how many patients those come from.
    unit: "" for a pure number.
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    patients: int = 0
    unit: str = ""

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.name} {self.value:.3f} ({self.low:.3f} to {self.high:.3f}){unit}, n = {self.n}"


SIZE_STRIDE_PX = 16


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train. Pretraining is counted in steps, not in epochs.

    steps: optimizer steps.
    batch_size: source images a step (SimCLR makes 2 views of each).
    learning_rate: peak rate, reached after `warmup_steps`.
    decay: what follows: "cosine" to 0, or "constant", for rates that are halved when validation asks for it (Watch).
    micro_batch: take the batch in pieces of this many images, for memory: a contrastive loss is still that of the whole
        batch, exactly (gradient caching, Gao et al. 2021, arXiv:2101.06983); batch-norm sees one piece at a time, and
        each piece goes through the network twice. None = all at once.
    start_size_px: views begin at this size and grow to the full one over the first three quarters of the steps, in
        strides of 16 px; None = full size throughout.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 0
    weight_decay: float = 1e-4
    optimizer: Literal["sgd", "adam", "adamw", "lars"] = "adamw"
    seed: int = 0
    micro_batch: int | None = None
    start_size_px: int | None = None
    decay: Literal["cosine", "constant"] = "cosine"

    def size_at(self, step: int, size_px: int) -> int:
        """Side of the views at `step`, where the full one is `size_px`."""
        if self.start_size_px is None or step >= 0.75 * self.steps:
            return size_px
        grown = self.start_size_px + (size_px - self.start_size_px) * step / (0.75 * self.steps)
        return min(size_px, max(self.start_size_px, SIZE_STRIDE_PX * round(grown / SIZE_STRIDE_PX)))


ProgressCallback = Callable[[int, int, str], None]
"""Called as progress(done, total, what)."""

JSON = dict[str, Any]
