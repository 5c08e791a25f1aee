"""MoCo: the paper's loops, one case by hand, the queue, and the keys' network."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_encoders import small_encoder, two_views_of

from fewlabel.objectives import MoCo, moco, moco_contrast
from fewlabel.types import FewlabelError


def small_moco(**settings: float) -> MoCo:
    torch.manual_seed(0)
    return MoCo(small_encoder(), **{"embedding_dim": 8, "queue_size": 16, **settings})


def contrast_by_loops(q: torch.Tensor, k: torch.Tensor, queue: torch.Tensor, temperature: float) -> float:
    total = 0.0
    for i in range(len(q)):
        a, own = q[i] / q[i].norm(), k[i] / k[i].norm()
        keys = [math.exp(float(a @ key) / temperature) for key in (own, *queue)]
        total -= math.log(keys[0] / sum(keys))
    return total / len(q)


def unit_rows(count: int, generator: torch.Generator) -> torch.Tensor:
    rows = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return rows / rows.norm(dim=1, keepdim=True)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 5), m=st.integers(0, 9), temperature=st.floats(0.1, 2.0), seed=st.integers(0, 999))
def test_loss_equals_the_loops(n: int, m: int, temperature: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, n, 4, generator=generator, dtype=torch.float64)
    queue = unit_rows(m, generator)
    assert float(moco_contrast(q, k, queue, temperature=temperature)) == pytest.approx(
        contrast_by_loops(q, k, queue, temperature), abs=1e-9
    )


def test_by_hand() -> None:
    """Queries equal their keys, two negatives: one like the query, one at a right angle; tau = 1."""
    q = torch.tensor([[2.0, 0.0], [3.0, 0.0]])
    queue = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    expected = -math.log(math.e / (2 * math.e + 1))
    assert float(moco_contrast(q, q, queue, temperature=1.0)) == pytest.approx(expected, abs=1e-6)
    assert float(moco_contrast(q, q, queue[:0])) == 0  # no negative, nothing to tell apart


def test_mistakes_are_named() -> None:
    with pytest.raises(FewlabelError, match="above 0"):
        moco_contrast(torch.rand(2, 3), torch.rand(2, 3), torch.rand(4, 3), temperature=0.0)
    with pytest.raises(FewlabelError, match="queue_size is 0"):
        small_moco(queue_size=0)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 12), batches=st.lists(st.integers(1, 20), max_size=6))
def test_the_queue_holds_the_newest_keys_and_no_others(size: int, batches: list[int]) -> None:
    """Keys are numbered as they come; batches neither divide the queue nor need to fit into it."""
    torch.manual_seed(0)
    objective = MoCo(_Pixels(), embedding_dim=1, queue_size=size)
    came = 0
    for count in batches:
        objective.enqueue(torch.arange(came, came + count)[:, None].float())
        came += count
        held = objective.negatives()[:, 0].tolist()
        assert sorted(held) == list(range(max(0, came - size), came))
        assert all(held[int(number) % size] == number for number in held)  # each over the oldest one


class _Pixels(torch.nn.Module):
    """An encoder with nothing in it."""

    dim = 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :4]


def test_keys_enter_the_queue_after_the_step_and_are_those_of_the_step() -> None:
    objective, batch = small_moco().eval(), two_views_of(6)
    assert objective.loss(batch).item() == 0  # an empty queue
    assert len(objective.negatives()) == 0
    keys = objective.keys(batch.views[1])
    objective.after_step(0, 10)
    assert torch.allclose(objective.negatives(), keys, atol=1e-6)
    assert torch.allclose(objective.negatives().norm(dim=1), torch.ones(6))
    objective.after_step(1, 10)  # nothing new came
    assert len(objective.negatives()) == 6
    q = objective.embed(batch.views[0])
    assert torch.allclose(objective.loss(batch), moco_contrast(q, keys, keys), atol=1e-4)


def test_the_queue_is_saved() -> None:
    objective = small_moco()
    objective.enqueue(torch.randn(20, 8))
    again = small_moco()
    again.load_state_dict(objective.state_dict())
    assert torch.equal(again.negatives(), objective.negatives())
    again.enqueue(torch.zeros(1, 8))
    assert not again.queue[20 % 16].any()


def test_the_keys_network_follows_and_takes_no_gradient() -> None:
    objective = small_moco(momentum=0.9)
    for batch_seed in range(2):  # the first batch meets an empty queue
        objective.zero_grad()
        objective.loss(two_views_of(seed=batch_seed)).backward()
        objective.after_step(batch_seed, 2)
    for name, p in objective.named_parameters():
        assert p.requires_grad != name.startswith("key_"), name
        assert (p.grad is None) == name.startswith("key_"), name
    assert any(bool(p.grad.any()) for p in objective.encoder.parameters())
    assert not objective.keys(two_views_of().views[0].requires_grad_()).requires_grad
    pairs = [(objective.key_encoder, objective.encoder), (objective.key_head, objective.head)]
    with torch.no_grad():
        for _, queries in pairs:
            for p in queries.parameters():
                p.add_(torch.randn_like(p))
    before = [[p.clone() for p in keys.parameters()] for keys, _ in pairs]
    objective.after_step(2, 10)
    for (keys, queries), old in zip(pairs, before, strict=True):
        for moved, was, towards in zip(keys.parameters(), old, queries.parameters(), strict=True):
            assert torch.allclose(moved, 0.9 * was + 0.1 * towards, atol=1e-6)


def test_keys_are_made_in_random_groups_and_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moco, "GROUP", 4)
    objective, x = small_moco(), two_views_of(10).views[0]
    seen: list[torch.Tensor] = []
    objective.key_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    torch.manual_seed(1)
    objective.keys(x)
    assert [len(group) for group in seen] == [5, 5]
    order = [place_of(one, x) for one in torch.cat(seen)]
    assert sorted(order) == list(range(10)) != order  # each image once, in another order
    objective.eval()  # without batch statistics the groups make no difference
    with torch.no_grad():
        whole = objective.key_head(objective.key_encoder(x))
    assert torch.allclose(objective.keys(x), whole / whole.norm(dim=1, keepdim=True), atol=1e-5)


def place_of(one: torch.Tensor, x: torch.Tensor) -> int:
    """The row of the images x that holds the image `one`."""
    (place,) = [i for i in range(len(x)) if torch.equal(x[i], one)]
    return place


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_head_has_biases_and_no_batch_norm(layers: int) -> None:
    kinds = [type(layer).__name__ for layer in small_moco(head_layers=layers).head]
    assert kinds == (["Linear", "ReLU"] * layers)[:-1]
    assert all(
        layer.bias is not None for layer in small_moco(head_layers=layers).head if hasattr(layer, "bias")
    )


def test_the_loss_is_computed_in_32_bits_where_the_networks_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 8, 4, generator=generator).bfloat16()
    queue = unit_rows(20, generator).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = moco_contrast(q, k, queue, temperature=0.05)
    exact = moco_contrast(q.double(), k.double(), queue.double(), temperature=0.05)
    assert mixed.dtype == torch.float32
    assert float(mixed) == pytest.approx(float(exact), rel=1e-5)
