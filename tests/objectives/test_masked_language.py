"""Masked-language modelling: which tokens are hidden, and how."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from toy_texts import SENTENCES

from fewlabel.networks import load_text_encoder
from fewlabel.objectives import MaskedLanguage, mask_tokens
from fewlabel.types import Batch, FewlabelError, Tokens

SPECIAL, MASK_ID, WORDS = torch.tensor([0, 1, 2]), 3, 1000


def masked(ids: torch.Tensor, mask: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return mask_tokens(Tokens(ids, mask), special=SPECIAL, mask_id=MASK_ID, vocabulary_size=WORDS)


def test_shares_are_the_papers() -> None:
    ids = torch.full((400, 100), 7)
    changed, chosen = masked(ids, torch.ones_like(ids, dtype=torch.bool))
    assert float(chosen.float().mean()) == pytest.approx(0.15, abs=0.01)
    assert torch.equal(changed[~chosen], ids[~chosen])
    fates = changed[chosen]
    assert float((fates == MASK_ID).float().mean()) == pytest.approx(0.8, abs=0.02)
    assert float((fates == 7).float().mean()) == pytest.approx(0.1, abs=0.02)
    other = fates[(fates != 7) & (fates != MASK_ID)]
    assert 0.08 < len(other) / len(fates) < 0.12
    assert len(other.unique()) > 300


def test_special_tokens_and_padding_are_never_hidden_and_every_text_has_a_share() -> None:
    ids = torch.tensor([[2, 9, 1, 0, 0], [2, 9, 8, 7, 1], [2, 1, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).bool()
    for seed in range(50):
        changed, chosen = masked(ids, mask, seed)
        assert not chosen[torch.isin(ids, SPECIAL) | ~mask].any()
        assert chosen.any(dim=1).tolist() == [True, True, False]
        assert torch.equal(changed[~chosen], ids[~chosen])


def test_the_loss_is_the_mean_log_chance_of_what_was_hidden(text_folder: Path) -> None:
    objective = MaskedLanguage(load_text_encoder(text_folder, frozen_layers=None, longest=32)).eval()
    text = objective.encoder.tokenise(SENTENCES[:5])
    torch.manual_seed(0)
    loss = objective.loss(Batch(views=(), text=text))
    torch.manual_seed(0)
    changed, chosen = mask_tokens(
        text, special=objective.special, mask_id=objective.mask_id, vocabulary_size=len(objective.bias)
    )
    outputs = objective.transform(objective.encoder.outputs(changed, text.mask))
    scores = outputs @ objective.encoder.network.embeddings.word_embeddings.weight.T + objective.bias
    places = chosen.nonzero().tolist()
    wanted = [-F.log_softmax(scores[b, t], dim=0)[text.ids[b, t]].item() for b, t in places]
    assert loss.item() == pytest.approx(sum(wanted) / len(wanted), rel=1e-4)
    loss.backward()
    assert [name for name, p in objective.named_parameters() if p.grad is None] == []


def test_a_batch_without_text_or_without_words(text_folder: Path) -> None:
    objective = MaskedLanguage(load_text_encoder(text_folder, frozen_layers=None, longest=32))
    with pytest.raises(FewlabelError, match="a batch without text"):
        objective.loss(Batch(views=()))
    assert objective.loss(Batch(views=(), text=objective.encoder.tokenise([""]))).item() == 0
