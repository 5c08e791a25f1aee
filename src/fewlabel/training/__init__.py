"""Training: one loop, checkpoints, health."""

from fewlabel.training.checkpoint import load_tensors, replace_file, save_tensors
from fewlabel.training.data import TrainingSet, mix_seed
from fewlabel.training.loop import FitResult, Watch, channels_last, choose_precision, fit

__all__ = [
    "FitResult",
    "TrainingSet",
    "Watch",
    "channels_last",
    "choose_precision",
    "fit",
    "load_tensors",
    "mix_seed",
    "replace_file",
    "save_tensors",
]
