"""What objectives on pairs share: the joint batch of several processes, and weights that follow others."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from fewlabel.objectives.momentum import follow, frozen_copy
from fewlabel.objectives.pairs import check_pair, joint, two_views, unit
from fewlabel.types import Batch, FewlabelError


def test_follow_moves_parameters_as_the_formula_says_and_nothing_else() -> None:
    source = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    target = frozen_copy(source)
    with torch.no_grad():
        for p in source.parameters():
            p.fill_(3.0)
        for p in target.parameters():
            p.fill_(1.0)
    source(torch.rand(4, 2))  # moves the source's batch statistics
    before = [b.clone() for b in target.buffers()]
    follow(target, source, 0.75)
    assert all(torch.equal(p, torch.full_like(p, 1.5)) for p in target.parameters())  # 0.75 * 1 + 0.25 * 3
    assert all(torch.equal(p, torch.full_like(p, 3.0)) for p in source.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, target.buffers(), strict=True))


def test_a_frozen_copy_takes_no_gradient_and_leaves_the_original_free() -> None:
    source = nn.Linear(2, 2)
    target = frozen_copy(source)
    assert not any(p.requires_grad for p in target.parameters())
    assert all(p.requires_grad for p in source.parameters())
    assert torch.equal(target.weight, source.weight)
    assert target.weight.data_ptr() != source.weight.data_ptr()


def test_mistakes_are_named() -> None:
    with pytest.raises(FewlabelError, match=r"BYOL got 3 view\(s\) of each image: it needs exactly 2"):
        two_views(Batch(views=(torch.zeros(2, 1, 4, 4),) * 3), "BYOL")
    with pytest.raises(FewlabelError, match=r"z1 is \(4, 8\), z2 is \(3, 8\)"):
        check_pair(torch.zeros(4, 8), torch.zeros(3, 8))
    with pytest.raises(FewlabelError, match="holds 1 image: at least 2 are needed"):
        check_pair(torch.zeros(1, 8), torch.zeros(1, 8))


def test_rows_have_length_1_in_32_bits_or_more() -> None:
    assert unit(torch.ones(2, 3).bfloat16()).dtype == torch.float32
    assert unit(torch.ones(2, 3).double()).dtype == torch.float64
    assert torch.equal(unit(torch.tensor([[3.0, 4.0]])), torch.tensor([[0.6, 0.8]]))


def test_one_process_is_the_joint_batch() -> None:
    z = torch.rand(3, 2)
    assert joint(z) is z


TWO = """
    import torch, torch.distributed as dist
    from fewlabel.objectives import barlow_twins, siamese_loss, supcon, triplet_loss, vicreg
    generator = torch.Generator().manual_seed(0)
    whole = [torch.randn(12, 5, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2)]
    labels = torch.tensor([0, 1, -1, 0, 2, -1, 1, 0, -1, 2, 0, -1])
    losses = {
        "vicreg": lambda z1, z2, rows: vicreg(z1, z2),
        "barlow": lambda z1, z2, rows: barlow_twins(z1, z2),
        "supcon": lambda z1, z2, rows: supcon(z1, z2, labels[rows]),
    }
    joint = {name: loss(*whole, slice(None)) for name, loss in losses.items()}
    gradients = {name: torch.autograd.grad(loss, whole) for name, loss in joint.items()}
    dist.init_process_group("gloo")
    own = slice(6 * dist.get_rank(), 6 * dist.get_rank() + 6)
    for name, loss_of in losses.items():
        mine = [z.detach()[own].clone().requires_grad_() for z in whole]
        loss = loss_of(*mine, own)
        found = torch.autograd.grad(loss / 2, mine)  # the mean over two processes, of what each finds
        wanted = [g[own] for g in gradients[name]]
        assert torch.allclose(loss, joint[name], atol=1e-10), name
        assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(found, wanted)), name

    from fewlabel.networks import Encoder, EncoderSettings
    from fewlabel.objectives import MoCo
    moco = MoCo(Encoder(EncoderSettings("test_resnet", size_px=32)), queue_size=5, embedding_dim=3)
    moco.latest_keys = torch.full((2, 3), float(dist.get_rank()))
    moco.after_step(0, 1)
    assert moco.negatives()[:, 0].tolist() == [0, 0, 1, 1]  # the keys of both processes, in both

    from fewlabel.objectives import Siamese, Triplet, batch_all
    from fewlabel.types import Batch
    views, classes = torch.rand(12, 1, 32, 32, generator=generator), torch.arange(12) % 3
    for make, more in ((Siamese, {}), (Triplet, {"mining": batch_all})):
        torch.manual_seed(0)
        encoder = Encoder(EncoderSettings("test_resnet", size_px=32))
        objective = make(encoder, other_patient=True, **more).eval()
        mine = objective.loss(Batch((views[own],), classes[own], patients=torch.arange(12)[own] // 2))
        mine.backward()
        found = objective.head[0].weight.grad / 2
        dist.all_reduce(found)
        z = objective.embed(views)
        labelled = {"patients": torch.arange(12) // 2, **more}
        loss_of = {Siamese: siamese_loss, Triplet: triplet_loss}[make]
        loss = loss_of(z, classes, **labelled)
        wanted, = torch.autograd.grad(loss, objective.head[0].weight)
        assert loss > 0 and torch.allclose(mine, loss, atol=1e-6)
        assert torch.allclose(found, wanted, atol=1e-6), make
    print("equal")
    dist.barrier()
    dist.destroy_process_group()
"""


def test_two_processes_have_the_losses_and_gradients_of_the_joint_batch(
    in_two_processes: Callable[..., str],
) -> None:
    assert in_two_processes(TWO).count("equal") == 2
