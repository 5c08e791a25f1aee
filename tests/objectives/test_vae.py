"""VAE: likelihoods and KL against torch.distributions, the bound against Monte Carlo, warm-up, free bits, collapse."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Laplace, Normal, kl_divergence

from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives.likelihoods import gaussian, laplace
from fewlabel.objectives.vae import VAE, kl_to_standard_normal, with_free_bits
from fewlabel.training import TrainingSet, fit
from fewlabel.types import Batch, FewlabelError, Schedule
from fewlabel.views import plain_view

SIZE = 16


def vae(**arguments: object) -> VAE:
    torch.manual_seed(0)
    encoder = Encoder(EncoderSettings("test_resnet", channels=1, size_px=SIZE))
    return VAE(encoder, **{"latent_dim": 4, "width": 8, **arguments})  # type: ignore[arg-type]


def images(count: int = 8) -> torch.Tensor:
    return torch.rand(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def test_likelihoods_are_those_of_torch() -> None:
    x, mean = torch.rand(2, 3, 1, 4, 4, dtype=torch.float64)
    log_scale = torch.tensor(-1.3, dtype=torch.float64)
    for ours, theirs in ((gaussian, Normal), (laplace, Laplace)):
        wanted = Independent(theirs(mean, log_scale.exp()), 3).log_prob(x)
        torch.testing.assert_close(ours(x, mean, log_scale), wanted, rtol=1e-10, atol=1e-10)


def test_kl_is_that_of_torch_and_the_case_worked_by_hand() -> None:
    mean, log_variance = torch.randn(2, 5, 3, dtype=torch.float64)
    wanted = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), wanted)
    by_hand = kl_to_standard_normal(torch.tensor([[1.0]]), torch.tensor([[math.log(4.0)]]))
    assert float(by_hand) == pytest.approx(0.5 * (1 + 4 - math.log(4) - 1))


def test_the_bound_is_the_monte_carlo_estimate_of_log_p_minus_log_q() -> None:
    model = vae(scale=0.5).eval()
    x = images(3)
    torch.manual_seed(0)
    with torch.no_grad():
        found = model.elbo(x, draws=400)
        mean, log_variance = model.posterior(x)
        posterior = Normal(mean, (0.5 * log_variance).exp())
        draws = []
        for _ in range(400):
            z = posterior.sample()
            joint = gaussian(x, model.decoder(z), model.log_scale) + Normal(0.0, 1.0).log_prob(z).sum(1)
            draws.append(joint - posterior.log_prob(z).sum(1))
        sampled = torch.stack(draws)
    error = 5 * sampled.std(0) / 400**0.5
    assert torch.all((found - sampled.mean(0)).abs() < error + 1e-3)


def test_the_bound_lies_below_the_evidence() -> None:
    """log p(x) by importance sampling with many draws is no smaller than the bound (Burda et al. 2016, theorem 1)."""
    model = vae(scale=0.5).eval()
    x = images(2)
    torch.manual_seed(0)
    with torch.no_grad():
        mean, log_variance = model.posterior(x)
        wide = Normal(mean, (0.5 * log_variance).exp())
        weights = []
        for _ in range(1000):
            z = wide.sample()
            prior = Normal(0.0, 1.0).log_prob(z).sum(1)
            weights.append(gaussian(x, model.decoder(z), model.log_scale) + prior - wide.log_prob(z).sum(1))
        evidence = torch.stack(weights).logsumexp(0) - math.log(1000)
        assert torch.all(evidence > model.elbo(x, draws=200) - 0.05)


def test_loss_is_the_bound_for_each_pixel() -> None:
    model = vae(warmup=0.0, scale=0.3).eval()
    x = images()
    torch.manual_seed(3)
    loss = model.loss(Batch(views=(x,)))
    torch.manual_seed(3)
    wanted = -model.elbo(x).mean() / SIZE**2
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)


def test_free_bits_take_away_the_gradient_of_what_is_free() -> None:
    kl = torch.tensor([[0.1, 2.0], [0.3, 4.0]], requires_grad=True)
    found = with_free_bits(kl, 0.5)
    assert float(found) == pytest.approx(0.5 + 3.0)
    found.backward()
    assert kl.grad is not None
    assert kl.grad.tolist() == [[0.0, 0.5], [0.0, 0.5]]


def test_the_weight_of_kl_grows_and_is_part_of_the_checkpoint(tmp_path: Path) -> None:
    pixels = (images(12).numpy() * 255).astype(np.uint8)
    data = TrainingSet((pixels,), (np.arange(12),))
    model = vae(warmup=0.5)
    assert float(model.warmth) == 0
    fit(model, data, plain_view(SIZE), Schedule(4, 6, 1e-3))
    assert float(model.warmth) == 1
    half = vae(warmup=0.5)
    half.after_step(0, 8)
    assert float(half.warmth) == 0.25
    assert "warmth" in half.state_dict()


def test_scale_is_learned_unless_it_is_given() -> None:
    assert vae().log_scale.requires_grad
    fixed = vae(scale=0.2)
    assert not fixed.log_scale.requires_grad
    assert float(fixed.log_scale.exp()) == pytest.approx(0.2)


def test_collapse_is_said_and_only_after_the_warm_up() -> None:
    model = vae()
    dead, alive = torch.zeros(32, 4), torch.randn(32, 4)
    assert model.warning(dead) == ""
    model.warmth.fill_(1.0)
    assert "posterior has collapsed: 0 of 4" in model.warning(dead)
    assert model.warning(alive) == ""


def test_a_collapsed_posterior_is_among_the_warnings_of_the_run() -> None:
    """With a weight of a million nothing may be told, and the run says so."""
    pixels = (images(32).numpy() * 255).astype(np.uint8)
    data = TrainingSet((pixels,), (np.arange(32),))
    result = fit(vae(beta=1e6, warmup=0.0), data, plain_view(SIZE), Schedule(60, 32, 1e-2))
    assert any("posterior has collapsed" in said for said in result.warnings)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"beta": -1.0}, "beta is -1"), ({"scale": 0.0}, "scale 0.0"), ({"warmup": 2.0}, "warmup 2")],
)
def test_wrong_arguments_are_one_sentence(arguments: dict[str, float], said: str) -> None:
    with pytest.raises(FewlabelError, match=said):
        vae(**arguments)
