"""Networks: encoders (any timm network), projection and prediction heads."""

from fewlabel.networks.encoders import Encoder, EncoderSettings, HeadedEncoder
from fewlabel.networks.heads import first_layers, mlp_head

__all__ = ["Encoder", "EncoderSettings", "HeadedEncoder", "first_layers", "mlp_head"]
