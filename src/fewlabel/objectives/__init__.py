"""Training objectives, one file a paper. A class that is listed in `OBJECTIVES` is covered by the contract tests
and has its line in the README's table; those that need more than one image encoder stand beside it."""

from fewlabel.objectives.autoencoder import Autoencoder, reconstruction_error
from fewlabel.objectives.barlow import BarlowTwins, barlow_twins
from fewlabel.objectives.byol import BYOL, byol_error
from fewlabel.objectives.contrast import info_nce, nt_xent
from fewlabel.objectives.convirt import ConVIRT
from fewlabel.objectives.distillation import Distillation, distillation_loss
from fewlabel.objectives.fixmatch import FixMatch, pseudo_label_loss
from fewlabel.objectives.gan import GAN, discriminator_loss, feature_matching
from fewlabel.objectives.likelihoods import gaussian, laplace
from fewlabel.objectives.m2 import M2, unlabelled_bound
from fewlabel.objectives.mae import MAE, masked_error
from fewlabel.objectives.masked_language import MaskedLanguage, mask_tokens
from fewlabel.objectives.mean_teacher import MeanTeacher, consistency
from fewlabel.objectives.moco import MoCo, moco_contrast
from fewlabel.objectives.simclr import SimCLR
from fewlabel.objectives.supcon import SupCon, supcon
from fewlabel.objectives.supervised import Supervised
from fewlabel.objectives.two_towers import TwoTowers
from fewlabel.objectives.vae import VAE, kl_to_standard_normal
from fewlabel.objectives.vicreg import VICReg, vicreg

OBJECTIVES = (
    SimCLR,
    SupCon,
    MoCo,
    BYOL,
    BarlowTwins,
    VICReg,
    MAE,
    Autoencoder,
    VAE,
    M2,
    GAN,
    MeanTeacher,
    FixMatch,
    Supervised,
)

__all__ = [
    "BYOL",
    "GAN",
    "M2",
    "MAE",
    "OBJECTIVES",
    "VAE",
    "Autoencoder",
    "BarlowTwins",
    "ConVIRT",
    "Distillation",
    "FixMatch",
    "MaskedLanguage",
    "MeanTeacher",
    "MoCo",
    "SimCLR",
    "SupCon",
    "Supervised",
    "TwoTowers",
    "VICReg",
    "barlow_twins",
    "byol_error",
    "consistency",
    "discriminator_loss",
    "distillation_loss",
    "feature_matching",
    "gaussian",
    "info_nce",
    "kl_to_standard_normal",
    "laplace",
    "mask_tokens",
    "masked_error",
    "moco_contrast",
    "nt_xent",
    "pseudo_label_loss",
    "reconstruction_error",
    "supcon",
    "unlabelled_bound",
    "vicreg",
]
