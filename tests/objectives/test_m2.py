"""M2: the bound by enumeration of the classes, what labels change, and that few labels and many images suffice."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives.likelihoods import gaussian
from fewlabel.objectives.m2 import M2, unlabelled_bound
from fewlabel.objectives.vae import kl_to_standard_normal
from fewlabel.types import Batch, FewlabelError

SIZE = 16


def m2(**arguments: object) -> M2:
    torch.manual_seed(0)
    encoder = Encoder(EncoderSettings("test_resnet", channels=1, size_px=SIZE))
    return M2(
        encoder, **{"classes": 3, "latent_dim": 4, "hidden_dim": 8, "width": 8, "scale": 0.4, **arguments}
    )  # type: ignore[arg-type]


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def test_the_bound_without_a_label_by_enumeration() -> None:
    bounds, logits = torch.randn(2, 4, 3, dtype=torch.float64)
    log_q = F.log_softmax(logits, dim=1)
    for i, found in enumerate(unlabelled_bound(bounds, log_q)):
        wanted = 0.0
        for y in range(3):
            q = math.exp(log_q[i, y])
            wanted += q * float(bounds[i, y]) - q * math.log(q)
        assert float(found) == pytest.approx(wanted)


def test_the_bound_is_tight_for_the_best_classifier() -> None:
    """With q(y|x) proportional to exp(-L(x, y)), -U is log sum_y exp(-L(x, y)); with any other it is less."""
    bounds = torch.randn(5, 3, dtype=torch.float64)
    best = unlabelled_bound(bounds, F.log_softmax(bounds, dim=1))
    torch.testing.assert_close(best, bounds.logsumexp(1))
    other = unlabelled_bound(bounds, F.log_softmax(torch.randn(5, 3, dtype=torch.float64), dim=1))
    assert torch.all(other < best)


def test_the_loss_by_loops() -> None:
    model = m2(alpha=0.7).eval()
    x, labels = images(4), torch.tensor([2, -1, 0, -1])
    torch.manual_seed(5)
    found = model.loss(Batch(views=(x,), labels=labels))
    torch.manual_seed(5)
    with torch.no_grad():
        h = model.encoder(x)
        log_q = F.log_softmax(model.predict(x), dim=1)
        bounds = torch.empty(4, 3)
        for y in range(3):
            mean, log_variance = model.posterior(h, y)
            z = mean + (0.5 * log_variance).exp() * torch.randn(4, 4)
            said = gaussian(x, model.decode(z, torch.full((4,), y)), torch.tensor(math.log(0.4)))
            bounds[:, y] = said + math.log(1 / 3) - kl_to_standard_normal(mean, log_variance).sum(1)
        total = 0.0
        for i, y in enumerate(labels.tolist()):
            q = log_q[i].exp()
            total += float(bounds[i, y]) if y >= 0 else float((q * bounds[i]).sum() - (q * log_q[i]).sum())
        cross_entropy = -(float(log_q[0, 2]) + float(log_q[2, 0])) / 2
        wanted = -total / 4 / SIZE**2 + 0.7 * cross_entropy
    assert float(found.detach()) == pytest.approx(wanted, rel=1e-4)


def test_a_class_that_is_rare_beforehand_counts_less() -> None:
    rare = m2(class_prior=torch.tensor([0.98, 0.01, 0.01])).eval()
    usual = m2().eval()
    x = images(1)
    found = []
    for model in (rare, usual):
        torch.manual_seed(0)
        found.append(float(model.bound(x, model.encoder(x), 1).detach()))
    assert found[0] - found[1] == pytest.approx(math.log(0.01) - math.log(1 / 3), abs=1e-2)


def test_decoded_images_know_their_class() -> None:
    model = m2().eval()
    z = torch.zeros(1, 4)
    made = [model.decode(z, torch.tensor([y])) for y in range(3)]
    assert not torch.equal(made[0], made[1])


def test_one_class_is_one_sentence() -> None:
    with pytest.raises(FewlabelError, match=r"M2 was asked for 1 class\(es\)"):
        m2(classes=1)


@pytest.mark.slow
def test_few_labels_and_many_images_tell_two_patterns_apart() -> None:
    from fewlabel.training import TrainingSet, fit
    from fewlabel.types import Schedule
    from fewlabel.views import plain_view

    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 2, 240)
    stripes = np.indices((SIZE, SIZE))[..., None] // 4 % 2 * 120 + 60
    images = np.stack([stripes[kind, ..., 0] for kind in kinds]) + rng.normal(0, 10, (240, SIZE, SIZE))
    pixels = images.clip(0, 255).astype(np.uint8)[:, None]
    labels = np.full(240, -1)
    for kind in (0, 1):
        labels[np.flatnonzero(kinds == kind)[:4]] = kind
    model = m2(classes=2)
    fit(model, TrainingSet((pixels,), (np.arange(240),), labels), plain_view(SIZE), Schedule(120, 48, 3e-3))
    model.eval()
    with torch.no_grad():
        right = model.predict(torch.from_numpy(pixels) / 255).argmax(1).numpy() == kinds
    assert right.mean() > 0.95
