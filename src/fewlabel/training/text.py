"""A text encoder from the user's own texts, without any download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fewlabel.networks import TextEncoder, small_bert, train_tokenizer
from fewlabel.objectives.masked_language import MaskedLanguage
from fewlabel.training.data import TrainingSet, mix_seed
from fewlabel.training.loop import FitResult, fit
from fewlabel.training.sentences import Sentences
from fewlabel.types import Schedule
from fewlabel.views import plain_view


def train_text_encoder(
    texts: Sequence[str],
    folder: Path,
    *,
    vocabulary_size: int = 8000,
    layers: int = 4,
    width: int = 128,
    heads: int = 4,
    longest: int = 128,
    schedule: Schedule | None = None,
    progress: str = "",
) -> tuple[TextEncoder, FitResult]:
    """WordPiece, and a small BERT by masked-language modelling, both of these texts; written into `folder`.

    texts: sentences or whole sections; only those of training patients, where others are to be tested.
    layers, width, heads, longest: as of `small_bert`.
    schedule: None = 2000 steps of 64 texts, AdamW with a peak rate of 5e-4. The seed decides the first weights too.
    Returns the encoder, nothing of it frozen, and how training went; interrupted, the same call goes on where it was.
    Raises FewlabelError as `train_tokenizer`, `small_bert` and `fit` do.
    """
    schedule = schedule or Schedule(2000, 64, 5e-4, warmup_steps=100, weight_decay=0.01)
    tokenizer = train_tokenizer(texts, vocabulary_size, folder)
    with torch.random.fork_rng():
        torch.manual_seed(mix_seed("text encoder", schedule.seed))
        encoder = small_bert(tokenizer, layers=layers, width=width, heads=heads, longest=longest)
        objective = MaskedLanguage(encoder)
    unseen = np.zeros((1, 1, 1, 1), np.uint8)  # the picture of every text: this objective looks at no view
    sentences = Sentences.of([[text] for text in texts], encoder.tokenise)
    data = TrainingSet((unseen,), (np.zeros(len(texts), np.int64),), texts=sentences)
    result = fit(objective, data, plain_view(1), schedule, out=folder / "training", progress=progress)
    encoder.save(folder)
    return encoder, result
