"""An objective whose encoder may be kept as it is while the rest learns."""

from __future__ import annotations

from typing import Any, Self

from torch import nn


class FreezableEncoder(nn.Module):
    """What such objectives inherit; they set `encoder`."""

    encoder: Any
    encoder_is_frozen = False

    def freeze_encoder(self, frozen: bool = True) -> None:
        """Have the rest learn alone: the encoder takes no gradient and stays in evaluation mode, so that its batch
        statistics, and spectral norms where it has such, stay too. False: all of it learns.
        """
        self.encoder_is_frozen = frozen
        self.encoder.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As of any module, but a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.encoder_is_frozen:
            self.encoder.eval()
        return self
