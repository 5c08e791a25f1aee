"""Training objectives, one file a paper. A class that is listed in `OBJECTIVES` is covered by the contract tests
and has its line in the README's table; those that need more than one image encoder, or a loss from elsewhere, stand
beside it."""

from fewlabel.objectives.autoencoder import Autoencoder, reconstruction_error
from fewlabel.objectives.barlow import BarlowTwins, barlow_twins
from fewlabel.objectives.byol import BYOL, byol_error
from fewlabel.objectives.contrast import info_nce, nt_xent
from fewlabel.objectives.convirt import ConVIRT
from fewlabel.objectives.distances import cosine_distance, euclidean, manhattan, squared_euclidean
from fewlabel.objectives.distillation import Distillation, distillation_loss
from fewlabel.objectives.fixmatch import FixMatch, pseudo_label_loss
from fewlabel.objectives.gan import GAN, discriminator_loss, feature_matching
from fewlabel.objectives.library_loss import LibraryLoss
from fewlabel.objectives.likelihoods import gaussian, laplace
from fewlabel.objectives.m2 import M2, unlabelled_bound
from fewlabel.objectives.mae import MAE, masked_error
from fewlabel.objectives.masked_language import MaskedLanguage, mask_tokens
from fewlabel.objectives.mean_teacher import MeanTeacher, consistency
from fewlabel.objectives.moco import MoCo, moco_contrast
from fewlabel.objectives.siamese import Siamese, contrastive_loss, siamese_loss
from fewlabel.objectives.simclr import SimCLR
from fewlabel.objectives.supcon import SupCon, supcon
from fewlabel.objectives.supervised import Supervised
from fewlabel.objectives.triplet import Triplet, batch_all, hard, semi_hard, triplet_loss
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
    Siamese,
    Triplet,
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
    "LibraryLoss",
    "MaskedLanguage",
    "MeanTeacher",
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
    "consistency",
    "contrastive_loss",
    "cosine_distance",
    "discriminator_loss",
    "distillation_loss",
    "euclidean",
    "feature_matching",
    "gaussian",
    "hard",
    "info_nce",
    "kl_to_standard_normal",
    "laplace",
    "manhattan",
    "mask_tokens",
    "masked_error",
    "moco_contrast",
    "nt_xent",
    "pseudo_label_loss",
    "reconstruction_error",
    "semi_hard",
    "siamese_loss",
    "squared_euclidean",
    "supcon",
    "triplet_loss",
    "unlabelled_bound",
    "vicreg",
]
