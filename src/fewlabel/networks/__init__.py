"""Networks: encoders (any timm network), text encoders (any BERT), projection heads, heads for grades."""

from fewlabel.networks.encoders import Encoder, EncoderSettings, HeadedEncoder
from fewlabel.networks.heads import first_layers, mlp_head
from fewlabel.networks.ordinal import OrdinalHead
from fewlabel.networks.text import TextEncoder, load_text_encoder, small_bert, train_tokenizer

__all__ = [
    "Encoder",
    "EncoderSettings",
    "HeadedEncoder",
    "OrdinalHead",
    "TextEncoder",
    "first_layers",
    "load_text_encoder",
    "mlp_head",
    "small_bert",
    "train_tokenizer",
]
