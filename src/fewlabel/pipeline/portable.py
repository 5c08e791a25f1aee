"""The classifier of a run as one network of plain tensor operations, so that other programs can run it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fewlabel.adaptation.ordinal import OrdinalProbe
from fewlabel.adaptation.probe import LinearProbe
from fewlabel.networks.ordinal import grade_log_probabilities
from fewlabel.pipeline.predicting import Classifier
from fewlabel.types import Image


class PortableClassifier(nn.Module):
    """Fitting into a square, encoder, probe and calibration of a classifier.

    forward: image (B, C, H, W) float32, black 0 and white 1, of any height and width, C as the encoder takes it ->
    calibrated probabilities (B, K), or the number (B, 1). All images of a batch have one size.
    It does what `predict` does once intensities are mapped: the longer side becomes store_px by area means (linear
    interpolation where it is enlarged), centred on black, clipped to [0, 1], resized with antialiasing to size_px.
    Everything is a product with a small matrix, so no operation depends on how a runtime resizes. Sizes are worked
    out in float64, as Python does, and no device is fixed.
    """

    places: torch.Tensor
    resize: torch.Tensor
    mean: torch.Tensor
    weights: torch.Tensor
    intercept: torch.Tensor
    thresholds: torch.Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.encoder = classifier.encoder
        self.store_px = classifier.store_px
        probe = classifier.probe
        self.kind, self.slope = probe.kind, probe.calibration.slope
        weights, intercept = calibrated_weights(probe)
        arrays = {"mean": probe.scaling.mean, "weights": weights, "intercept": intercept}
        if isinstance(probe, OrdinalProbe):
            arrays["thresholds"] = probe.thresholds
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(np.asarray(array, np.float32)))
        self.register_buffer("places", torch.arange(classifier.store_px, dtype=torch.float64))
        self.register_buffer("resize", antialiased_resize(classifier.store_px, classifier.size_px))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        rows, columns = self._fit(image)  # (S, H), (S, W)
        square = (rows @ image @ columns.T).clamp(0.0, 1.0)  # (B, C, S, S)
        h = self.encoder(self.resize @ square @ self.resize.T)  # (B, F)
        output = (h - self.mean) @ self.weights + self.intercept  # (B, K)
        if self.kind == "ordinal":  # a score (B, 1)
            output = self.slope * grade_log_probabilities(output[:, 0], self.thresholds)
        return output if self.kind == "number" else output.softmax(dim=1)

    def _fit(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Matrices that fit rows and columns into the square; see `fitted_size` and `area_resample`."""
        down, across = _numbered(image[0, 0, :, 0]), _numbered(image[0, 0, 0])
        scale = self.store_px / torch.maximum(down[-1], across[-1])
        return _fit_axis(self.places, down, scale), _fit_axis(self.places, across, scale)


def _numbered(line: torch.Tensor) -> torch.Tensor:
    """(L,) -> 1, 2, ..., L in float64. Counted, since an arange would fix the device of a traced network."""
    return torch.ones_like(line, dtype=torch.float64).cumsum(0)


def _fit_axis(places: torch.Tensor, numbered: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """(S, L) float32: an axis of L pixels becomes round(L * scale) places in the middle of S, the rest is 0.

    places: 0 ... S - 1; numbered: 1 ... L; scale: S / longer side. Each place is the mean of the area that it covers;
    enlarging is linear interpolation between the centres of pixels.
    """
    old, pixel = numbered[-1], numbered[None] - 1  # (1, L)
    new = torch.round(old * scale).clamp(min=1)
    step = old / new
    place = (places - torch.floor((places[-1] + 1 - new) / 2))[:, None]  # (S, 1)
    overlap = torch.minimum(pixel + 1, (place + 1) * step) - torch.maximum(pixel, place * step)
    centre = torch.minimum(((place + 0.5) * step - 0.5).clamp(min=0), old - 1)
    between = (1 - (centre - pixel).abs()).clamp(min=0)
    weights = torch.where(new > old, between, overlap.clamp(min=0) / step)
    return (weights * ((place >= 0) & (place < new))).float()


def antialiased_resize(store_px: int, size_px: int) -> torch.Tensor:
    """(size, store) float32: the matrix by which `plain_view` resizes either axis of a square."""
    one_axis = F.interpolate(
        torch.eye(store_px)[None, None], (size_px, store_px), mode="bilinear", antialias=True
    )
    return one_axis[0, 0]


def calibrated_weights(probe: LinearProbe | OrdinalProbe) -> tuple[np.ndarray, np.ndarray]:
    """Weights (F, K) and intercept (K,) for centred features, with scaling and calibration multiplied in.

    softmax((h - mean) @ weights + intercept) are the calibrated probabilities; for a number leave out the softmax.
    Of two classes the first one's weights are 0, since Platt scaling is one of the margin. Of grades it
    is their score (N, 1), and thresholds and calibration follow.
    """
    if isinstance(probe, OrdinalProbe):
        return probe.weights[:, None] / probe.scaling.scale, np.zeros(1)
    weights, intercept = probe.weights / probe.scaling.scale, probe.intercept
    slope, offset = probe.calibration.slope, probe.calibration.offset
    if probe.kind == "number":
        return weights, intercept
    if weights.shape[1] == 2:
        margin, at_mean = weights[:, 1] - weights[:, 0], intercept[1] - intercept[0]
        return np.column_stack([0 * margin, slope * margin]), np.array([0.0, slope * at_mean + offset])
    return slope * weights, slope * intercept


def unit_image(image: Image, channels: int) -> torch.Tensor:
    """(channels, H, W) float32, what a `PortableClassifier` takes: the display range mapped to [0, 1], not clipped.

    image: 2-D, with a display range. Colour becomes luminance where channels is 1 (ITU-R BT.601), grey is repeated
    where it is 3; padding is black.
    """
    assert image.display_range is not None
    low, high = image.display_range
    pixels = image.pixels.astype(np.float32)
    if channels == 1 and len(pixels) == 3:
        pixels = np.tensordot(np.array([[0.299, 0.587, 0.114]], np.float32), pixels, axes=1)
    if image.valid is not None:
        pixels = np.where(image.valid, pixels, np.float32(low))
    unit = (pixels - np.float32(low)) / np.float32(high - low if high > low else 1)
    return torch.from_numpy(np.broadcast_to(unit, (channels, *unit.shape[1:])).copy())
