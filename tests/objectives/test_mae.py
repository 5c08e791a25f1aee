"""MAE: the paper's loops, one case by hand, and what encoder and decoder see."""

import math

import pytest
import torch
from small_encoders import SIZE_PX, small_encoder

from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives import MAE, masked_error
from fewlabel.objectives.mae import patches_of, random_masks
from fewlabel.types import Batch, FewlabelError

PATCHES = 16


@pytest.fixture(scope="module")
def objective() -> MAE:
    """A transformer whose images of 64 px have 16 patches of 16 px: 4 are visible."""
    torch.manual_seed(0)
    return MAE(Encoder(EncoderSettings("test_vit", channels=1, size_px=64)), decoder_depth=1).eval()


def images(count: int = 3, size_px: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 1, size_px, size_px, generator=torch.Generator().manual_seed(seed))


def error_by_loops(y: torch.Tensor, x: torch.Tensor, masked: torch.Tensor) -> float:
    errors = []
    for b in range(x.shape[0]):
        for i in range(x.shape[1]):
            if not masked[b, i]:
                continue
            values = [float(v) for v in x[b, i]]
            mean = sum(values) / len(values)
            variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
            targets = [(v - mean) / math.sqrt(variance + 1e-6) for v in values]
            squares = [(float(p) - t) ** 2 for p, t in zip(y[b, i], targets, strict=True)]
            errors.append(sum(squares) / len(squares))
    return sum(errors) / len(errors)


def test_error_equals_the_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    y, x = torch.randn(2, 3, 8, 5, generator=generator)
    masked = random_masks(3, 8, 0.75, torch.device("cpu"))
    assert float(masked_error(y, x, masked)) == pytest.approx(error_by_loops(y, x, masked), rel=1e-5)


def test_error_by_hand() -> None:
    """A masked patch (0, 2) has mean 1 and variance 2: targets -+ 1/sqrt(2), so a prediction of 0 errs by 1/2."""
    x = torch.tensor([[[0.0, 2.0], [5.0, 9.0]]])
    masked = torch.tensor([[True, False]])
    assert float(masked_error(torch.zeros(1, 2, 2), x, masked)) == pytest.approx(0.5, abs=1e-5)
    perfect = torch.tensor([[[-(0.5**0.5), 0.5**0.5], [100.0, 100.0]]])
    assert float(masked_error(perfect, x, masked)) == pytest.approx(0, abs=1e-6)


def test_visible_patches_do_not_count() -> None:
    y, x = torch.randn(2, 2, 8, 5, generator=torch.Generator().manual_seed(0))
    masked = random_masks(2, 8, 0.75, torch.device("cpu"))
    before = masked_error(y, x, masked)
    other = torch.randn(2, 8, 5)
    visible = ~masked[:, :, None]
    assert torch.equal(masked_error(torch.where(visible, other, y), x, masked), before)
    assert torch.equal(masked_error(y, torch.where(visible, other, x), masked), before)
    assert not torch.equal(masked_error(torch.where(visible, y, other), x, masked), before)


def test_brightness_and_contrast_of_a_patch_do_not_matter_and_an_even_one_has_no_target() -> None:
    y, x = torch.randn(2, 2, 8, 5, generator=torch.Generator().manual_seed(0))
    masked = torch.ones(2, 8, dtype=torch.bool)
    assert torch.allclose(masked_error(y, x, masked), masked_error(y, 4 * x + 3, masked), atol=1e-4)
    even = masked_error(y, torch.full_like(x, 0.7), masked)
    assert float(even) == pytest.approx(float(y.square().mean()), rel=1e-4)


def test_patches_are_cut_row_by_row() -> None:
    x = torch.arange(2 * 4 * 6.0).view(1, 2, 4, 6)
    found = patches_of(x, (2, 3))  # 2 rows and 2 columns of patches
    assert found.shape == (1, 4, 12)
    for number, (row, column) in enumerate(((0, 0), (0, 3), (2, 0), (2, 3))):
        assert torch.equal(found[0, number], x[0, :, row : row + 2, column : column + 3].flatten())


@pytest.mark.parametrize(("patches", "ratio", "visible"), [(16, 0.75, 4), (196, 0.75, 49), (10, 0.9, 1)])
def test_each_image_has_the_same_number_of_masked_patches_in_other_places(
    patches: int, ratio: float, visible: int
) -> None:
    torch.manual_seed(0)
    masked = random_masks(50, patches, ratio, torch.device("cpu"))
    assert (~masked).sum(1).tolist() == [visible] * 50
    assert len({tuple(row.tolist()) for row in masked}) > 5
    assert masked.any(0).all()


@pytest.mark.parametrize(("patches", "ratio"), [(1, 0.75), (16, 1.0), (16, 0.0)])
def test_all_patches_or_none_is_a_mistake(patches: int, ratio: float) -> None:
    with pytest.raises(FewlabelError, match="at least 1 must be visible"):
        random_masks(2, patches, ratio, torch.device("cpu"))


def test_masks_come_from_torchs_global_random_numbers(objective: MAE) -> None:
    losses = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        losses.append(objective.loss(Batch(views=(images(),))).item())
    assert losses[0] == losses[1] != losses[2]


def test_the_encoder_sees_the_visible_patches_only(objective: MAE) -> None:
    masked = random_masks(3, PATCHES, 0.75, torch.device("cpu"))
    lengths: list[int] = []
    hook = objective.encoder.network.blocks[0].register_forward_pre_hook(
        lambda _, inputs: lengths.append(inputs[0].shape[1])
    )
    x = images()
    h = objective.encode(x, masked)
    hook.remove()
    assert lengths == [1 + 4]  # the class token and a quarter of 16
    assert h.shape == (3, 5, objective.encoder.dim)
    where = masked.view(3, 1, 4, 4).repeat_interleave(16, 2).repeat_interleave(16, 3)
    assert torch.equal(objective.encode(torch.where(where, torch.rand_like(x), x), masked), h)
    assert not torch.allclose(objective.encode(torch.where(where, x, torch.rand_like(x)), masked), h)


def test_with_nothing_masked_the_encoder_is_the_encoder(objective: MAE) -> None:
    x = images()
    h = objective.encode((x - objective.encoder.mean) / objective.encoder.std, torch.zeros(3, 16).bool())
    assert torch.allclose(h[:, 0], objective.encoder(x), atol=1e-5)  # the class token


def test_the_decoder_puts_features_in_their_places(objective: MAE) -> None:
    """With no block in between, a prediction depends on its own place alone."""
    masked = random_masks(3, PATCHES, 0.75, torch.device("cpu"))
    h = torch.randn(3, 5, objective.encoder.dim)
    blocks = objective.decoder
    objective.decoder = torch.nn.Sequential()
    try:
        y = objective.decode(h, masked, torch.Size([64, 64]))
        tokens = objective.to_decoder(h[:, 1:])  # (3, 4, width), without the class token
        positions = objective._positions(torch.Size([64, 64]))
        for b in range(3):
            features = iter(tokens[b])
            for place in range(PATCHES):
                token = objective.mask_token[0, 0] if masked[b, place] else next(features)
                expected = objective.to_pixels(token + positions[place])
                assert torch.allclose(y[b, place], expected, atol=1e-5)
        assert len(positions.unique(dim=0)) == PATCHES
    finally:
        objective.decoder = blocks


def test_the_loss_is_that_of_the_parts(objective: MAE) -> None:
    x = images()
    torch.manual_seed(7)
    found = objective.loss(Batch(views=(x,)))
    torch.manual_seed(7)
    masked = random_masks(3, PATCHES, 0.75, torch.device("cpu"))
    y = objective.decode(objective.encode((x - 0.5) / 0.25, masked), masked, torch.Size([64, 64]))
    assert found.item() == pytest.approx(
        error_by_loops(y.detach(), patches_of((x - 0.5) / 0.25, (16, 16)), masked), rel=1e-4
    )


def test_it_learns_to_fill_in_what_can_be_known() -> None:
    """Stripes of one kind in every patch: what is masked follows from what is seen."""
    torch.manual_seed(0)
    objective = MAE(small_encoder("test_vit"), decoder_depth=1)
    x = torch.linspace(0, 1, 16).repeat(8, 1, SIZE_PX, 2)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = objective.loss(Batch(views=(x,)))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_vit2"])
def test_other_vision_transformers(name: str) -> None:
    """One of a fixed size; one that has no class token, and pools by average before its norm."""
    objective = MAE(small_encoder(name))
    objective.loss(Batch(views=(images(2, SIZE_PX),))).backward()
    assert [n for n, p in objective.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ["test_resnet", "test_vit3"])
def test_other_networks_are_refused(name: str) -> None:
    with pytest.raises(
        FewlabelError, match="needs a vision transformer of timm with a class token or average"
    ):
        MAE(Encoder(EncoderSettings(name, channels=1, size_px=160)))


def test_a_width_that_does_not_divide_is_named() -> None:
    with pytest.raises(FewlabelError, match="decoder_dim is 70"):
        MAE(small_encoder("test_vit"), decoder_dim=70)


def test_mixed_precision(objective: MAE) -> None:
    batch = Batch(views=(images(),))
    torch.manual_seed(0)
    exact = objective.loss(batch)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = objective.loss(batch)
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(exact.item(), rel=0.02)
