"""Views: seeds, ranges, geometry, channels, bit depths, and independence of the images in a batch."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fewlabel.types import FewlabelError
from fewlabel.views import (
    ViewSettings,
    _affine,
    _Dice,
    convirt_views,
    draw_view,
    draw_views,
    light_views,
    medical_views,
    plain_view,
    simclr_views,
    to_unit_range,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("settings", [simclr_views(24), medical_views(24, flips=True), light_views(24)])
@pytest.mark.parametrize("shape", [(5, 1, 32, 32), (5, 3, 32, 32), (5, 1, 6, 32, 32)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_shape_range_and_seed(settings: ViewSettings, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    top = {torch.uint8: 255, torch.uint16: 65535}.get(dtype)
    images = torch.rand(shape, generator=seeded()) if top is None else torch.randint(0, top, shape).to(dtype)
    first, again, other = (draw_view(images, settings, seeded(seed)) for seed in (3, 3, 4))
    assert first.shape == (*shape[:-2], 24, 24)
    assert first.dtype == torch.float32
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_two_views_differ_from_each_other() -> None:
    first, second = draw_views(torch.rand(4, 1, 16, 16), medical_views(16), 2, seeded())
    assert not torch.allclose(first, second, atol=0.05)


def test_full_scale_is_one() -> None:
    assert float(to_unit_range(torch.tensor([255], dtype=torch.uint8))) == 1.0
    assert float(to_unit_range(torch.tensor([65535], dtype=torch.uint16))) == 1.0
    with pytest.raises(FewlabelError, match="int64"):
        to_unit_range(torch.tensor([1]))


def test_plain_view_changes_nothing_or_only_the_size() -> None:
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(draw_view(images, plain_view(16), seeded()), images)
    expected = F.interpolate(images, (8, 8), mode="bilinear", antialias=True)
    assert torch.allclose(draw_view(images, plain_view(8), seeded()), expected, atol=1e-6)


def test_flip_alone_mirrors_left_and_right() -> None:
    images = torch.rand(3, 1, 10, 10)
    flipped = draw_view(images, replace(plain_view(10), flip_probability=1.0), seeded())
    assert torch.allclose(flipped, images.flip(-1), atol=1e-5)


def test_medical_views_never_mirror_unless_asked() -> None:
    """A bright left half stays left in every view of a chest."""
    images = torch.zeros(200, 1, 32, 32)
    images[..., :16] = 1.0
    settings = replace(medical_views(32), crop_area=(0.9, 1.0))
    views = draw_view(images, settings, seeded())
    assert bool((views[..., :12].mean(dim=(1, 2, 3)) > views[..., 20:].mean(dim=(1, 2, 3))).all())
    flipped = draw_view(images, replace(settings, flip_probability=0.5), seeded())
    share = (flipped[..., :12].mean(dim=(1, 2, 3)) < flipped[..., 20:].mean(dim=(1, 2, 3))).float().mean()
    assert 0.35 < float(share) < 0.65


def test_crop_area_and_place_follow_the_settings() -> None:
    theta = _affine(2, simclr_views(32), _Dice(seeded(), 4000, slice(None)))
    width, height = theta[:, 0, 0].abs(), theta[:, 1, 1]
    area = width * height
    assert 0.06 < float(area.min()) < 0.12
    assert float(area.max()) <= 1.0
    assert float(area.mean()) == pytest.approx(0.54, abs=0.03)
    assert bool((theta[:, 0, 2].abs() + width <= 1 + 1e-5).all())  # the crop lies inside the image
    assert bool((theta[:, 1, 2].abs() + height <= 1 + 1e-5).all())


def test_rotation_is_by_the_stated_angle() -> None:
    theta = _affine(2, replace(plain_view(32), rotation_deg=30.0), _Dice(seeded(), 4000, slice(None)))
    angles = torch.atan2(theta[:, 1, 0], theta[:, 0, 0]).rad2deg()
    assert float(angles.abs().max()) == pytest.approx(30.0, abs=0.5)
    assert torch.allclose(torch.linalg.det(theta[:, :, :2]), torch.ones(4000), atol=1e-5)


def test_blur_keeps_the_mean_and_lowers_the_contrast() -> None:
    images = torch.rand(8, 1, 40, 40)
    blurred = draw_view(
        images, replace(plain_view(40), blur_probability=1.0, blur_sigma_px=(1.0, 1.0)), seeded()
    )
    assert torch.allclose(blurred.mean(dim=(1, 2, 3)), images.mean(dim=(1, 2, 3)), atol=0.02)
    assert bool((blurred.std(dim=(1, 2, 3)) < 0.7 * images.std(dim=(1, 2, 3))).all())


def test_blur_equals_torch_convolution() -> None:
    images = torch.rand(1, 1, 40, 40)
    settings = replace(plain_view(40), blur_probability=1.0, blur_sigma_px=(1.3, 1.3))
    taps = torch.tensor([math.exp(-0.5 * (k / 1.3) ** 2) for k in range(-2, 3)])
    taps /= taps.sum()
    padded = F.pad(images, [2, 2, 2, 2], mode="reflect")
    expected = F.conv2d(F.conv2d(padded, taps.view(1, 1, 1, 5)), taps.view(1, 1, 5, 1))
    assert torch.allclose(draw_view(images, settings, seeded()), expected, atol=1e-5)


def test_grey_images_stay_grey_under_colour_changes() -> None:
    images = torch.rand(6, 1, 16, 16).expand(-1, 3, -1, -1)
    view = draw_view(images, simclr_views(16), seeded())
    assert torch.allclose(view[:, 0], view[:, 1], atol=2e-3)
    assert torch.allclose(view[:, 0], view[:, 2], atol=2e-3)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(FewlabelError, match=r"\(2, 2, 8, 8\)"):
        draw_view(torch.rand(2, 2, 8, 8), plain_view(8), seeded())


@pytest.mark.parametrize("channels", [1, 3])
def test_a_part_of_a_batch_gets_the_views_it_gets_in_the_whole(channels: int) -> None:
    """So that a batch may be divided over processes or into micro-batches without changing what is trained on."""
    images = torch.rand(7, channels, 24, 24, generator=seeded())
    settings = replace(simclr_views(16), rotation_deg=10.0, gamma=0.2, noise=0.05, blur_probability=1.0)
    whole = draw_views(images, settings, 2, seeded())
    for first, last in ((0, 3), (3, 7)):
        part = draw_views(images[first:last], settings, 2, seeded(), within=(first, 7))
        for a, b in zip(part, whole, strict=True):
            assert torch.equal(a, b[first:last])


def test_convirts_views_are_the_papers() -> None:
    views = convirt_views()
    assert views.size_px == 224
    assert views.blur_sigma_px == (0.1, 3.0)
    assert convirt_views(112).blur_sigma_px == (0.05, 1.5)
    assert convirt_views(flips=False).flip_probability == 0
    theta = _affine(2, views, _Dice(seeded(), 4000, slice(0, 4000)))
    linear = theta[:, :, :2]
    side = linear.det().abs().sqrt()  # of the crop, divided by the zoom
    assert float(side.min()) == pytest.approx(math.sqrt(0.6) / 1.05, abs=0.01)
    assert float(side.max()) == pytest.approx(1 / 0.95, abs=0.01)
    assert float((linear.det() < 0).float().mean()) == pytest.approx(0.5, abs=0.03)
    angle = torch.atan2(linear[:, 1, 0].abs(), linear[:, 1, 1]).rad2deg()
    assert float(angle.max()) == pytest.approx(20, abs=0.1)
    white = draw_view(torch.full((200, 1, 32, 32), 0.5), replace(views.at(32), shift=0.0), seeded())
    middle = white[:, 0, 16, 16]  # brightness alone: contrast does not move a flat image
    assert float(middle.min()) == pytest.approx(0.3, abs=0.05)
    assert float(middle.max()) == pytest.approx(0.7, abs=0.05)
