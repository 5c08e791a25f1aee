"""Training objectives, one file a paper. Listing a class here is all it takes: the command line, the contract tests
and the report find it in `OBJECTIVES`."""

from fewlabel.objectives.simclr import SimCLR, info_nce, nt_xent
from fewlabel.objectives.supervised import Supervised

OBJECTIVES = (SimCLR, Supervised)

__all__ = ["OBJECTIVES", "SimCLR", "Supervised", "info_nce", "nt_xent"]
