"""VAE. Kingma and Welling 2014, arXiv:1312.6114; beta: Higgins et al. 2017, "beta-VAE"; free bits: Kingma et al. 2016,
arXiv:1606.04934, appendix C.8; warm-up of the KL term: Bowman et al. 2016, arXiv:1511.06349.

    ELBO(x) = E_q(z|x)[log p(x|z)] - beta KL(q(z|x) || p(z)),    p(z) = N(0, I),  q(z|x) = N(mu(x), diag(sigma(x)^2)),

    KL = 1/2 sum_j (mu_j^2 + sigma_j^2 - log sigma_j^2 - 1)                                       (appendix B).

The expectation is one draw z = mu + sigma eps (section 2.4). The loss is -ELBO divided by the number of pixels, so that
a learning rate means the same at every size of image; beta = 1 stays the paper's bound.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from fewlabel.networks import Encoder
from fewlabel.networks.decoders import Decoder
from fewlabel.objectives.likelihoods import Likelihood, gaussian
from fewlabel.types import Batch, FewlabelError

ACTIVE = 0.01
"""Variance over images from which a latent dimension counts as active (Burda et al. 2016, arXiv:1509.00519)."""


def kl_to_standard_normal(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """KL(N(mean, diag exp(log_variance)) || N(0, I)) of each dimension, (B, K) -> (B, K), in nats."""
    return 0.5 * (mean**2 + log_variance.exp() - log_variance - 1)


def with_free_bits(kl: torch.Tensor, free_nats: float) -> torch.Tensor:
    """sum_j max(free_nats, mean over the batch of KL_j), a scalar; kl: (B, K). What is free has no gradient."""
    return kl.mean(0).clamp(min=free_nats).sum()


def drawn(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """z = mean + sigma eps, (B, K), from torch's global random numbers."""
    return mean + (0.5 * log_variance).exp() * torch.randn_like(mean)


class VAE(nn.Module):
    """Encoder with mean and log-variance of the latent vector, decoder with a likelihood; the mean is the embedding.

    latent_dim: K. likelihood: `gaussian` or `laplace`. scale: of the noise around each pixel, in the unit of pixels,
        [0, 1]; None = learned, one for all pixels. beta: weight of the KL term. warmup: share of the steps over which
        that weight grows from 0. free_nats: what each dimension may tell for nothing. width: of the decoder.
    Raises FewlabelError for values outside, and for a size that 8 does not divide.
    """

    name = "vae"
    paper = "Kingma and Welling 2014, arXiv:1312.6114"
    view_count = 1
    needs_labels = False
    warmth: torch.Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        latent_dim: int = 64,
        likelihood: Likelihood = gaussian,
        scale: float | None = None,
        beta: float = 1.0,
        warmup: float = 0.2,
        free_nats: float = 0.0,
        width: int = 32,
    ) -> None:
        super().__init__()
        if beta < 0 or free_nats < 0 or not 0 <= warmup <= 1 or (scale is not None and scale <= 0):
            raise FewlabelError(
                f"beta is {beta:g}, free_nats {free_nats:g}, warmup {warmup:g}, scale {scale}: the first two must not "
                "be negative, warmup lies from 0 to 1, and a scale is above 0."
            )
        settings = encoder.settings
        self.encoder = encoder
        self.to_mean = nn.Linear(encoder.dim, latent_dim)
        self.to_log_variance = nn.Linear(encoder.dim, latent_dim)
        self.decoder = Decoder(latent_dim, channels=settings.channels, size_px=settings.size_px, width=width)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale or 0.1)), requires_grad=scale is None)
        self.likelihood, self.beta, self.warmup, self.free_nats = likelihood, beta, warmup, free_nats
        self.register_buffer("warmth", torch.tensor(0.0 if warmup else 1.0))  # part of the checkpoint

    def loss(self, batch: Batch) -> torch.Tensor:
        """-ELBO for each pixel, a scalar, of a batch with one view (B, C, H, W)."""
        x = batch.views[0].float()
        self.decoder.check(x)
        mean, log_variance = self.posterior(x)
        said = self.likelihood(x, self.decoder(drawn(mean, log_variance)).float(), self.log_scale).mean()
        kl = with_free_bits(kl_to_standard_normal(mean, log_variance), self.free_nats)
        return (self.beta * self.warmth * kl - said) / x[0].numel()

    def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-variance of q(z|x), (B, K) each in 32 bits, of images x (B, C, H, W)."""
        h = self.encoder(x)
        return self.to_mean(h).float(), self.to_log_variance(h).float().clamp(-12, 12)

    def elbo(self, x: torch.Tensor, draws: int = 1, noise: torch.Tensor | None = None) -> torch.Tensor:
        """The bound on log p(x) with beta = 1, (B,) nats, by `draws` draws of z; what is said of held-out images.

        noise: the draws of eps, (D, K), the same for all images; so that an image's bound is its own, whatever lies
            beside it in the batch. None = `draws` from torch's global random numbers, for each image its own.
        """
        mean, log_variance = self.posterior(x)
        if noise is None:
            noise = torch.randn(draws, *mean.shape, device=mean.device)
        deviation, said = (0.5 * log_variance).exp(), torch.zeros(len(x), device=x.device)
        for eps in noise.to(mean.device):
            said += self.likelihood(x.float(), self.decoder(mean + deviation * eps).float(), self.log_scale)
        return said / len(noise) - kl_to_standard_normal(mean, log_variance).sum(1)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Means of q(z|x), (B, K)."""
        return self.posterior(x)[0]

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        """Images (B, C, H, W) in (0, 1), decoded from the mean of q(z|x)."""
        return self.decoder(self.embed(x))

    def after_step(self, step: int, steps: int) -> None:
        """The KL term's weight grows linearly over the warm-up."""
        self.warmth.fill_(1.0 if not self.warmup else min(1.0, (step + 1) / (self.warmup * steps)))

    def warning(self, z: torch.Tensor) -> str:
        """A sentence where the posterior has collapsed, "" else and in the warm-up; z: `embed` of images, (N, K)."""
        active = int((z.float().var(0) > ACTIVE).sum())
        if self.warmth < 1 or active > 0.1 * z.shape[1]:
            return ""
        return (
            f"The posterior has collapsed: {active} of {z.shape[1]} latent dimensions tell images apart. Lower beta, "
            "lengthen the warm-up or give free_nats."
        )
