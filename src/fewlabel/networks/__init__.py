"""Networks: encoders (any timm network), projection and prediction heads."""

from fewlabel.networks.encoders import Encoder, EncoderSettings
from fewlabel.networks.heads import mlp_head

__all__ = ["Encoder", "EncoderSettings", "mlp_head"]
