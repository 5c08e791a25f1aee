"""How likely an image is, given what a decoder says of it: Gaussian or Laplace noise around each pixel.

With the scale fixed, maximising the Gaussian likelihood minimises the squared error, and the Laplace likelihood the
absolute one (Kingma and Welling 2014, arXiv:1312.6114, appendix C.2 for the Gaussian decoder).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

Likelihood = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""log_density(x, mean, log_scale) -> (B,), in nats."""


def gaussian(x: torch.Tensor, mean: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """log N(x; mean, scale^2), summed over the pixels of each image.

    x, mean: (B, ...). log_scale: natural logarithm of the standard deviation; a scalar, or broadcast to x.
    Returns (B,).
    """
    squares = ((x - mean) * torch.exp(-log_scale)) ** 2
    return -(0.5 * squares + log_scale + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


def laplace(x: torch.Tensor, mean: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """log Laplace(x; mean, scale), summed over the pixels of each image; arguments and result as of `gaussian`."""
    distance = (x - mean).abs() * torch.exp(-log_scale)
    return -(distance + log_scale + math.log(2)).flatten(1).sum(1)
