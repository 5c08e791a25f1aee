"""Texts of images: which sentence is drawn for whom, and that it does not depend on how a batch is divided."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_texts import SIZE_PX, toy_studies

from fewlabel.networks import load_text_encoder
from fewlabel.objectives import ConVIRT
from fewlabel.training import Compute, Sentences, TrainingSet, fit, load_tensors, loop
from fewlabel.training.feeding import batches, pieces_of
from fewlabel.types import Batch, FewlabelError, Schedule, Tokens
from fewlabel.views import medical_views, plain_view


def letters(texts: Sequence[str]) -> Tokens:
    """Letters as tokens, cut at 4."""
    cut = [text[:4] for text in texts]
    rows = [torch.tensor([ord(letter) for letter in text]) for text in cut]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return Tokens(ids, ids > 0, sum(len(text) > 4 for text in texts))


def words(tokens: Tokens) -> list[str]:
    return ["".join(chr(i) for i in ids[mask]) for ids, mask in zip(tokens.ids, tokens.mask, strict=True)]


TEXTS = [["a", "bb", "cccc"], [], ["d"], ["ee", "toolong"]]


def test_sentences_come_back_padded_to_the_longest() -> None:
    sentences = Sentences.of(TEXTS, letters, np.array([0, 0, 2, 3]))
    assert len(sentences) == 6
    assert sentences.truncated == 1
    assert words(sentences.padded(np.arange(6))) == ["a", "bb", "cccc", "d", "ee", "tool"]
    some = sentences.padded(np.array([3, 1]))
    assert some.ids.tolist() == [[100, 0], [98, 98]]
    assert some.mask.tolist() == [[True, False], [True, True]]
    assert (some.ids.dtype, some.mask.dtype) == (torch.int64, torch.bool)


def test_each_sentence_of_the_study_has_the_same_chance_and_no_other_has_any() -> None:
    sentences = Sentences.of(TEXTS, letters, np.array([0, 0, 2, 3]))
    drawn = sentences.draw(np.zeros(3000, int), np.random.default_rng(0))
    assert np.bincount(drawn, minlength=6) / 3000 == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0, 0, 0], abs=0.04)
    assert set(sentences.draw(np.full(50, 1), np.random.default_rng(0))) == {0, 1, 2}  # shared with image 0
    assert set(sentences.draw(np.full(50, 2), np.random.default_rng(0))) == {3}
    assert set(sentences.draw(np.full(50, 3), np.random.default_rng(0))) == {4, 5}


def test_more_sentences_than_are_tokenised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewlabel.training.sentences.PIECE", 4)
    sentences = Sentences.of(TEXTS, letters, np.array([0]))
    assert words(sentences.padded(np.arange(6))) == ["a", "bb", "cccc", "d", "ee", "tool"]
    assert sentences.truncated == 1


def test_mistakes() -> None:
    with pytest.raises(FewlabelError, match="Of 1 studies, such as number 1, there are images and no"):
        Sentences.of(TEXTS, letters)
    with pytest.raises(FewlabelError, match="studies from 0 to 4 and there are texts of 4"):
        Sentences.of(TEXTS, letters, np.array([0, 4]))
    images = np.zeros((3, 1, 4, 4), np.uint8)
    with pytest.raises(FewlabelError, match="2 texts came with 3 images"):
        TrainingSet((images,), (np.arange(3),), texts=Sentences.of(TEXTS, letters, np.array([0, 2])))


def data_of(count: int, groups: bool = False) -> TrainingSet:
    """Image i is grey of brightness i; images 2k and 2k + 1 are of study k, whose texts start with its letter.

    groups: with patients of two studies each.
    """
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8), np.uint8)
    texts = [[chr(97 + k), chr(97 + k) + "x", chr(97 + k) + "xyz"] for k in range(count // 2)]
    study = np.arange(count) // 2
    sentences = Sentences.of(texts, letters, study)
    return TrainingSet((images,), (np.arange(count),), groups=study // 2 if groups else None, texts=sentences)


def drawn_batches(data: TrainingSet, steps: Sequence[int], **settings: Any) -> list[Batch]:
    plan = Schedule(100, 6, 0.1, **settings)
    pieces = [piece for step in steps for piece in pieces_of(step, data, plan, 8)]
    return list(batches(pieces, data, (plain_view(8),), plan, device=torch.device("cpu"), channels_last=True))


@pytest.mark.parametrize("groups", [False, True])
def test_a_batch_holds_a_sentence_of_each_images_own_study(groups: bool) -> None:
    for batch in drawn_batches(data_of(20, groups), range(6)):
        assert batch.text is not None
        shown = (batch.views[0][:, 0, 0, 0] * 255).round().int() // 2
        assert [word[0] for word in words(batch.text)] == [chr(97 + int(k)) for k in shown]
        assert not groups or sorted((shown // 2).tolist()) == [0, 1, 2, 3, 4]


def test_a_sentence_depends_on_seed_and_step_alone() -> None:
    def said(steps: Sequence[int], **settings: Any) -> list[str]:
        return [word for batch in drawn_batches(data_of(20), steps, **settings) for word in words(batch.text)]

    whole = said(range(8))
    assert said(range(4, 8)) == whole[24:]  # as a resumed run asks for them
    assert said(range(8), micro_batch=4) == whole
    assert said(range(8), micro_batch=1) == whole
    assert said(range(8), seed=1) != whole
    lengths = {len(word) for word in whole}
    assert lengths == {1, 2, 4}


def test_a_run_that_was_stopped_ends_with_the_same_weights(text_folder: Path, tmp_path: Path) -> None:
    def train(out: Path, sentences: int = 3) -> dict[str, torch.Tensor]:
        images, _, texts = toy_studies(20)
        torch.manual_seed(0)
        encoder: Any = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(SIZE_PX**2, 8))
        encoder.dim = 8
        text_encoder = load_text_encoder(text_folder, frozen_layers=1, longest=32)
        objective = ConVIRT(encoder, text_encoder, embedding_dim=8)
        data = TrainingSet(
            (images,),
            (np.arange(20),),
            texts=Sentences.of([one[:sentences] for one in texts], text_encoder.tokenise),
        )
        plan = Schedule(6, 8, 0.01, warmup_steps=1)
        fit(objective, data, medical_views(SIZE_PX), plan, out=out, checkpoint_every=2, compute=Compute("32"))
        return objective.state_dict()

    wanted = train(tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        save = loop._Run._save

        def save_and_stop(run: loop._Run) -> None:
            save(run)
            if run.step == 4:
                raise KeyboardInterrupt

        patch.setattr(loop._Run, "_save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "stopped")
    assert load_tensors(tmp_path / "stopped" / "checkpoint.safetensors")[1]["step"] == "4"
    found = train(tmp_path / "stopped")
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    with pytest.raises(FewlabelError, match="sentences: 60 there, 40 here"):
        train(tmp_path / "stopped", sentences=2)
