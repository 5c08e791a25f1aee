"""Text encoders: token ids -> features (B, F). Any BERT of Hugging Face transformers, or a small one of one's own.

The paper's encoder (ConVIRT, Zhang et al. 2020, arXiv:2010.00747, section 2) is ClinicalBERT with max-pooling over all
output vectors. All means here: all real tokens, [CLS] and [SEP] among them; padding never counts.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import save_file
from torch import nn

from fewlabel.files import replacing
from fewlabel.networks.torchvision_shim import ensure_torchvision
from fewlabel.types import FewlabelError, Tokens

CLINICAL_BERT = "emilyalsentzer/Bio_ClinicalBERT"
"""Hub name of the paper's text encoder: Alsentzer et al. 2019, arXiv:1904.03323."""
PAD, UNKNOWN, START, END, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LONGEST = 128


def text_library(name: str) -> Any:
    """transformers or tokenizers, imported behind the torchvision shim. Raises FewlabelError where it is missing."""
    ensure_torchvision()
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FewlabelError(
            f'Text needs {name}, which cannot be imported ({error}): run pip install "fewlabel[text]".'
        ) from error


class TextEncoder(nn.Module):
    """A BERT with its tokenizer; the outputs of all real tokens are max-pooled.

    network: a transformers model with `embeddings` and `encoder.layer`, such as BertModel or RobertaModel; its pooler
        is taken off.
    tokenizer: a `tokenizers.Tokenizer` that frames a text as the network wants it; kept as `tokenizer`.
    frozen_layers: the embeddings and this many first layers are frozen (0 = the embeddings only); None = nothing is.
        See `freeze`.
    longest: tokens, with the special ones, at which a text is cut.
    dim: F, the width of the features.
    Raises FewlabelError for another kind of network, a tokenizer with more tokens than it, or too many frozen layers.
    """

    def __init__(
        self,
        network: nn.Module,
        tokenizer: Any,
        *,
        frozen_layers: int | None = None,
        longest: int = LONGEST,
    ) -> None:
        super().__init__()
        untyped: Any = network
        if not hasattr(network, "embeddings") or not hasattr(getattr(network, "encoder", None), "layer"):
            raise FewlabelError(
                f"A {type(network).__name__} has no embeddings and encoder layers as a BERT has them: give a BERT or "
                "RoBERTa."
            )
        untyped.pooler = None  # it would be a parameter that no loss reaches
        self.network = untyped
        self.dim: int = untyped.config.hidden_size
        self.longest = longest
        self.tokenizer = self._fitting(tokenizer)
        self.freeze(frozen_layers)

    def _fitting(self, tokenizer: Any) -> Any:
        config = self.network.config
        if tokenizer.get_vocab_size() > config.vocab_size:
            raise FewlabelError(
                f"The tokenizer has {tokenizer.get_vocab_size()} tokens and the network {config.vocab_size}: they do "
                "not belong together; give the tokenizer that the network was trained with."
            )
        if not 3 <= self.longest <= config.max_position_embeddings:
            raise FewlabelError(
                f"longest is {self.longest} tokens: it must lie from 3 to the network's "
                f"{config.max_position_embeddings}."
            )
        tokenizer.enable_truncation(self.longest)
        pad = config.pad_token_id or 0
        tokenizer.enable_padding(pad_id=pad, pad_token=tokenizer.id_to_token(pad) or PAD)
        return tokenizer

    def freeze(self, layers: int | None) -> None:
        """Freeze the embeddings and the first `layers` layers, and free all others; None = free everything.

        What is frozen takes no gradient, so that no graph is built in it, and stays in evaluation mode: without its
        dropout, a text always enters the first free layer as the same numbers. The paper does not say what it does.
        Raises FewlabelError unless there are that many layers.
        """
        there = len(self.network.encoder.layer)
        if layers is not None and not 0 <= layers <= there:
            raise FewlabelError(
                f"{layers} layers were to be frozen and the network has {there}: give frozen_layers from 0 to {there}, "
                "or None to freeze nothing."
            )
        self.frozen_layers = layers
        self.requires_grad_(True)
        for part in self.frozen_parts():
            part.requires_grad_(False)
        self.train(self.training)

    def frozen_parts(self) -> list[nn.Module]:
        """The frozen modules, from the text upwards."""
        if self.frozen_layers is None:
            return []
        return [self.network.embeddings, *self.network.encoder.layer[: self.frozen_layers]]

    def train(self, mode: bool = True) -> Self:
        """As of any module, but what is frozen stays in evaluation mode."""
        super().train(mode)
        for part in self.frozen_parts():
            part.eval()
        return self

    def outputs(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Output vectors (B, T, F) of all tokens, those of padding among them. ids, mask: as of `Tokens`."""
        return self.network(input_ids=ids, attention_mask=mask.long()).last_hidden_state

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Features (B, F) of texts. ids: (B, T) int64; mask: (B, T), nonzero on real tokens, at least one a text."""
        outputs = self.outputs(ids, mask)  # (B, T, F)
        return outputs.masked_fill(~mask.bool()[:, :, None], float("-inf")).amax(dim=1)  # (B, F)

    def tokenise(self, texts: Sequence[str]) -> Tokens:
        """Token ids of at least one text, padded to the longest of them, cut at `longest` and so counted."""
        if isinstance(texts, str) or not texts:
            raise FewlabelError(f"{texts!r} came to be tokenised: give a list of at least one text.")
        encoded = self.tokenizer.encode_batch(list(texts))
        return Tokens(
            torch.tensor([one.ids for one in encoded], dtype=torch.int64),  # (B, T)
            torch.tensor([one.attention_mask for one in encoded], dtype=torch.bool),  # (B, T)
            sum(bool(one.overflowing) for one in encoded),
        )

    def save(self, folder: Path) -> None:
        """Write config.json, model.safetensors and tokenizer.json, which `load_text_encoder` and transformers read."""
        folder.mkdir(parents=True, exist_ok=True)
        self.network.config.save_pretrained(folder)
        weights = {key: value.detach().cpu().contiguous() for key, value in self.network.state_dict().items()}
        with replacing(folder / "model.safetensors") as temporary:
            save_file(weights, temporary, {"format": "pt"})
        with replacing(folder / "tokenizer.json") as temporary:
            self.tokenizer.save(str(temporary))


def load_text_encoder(
    source: str | Path = CLINICAL_BERT, *, frozen_layers: int | None = 6, longest: int = LONGEST
) -> TextEncoder:
    """A BERT by its hub name, or from a local folder with config.json, model.safetensors and a tokenizer.

    frozen_layers: 6 of 12 in the paper; None = nothing is frozen. longest: as of `TextEncoder`.
    Raises FewlabelError if there is no such network, if its weights are not safetensors or leave layers at random, or
    as `TextEncoder` does.
    """
    transformers = text_library("transformers")
    local = _is_folder(source)
    logging.getLogger("transformers").setLevel(logging.ERROR)  # the check below says it better
    transformers.utils.logging.disable_progress_bar()
    try:
        network, found = transformers.AutoModel.from_pretrained(
            str(source), use_safetensors=True, local_files_only=local, output_loading_info=True
        )
        tokenizer = _load_tokenizer(Path(source), transformers, local)
    except Exception as error:
        where = "loaded" if local else "fetched from the hub"
        raise FewlabelError(
            f"The text encoder {source} could not be {where} ({type(error).__name__}): check its name and the network, "
            "or give a local folder with config.json, model.safetensors and tokenizer.json."
        ) from error
    missing = sorted(key for key in found["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise FewlabelError(
            f"The weights of {source} say nothing of {len(missing)} of its layers, such as {missing[0]}: give weights "
            "of the network that config.json describes."
        )
    return TextEncoder(network.float(), tokenizer, frozen_layers=frozen_layers, longest=longest)


def _is_folder(source: str | Path) -> bool:
    """Whether it is a local folder, with weights that may be loaded, and not a hub name."""
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if isinstance(source, Path) or source.count("/") != 1 or source.startswith(("/", ".", "~")):
            raise FewlabelError(
                f"There is no folder {source}: give a folder or a hub name such as {CLINICAL_BERT}."
            )
        return False
    if not any(folder.glob("*.safetensors")):
        pickled = next(folder.glob("*.bin"), None)
        what = f"only {pickled.name}, a pickle that can run foreign code" if pickled else "no weights"
        raise FewlabelError(
            f"{source} holds {what}: text encoders are loaded from model.safetensors alone; convert the weights first, "
            "where you trust them."
        )
    return True


def _load_tokenizer(folder: Path, transformers: Any, local: bool) -> Any:
    if local and (folder / "tokenizer.json").is_file():
        return text_library("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
    return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=local).backend_tokenizer


def train_tokenizer(texts: Sequence[str], vocabulary_size: int, folder: Path) -> Any:
    """A WordPiece tokenizer of the user's own texts, in lower case and with BERT's special tokens.

    vocabulary_size: at most this many tokens, all characters of the texts and the 5 special ones among them.
    Writes tokenizer.json into `folder`, the same from the same texts, and returns the `tokenizers.Tokenizer`. Raises
    FewlabelError if the texts hold no word, or more different characters than the vocabulary has room for.
    Source: arXiv:1810.04805, section 3.
    """
    tokenizers = text_library("tokenizers")
    learner = _word_pieces(tokenizers, {})
    words = {
        word
        for text in texts
        for word, _ in learner.pre_tokenizer.pre_tokenize_str(learner.normalizer.normalize_str(text))
    }
    inner = sorted({f"##{letter}" for word in words for letter in word[1:]})
    trainer = (
        tokenizers.trainers.WordPieceTrainer(  # letters that it finds itself are numbered as chance has it
            vocab_size=vocabulary_size, special_tokens=[*SPECIAL, *inner], show_progress=False
        )
    )
    learner.train_from_iterator(texts, trainer)
    tokenizer = _word_pieces(tokenizers, learner.get_vocab())
    tokenizer.add_special_tokens(list(SPECIAL))
    size = tokenizer.get_vocab_size()
    if not len(SPECIAL) < size <= vocabulary_size:
        raise FewlabelError(
            f"The texts gave {size} tokens, where more than {len(SPECIAL)} and at most {vocabulary_size} were asked "
            "for: give texts with words, and a vocabulary with room for all their characters."
        )
    ends = {token: tokenizer.token_to_id(token) for token in (START, END)}
    tokenizer.post_processor = tokenizers.processors.BertProcessing((END, ends[END]), (START, ends[START]))
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "tokenizer.json") as temporary:
        tokenizer.save(str(temporary))
    return tokenizer


def _word_pieces(tokenizers: Any, vocabulary: dict[str, int]) -> Any:
    """A tokenizer of this vocabulary that splits lower-cased text as BERT does, before it frames it."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    return tokenizer


def small_bert(
    tokenizer: Any, *, layers: int = 4, width: int = 128, heads: int = 4, longest: int = LONGEST
) -> TextEncoder:
    """A BERT with random weights, for texts of a tokenizer made by `train_tokenizer`; nothing is frozen.

    width: F, a multiple of `heads`; the layers between are four times as wide, as in BERT.
    longest: as of `TextEncoder`.
    Raises FewlabelError if the width cannot be shared by the heads.
    """
    transformers = text_library("transformers")
    if width % heads:
        raise FewlabelError(
            f"A width of {width} cannot be shared by {heads} heads: give a multiple of {heads}."
        )
    config = transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=longest,
        pad_token_id=tokenizer.token_to_id(PAD),
    )
    return TextEncoder(transformers.BertModel(config, add_pooling_layer=False), tokenizer, longest=longest)
