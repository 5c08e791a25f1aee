"""The main job and its stages."""

from fewlabel.adaptation.semi_supervised import SemiSupervisedSettings
from fewlabel.adaptation.three_stages import ThreeStagesSettings
from fewlabel.pipeline.adopting import paired_texts
from fewlabel.pipeline.evaluating import EvaluateSettings
from fewlabel.pipeline.exporting import Exported, export_model
from fewlabel.pipeline.inspecting import Inspected, inspect_labels
from fewlabel.pipeline.learning import Learned, evaluate, learn
from fewlabel.pipeline.predicting import Predictions, load_classifier, predict
from fewlabel.pipeline.pretraining import Pretrained, pretrain, pretrain_on_cluster
from fewlabel.pipeline.settings import PretrainSettings
from fewlabel.pipeline.simclr_v2 import SimCLRv2Settings

__all__ = [
    "EvaluateSettings",
    "Exported",
    "Inspected",
    "Learned",
    "Predictions",
    "PretrainSettings",
    "Pretrained",
    "SemiSupervisedSettings",
    "SimCLRv2Settings",
    "ThreeStagesSettings",
    "evaluate",
    "export_model",
    "inspect_labels",
    "learn",
    "load_classifier",
    "paired_texts",
    "predict",
    "pretrain",
    "pretrain_on_cluster",
]
