"""Texts that belong to images: the sentences of each study as token ids, one of them drawn for an image of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fewlabel.types import FewlabelError, Tokens

PIECE = 1024
"""Sentences that are tokenised at once."""


@dataclass(frozen=True)
class Sentences:
    """The texts of M studies, of which N images were taken; made by `of`.

    tokens: (total,) int32, the real tokens of all S sentences one behind the other.
    starts: (S + 1,) int64, where each sentence begins. first: (M + 1,) int64, number of each study's first sentence.
    study: (N,) int64 in 0..M-1, the study of each image; the images of a study share its sentences.
    truncated: how many of the S sentences were cut because they were too long.
    """

    tokens: np.ndarray
    starts: np.ndarray
    first: np.ndarray
    study: np.ndarray
    truncated: int

    @staticmethod
    def of(
        texts: Sequence[Sequence[str]],
        tokenise: Callable[[Sequence[str]], Tokens],
        study: np.ndarray | None = None,
    ) -> Sentences:
        """Tokenise the sentences of each study.

        texts: for each study what one text is drawn from: its sentences, or its whole section as the only one.
        tokenise: that of the `TextEncoder` which is to read them.
        study: (N,) the place in `texts` of each image's study; None = image i has texts[i].
        Raises FewlabelError if an image's study is not there or has no sentence.
        """
        study = np.arange(len(texts)) if study is None else np.asarray(study, dtype=np.int64)
        counts = np.array([len(sentences) for sentences in texts], dtype=np.int64)
        if len(study) and not (study.min() >= 0 and study.max() < len(texts)):
            raise FewlabelError(
                f"The images name studies from {study.min()} to {study.max()} and there are texts of {len(texts)}: "
                "number studies by their place in the list of texts."
            )
        silent = study[counts[study] == 0]
        if len(silent):
            studies = len(np.unique(silent))
            raise FewlabelError(
                f"Of {studies} studies, such as number {silent[0]}, there are images and no sentence: leave "
                "these images out."
            )
        ids, truncated = _tokenised([text for sentences in texts for text in sentences], tokenise)
        return Sentences(
            np.concatenate(ids).astype(np.int32) if ids else np.zeros(0, np.int32),
            _starts(np.array([len(one) for one in ids], dtype=np.int64)),
            _starts(counts),
            study,
            truncated,
        )

    def __len__(self) -> int:
        """S, the number of sentences."""
        return len(self.starts) - 1

    def draw(self, images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """For each image the number of one sentence of its study, each with the same chance; (B,) -> (B,)."""
        study = self.study[images]
        return self.first[study] + generator.integers(0, self.first[study + 1] - self.first[study])

    def padded(self, numbers: np.ndarray) -> Tokens:
        """The sentences of these numbers (B,), padded to the longest of them."""
        starts, ends = self.starts[numbers], self.starts[numbers + 1]
        places = np.arange((ends - starts).max())  # (T,)
        mask = places < (ends - starts)[:, None]  # (B, T)
        ids = np.where(mask, self.tokens[np.minimum(starts[:, None] + places, len(self.tokens) - 1)], 0)
        return Tokens(torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(mask))


def _tokenised(texts: list[str], tokenise: Callable[[Sequence[str]], Tokens]) -> tuple[list[np.ndarray], int]:
    """The real tokens of each text, and how many texts were cut."""
    pieces = [tokenise(texts[start : start + PIECE]) for start in range(0, len(texts), PIECE)]
    return list(_unpadded(pieces)), sum(piece.truncated for piece in pieces)


def _unpadded(pieces: list[Tokens]) -> Iterator[np.ndarray]:
    for piece in pieces:
        for ids, mask in zip(piece.ids, piece.mask, strict=True):
            yield ids[mask].numpy().astype(np.int32)


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
