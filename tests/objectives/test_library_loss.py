"""Losses and miners of pytorch-metric-learning: called as they are, their own weights trained and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_encoders import SIZE_PX, small_encoder, two_views_of

from fewlabel.objectives import LibraryLoss, batch_all, triplet_loss
from fewlabel.training import Compute, TrainingSet, fit
from fewlabel.training.checkpoint import LATEST, load_tensors
from fewlabel.types import Batch, FewlabelError, Schedule
from fewlabel.views import plain_view

losses = pytest.importorskip("pytorch_metric_learning.losses")
miners = pytest.importorskip("pytorch_metric_learning.miners")
distances = pytest.importorskip("pytorch_metric_learning.distances")
reducers = pytest.importorskip("pytorch_metric_learning.reducers")

LABELS = torch.tensor([0, 1, 0, 1, -1, 0])
K = 8


def arcface() -> Any:
    torch.manual_seed(1)
    return losses.ArcFaceLoss(num_classes=2, embedding_size=K)


CASES: dict[str, Any] = {
    "multi-similarity": lambda: (losses.MultiSimilarityLoss(), None),
    "arcface": lambda: (arcface(), None),
    "triplet with a miner": lambda: (losses.TripletMarginLoss(), miners.BatchHardMiner()),
    "pairs with a miner": lambda: (losses.ContrastiveLoss(), miners.BatchHardMiner()),
}


def made(case: str) -> LibraryLoss:
    loss, miner = CASES[case]()
    return LibraryLoss(small_encoder(), loss_function=loss, miner=miner, embedding_dim=K)


def batch(labels: torch.Tensor | None = LABELS) -> Batch:
    return Batch(two_views_of().views[:1], labels)


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_librarys_loss_of_the_labelled_images(case: str) -> None:
    objective = made(case).eval()
    known = LABELS >= 0
    z = objective.embed(batch().views[0])[known]
    loss, miner = CASES[case]()
    wanted = loss(z, LABELS[known], miner(z, LABELS[known]) if miner else None)
    found = objective.loss(batch())
    assert wanted.item() > 0
    if miner:
        assert not torch.allclose(wanted, loss(z, LABELS[known]))
    assert torch.allclose(found, wanted)
    found.backward()
    assert all(p.grad is not None for p in objective.parameters())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("labels", [None, torch.full((6,), -1)])
def test_a_batch_without_labels_is_nothing_with_gradients(case: str, labels: torch.Tensor | None) -> None:
    objective = made(case)
    loss = objective.loss(batch(labels))
    assert loss.item() == 0
    loss.backward()
    assert all(p.grad is not None and not p.grad.any() for p in objective.parameters())


def test_its_triplets_are_ours() -> None:
    """The same distance, margin and triplets: two programs, one number."""
    generator = torch.Generator().manual_seed(0)
    z = torch.nn.functional.normalize(torch.randn(10, 5, generator=generator), dim=1)
    labels = torch.arange(10) % 3
    theirs = losses.TripletMarginLoss(
        margin=0.2, distance=distances.LpDistance(power=2), reducer=reducers.MeanReducer()
    )
    ours = triplet_loss(z, labels, mining=batch_all)
    assert torch.allclose(theirs(z, labels), ours, atol=1e-6)


def test_weights_of_the_loss_are_trained_saved_and_continued(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (24, 1, SIZE_PX, SIZE_PX), dtype=np.uint8)
    data = TrainingSet((images,), (np.arange(24),), np.arange(24) % 2, per_class=4)
    plan = Schedule(4, 8, 1e-2)
    objective = made("arcface")
    before = objective.loss_function.W.detach().clone()
    fit(objective, data, plain_view(SIZE_PX), plan, out=tmp_path, checkpoint_every=2, compute=Compute("32"))
    after = objective.loss_function.W.detach()
    assert not torch.equal(before, after)
    kept, _ = load_tensors(tmp_path / LATEST)
    assert torch.equal(kept["model.loss_function.W"], after)
    again = made("arcface")
    fit(again, data, plain_view(SIZE_PX), plan, out=tmp_path, compute=Compute("32"))  # is finished: loads
    assert torch.equal(again.loss_function.W, after)


def test_mistakes_are_named() -> None:
    with pytest.raises(
        FewlabelError, match=r"weights of ArcFaceLoss are \(8, 2\), and embeddings are 16 wide"
    ):
        LibraryLoss(small_encoder(), loss_function=arcface(), embedding_dim=16)
    with pytest.raises(FewlabelError, match="A label is 2, but ArcFaceLoss was made for 2 classes"):
        made("arcface").loss(batch(torch.tensor([0, 1, 2, 0, 1, 0])))
    for labels in (torch.zeros(6, 2, dtype=torch.int64), torch.rand(6)):
        with pytest.raises(FewlabelError, match=r"takes one class \(int64\) an image"):
            made("arcface").loss(batch(labels))
