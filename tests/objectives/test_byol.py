"""BYOL: the paper's loops, one case by hand, and a target that follows and takes no gradient."""

import math

import pytest
import torch
from small_encoders import small_encoder, two_views_of

from fewlabel.objectives import BYOL, byol_error
from fewlabel.objectives.byol import byol_momentum
from fewlabel.types import FewlabelError


def small_byol(**settings: float) -> BYOL:
    torch.manual_seed(0)
    return BYOL(small_encoder(), hidden_dim=16, embedding_dim=8, **settings)


def test_error_equals_the_loops() -> None:
    q, z = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    total = 0.0
    for i in range(5):
        a, b = q[i] / q[i].norm(), z[i] / z[i].norm()
        total += sum(float(a[k] - b[k]) ** 2 for k in range(3))
    assert float(byol_error(q, z)) == pytest.approx(total / 5, abs=1e-12)


def test_error_by_hand() -> None:
    """The same direction gives 0, a right angle 2, the opposite direction 4; lengths do not matter."""
    q = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    z = torch.tensor([[5.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert float(byol_error(q, z)) == pytest.approx((0 + 2 + 4) / 3)
    with pytest.raises(FewlabelError, match="both views need the same batch"):
        byol_error(q, z[:2])


def test_momentum_rises_from_its_base_to_1() -> None:
    assert byol_momentum(0, 100, 0.996) == pytest.approx(0.996)
    assert byol_momentum(50, 100, 0.996) == pytest.approx(0.998)
    assert byol_momentum(25, 100, 0.9) == pytest.approx(1 - 0.1 * (math.sqrt(0.5) + 1) / 2)
    assert byol_momentum(100, 100, 0.996) == pytest.approx(1.0)


def test_the_target_starts_as_the_online_network_and_follows_it() -> None:
    objective = small_byol(base_momentum=0.9)
    pairs = [(objective.target_encoder, objective.encoder), (objective.target_projector, objective.projector)]
    for target, online in pairs:
        assert all(torch.equal(a, b) for a, b in zip(target.parameters(), online.parameters(), strict=True))
    with torch.no_grad():
        for p in objective.parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p))
    before = [[p.clone() for p in target.parameters()] for target, _ in pairs]
    objective.after_step(50, 100)  # tau = 0.95
    for (target, online), old in zip(pairs, before, strict=True):
        for moved, was, towards in zip(target.parameters(), old, online.parameters(), strict=True):
            assert torch.allclose(moved, 0.95 * was + 0.05 * towards, atol=1e-6)


def test_the_target_takes_no_gradient_and_is_saved() -> None:
    objective = small_byol()
    target = [name for name in objective.state_dict() if name.startswith("target_")]
    assert len(target) == len(objective.target_encoder.state_dict()) + len(
        objective.target_projector.state_dict()
    )
    assert not objective.targets(two_views_of().views[0].requires_grad_()).requires_grad
    objective.loss(two_views_of()).backward()
    for name, p in objective.named_parameters():
        assert p.requires_grad != name.startswith("target_"), name
        assert (p.grad is None) == name.startswith("target_"), name


def test_loss_is_that_of_both_directions() -> None:
    """Written out with four passes in evaluation mode, where no pass depends on another."""
    objective, batch = small_byol().eval(), two_views_of()
    with torch.no_grad():
        for p in objective.target_encoder.parameters():
            p.mul_(1.1)  # apart from the online network, so that exchanging the two would show
        expected = torch.zeros(())
        for x, other in (batch.views, batch.views[::-1]):
            q = objective.predictor(objective.projector(objective.encoder(x)))
            z = objective.target_projector(objective.target_encoder(other))
            q, z = q / q.norm(dim=1, keepdim=True), z / z.norm(dim=1, keepdim=True)
            expected += (q - z).square().sum(1).mean()
        assert torch.allclose(objective.loss(batch), expected, atol=1e-5)


def test_the_target_has_batch_statistics_of_its_own_passes() -> None:
    objective, batch = small_byol().train(), two_views_of()
    norm = objective.target_projector[1]
    objective.loss(batch)
    assert int(norm.num_batches_tracked) == 2  # one pass for each view
    kept = norm.running_mean.clone()
    objective.after_step(0, 10)
    assert torch.equal(norm.running_mean, kept)


def test_the_loss_is_computed_in_32_bits_where_the_networks_are_not() -> None:
    q, z = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = byol_error(q, z)
    assert mixed.dtype == torch.float32
    assert float(mixed) == pytest.approx(float(byol_error(q.double(), z.double())), rel=1e-5)
