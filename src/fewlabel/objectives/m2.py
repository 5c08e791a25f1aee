"""M2, a semi-supervised VAE. Kingma, Rezende, Mohamed, Welling 2014, arXiv:1406.5298, section 2 and equations 6 to 9.

The class y is a latent variable that few images tell. With q(y|x) the classifier and q(z|x, y) the encoder,

    -L(x, y) = E_q(z|x,y)[log p(x|y, z)] + log p(y) - KL(q(z|x, y) || p(z)),                 where y is known,
    -U(x)    = sum_y q(y|x) (-L(x, y)) + H(q(y|x)),                                          where it is not,
    J        = mean over images of L or U, divided by the pixels, + alpha * mean over the labelled of -log q(y|x).

Departures: alpha stands before the mean over the labelled images of a batch, with the bounds divided by the number of
pixels; the paper's alpha is 0.1 times the number of images, with the bounds as they are. p(y) is the same for all
classes unless it is given. Classifier and q(z|x, y) share the encoder.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from fewlabel.networks import Encoder
from fewlabel.networks.decoders import Decoder
from fewlabel.objectives.likelihoods import Likelihood, gaussian
from fewlabel.objectives.supervised import labelled_cross_entropy
from fewlabel.objectives.vae import drawn, kl_to_standard_normal
from fewlabel.types import Batch, FewlabelError


def unlabelled_bound(bounds: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """-U(x) of equation 7. bounds: -L(x, y) for every y, (B, K). log_q: log q(y|x), (B, K). Returns (B,)."""
    return (log_q.exp() * (bounds - log_q)).sum(1)


class M2(nn.Module):
    """Encoder, classifier and latent vector on its features, decoder of latent vector and class.

    classes: K. latent_dim: of z. hidden_dim: of the layer between features with class and q(z|x, y). alpha: see above.
    class_prior: (K,) p(y), None = all alike. scale, likelihood, width: as in `VAE`.
    Raises FewlabelError for fewer than two classes, and for a size that 8 does not divide.
    """

    name = "m2"
    paper = "Kingma et al. 2014, arXiv:1406.5298"
    view_count = 1
    needs_labels = True
    log_prior: torch.Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        classes: int = 2,
        latent_dim: int = 64,
        hidden_dim: int = 256,
        alpha: float = 1.0,
        class_prior: torch.Tensor | None = None,
        likelihood: Likelihood = gaussian,
        scale: float | None = None,
        width: int = 32,
    ) -> None:
        super().__init__()
        if classes < 2:
            raise FewlabelError(f"M2 was asked for {classes} class(es): it tells classes apart, 2 or more.")
        settings = encoder.settings
        self.encoder, self.classes = encoder, classes
        self.to_class = nn.Linear(encoder.dim, classes)
        self.to_hidden = nn.Sequential(nn.Linear(encoder.dim + classes, hidden_dim), nn.ReLU(inplace=True))
        self.to_mean = nn.Linear(hidden_dim, latent_dim)
        self.to_log_variance = nn.Linear(hidden_dim, latent_dim)
        self.decoder = Decoder(
            latent_dim + classes, channels=settings.channels, size_px=settings.size_px, width=width
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale or 0.1)), requires_grad=scale is None)
        self.likelihood, self.alpha = likelihood, alpha
        prior = torch.full((classes,), 1 / classes) if class_prior is None else class_prior
        self.register_buffer("log_prior", prior.log())

    def loss(self, batch: Batch) -> torch.Tensor:
        """J, a scalar, of a batch with one view (B, C, H, W); images without a label count with their U."""
        x = batch.views[0].float()
        self.decoder.check(x)
        h = self.encoder(x)
        log_q = F.log_softmax(self.to_class(h).float(), dim=1)
        bounds = torch.stack([self.bound(x, h, y) for y in range(self.classes)], dim=1)  # (B, K)
        per_image = unlabelled_bound(bounds, log_q)
        if batch.labels is not None:
            own = bounds.gather(1, batch.labels.clamp(min=0)[:, None])[:, 0]
            per_image = torch.where(batch.labels >= 0, own, per_image)
        loss = -per_image.mean() / x[0].numel()
        return loss + self.alpha * labelled_cross_entropy(log_q, batch.labels)

    def bound(self, x: torch.Tensor, h: torch.Tensor, y: int) -> torch.Tensor:
        """-L(x, y) with one draw of z, (B,) nats, of images x (B, C, H, W) with features h (B, F), all of class y."""
        mean, log_variance = self.posterior(h, y)
        made = self.decode(drawn(mean, log_variance), torch.full((len(x),), y, device=x.device))
        said = self.likelihood(x, made.float(), self.log_scale)
        return said + self.log_prior[y] - kl_to_standard_normal(mean, log_variance).sum(1)

    def posterior(self, h: torch.Tensor, y: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-variance of q(z|x, y), (B, latent_dim) each, from features h (B, F)."""
        one_hot = F.one_hot(torch.full((len(h),), y, device=h.device), self.classes).to(h.dtype)
        hidden = self.to_hidden(torch.cat([h, one_hot], dim=1))
        return self.to_mean(hidden).float(), self.to_log_variance(hidden).float().clamp(-12, 12)

    def decode(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Images (B, C, H, W) of latent vectors z (B, latent_dim) and classes y (B,)."""
        return self.decoder(torch.cat([z, F.one_hot(y, self.classes).to(z.dtype)], dim=1))

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of q(y|x), (B, K)."""
        return self.to_class(self.encoder(x))
