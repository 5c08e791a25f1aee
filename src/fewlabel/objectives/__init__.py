"""Training objectives, one file a paper. A class that is listed in `OBJECTIVES` is covered by the contract tests
and has its line in the README's table."""

from fewlabel.objectives.contrast import info_nce, nt_xent
from fewlabel.objectives.distillation import Distillation, distillation_loss
from fewlabel.objectives.simclr import SimCLR
from fewlabel.objectives.supervised import Supervised

OBJECTIVES = (SimCLR, Supervised)

__all__ = [
    "OBJECTIVES",
    "Distillation",
    "SimCLR",
    "Supervised",
    "distillation_loss",
    "info_nce",
    "nt_xent",
]
