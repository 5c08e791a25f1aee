"""Masked-language modelling. Devlin, Chang, Lee, Toutanova 2018, arXiv:1810.04805, section 3.1.

15 % of a text's words are chosen; of these 80 % become [MASK], 10 % another token at random, and 10 % stay. The loss is

    L = -1/|M| sum_{i in M} log p(token_i | text as changed),     M the chosen places of the batch.

Departures: a text's least draw is chosen whatever it is, so that one short sentence has a share in the loss too; the
next-sentence task is left out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fewlabel.networks import TextEncoder
from fewlabel.networks.text import MASK, SPECIAL
from fewlabel.types import Batch, FewlabelError, Tokens


def mask_tokens(
    text: Tokens, *, special: torch.Tensor, mask_id: int, vocabulary_size: int, share: float = 0.15
) -> tuple[torch.Tensor, torch.Tensor]:
    """The changed ids (B, T), and the chosen places (B, T) bool; from torch's own random numbers.

    special: ids that are never chosen, such as those of [CLS] and [SEP]. share: of the others that are.
    Source: arXiv:1810.04805, section 3.1 and appendix A.1.
    """
    ids = text.ids
    words = text.mask & ~torch.isin(ids, special)
    draw = torch.rand(ids.shape, device=ids.device).masked_fill(~words, 2.0)
    chosen = words & ((draw < share) | (draw == draw.amin(dim=1, keepdim=True)))
    fate = torch.rand(ids.shape, device=ids.device)
    other = torch.randint(vocabulary_size, ids.shape, device=ids.device)
    changed = ids.masked_fill(chosen & (fate < 0.8), mask_id)
    return torch.where(chosen & (fate >= 0.9), other, changed), chosen


class MaskedLanguage(nn.Module):
    """A text encoder and a head (thrown away) that tells the hidden tokens by the encoder's own embeddings of words.

    encoder: with a tokenizer that knows [MASK], as `train_tokenizer` makes it; else FewlabelError is raised.
    share: of the tokens that are chosen.
    """

    name = "masked-language"
    paper = "Devlin et al. 2018, arXiv:1810.04805"
    view_count = 0
    needs_labels = False
    special: torch.Tensor

    def __init__(self, encoder: TextEncoder, *, share: float = 0.15) -> None:
        super().__init__()
        self.encoder, self.share = encoder, share
        mask_id = encoder.tokenizer.token_to_id(MASK)
        if mask_id is None:
            raise FewlabelError(
                f"The tokenizer has no token {MASK}: give one made by train_tokenizer, or a BERT's own."
            )
        self.mask_id: int = mask_id
        known = (encoder.tokenizer.token_to_id(token) for token in SPECIAL)
        self.register_buffer("special", torch.tensor([i for i in known if i is not None]), persistent=False)
        words = encoder.network.get_input_embeddings().num_embeddings
        self.transform = nn.Sequential(
            nn.Linear(encoder.dim, encoder.dim), nn.GELU(), nn.LayerNorm(encoder.dim)
        )
        self.bias = nn.Parameter(torch.zeros(words))

    def loss(self, batch: Batch) -> torch.Tensor:
        """The scalar loss of a batch of texts; FewlabelError if it has none."""
        if batch.text is None:
            raise FewlabelError("MaskedLanguage got a batch without text: give the training set its texts.")
        changed, chosen = mask_tokens(
            batch.text,
            special=self.special,
            mask_id=self.mask_id,
            vocabulary_size=len(self.bias),
            share=self.share,
        )
        h = self.transform(self.encoder.outputs(changed, batch.text.mask)[chosen])  # (M, F)
        scores = F.linear(h, self.encoder.network.get_input_embeddings().weight, self.bias)  # (M, words)
        found = F.cross_entropy(scores.float(), batch.text.ids[chosen], reduction="sum")
        return found / chosen.sum().clamp(min=1)
