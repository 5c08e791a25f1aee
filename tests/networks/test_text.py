"""Text encoders: pooling over the real tokens, frozen layers, files without pickle, one's own tokenizer."""

from __future__ import annotations

import copy
import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fewlabel.networks import TextEncoder, load_text_encoder, small_bert, text, train_tokenizer
from fewlabel.types import FewlabelError

SENTENCES = [
    f"There is a {size} {finding} in the {side} {place}."
    for size in ("small", "large")
    for finding in ("nodule", "opacity", "effusion")
    for side in ("left", "right")
    for place in ("lung", "apex")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved BERT of 3 layers, whose tokenizer was trained on SENTENCES."""
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = train_tokenizer(SENTENCES, 90, folder)
    torch.manual_seed(0)
    small_bert(tokenizer, layers=3, width=32, heads=4, longest=16).save(folder)
    return folder


def loaded(folder: Path, frozen_layers: int | None = 1, longest: int = 16) -> TextEncoder:
    return load_text_encoder(folder, frozen_layers=frozen_layers, longest=longest)


def test_a_text_encoder_keeps_its_meaning_on_disk(folder: Path) -> None:
    first, second = loaded(folder).eval(), loaded(folder, None).eval()
    tokens = first.tokenise(SENTENCES)
    assert first.dim == 32
    assert first(tokens.ids, tokens.mask).shape == (len(SENTENCES), 32)
    assert torch.equal(first(tokens.ids, tokens.mask), second(tokens.ids, tokens.mask))
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_pooling_is_the_largest_output_of_the_real_tokens_special_ones_included(folder: Path) -> None:
    encoder = loaded(folder).eval()
    texts = [SENTENCES[0], "nodule"]
    tokens = encoder.tokenise(texts)
    pooled = encoder(tokens.ids, tokens.mask)
    for row, one in enumerate(texts):
        alone = encoder.tokenise([one])
        assert alone.mask.all()
        outputs = encoder.outputs(alone.ids, alone.mask)[0]  # [CLS] first, [SEP] last
        largest = torch.stack([max(outputs[:, f]) for f in range(encoder.dim)])
        assert torch.allclose(pooled[row], largest, atol=1e-5)


def test_padding_and_what_stands_in_it_change_nothing(folder: Path) -> None:
    encoder = loaded(folder).eval()
    short = encoder.tokenise(["small nodule"])
    wanted = encoder(short.ids, short.mask)
    for filler in (0, 7, 20):
        ids = nn.functional.pad(short.ids, (0, 9), value=filler)
        mask = nn.functional.pad(short.mask, (0, 9), value=False)
        assert torch.allclose(encoder(ids, mask), wanted, atol=1e-5)
        assert torch.allclose(encoder(ids, mask.long()), wanted, atol=1e-5)


def test_a_permuted_batch_gives_a_permuted_result(folder: Path) -> None:
    encoder = loaded(folder).eval()
    tokens = encoder.tokenise(SENTENCES)
    order = torch.randperm(len(SENTENCES))
    moved = encoder(tokens.ids[order], tokens.mask[order])
    assert torch.allclose(moved, encoder(tokens.ids, tokens.mask)[order], atol=1e-5)


def reached(result: torch.Tensor) -> set[int]:
    """Addresses of all tensors that the graph behind a result would send a gradient to."""
    found, waiting, seen = set(), [result.grad_fn], set()
    while waiting:
        node: Any = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        waiting += [following for following, _ in node.next_functions]
    return found


@pytest.mark.parametrize("layers", [None, 0, 1, 3])
def test_no_graph_reaches_what_is_frozen(folder: Path, layers: int | None) -> None:
    encoder = loaded(folder, layers)
    tokens = encoder.tokenise(SENTENCES[:3])
    frozen = {id(p) for part in encoder.frozen_parts() for p in part.parameters()}
    everything = {id(p) for p in encoder.parameters()}
    parts = {None: 0, 0: 1, 1: 2, 3: 4}[layers]
    assert len(encoder.frozen_parts()) == parts
    assert reached(encoder(tokens.ids, tokens.mask)) == everything - frozen
    embedded = encoder.network.embeddings(tokens.ids)
    assert embedded.requires_grad == (layers is None)


def test_what_is_frozen_has_no_dropout_noise_in_training(folder: Path) -> None:
    encoder = loaded(folder, 1).train()
    tokens = encoder.tokenise(SENTENCES[:3])
    assert torch.equal(encoder.network.embeddings(tokens.ids), encoder.network.embeddings(tokens.ids))
    assert not torch.equal(encoder(tokens.ids, tokens.mask), encoder(tokens.ids, tokens.mask))
    encoder.freeze(3)
    assert torch.equal(encoder(tokens.ids, tokens.mask), encoder(tokens.ids, tokens.mask))
    encoder.freeze(None)
    assert encoder.network.embeddings.training
    assert all(p.requires_grad for p in encoder.parameters())


def test_long_texts_are_cut_and_counted(folder: Path) -> None:
    encoder = loaded(folder, longest=6)
    tokens = encoder.tokenise([SENTENCES[0], "nodule", SENTENCES[5]])
    assert tokens.truncated == 2
    assert tokens.ids.shape == (3, 6)
    assert tokens.ids.dtype == torch.int64
    assert tokens.mask.dtype == torch.bool
    assert tokens.mask.sum(1).tolist()[0] == 6
    start, end = (encoder.tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    for ids, mask in zip(tokens.ids, tokens.mask, strict=True):
        assert (ids[mask][0], ids[mask][-1]) == (start, end)
        assert (ids[~mask] == encoder.tokenizer.token_to_id("[PAD]")).all()
    with pytest.raises(FewlabelError, match="give a list of at least one text"):
        encoder.tokenise("nodule")
    with pytest.raises(FewlabelError, match="give a list of at least one text"):
        encoder.tokenise([])


def test_word_pieces_go_there_and_back(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(SENTENCES, 90, tmp_path)
    for one in SENTENCES:
        encoded = tokenizer.encode(one)
        assert tokenizer.decode(encoded.ids) == one.lower()
        assert encoded.tokens[0] == "[CLS]"
        assert encoded.tokens[-1] == "[SEP]"
    assert tokenizer.encode("NODULE").ids == tokenizer.encode("nodule").ids
    pieces = tokenizer.encode("undiluted").tokens[1:-1]  # no word of the texts, of their letters
    assert len(pieces) > 1
    assert all(piece.startswith("##") for piece in pieces[1:])
    assert "[UNK]" in tokenizer.encode("z").tokens
    assert [tokenizer.id_to_token(i) for i in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.get_vocab_size() <= 90


def test_the_same_texts_give_the_same_tokenizer(tmp_path: Path) -> None:
    files = []
    for name in "abcd":
        train_tokenizer(SENTENCES, 60, tmp_path / name)  # many pairs of letters are equally frequent
        files.append((tmp_path / name / "tokenizer.json").read_text())
    assert len(set(files)) == 1


def test_texts_without_words_and_vocabularies_without_room(tmp_path: Path) -> None:
    with pytest.raises(FewlabelError, match="give texts with words"):
        train_tokenizer(["", " "], 100, tmp_path)
    with pytest.raises(FewlabelError, match="a vocabulary with room"):
        train_tokenizer(SENTENCES, 12, tmp_path)


def test_a_pickle_is_never_loaded(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "config.json", tmp_path)
    shutil.copy(folder / "tokenizer.json", tmp_path)
    with pytest.raises(FewlabelError, match="holds no weights: text encoders are loaded from"):
        load_text_encoder(tmp_path)
    torch.save(loaded(folder).network.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(FewlabelError, match=r"holds only pytorch_model\.bin, a pickle that can run"):
        load_text_encoder(tmp_path)


def test_weights_that_leave_layers_at_random_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    config = (
        (tmp_path / "config.json").read_text().replace('"num_hidden_layers": 3', '"num_hidden_layers": 4')
    )
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(FewlabelError, match=r"say nothing of 16 of its layers, such as encoder\.layer\.3"):
        load_text_encoder(tmp_path)


def test_a_folder_with_a_vocabulary_in_place_of_a_tokenizer_file(folder: Path, tmp_path: Path) -> None:
    """As Bio_ClinicalBERT is kept: vocab.txt, and weights with heads that are of no use here."""
    transformers = text.text_library("transformers")
    encoder = loaded(folder, None).eval()
    masked = transformers.BertForMaskedLM(encoder.network.config)
    masked.bert.load_state_dict(encoder.network.state_dict())
    masked.save_pretrained(tmp_path)
    vocabulary = encoder.tokenizer.get_vocab()
    (tmp_path / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)))
    again = loaded(tmp_path, None).eval()
    here, there = encoder.tokenise(SENTENCES), again.tokenise(SENTENCES)
    assert torch.equal(here.ids, there.ids)
    assert torch.equal(here.mask, there.mask)
    assert torch.allclose(encoder(here.ids, here.mask), again(here.ids, here.mask), atol=1e-6)


def test_other_berts() -> None:
    transformers = text.text_library("transformers")
    tokenizers = text.text_library("tokenizers")
    config = transformers.RobertaConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 5}, unk_token="a"))
    encoder = TextEncoder(transformers.RobertaModel(config), tokenizer, frozen_layers=1, longest=8)
    assert encoder(torch.full((2, 4), 5), torch.ones(2, 4)).shape == (2, 16)
    assert all(p.requires_grad for p in encoder.network.encoder.layer[1].parameters())
    distil = transformers.DistilBertModel(
        transformers.DistilBertConfig(vocab_size=40, n_layers=1, n_heads=2, dim=16)
    )
    with pytest.raises(FewlabelError, match="A DistilBertModel has no embeddings and encoder layers"):
        TextEncoder(distil, tokenizer)


def test_mistakes(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        FewlabelError, match="6 layers were to be frozen and the network has 3: give frozen_layers from 0"
    ):
        load_text_encoder(folder, longest=16)
    with pytest.raises(FewlabelError, match="it must lie from 3 to the network's 16"):
        loaded(folder, longest=17)
    with pytest.raises(FewlabelError, match="There is no folder"):
        load_text_encoder(tmp_path / "nowhere")
    with pytest.raises(FewlabelError, match=r"There is no folder \./nowhere"):
        load_text_encoder("./nowhere")
    big = train_tokenizer([*SENTENCES, "Pneumothorax, cardiomegaly!"], 200, tmp_path)
    with pytest.raises(FewlabelError, match="they do not belong together"):
        TextEncoder(loaded(folder).network, big, longest=16)
    with pytest.raises(FewlabelError, match="A width of 30 cannot be shared by 4 heads"):
        small_bert(big, width=30)


def test_the_hub_is_asked_for_safetensors_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network here: what would be asked is looked at, and its failure is one sentence."""
    transformers, asked = text.text_library("transformers"), []

    def refuse(name: str, **arguments: Any) -> None:
        asked.append((name, arguments["use_safetensors"], arguments["local_files_only"]))
        raise OSError("offline")

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", refuse)
    with pytest.raises(
        FewlabelError, match=r"Bio_ClinicalBERT could not be fetched from the hub \(OSError\)"
    ):
        load_text_encoder()
    assert asked == [("emilyalsentzer/Bio_ClinicalBERT", True, False)]


@pytest.mark.parametrize("missing", ["transformers", "tokenizers"])
def test_a_missing_extra_is_one_sentence(
    missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = importlib.import_module

    def without(name: str, *rest: Any) -> Any:
        if name == missing:
            raise ImportError(f"No module named '{name}'")
        return original(name, *rest)

    monkeypatch.setattr(text.importlib, "import_module", without)
    with pytest.raises(FewlabelError, match=r'run pip install "fewlabel\[text\]"'):
        text.text_library(missing)


def test_a_copy_is_a_whole_one(folder: Path) -> None:
    encoder = loaded(folder, 1).eval()
    copied = copy.deepcopy(encoder)
    tokens = copied.tokenise(SENTENCES)
    assert torch.equal(copied(tokens.ids, tokens.mask), encoder(tokens.ids, tokens.mask))
    assert [p.requires_grad for p in copied.parameters()] == [p.requires_grad for p in encoder.parameters()]
