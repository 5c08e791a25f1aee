"""Training objectives, one file a paper. A class that is listed in `OBJECTIVES` is covered by the contract tests
and has its line in the README's table; those that need more than one image encoder, or a loss from elsewhere, stand
beside it."""

from fewlabel.objectives.barlow import BarlowTwins, barlow_twins
from fewlabel.objectives.byol import BYOL, byol_error
from fewlabel.objectives.contrast import info_nce, nt_xent
from fewlabel.objectives.convirt import ConVIRT
from fewlabel.objectives.distances import cosine_distance, euclidean, manhattan, squared_euclidean
from fewlabel.objectives.distillation import Distillation, distillation_loss
from fewlabel.objectives.library_loss import LibraryLoss
from fewlabel.objectives.mae import MAE, masked_error
from fewlabel.objectives.masked_language import MaskedLanguage, mask_tokens
from fewlabel.objectives.moco import MoCo, moco_contrast
from fewlabel.objectives.siamese import Siamese, contrastive_loss, siamese_loss
from fewlabel.objectives.simclr import SimCLR
from fewlabel.objectives.supcon import SupCon, supcon
from fewlabel.objectives.supervised import Supervised
from fewlabel.objectives.triplet import Triplet, batch_all, hard, semi_hard, triplet_loss
from fewlabel.objectives.two_towers import TwoTowers
from fewlabel.objectives.vicreg import VICReg, vicreg

OBJECTIVES = (SimCLR, SupCon, MoCo, BYOL, BarlowTwins, VICReg, MAE, Siamese, Triplet, Supervised)

__all__ = [
    "BYOL",
    "MAE",
    "OBJECTIVES",
    "BarlowTwins",
    "ConVIRT",
    "Distillation",
    "LibraryLoss",
    "MaskedLanguage",
    "MoCo",
    "Siamese",
    "SimCLR",
    "SupCon",
    "Supervised",
    "Triplet",
    "TwoTowers",
    "VICReg",
    "barlow_twins",
    "batch_all",
    "byol_error",
    "contrastive_loss",
    "cosine_distance",
    "distillation_loss",
    "euclidean",
    "hard",
    "info_nce",
    "manhattan",
    "mask_tokens",
    "masked_error",
    "moco_contrast",
    "nt_xent",
    "semi_hard",
    "siamese_loss",
    "squared_euclidean",
    "supcon",
    "triplet_loss",
    "vicreg",
]
