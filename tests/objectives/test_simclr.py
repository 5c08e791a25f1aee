"""NT-Xent and InfoNCE against the papers' loops in float64, and one case by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabel.objectives import info_nce, nt_xent
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
