"""Semi-supervised GAN. Salimans, Goodfellow, Zaremba, Cheung, Radford, Chen 2016, arXiv:1606.03498, sections 3 and 5.

The discriminator is the classifier: of K + 1 classes the last is "made", its logit held at 0. With logits l_1..l_K,

    D(x) = Z(x) / (Z(x) + 1),   Z(x) = sum_k exp l_k(x),

    L_discriminator = - mean_labelled log p(y | x, y <= K) - mean_real log D(x) - mean_made log(1 - D(x)),
    L_generator     = || mean_real f(x) - mean_made f(G(z)) ||^2,                     feature matching, section 3.1,

f the encoder's features. One-sided smoothing (section 3.4): what is real is to get `real_target`, not 1. Spectral
normalisation: Miyato et al. 2018, arXiv:1802.05957. The generator's moving average: Yazici et al. 2019,
arXiv:1806.04498.

Departures: the generator is told a class, and its images are to be taken for that class (`class_weight`, as in Odena et
al. 2017, arXiv:1610.09585), so that images of a wanted class can be made. Squares are means over features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import register_parametrization

from fewlabel.networks import Encoder
from fewlabel.networks.decoders import Decoder
from fewlabel.objectives.freezing import FreezableEncoder
from fewlabel.objectives.momentum import follow, frozen_copy
from fewlabel.objectives.supervised import labelled_cross_entropy
from fewlabel.types import Batch, FewlabelError


def real_logit(logits: torch.Tensor) -> torch.Tensor:
    """log Z(x), whose sigmoid is D(x); logits (B, K) -> (B,)."""
    return logits.logsumexp(dim=1)


def discriminator_loss(real: torch.Tensor, made: torch.Tensor, *, real_target: float = 1.0) -> torch.Tensor:
    """The unsupervised part: logits (B, K) of real and (B', K) of made images -> scalar."""
    target = torch.full((len(real),), real_target, device=real.device, dtype=torch.float32)
    of_real = F.binary_cross_entropy_with_logits(real_logit(real.float()), target)
    return of_real + F.softplus(real_logit(made.float())).mean()


def feature_matching(real: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    """Squared distance of the mean features, (B, F) and (B', F) -> scalar, for each feature."""
    return (real.float().mean(0) - made.float().mean(0)).square().mean()


class Scaled(nn.Module):
    """A weight times a number that does not learn."""

    scale: torch.Tensor

    def __init__(self, scale: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.scale


def hold_norm(layer: nn.Conv2d | nn.Linear) -> None:
    """Spectral normalisation that holds the layer's norm at what it is now, instead of at 1.

    What the layer computes does not change at first. At 1, the layers of a pretrained network would all be shrunk below
    batch statistics that know nothing of it, and in evaluation mode nothing would be left of what it has learned.
    """
    before = layer.weight.detach().clone()
    spectral_norm(layer)
    layer.eval()  # where a look at the weight does not go on with the power iteration
    normed = layer.weight.detach()
    register_parametrization(layer, "weight", Scaled(before.norm() / normed.norm().clamp(min=1e-12)))


class GAN(FreezableEncoder):
    """A generator, and an encoder with a classifier as the discriminator; two steps a batch.

    classes: K. latent_dim: of z, standard normal. real_target: in (0.5, 1]. spectral: spectral normalisation of the
        discriminator's convolutions and linear layers; hold_norms: at the norms with which the encoder's layers come,
        for one that was pretrained. class_weight: of the generator's cross-entropy. momentum: of the moving average of
        the generator, which makes the samples. width: of the generator.
    Raises FewlabelError for values outside, and for a size that 8 does not divide.

    head_rate: the classifier learns at this many times the rate of the rest; to be set before training.
    """

    name = "gan"
    head_rate = 1.0
    paper = "Salimans et al. 2016, arXiv:1606.03498"
    view_count = 1
    needs_labels = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        classes: int = 2,
        latent_dim: int = 64,
        real_target: float = 0.9,
        spectral: bool = True,
        hold_norms: bool = False,
        class_weight: float = 0.1,
        momentum: float = 0.995,
        width: int = 32,
    ) -> None:
        super().__init__()
        if classes < 2 or not 0.5 < real_target <= 1 or not 0 <= momentum < 1 or class_weight < 0:
            raise FewlabelError(
                f"classes is {classes}, real_target {real_target:g}, momentum {momentum:g}, class_weight "
                f"{class_weight:g}: 2 or more, above 0.5 to 1, from 0 to less than 1, and not negative are needed."
            )
        settings = encoder.settings
        self.encoder, self.classes, self.latent_dim = encoder, classes, latent_dim
        self.head = nn.Linear(encoder.dim, classes)
        self.generator = Decoder(
            latent_dim + classes, channels=settings.channels, size_px=settings.size_px, width=width
        )
        self.averaged = frozen_copy(self.generator)
        self.real_target, self.class_weight, self.momentum = real_target, class_weight, momentum
        if spectral:
            norm = hold_norm if hold_norms else spectral_norm
            for layer in list(encoder.modules()):
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    norm(layer)
            spectral_norm(self.head)

    @torch.no_grad()
    def start_generator(self, decoder: Decoder, latents: torch.Tensor | None = None) -> None:
        """Have the generator begin as a decoder of the same latent vectors; at first the classes make no difference.

        latents: (N, latent_dim) vectors that the decoder learned to decode; a standard normal z is then mapped to their
        mean and covariance first, as part of the linear layer. None = they are standard normal, as a VAE's prior is.
        """
        first = decoder.first
        weight, bias = first.weight, first.bias
        if latents is not None:
            centred = latents.double() - latents.double().mean(0)
            covariance = centred.T @ centred / max(1, len(latents) - 1)
            ridge = 1e-6 * covariance.diagonal().mean().clamp(min=1e-6)
            root = torch.linalg.cholesky(covariance + ridge * torch.eye(len(covariance)).double())
            weight, bias = weight @ root.float(), bias + weight @ latents.mean(0)
        state = decoder.state_dict()
        state["first.weight"] = F.pad(weight, (0, self.classes))  # columns of zeros for the classes
        state["first.bias"] = bias
        for generator in (self.generator, self.averaged):
            generator.load_state_dict(state)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """ "encoder" (the extractor), "head" and "generator"."""
        parts = {"encoder": self.encoder, "head": self.head, "generator": self.generator}
        return {name: list(part.parameters()) for name, part in parts.items()}

    def rate_scale(self, group: str, step: int) -> float:
        """What the learning rate of a group is multiplied by."""
        return self.head_rate if group == "head" else 1.0

    def steps(self, batch: Batch) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
        """The discriminator's step, then the generator's, each with the names of the groups that it moves."""
        x = batch.views[0].float()
        self.generator.check(x)
        y = torch.randint(self.classes, (len(x),), device=x.device)
        made = self.make(y, self.generator)
        yield ("encoder", "head"), self._discriminator(x, made.detach(), batch.labels)
        yield ("generator",), self._generator(x, made, y)

    def loss(self, batch: Batch) -> torch.Tensor:
        """The sum of the steps' losses as they are before any step; it is `steps` that trains."""
        return torch.stack([loss for _, loss in self.steps(batch)]).sum()

    def _discriminator(
        self, x: torch.Tensor, made: torch.Tensor, labels: torch.Tensor | None
    ) -> torch.Tensor:
        logits = self.predict(torch.cat([x, made])).float()  # joint batch statistics
        real, fake = logits[: len(x)], logits[len(x) :]
        loss = discriminator_loss(real, fake, real_target=self.real_target)
        return loss + labelled_cross_entropy(real, labels)

    def _generator(self, x: torch.Tensor, made: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        features = self.encoder(torch.cat([x, made]))
        real, fake = features[: len(x)].detach(), features[len(x) :]
        return feature_matching(real, fake) + self.class_weight * F.cross_entropy(self.head(fake).float(), y)

    def make(self, y: torch.Tensor, generator: Decoder | None = None) -> torch.Tensor:
        """Images (B, C, H, W) of classes y (B,), from torch's global random numbers; by default of the average."""
        z = torch.randn(len(y), self.latent_dim, device=y.device)
        return (generator or self.averaged)(torch.cat([z, F.one_hot(y, self.classes).to(z.dtype)], dim=1))

    def after_step(self, step: int, steps: int) -> None:
        """The average follows the generator, its batch statistics too; early at the mean of all steps so far."""
        follow(self.averaged, self.generator, min(self.momentum, 1 - 1 / (step + 1)))
        for theirs, ours in zip(self.averaged.buffers(), self.generator.buffers(), strict=True):
            theirs.copy_(ours)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, K) of the classes, of images x (B, C, H, W)."""
        return self.head(self.encoder(x))

    def plain_encoder(self) -> Encoder:
        """A copy of the encoder with plain weights, normalised as they were; this is kept and used downstream."""
        plain = Encoder(replace(self.encoder.settings, weights=None))
        kept = self.encoder.state_dict()
        with torch.no_grad():
            for name, value in plain.state_dict().items():
                layer, _, part = name.rpartition(".")
                value.copy_(kept[name] if name in kept else getattr(self.encoder.get_submodule(layer), part))
        return plain.train(self.encoder.training)
