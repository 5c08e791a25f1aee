"""Views: random augmentations of whole batches on CPU or GPU.

Order: crop, flip, rotation, scale and shift fused into ONE affine warp; then intensity; then blur. One channel or
three, 8 or 16 bits, two spatial axes or three (B, C, [D,] H, W). All randomness comes from the torch.Generator that
is passed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from fewlabel.types import FewlabelError


@dataclass(frozen=True)
class ViewSettings:
    """A distribution over views. Angles in degrees, lengths as fractions of the image, intensities of [0, 1].

    size_px: height and width of the view.
    crop_area: the crop covers this share of the image's area, uniformly drawn.
    crop_aspect: width / height of the crop, drawn log-uniformly.
    flip_probability: of a left-right flip. 0 where left and right differ in meaning (a chest has its heart left).
    rotation_deg: uniform in [-rotation_deg, rotation_deg], about the crop's centre, in the H-W plane.
    zoom_range: further scale, uniform; shift: further translation, uniform in +-shift.
    jitter_probability: of the intensity changes below, drawn for each image.
    brightness, contrast: factors uniform in [max(0, 1 - x), 1 + x]; contrast is about the image's mean.
    gamma: exponent drawn log-uniformly from [1 / (1 + gamma), 1 + gamma].
    saturation, hue: for 3 channels only; hue as a fraction of the colour circle.
    grey_probability: for 3 channels only.
    blur_probability, blur_sigma_px: Gaussian blur, sigma uniform in this range; the kernel is as wide as
        size_px // 10, made odd, and at least 3.
    noise: standard deviation of added Gaussian noise is uniform in [0, noise].
    """

    size_px: int
    crop_area: tuple[float, float] = (1.0, 1.0)
    crop_aspect: tuple[float, float] = (1.0, 1.0)
    flip_probability: float = 0.0
    rotation_deg: float = 0.0
    zoom_range: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    jitter_probability: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grey_probability: float = 0.0
    blur_probability: float = 0.0
    blur_sigma_px: tuple[float, float] = (0.1, 2.0)
    noise: float = 0.0

    def at(self, size_px: int) -> ViewSettings:
        """The same distribution over views of another size; the blur keeps its width relative to the image."""
        if size_px == self.size_px:
            return self
        low, high = (sigma * size_px / self.size_px for sigma in self.blur_sigma_px)
        return replace(self, size_px=size_px, blur_sigma_px=(low, high))


def simclr_views(size_px: int, *, strength: float = 1.0, blur: bool = True) -> ViewSettings:
    """The paper's views (arXiv:2002.05709, appendix A): crop area 0.08 to 1, flip, colour jitter, grey, blur.

    strength: s of the colour jitter, 1.0 for ImageNet, 0.5 for CIFAR-10.
    """
    return ViewSettings(
        size_px=size_px,
        crop_area=(0.08, 1.0),
        crop_aspect=(3 / 4, 4 / 3),
        flip_probability=0.5,
        jitter_probability=0.8,
        brightness=0.8 * strength,
        contrast=0.8 * strength,
        saturation=0.8 * strength,
        hue=0.2 * strength,
        grey_probability=0.2,
        blur_probability=0.5 if blur else 0.0,
        blur_sigma_px=(0.1, 2.0),
    )


def medical_views(size_px: int, *, flips: bool = False) -> ViewSettings:
    """Views for medical images: crops that keep context, small rotations, exposure changes, no hue.

    flips: only where the anatomy allows them (a fundus, a skin lesion; not a chest, whose heart lies left).
    """
    return ViewSettings(
        size_px=size_px,
        crop_area=(0.3, 1.0),
        crop_aspect=(3 / 4, 4 / 3),
        flip_probability=0.5 if flips else 0.0,
        rotation_deg=15.0,
        jitter_probability=0.8,
        brightness=0.4,
        contrast=0.4,
        gamma=0.3,
        blur_probability=0.2,
        blur_sigma_px=(0.1, 1.0),
    )


def light_views(size_px: int, *, flips: bool = False) -> ViewSettings:
    """Mild augmentation for supervised training: nearly whole image, small shifts and exposure changes."""
    return ViewSettings(
        size_px=size_px,
        crop_area=(0.75, 1.0),
        crop_aspect=(0.9, 1.1),
        flip_probability=0.5 if flips else 0.0,
        rotation_deg=8.0,
        jitter_probability=0.5,
        brightness=0.2,
        contrast=0.2,
    )


def strong_views(views: ViewSettings) -> ViewSettings:
    """The same views with much smaller crops, larger turns, and strong changes of exposure, blur, noise (FixMatch)."""
    return replace(
        views,
        crop_area=(0.3, 1.0),
        crop_aspect=(3 / 4, 4 / 3),
        rotation_deg=30.0,
        shift=0.1,
        jitter_probability=1.0,
        brightness=0.6,
        contrast=0.6,
        gamma=0.5,
        blur_probability=0.5,
        blur_sigma_px=(0.1, 1.5),
        noise=0.1,
    )


def convirt_views(size_px: int = 224, *, flips: bool = True) -> ViewSettings:
    """ConVIRT's image views (arXiv:2010.00747, section 3): crop, flip, affine map, brightness and contrast, blur.

    The paper's 224 px come from images that are zero-padded to a square; at other sizes the blur keeps its width
    relative to the image. Departures: the shift is a fraction of the image and not of its crop, and what the affine map
    brings in from outside the crop is the image there, where there is some, and not zeros.
    flips: as in the paper; a flipped image belies a sentence that says left or right.
    """
    return ViewSettings(
        size_px=224,
        crop_area=(0.6, 1.0),
        flip_probability=0.5 if flips else 0.0,
        rotation_deg=20.0,
        zoom_range=(0.95, 1.05),
        shift=0.1,
        jitter_probability=1.0,
        brightness=0.4,
        contrast=0.4,
        blur_probability=1.0,
        blur_sigma_px=(0.1, 3.0),
    ).at(size_px)


def plain_view(size_px: int) -> ViewSettings:
    """The whole image, resized: what an encoder sees when features are taken."""
    return ViewSettings(size_px=size_px)


def to_unit_range(images: torch.Tensor) -> torch.Tensor:
    """uint8 or uint16 images -> float32 in [0, 1]; floating-point images pass unchanged.

    Raises FewlabelError for any other type.
    """
    if images.is_floating_point():
        return images
    full_scale = {torch.uint8: 255.0, torch.uint16: 65535.0}.get(images.dtype)
    if full_scale is None:
        raise FewlabelError(
            f"Views got images of type {images.dtype}: give uint8, uint16 or float in [0, 1]."
        )
    return images.float().div_(full_scale)


def draw_view(
    images: torch.Tensor,
    settings: ViewSettings,
    generator: torch.Generator,
    *,
    within: tuple[int, int] | None = None,
) -> torch.Tensor:
    """One random view of every image.

    images: (B, C, [D,] H, W), uint8, uint16 or float in [0, 1]; C is 1 or 3.
    generator: on the CPU, so that the same seed gives the same parameters on every device.
    within: (first, total): the images are the rows first, first + 1, ... of a batch of `total`, which get the views
        that they would get if the whole batch were drawn at once; None = they are the whole batch.
    Returns float32 (B, C, [D,] size, size) in [0, 1]; D is kept. Raises FewlabelError for other shapes or types.
    """
    if images.dim() not in (4, 5) or images.shape[1] not in (1, 3):
        raise FewlabelError(
            f"Views got images of shape {tuple(images.shape)}: give (B, C, H, W) or (B, C, D, H, W)."
        )
    x = to_unit_range(images)
    first, total = within or (0, len(x))
    dice = _Dice(generator, total, slice(first, first + len(x)))
    spatial = [*x.shape[2:-2], settings.size_px, settings.size_px]
    x = _warp(x, _affine(x.dim() - 2, settings, dice), spatial)
    x = _change_intensity(x, settings, dice)
    return _blur(x, settings, dice).clamp_(0.0, 1.0)


def draw_views(
    images: torch.Tensor,
    settings: ViewSettings,
    count: int,
    generator: torch.Generator,
    *,
    within: tuple[int, int] | None = None,
) -> tuple[torch.Tensor, ...]:
    """`count` independent views of every image; see `draw_view`."""
    return tuple(draw_view(images, settings, generator, within=within) for _ in range(count))


@dataclass(frozen=True)
class _Dice:
    """Draws one number for each image of a batch of `total`, and gives those of `rows`."""

    generator: torch.Generator
    total: int
    rows: slice

    def uniform(self, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        return (torch.rand(self.total, generator=self.generator) * (high - low) + low)[self.rows]

    def normal(self, shape: torch.Size) -> torch.Tensor:
        """Standard normal numbers of an image's `shape`, which is without the axis of the batch."""
        return torch.randn((self.total, *shape), generator=self.generator)[self.rows]


def _affine(axes: int, settings: ViewSettings, dice: _Dice) -> torch.Tensor:
    """(B, axes, axes + 1) maps from view to image coordinates, both in [-1, 1], x (width) first."""
    area = dice.uniform(*settings.crop_area)
    log_low, log_high = (math.log(a) for a in settings.crop_aspect)
    aspect = torch.exp(dice.uniform(log_low, log_high))
    width = (area * aspect).sqrt().clamp(max=1.0)
    height = (area / aspect).sqrt().clamp(max=1.0)
    centre_x = dice.uniform(-1, 1) * (1 - width)
    centre_y = dice.uniform(-1, 1) * (1 - height)
    flip = 1 - 2 * (dice.uniform() < settings.flip_probability).float()
    angle = dice.uniform(-settings.rotation_deg, settings.rotation_deg).deg2rad()
    zoom = dice.uniform(*settings.zoom_range)
    shift_x = dice.uniform(-settings.shift, settings.shift) * 2
    shift_y = dice.uniform(-settings.shift, settings.shift) * 2
    theta = torch.zeros(len(area), axes, axes + 1)
    for axis in range(2, axes):
        theta[:, axis, axis] = 1.0
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    theta[:, 0, 0], theta[:, 0, 1] = width * cos * flip, -width * sin
    theta[:, 1, 0], theta[:, 1, 1] = height * sin * flip, height * cos
    theta[:, 0, -1], theta[:, 1, -1] = centre_x + shift_x, centre_y + shift_y
    return theta


def _warp(x: torch.Tensor, theta: torch.Tensor, spatial: list[int]) -> torch.Tensor:
    identity = torch.eye(theta.shape[1], theta.shape[2]).expand_as(theta)
    if torch.equal(theta, identity):
        mode = "trilinear" if x.dim() == 5 else "bilinear"
        same = list(x.shape[2:]) == spatial
        return x.clone() if same else F.interpolate(x, spatial, mode=mode, antialias=x.dim() == 4)
    grid = F.affine_grid(theta.to(x.device), [len(x), x.shape[1], *spatial], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _change_intensity(x: torch.Tensor, settings: ViewSettings, dice: _Dice) -> torch.Tensor:
    """Brightness, contrast, gamma, then colour, in this fixed order (the paper draws the order at random)."""
    n = len(x)
    apply = dice.uniform() < settings.jitter_probability

    def factor(strength: float) -> torch.Tensor:
        drawn = dice.uniform(max(0.0, 1 - strength), 1 + strength)
        return torch.where(apply, drawn, torch.ones(n)).to(x.device).view(n, *[1] * (x.dim() - 1))

    if settings.brightness:
        x = (x * factor(settings.brightness)).clamp_(0, 1)
    if settings.contrast:
        mean = x.mean(dim=tuple(range(1, x.dim())), keepdim=True)
        x = ((x - mean) * factor(settings.contrast) + mean).clamp_(0, 1)
    if settings.gamma:
        limit = math.log1p(settings.gamma)
        exponent = torch.exp(dice.uniform(-limit, limit))
        exponent = torch.where(apply, exponent, torch.ones(n)).to(x.device)
        x = x.clamp(min=1e-6) ** exponent.view(n, *[1] * (x.dim() - 1))
    if x.shape[1] == 3:
        x = _change_colour(x, settings, apply, dice)
    if settings.noise:
        deviation = dice.uniform(0, settings.noise).view(n, *[1] * (x.dim() - 1))
        x = x + (dice.normal(x.shape[1:]) * deviation).to(x.device)
    return x


_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_TO_YIQ = torch.tensor([_LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])


def _change_colour(x: torch.Tensor, settings: ViewSettings, apply: torch.Tensor, dice: _Dice) -> torch.Tensor:
    """Saturation and hue as one linear map a image in YIQ (hue turns the I-Q plane), then grey."""
    n = len(x)
    saturation = dice.uniform(max(0.0, 1 - settings.saturation), 1 + settings.saturation)
    turn = dice.uniform(-settings.hue, settings.hue) * 2 * math.pi
    saturation = torch.where(apply, saturation, torch.ones(n))
    turn = torch.where(apply, turn, torch.zeros(n))
    saturation = torch.where(dice.uniform() < settings.grey_probability, 0.0, saturation)
    middle = torch.zeros(n, 3, 3)
    middle[:, 0, 0] = 1.0
    middle[:, 1, 1], middle[:, 1, 2] = saturation * turn.cos(), -saturation * turn.sin()
    middle[:, 2, 1], middle[:, 2, 2] = saturation * turn.sin(), saturation * turn.cos()
    matrix = (torch.linalg.inv(_TO_YIQ) @ middle @ _TO_YIQ).to(x.device)  # (B, 3, 3)
    return torch.einsum("bij,bj...->bi...", matrix, x).clamp_(0, 1)


def _blur(x: torch.Tensor, settings: ViewSettings, dice: _Dice) -> torch.Tensor:
    """Separable Gaussian blur in the H-W plane of the images that are drawn for it."""
    chosen = dice.uniform() < settings.blur_probability
    sigma = dice.uniform(*settings.blur_sigma_px)
    if not chosen.any():
        return x
    rows = chosen.nonzero()[:, 0]
    radius = max(1, (settings.size_px // 10) // 2)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma[rows, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(x.device)  # (b, taps)
    part = x[rows.to(x.device)]
    for axis in (-1, -2):
        padding = [radius, radius, 0, 0] if axis == -1 else [0, 0, radius, radius]
        padded = F.pad(part.flatten(1, -3), padding, mode="reflect").view(*_padded_shape(part, axis, radius))
        weights = kernel.view(len(part), -1, *[1] * (part.dim() - 1))
        length = part.shape[axis]
        taps = [padded.narrow(axis, k, length) * weights[:, k] for k in range(2 * radius + 1)]
        part = torch.stack(taps).sum(dim=0)
    return x.index_copy(0, rows.to(x.device), part)


def _padded_shape(x: torch.Tensor, axis: int, radius: int) -> list[int]:
    shape = list(x.shape)
    shape[axis] += 2 * radius
    return shape
