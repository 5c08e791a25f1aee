"""The recipe "grading": what may be done with grades beyond a probe on the pretrained features.

The whole network is fine-tuned with cumulative logits as last layer; and the encoder learns by the triplet loss, with
margins that grow with the distance between two grades, and is probed as before. Both begin with the pretrained encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fewlabel.objectives import Triplet
from fewlabel.objectives.triplet import graded_margin
from fewlabel.pipeline.arms import Arm, Task
from fewlabel.pipeline.metric_learning import MetricLearning, MetricMethod
from fewlabel.pipeline.pretraining import Pretrained
from fewlabel.pipeline.simclr_v2 import SimCLRv2, SimCLRv2Settings

MARGIN = 0.2
"""Of neighbouring grades: that of the triplet paper, for two classes."""


class Grading:
    """Trains and keeps the networks of each step. folder: for networks; None = nowhere."""

    def __init__(self, task: Task, pretrained: Sequence[Pretrained], folder: Path | None) -> None:
        self.tuning = SimCLRv2(task, pretrained, SimCLRv2Settings(), folder)
        objective = partial(Triplet, margin=graded_margin(MARGIN), other_patient=True)
        label = f"{pretrained[0].settings.title} + ordinal triplet"
        methods = [MetricMethod("simclr-ordinal-triplet", label, objective)]
        self.triplet = MetricLearning(task, pretrained, folder, methods)

    def arms(self, outputs: Path | None) -> list[Arm]:
        """Fine-tuned, and trained by triplets with either probe; `outputs` as in `trained_arm`."""
        return [self.tuning.finetune_arm(outputs), *self.triplet.arms(outputs)]
