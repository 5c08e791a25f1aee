"""Training: one loop, checkpoints, health."""

from fewlabel.training.checkpoint import load_tensors, save_tensors
from fewlabel.training.compute import Compute, channels_last
from fewlabel.training.data import TrainingSet, mix_seed
from fewlabel.training.feeding import Ahead
from fewlabel.training.loop import FitResult, fit
from fewlabel.training.sentences import Sentences
from fewlabel.training.text import train_text_encoder
from fewlabel.training.watching import Watch

__all__ = [
    "Ahead",
    "Compute",
    "FitResult",
    "Sentences",
    "TrainingSet",
    "Watch",
    "channels_last",
    "fit",
    "load_tensors",
    "mix_seed",
    "save_tensors",
    "train_text_encoder",
]
