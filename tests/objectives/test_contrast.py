"""NT-Xent and InfoNCE: the papers' loops, autograd through whole matrices, two processes, memory; one case by hand."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from fewlabel.objectives import contrast, info_nce, nt_xent
from fewlabel.types import FewlabelError


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


def nt_xent_by_loops(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> float:
    """Algorithm 1 of the paper with its interleaved numbering: views 2k and 2k + 1 belong to image k."""
    z = [view for pair in zip(z1.double(), z2.double(), strict=True) for view in pair]
    total = 0.0
    for i in range(len(z)):
        j = i + 1 if i % 2 == 0 else i - 1
        denominator = sum(math.exp(cosine(z[i], z[k]) / temperature) for k in range(len(z)) if k != i)
        total += -math.log(math.exp(cosine(z[i], z[j]) / temperature) / denominator)
    return total / len(z)


def info_nce_by_loops(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> float:
    total = 0.0
    for a, b in ((z1.double(), z2.double()), (z2.double(), z1.double())):
        for i in range(len(a)):
            denominator = sum(math.exp(cosine(a[i], b[k]) / temperature) for k in range(len(b)))
            total += -math.log(math.exp(cosine(a[i], b[i]) / temperature) / denominator)
    return total / (2 * len(z1))


def nt_xent_at_once(z1: torch.Tensor, z2: torch.Tensor, *, temperature: float) -> torch.Tensor:
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    similarity = (z @ z.T / temperature).fill_diagonal_(float("-inf"))
    return F.cross_entropy(similarity, torch.arange(len(z)).roll(len(z1)))


def info_nce_at_once(
    z1: torch.Tensor, z2: torch.Tensor, *, temperature: float, weight: float = 0.5
) -> torch.Tensor:
    similarity = F.normalize(z1, dim=1) @ F.normalize(z2, dim=1).T / temperature
    same = torch.arange(len(z1))
    forth, back = F.cross_entropy(similarity, same), F.cross_entropy(similarity.T, same)
    return weight * forth + (1 - weight) * back


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 7), k=st.integers(1, 5), temperature=st.floats(0.1, 2.0), seed=st.integers(0, 999))
def test_losses_equal_the_loops(n: int, k: int, temperature: float, seed: int) -> None:
    z1, z2 = torch.randn(2, n, k, generator=torch.Generator().manual_seed(seed))
    assert float(nt_xent(z1, z2, temperature=temperature)) == pytest.approx(
        nt_xent_by_loops(z1, z2, temperature), abs=1e-4
    )
    assert float(info_nce(z1, z2, temperature=temperature)) == pytest.approx(
        info_nce_by_loops(z1, z2, temperature), abs=1e-4
    )


def test_nt_xent_by_hand() -> None:
    """Two images at right angles, identical views, tau = 1: every view has similarities 1, 0, 0."""
    z = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    assert float(nt_xent(z, z, temperature=1.0)) == pytest.approx(-math.log(math.e / (math.e + 2)), abs=1e-6)
    assert float(info_nce(z, z, temperature=1.0)) == pytest.approx(-math.log(math.e / (math.e + 1)), abs=1e-6)


def test_loss_does_not_depend_on_length_or_order() -> None:
    z1, z2 = torch.randn(2, 6, 4)
    order = torch.randperm(6)
    assert torch.allclose(nt_xent(z1, z2), nt_xent(5 * z1[order], 0.1 * z2[order]), atol=1e-5)
    assert torch.allclose(nt_xent(z1, z2), nt_xent(z2, z1), atol=1e-6)


@pytest.mark.parametrize(
    ("z1", "z2", "temperature", "words"),
    [
        (torch.zeros(4, 8), torch.zeros(3, 8), 0.5, "both views need the same batch"),
        (torch.zeros(1, 8), torch.zeros(1, 8), 0.5, "at least 2"),
        (torch.zeros(4, 8), torch.zeros(4, 8), 0.0, "above 0"),
    ],
)
def test_mistakes_are_named(z1: torch.Tensor, z2: torch.Tensor, temperature: float, words: str) -> None:
    with pytest.raises(FewlabelError, match=words):
        nt_xent(z1, z2, temperature=temperature)


@pytest.mark.parametrize("loss", [nt_xent, info_nce])
def test_the_loss_is_computed_in_32_bits_where_the_networks_are_not(
    loss: Callable[..., torch.Tensor],
) -> None:
    z1, z2 = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = loss(z1.double(), z2.double(), temperature=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = loss(z1, z2, temperature=0.05)
    assert mixed.dtype == torch.float32
    assert float(mixed) == pytest.approx(float(exact), rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(2, 40), tile=st.sampled_from([1, 3, 16, 1000]), small=st.sampled_from([0, 0, 256]),
    temperature=st.floats(0.02, 2.0), weight=st.floats(0, 1), seed=st.integers(0, 999),
)  # fmt: skip
def test_tiles_and_their_backward_equal_autograd_through_the_whole_matrix(
    n: int, tile: int, small: int, temperature: float, weight: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = [torch.randn(n, 5, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrast, "TILE", tile)
        patch.setattr(contrast, "SMALL", small)
        for ours, whole, more in (
            (nt_xent, nt_xent_at_once, {}),
            (info_nce, info_nce_at_once, {"weight": weight}),
        ):
            losses = [f(*z, temperature=temperature, **more) for f in (ours, whole)]
            assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-9)
            for a, b in zip(
                *(torch.autograd.grad(3 * loss, z) for loss in losses), strict=True
            ):  # the gradient that comes in counts too
                assert torch.allclose(a, b, atol=1e-9, rtol=1e-7)


def test_a_weight_outside_0_to_1_is_named() -> None:
    with pytest.raises(FewlabelError, match="from 0 to 1"):
        info_nce(torch.rand(3, 2), torch.rand(3, 2), weight=1.5)


class Largest(TorchDispatchMode):
    """Watches every operation, those of the backward pass too: the most numbers that one result holds."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else (made,):
            if isinstance(one, torch.Tensor):
                self.numbers = max(self.numbers, one.numel())
        return made


@pytest.mark.parametrize(("ours", "whole"), [(nt_xent, nt_xent_at_once), (info_nce, info_nce_at_once)])
def test_no_matrix_of_all_pairs_ever_exists(ours: Any, whole: Any) -> None:
    n, largest = 4096, {}
    for name, loss in (("ours", ours), ("whole", whole)):
        z1, z2 = torch.randn(2, n, 8).requires_grad_()
        with Largest() as seen:
            torch.autograd.grad(loss(z1, z2, temperature=0.5), (z1, z2))
        largest[name] = seen.numbers
    assert largest["whole"] >= n**2  # the watching works
    assert largest["ours"] <= contrast.TILE**2


TWO = """
    import torch, torch.distributed as dist
    from fewlabel.objectives import contrast
    contrast.TILE = 7
    generator = torch.Generator().manual_seed(0)
    whole = [torch.randn(20, 6, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2)]
    losses = {"nt_xent": contrast.nt_xent, "info_nce": contrast.info_nce}
    joint = {name: loss(*whole, temperature=0.3) for name, loss in losses.items()}
    gradients = {name: torch.autograd.grad(loss, whole) for name, loss in joint.items()}
    dist.init_process_group("gloo")
    own = slice(10 * dist.get_rank(), 10 * dist.get_rank() + 10)
    for name, loss_of in losses.items():
        mine = [z.detach()[own].clone().requires_grad_() for z in whole]
        loss = loss_of(*mine, temperature=0.3)
        found = torch.autograd.grad(loss / 2, mine)  # the mean over two processes, of what each finds
        wanted = [g[own] for g in gradients[name]]
        assert torch.allclose(loss, joint[name], atol=1e-12), name
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, wanted)), name
    print("equal")
    dist.barrier()
    dist.destroy_process_group()
"""


def test_two_processes_have_the_loss_and_gradients_of_the_joint_batch(
    in_two_processes: Callable[..., str],
) -> None:
    assert in_two_processes(TWO).count("equal") == 2
