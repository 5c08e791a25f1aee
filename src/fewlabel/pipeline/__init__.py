"""The main job and its stages."""

from fewlabel.adaptation.semi_supervised import SemiSupervisedSettings
from fewlabel.adaptation.three_stages import ThreeStagesSettings
from fewlabel.pipeline.adopting import paired_texts
from fewlabel.pipeline.anomalies import Anomalies, find_anomalies
from fewlabel.pipeline.anomaly_results import AnomalySettings
from fewlabel.pipeline.cross_validation import CrossValidated, cross_validate
from fewlabel.pipeline.evaluating import EvaluateSettings
from fewlabel.pipeline.exporting import Exported, export_model
from fewlabel.pipeline.generating import Generated, generate
from fewlabel.pipeline.inspecting import Inspected, inspect_labels
from fewlabel.pipeline.learning import Learned, evaluate, learn
from fewlabel.pipeline.predicting import Predictions, load_classifier, predict
from fewlabel.pipeline.pretraining import Pretrained, pretrain, pretrain_on_cluster
from fewlabel.pipeline.scoring import FileScores, score_files
from fewlabel.pipeline.settings import PretrainSettings
from fewlabel.pipeline.simclr_v2 import SimCLRv2Settings

__all__ = [
    "Anomalies",
    "AnomalySettings",
    "CrossValidated",
    "EvaluateSettings",
    "Exported",
    "FileScores",
    "Generated",
    "Inspected",
    "Learned",
    "Predictions",
    "PretrainSettings",
    "Pretrained",
    "SemiSupervisedSettings",
    "SimCLRv2Settings",
    "ThreeStagesSettings",
    "cross_validate",
    "evaluate",
    "export_model",
    "find_anomalies",
    "generate",
    "inspect_labels",
    "learn",
    "load_classifier",
    "paired_texts",
    "predict",
    "pretrain",
    "pretrain_on_cluster",
    "score_files",
]
