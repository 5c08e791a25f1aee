"""Looking at validation images while training: early stopping, and a rate that is halved when nothing gets better."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fewlabel.training.checkpoint import load_tensors, save_tensors
from fewlabel.types import JSON, FewlabelError

BEST = "best.safetensors"


@dataclass(frozen=True)
class Watch:
    """Early stopping on validation images.

    score: objective -> number, higher is better; called every `every` steps, in evaluation mode, without gradients.
    patience: stop after this many calls without a better score. The best weights are restored at the end; where a run
        can be continued they are kept in best.safetensors.
    halve_after: halve the learning rate after this many calls without a better score, and again after as many more;
        None = never. It stays halved when scores rise again. Raises FewlabelError below 1.
    parts: what the names of the weights begin with that the score is about: these alone are restored, all others stay
        as they are at the end. None = all weights are restored.
    """

    score: Callable[[nn.Module], float]
    every: int
    patience: int
    halve_after: int | None = None
    parts: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.halve_after is not None and self.halve_after < 1:
            raise FewlabelError(
                f"halve_after is {self.halve_after}: give at least 1 look without a better score, or None for never."
            )


class Best:
    """The best validation score so far, the weights that gave it, and what the looks since then have led to.

    out: where the best weights are kept; None = in memory alone.
    """

    def __init__(self, watch: Watch, out: Path | None) -> None:
        self.watch, self.out, self.score, self.step = watch, out, -np.inf, 0
        self.waited, self.halvings = 0, 0
        self.weights: dict[str, torch.Tensor] | None = None

    def state(self) -> JSON:
        """All but the weights, for the checkpoint."""
        return {
            "score": float(self.score),
            "step": self.step,
            "waited": self.waited,
            "halvings": self.halvings,
        }

    def resume(self, out: Path, state: JSON) -> None:
        """Go on from the state of a checkpoint in `out`; {} = nothing was looked at before it.

        The weights in `out` may be those of a later step: it will come again and find them again.
        """
        if not state:
            return
        self.score, self.step = state["score"], state["step"]
        self.waited, self.halvings = state["waited"], state["halvings"]
        if self.step:
            self.weights, _ = load_tensors(out / BEST)

    @property
    def is_over(self) -> bool:
        """Whether patience has ended."""
        return self.waited >= self.watch.patience

    @property
    def rate_factor(self) -> float:
        """What the schedule's learning rate is multiplied by."""
        return 0.5**self.halvings

    @torch.no_grad()
    def look(self, objective: nn.Module, step: int) -> None:
        """Take the score of the weights after `step` steps."""
        objective.eval()
        score = self.watch.score(objective)
        objective.train()
        if score > self.score:
            self.score, self.step, self.waited = score, step, 0
            self.weights = copy.deepcopy(self._scored(objective))
            if self.out:
                save_tensors(self.weights, self.out / BEST, {"score": repr(float(score)), "step": str(step)})
            return
        self.waited += 1
        if self.watch.halve_after and self.waited % self.watch.halve_after == 0:
            self.halvings += 1

    def restore(self, objective: nn.Module) -> None:
        """Give the objective the best weights, where there are any."""
        if self.weights is not None:
            objective.load_state_dict({**objective.state_dict(), **self.weights})

    def _scored(self, objective: nn.Module) -> dict[str, torch.Tensor]:
        """The weights that the score is about."""
        parts, state = self.watch.parts, objective.state_dict()
        return {key: value for key, value in state.items() if parts is None or key.startswith(parts)}
