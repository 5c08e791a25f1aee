"""Networks: encoders (any timm network), text encoders (any BERT), projection and prediction heads."""

from fewlabel.networks.encoders import Encoder, EncoderSettings, HeadedEncoder
from fewlabel.networks.heads import first_layers, mlp_head
from fewlabel.networks.text import TextEncoder, load_text_encoder, small_bert, train_tokenizer

__all__ = [
    "Encoder",
    "EncoderSettings",
    "HeadedEncoder",
    "TextEncoder",
    "first_layers",
    "load_text_encoder",
    "mlp_head",
    "small_bert",
    "train_tokenizer",
]
