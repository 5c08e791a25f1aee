"""Images with the texts that came with them: what ConVIRT trains on, and its text encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fewlabel.networks import Encoder, EncoderSettings, TextEncoder, load_text_encoder
from fewlabel.objectives import ConVIRT
from fewlabel.pipeline.settings import TextSettings, TextView
from fewlabel.reports import PairedTexts, split_clauses
from fewlabel.splits import Split
from fewlabel.training import Sentences, TrainingSet, Watch, mix_seed, train_text_encoder
from fewlabel.types import Batch, FewlabelError, Schedule, Tokens
from fewlabel.views import draw_view, plain_view

TEXT_ENCODER = "text-encoder"
STALLED_LOOKS = 5
"""Validations without a better loss until the rate is halved, as in the paper."""
_LOOKS = 20


@dataclass(frozen=True)
class Pairs:
    """Everything that a ConVIRT training needs beside views and schedule."""

    objective: ConVIRT
    data: TrainingSet
    watch: Watch | None


def texts_fingerprint(texts: PairedTexts) -> str:
    """A short hash of which image has which sentences."""
    digest = hashlib.sha256(texts.rows.tobytes() + texts.text_of.tobytes())
    for sentences in texts.sentences:
        digest.update("\0".join(sentences).encode() + b"\1")
    return digest.hexdigest()[:16]


def make_pairs(
    texts: PairedTexts,
    split: Split,
    pixels: np.ndarray,
    network: EncoderSettings,
    settings: TextSettings,
    schedule: Schedule,
    *,
    temperature: float,
    out: Path,
    progress: bool = False,
) -> Pairs:
    """The networks and the pairs of training and validation patients.

    pixels: (N, C, S, S) of the collection. The text encoder is made in out/text-encoder, where an interrupted run
    takes it up again. Raises FewlabelError where fewer than two texts belong to training images, and as
    `load_text_encoder` does.
    """
    train, val = (_with_text(texts, rows) for rows in (split.train, split.val))
    studies = np.unique(texts.text_of[train])
    if len(studies) < 2:
        raise FewlabelError(
            f"{len(studies)} text belongs to the {len(split.train)} training images and pairs are to be told apart: "
            "give the reports of more images."
        )
    drawn = _drawn_from(texts, settings.view)
    text_encoder = _text_encoder([drawn[n] for n in studies], settings, schedule.seed, out, progress)
    objective = _objective(network, text_encoder, schedule.seed, settings.weight, temperature)
    sentences = Sentences.of(drawn, text_encoder.tokenise, texts.text_of[train])
    data = TrainingSet((pixels,), (texts.rows[train],), groups=texts.text_of[train], texts=sentences)
    watch = _watch(texts, val, drawn, pixels, network.size_px, schedule) if len(val) > 1 else None
    return Pairs(objective, data, watch)


def _with_text(texts: PairedTexts, rows: np.ndarray) -> np.ndarray:
    """Places in `texts` of those images that are among `rows`."""
    return np.flatnonzero(np.isin(texts.rows, rows))


def _drawn_from(texts: PairedTexts, view: TextView) -> Sequence[Sequence[str]]:
    if view == "section":
        return [[text] for text in texts.texts]
    if view == "clause":
        return [[part for one in said for part in split_clauses(one)] for said in texts.sentences]
    return texts.sentences


def _text_encoder(
    drawn: Sequence[Sequence[str]], settings: TextSettings, seed: int, out: Path, progress: bool
) -> TextEncoder:
    if settings.encoder is None:
        said = [text for texts in drawn for text in texts]
        schedule = Schedule(
            settings.steps, 64, 5e-4, warmup_steps=settings.steps // 20, weight_decay=0.01, seed=seed
        )
        title = "text encoder" if progress else ""
        found, _ = train_text_encoder(said, out / TEXT_ENCODER, schedule=schedule, progress=title)
    else:
        found = load_text_encoder(settings.encoder, frozen_layers=None)
    layers: Any = found.network.encoder.layer
    found.freeze(len(layers) // 2 if settings.frozen_layers is None else settings.frozen_layers)
    return found


def _objective(
    network: EncoderSettings, text_encoder: TextEncoder, seed: int, weight: float, temperature: float
) -> ConVIRT:
    with torch.random.fork_rng():
        torch.manual_seed(mix_seed("initial weights", seed))
        return ConVIRT(Encoder(network), text_encoder, weight=weight, temperature=temperature)


def _watch(
    texts: PairedTexts,
    val: np.ndarray,
    drawn: Sequence[Sequence[str]],
    pixels: np.ndarray,
    size_px: int,
    schedule: Schedule,
) -> Watch:
    """The loss of the validation pairs, each image with the first text of its study, in batches as in training."""
    order = np.random.default_rng(mix_seed("validation pairs", schedule.seed)).permutation(val)
    _, first = np.unique(texts.text_of[order], return_index=True)  # a study once
    order = order[np.sort(first)]
    size = min(schedule.batch_size, len(order))
    chunks = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]

    def score(objective: nn.Module) -> float:
        untyped: Any = objective
        device = next(objective.parameters()).device
        losses = []
        for chunk in chunks:
            images = torch.from_numpy(np.array(pixels[texts.rows[chunk]])).to(device)
            view = draw_view(images, plain_view(size_px), torch.Generator())
            tokens = untyped.text_encoder.tokenise([drawn[texts.text_of[place]][0] for place in chunk])
            said = Tokens(tokens.ids.to(device), tokens.mask.to(device))
            losses.append(float(untyped.loss(Batch((view,), text=said))))
        return -float(np.mean(losses))

    every = max(1, schedule.steps // _LOOKS)
    return Watch(score, every=every, patience=_LOOKS + 1, halve_after=STALLED_LOOKS)
