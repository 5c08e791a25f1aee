"""Training objectives, one file a paper. A class that is listed in `OBJECTIVES` is covered by the contract tests
and has its line in the README's table."""

from fewlabel.objectives.contrast import info_nce, nt_xent
from fewlabel.objectives.simclr import SimCLR
from fewlabel.objectives.supcon import SupCon, supcon
from fewlabel.objectives.supervised import Supervised

OBJECTIVES = (SimCLR, SupCon, Supervised)

__all__ = [
    "OBJECTIVES",
    "SimCLR",
    "SupCon",
    "Supervised",
    "info_nce",
    "nt_xent",
    "supcon",
]
