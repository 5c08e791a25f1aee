"""ConVIRT and two towers: the loss by the paper's loops, gradients, frozen layers, pieces, and a toy to learn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_encoders import small_encoder, two_views_of
from torch import nn
from toy_texts import PLACES, SENTENCES, SIZE_PX, TEMPLATES, toy_studies

from fewlabel.networks import TextEncoder, load_text_encoder
from fewlabel.objectives import ConVIRT, TwoTowers, info_nce
from fewlabel.training import Compute, Sentences, TrainingSet, fit, load_tensors, save_tensors
from fewlabel.types import Batch, FewlabelError, Schedule, Tokens
from fewlabel.views import plain_view

PLAIN = Compute("32")


class Pixels(nn.Module):
    """Images (B, 1, 16, 16) -> features (B, 48); no batch statistics and no dropout."""

    dim = 48

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(SIZE_PX**2, 48), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def text_encoder(folder: Path, frozen_layers: int | None = 1, *, dropout: bool = True) -> TextEncoder:
    encoder = load_text_encoder(folder, frozen_layers=frozen_layers, longest=32)
    for layer in encoder.modules():
        if isinstance(layer, nn.Dropout) and not dropout:
            layer.p = 0.0
    for layer in encoder.network.encoder.layer if not dropout else ():
        layer.attention.self.dropout_prob = 0.0
    return encoder


def objective_of(folder: Path, *, seed: int = 0, dropout: bool = True, **settings: Any) -> ConVIRT:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        image_encoder: Any = Pixels()
        return ConVIRT(image_encoder, text_encoder(folder, dropout=dropout), embedding_dim=32, **settings)


def batch_of(objective: ConVIRT, count: int = 6) -> Batch:
    images, _, texts = toy_studies(count)
    view = torch.from_numpy(images).float() / 255
    return Batch(views=(view,), text=objective.text_encoder.tokenise([one[0] for one in texts]))


def data_of(folder: Path, count: int, seed: int = 0) -> TrainingSet:
    images, _, texts = toy_studies(count, seed)
    sentences = Sentences.of(texts, text_encoder(folder).tokenise)
    return TrainingSet((images,), (np.arange(count),), texts=sentences)


def loss_by_loops(v: list[list[float]], u: list[list[float]], tau: float, weight: float) -> float:
    """Equations 2 to 4, with nothing but numbers."""

    def cosine(a: list[float], b: list[float]) -> float:
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))

    total = 0.0
    for i in range(len(v)):
        own = math.exp(cosine(v[i], u[i]) / tau)
        to_text = -math.log(own / sum(math.exp(cosine(v[i], other) / tau) for other in u))
        to_image = -math.log(own / sum(math.exp(cosine(u[i], other) / tau) for other in v))
        total += weight * to_text + (1 - weight) * to_image
    return total / len(v)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.75, 1.0])
def test_the_loss_is_that_of_the_papers_equations(text_folder: Path, weight: float) -> None:
    objective = objective_of(text_folder, weight=weight).double().eval()
    batch = batch_of(objective)
    batch = Batch(views=(batch.views[0].double(),), text=batch.text)
    v, u = (z.detach() for z in objective.embed_views(batch))
    wanted = loss_by_loops(v.tolist(), u.tolist(), 0.1, weight)
    assert objective.loss(batch).item() == pytest.approx(wanted, rel=1e-9)
    assert abs(wanted - loss_by_loops(u.tolist(), v.tolist(), 0.1, weight)) > 1e-3 or weight == 0.5


def test_a_case_by_hand() -> None:
    """v = (1,0), (0,1); u = (1,0), (1,0); tau 1. To text ln 2 twice; to image ln(1 + 1/e) and ln(1 + e)."""
    v, u = torch.eye(2).double(), torch.tensor([[1.0, 0.0], [1.0, 0.0]]).double()
    to_text, to_image = math.log(2), (math.log(1 + math.exp(-1)) + math.log(1 + math.e)) / 2
    for weight in (0.0, 0.75, 1.0):
        found = float(info_nce(v, u, temperature=1.0, weight=weight))
        assert found == pytest.approx(weight * to_text + (1 - weight) * to_image)


def test_it_is_what_the_paper_says(text_folder: Path) -> None:
    objective = ConVIRT(small_encoder(), text_encoder(text_folder))
    assert (objective.temperature, objective.weight) == (0.1, 0.75)
    for head, width in ((objective.head, objective.encoder.dim), (objective.text_head, 32)):
        assert [type(layer) for layer in head] == [nn.Linear, nn.ReLU, nn.Linear]
        assert (head[0].in_features, head[2].out_features) == (width, 512)
    assert not {id(p) for p in objective.head.parameters()} & {
        id(p) for p in objective.text_head.parameters()
    }


def test_gradients_are_everywhere_but_in_frozen_layers(text_folder: Path) -> None:
    objective = objective_of(text_folder)
    objective.loss(batch_of(objective)).backward()
    frozen = {id(p) for part in objective.text_encoder.frozen_parts() for p in part.parameters()}
    assert len(frozen) > 10
    for name, p in objective.named_parameters():
        assert (p.grad is None) == (id(p) in frozen), name


def test_no_parameter_of_the_image_side_moves_the_text_side(text_folder: Path) -> None:
    objective = objective_of(text_folder).eval()
    v, u = objective.embed_views(batch_of(objective))
    image = [*objective.encoder.parameters(), *objective.head.parameters()]
    text = [
        p
        for part in (objective.text_encoder, objective.text_head)
        for p in part.parameters()
        if p.requires_grad
    ]
    assert all(g is None for g in torch.autograd.grad(u.sum(), image, allow_unused=True, retain_graph=True))
    assert all(g is None for g in torch.autograd.grad(v.sum(), text, allow_unused=True))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lars"])
def test_frozen_layers_stay_to_the_bit_under_weight_decay(text_folder: Path, optimizer: Any) -> None:
    objective = objective_of(text_folder)
    before = {key: value.clone() for key, value in objective.state_dict().items()}
    plan = Schedule(4, 8, 0.01, weight_decay=0.5, optimizer=optimizer)
    fit(objective, data_of(text_folder, 16), plain_view(SIZE_PX), plan, compute=PLAIN)
    frozen = ("text_encoder.network.embeddings.", "text_encoder.network.encoder.layer.0.")
    for key, value in objective.state_dict().items():
        assert torch.equal(value, before[key]) == key.startswith(frozen), key


def test_a_permuted_batch_has_the_same_loss_and_permuted_embeddings(text_folder: Path) -> None:
    objective = objective_of(text_folder).eval()
    batch, order = batch_of(objective), torch.tensor([3, 0, 5, 1, 4, 2])
    assert batch.text is not None
    moved = Batch((batch.views[0][order],), text=Tokens(batch.text.ids[order], batch.text.mask[order]))
    for a, b in zip(objective.embed_views(moved), objective.embed_views(batch), strict=True):
        assert torch.allclose(a, b[order], atol=1e-5)
    assert objective.loss(moved).item() == pytest.approx(objective.loss(batch).item(), abs=1e-5)


@pytest.mark.parametrize("micro_batch", [1, 3, 4])
def test_pieces_give_the_weights_of_the_whole_batch(text_folder: Path, micro_batch: int) -> None:
    found, losses = [], []
    for pieces in (None, micro_batch):
        objective = objective_of(text_folder, dropout=False)
        plan = Schedule(3, 8, 0.02, optimizer="sgd", micro_batch=pieces)
        result = fit(
            objective, data_of(text_folder, 20), plain_view(SIZE_PX), plan, log_every=1, compute=PLAIN
        )
        found.append(objective)
        losses.append([row["loss"] for row in result.history])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    for a, b in zip(*(one.parameters() for one in found), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_same_seed_same_weights_and_survives_saving(text_folder: Path, tmp_path: Path) -> None:
    states = []
    for _ in range(2):
        objective = objective_of(text_folder)
        fit(objective, data_of(text_folder, 20), plain_view(SIZE_PX), Schedule(3, 6, 1e-3), compute=PLAIN)
        states.append(objective.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    save_tensors(states[0], tmp_path / "objective.safetensors")
    again = objective_of(text_folder, seed=5)
    again.load_state_dict(load_tensors(tmp_path / "objective.safetensors")[0])
    batch = batch_of(objective)
    assert torch.equal(again.eval().loss(batch), objective.eval().loss(batch))


def precision_at_10(objective: ConVIRT, images: np.ndarray, places: np.ndarray) -> float:
    """Text to image: the share of images of the right place among the ten nearest of each sentence."""
    tokens = objective.text_encoder.tokenise(SENTENCES)
    with torch.no_grad():
        v = nn.functional.normalize(objective.embed(torch.from_numpy(images).float() / 255), dim=1)
        u = nn.functional.normalize(objective.embed_text(tokens.ids, tokens.mask), dim=1)
    nearest = (u @ v.T).topk(10).indices.numpy()  # (sentences, 10)
    meant = np.arange(len(SENTENCES)) // len(TEMPLATES)
    return float((places[nearest] == meant[:, None]).mean())


def test_sentences_find_images_they_have_never_seen(text_folder: Path) -> None:
    """Chance is 1/8. Any of the three sentences may be drawn for an image."""
    images, places, _ = toy_studies(160, seed=1)
    objective = objective_of(text_folder)
    chance = precision_at_10(objective.eval(), images, places)
    plan = Schedule(250, 32, 3e-3, warmup_steps=10, optimizer="adam")
    fit(objective, data_of(text_folder, 240), plain_view(SIZE_PX), plan, compute=PLAIN)
    assert chance < 0.3
    assert precision_at_10(objective.eval(), images, places) > 0.8
    assert len(PLACES) == 8


TWO = """
    import sys
    from pathlib import Path
    import torch, torch.distributed as dist
    from fewlabel.training import Compute, fit
    from fewlabel.types import Schedule
    from fewlabel.views import plain_view
    from test_convirt import SIZE_PX, data_of, objective_of

    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    objective = objective_of(folder, dropout=False)
    plan = Schedule(3, 8, 0.02, optimizer="sgd")
    fit(objective, data_of(folder, 20), plain_view(SIZE_PX), plan, out=out, compute=Compute("32"))
    assert dist.get_world_size() == 2
    dist.destroy_process_group()
"""


def test_two_processes_train_as_one_on_the_joint_batch(
    in_two_processes: Any, text_folder: Path, tmp_path: Path
) -> None:
    here = Path(__file__).parent
    in_two_processes(TWO, text_folder, tmp_path / "two", path=[here, here.parent])
    objective = objective_of(text_folder, dropout=False)
    plan = Schedule(3, 8, 0.02, optimizer="sgd")
    fit(objective, data_of(text_folder, 20), plain_view(SIZE_PX), plan, compute=PLAIN)
    found, _ = load_tensors(tmp_path / "two" / "checkpoint.safetensors")
    for key, value in objective.state_dict().items():
        assert torch.allclose(found[f"model.{key}"], value, atol=1e-5), key


def test_two_towers_are_apart_or_one() -> None:
    apart = TwoTowers(small_encoder(), small_encoder(seed=1), embedding_dim=16, weight=0.3)
    x1, x2 = two_views_of().views
    apart.eval()
    wanted = info_nce(apart.embed(x1), apart.embed_other(x2), temperature=0.1, weight=0.3)
    assert torch.equal(apart.loss(Batch((x1, x2))), wanted)
    assert not torch.equal(apart.loss(Batch((x2, x1))), wanted)
    apart.train().loss(two_views_of()).backward()
    assert all(p.grad is not None for p in apart.parameters())
    one = TwoTowers(small_encoder(), embedding_dim=16).eval()
    assert torch.equal(one.embed(x1), one.embed_other(x1))
    assert len(list(one.parameters())) * 2 == len(list(apart.parameters()))
    assert one.loss(Batch((x2, x1))).item() == pytest.approx(one.loss(Batch((x1, x2))).item(), abs=1e-5)


def test_two_towers_train_on_pairs_of_a_study() -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 1, 32, 32), dtype=np.uint8)
    data = TrainingSet((images,), (np.arange(12),), groups=np.arange(12) // 2)
    objective = TwoTowers(small_encoder(), small_encoder(seed=1), embedding_dim=16)
    before = [p.clone() for p in objective.parameters()]
    result = fit(objective, data, plain_view(32), Schedule(2, 6, 1e-3, micro_batch=3), compute=PLAIN)
    assert np.isfinite(result.history[-1]["loss"])
    assert not any(torch.equal(a, b) for a, b in zip(before, objective.parameters(), strict=True))


def test_mistakes(text_folder: Path) -> None:
    objective = objective_of(text_folder)
    batch = batch_of(objective)
    with pytest.raises(
        FewlabelError, match=r"1 view\(s\) of each image and no text: it needs one view and one text"
    ):
        objective.loss(Batch(views=batch.views))
    with pytest.raises(FewlabelError, match=r"ConVIRT got 2 view\(s\)"):
        objective.loss(Batch(views=batch.views * 2, text=batch.text))
    with pytest.raises(FewlabelError, match="temperature is 0"):
        objective_of(text_folder, temperature=0.0)
