"""What makes images after training: the average, the same images from the same seed, each class its own."""

from __future__ import annotations

import pytest
import torch
from small_encoders import SIZE_PX, small_encoder

from fewlabel.objectives import GAN
from fewlabel.objectives import generator as module
from fewlabel.objectives.generator import Generator
from fewlabel.types import FewlabelError

NAMES = ("healthy", "ill", "very ill")


@pytest.fixture
def gan() -> GAN:
    torch.manual_seed(0)
    return GAN(small_encoder(), classes=3, latent_dim=4, width=8)


def _seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_same_seed_gives_the_same_samples_in_any_batches(
    gan: GAN, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Generator.of(gan, NAMES)
    y = torch.arange(10) % 3
    first = made.sample(y, _seeded())
    assert first.shape == (10, 1, SIZE_PX, SIZE_PX)
    assert 0 <= float(first.min()) <= float(first.max()) <= 1
    torch.manual_seed(99)  # global numbers have no say
    assert torch.equal(made.sample(y, _seeded()), first)
    monkeypatch.setattr(module, "BATCH", 3)
    torch.testing.assert_close(made.sample(y, _seeded()), first, rtol=0, atol=1e-5)
    assert not torch.allclose(made.sample(y, _seeded(6)), first)


def test_each_class_has_its_own_images(gan: GAN) -> None:
    made = Generator.of(gan, NAMES)
    images = [made.sample(torch.full((4,), code), _seeded()) for code in range(3)]
    assert not torch.allclose(images[0], images[1])
    assert not torch.allclose(images[1], images[2])


def test_it_is_a_copy_of_the_average(gan: GAN) -> None:
    torch.nn.init.zeros_(gan.generator.first.weight)  # the average still differs
    made = Generator.of(gan, NAMES)
    y = torch.zeros(4, dtype=torch.long)
    z = torch.cat([torch.randn(4, 4, generator=_seeded()), torch.eye(3)[y]], dim=1)
    with torch.no_grad():
        expected = gan.averaged.eval()(z)
    torch.testing.assert_close(made.sample(y, _seeded()), expected)
    torch.nn.init.zeros_(gan.averaged.first.weight)
    torch.testing.assert_close(made.sample(y, _seeded()), expected)
    assert not made.decoder.training
    assert not any(parameter.requires_grad for parameter in made.decoder.parameters())


def test_classes_must_fit(gan: GAN) -> None:
    with pytest.raises(FewlabelError, match="name each class of the GAN once"):
        Generator.of(gan, NAMES[:2])
    made = Generator.of(gan, NAMES)
    for wrong in (3, -1):
        with pytest.raises(FewlabelError, match="the generator makes 0 to 2: healthy, ill, very ill"):
            made.sample(torch.tensor([0, wrong]), _seeded())
    assert made.sample(torch.empty(0, dtype=torch.long), _seeded()).shape[0] == 0
