"""GAN: the losses by hand and by loops, which step moves which weights, samples from a seed, spectral norms."""

import math

import numpy as np
import pytest
import torch

from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives.gan import GAN, discriminator_loss, feature_matching
from fewlabel.training import TrainingSet, fit
from fewlabel.types import Batch, FewlabelError, Schedule
from fewlabel.views import plain_view

SIZE = 16


def gan(**arguments: object) -> GAN:
    torch.manual_seed(0)
    encoder = Encoder(EncoderSettings("test_resnet", channels=1, size_px=SIZE))
    return GAN(encoder, **{"latent_dim": 4, "width": 8, **arguments})  # type: ignore[arg-type]


def batch(count: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(
        views=(torch.rand(count, 1, SIZE, SIZE, generator=generator),),
        labels=torch.tensor([0, 1, -1, -1, 1, -1][:count]),
    )


@pytest.mark.parametrize("real_target", [1.0, 0.9])
def test_discriminator_loss_by_loops(real_target: float) -> None:
    real, made = torch.randn(2, 5, 3, dtype=torch.float64)
    total = 0.0
    for i in range(5):
        z_real = sum(math.exp(real[i, k]) for k in range(3))
        z_made = sum(math.exp(made[i, k]) for k in range(3))
        d_real, d_made = z_real / (z_real + 1), z_made / (z_made + 1)
        total -= real_target * math.log(d_real) + (1 - real_target) * math.log(1 - d_real)
        total -= math.log(1 - d_made)
    found = discriminator_loss(real, made, real_target=real_target)
    assert float(found) == pytest.approx(total / 5, rel=1e-5)


def test_d_is_the_softmax_with_the_logit_of_made_at_0() -> None:
    logits = torch.tensor([[1.0, -0.5]])
    with_made = torch.softmax(torch.tensor([1.0, -0.5, 0.0]), 0)
    nothing_made = torch.full((1, 2), -50.0)
    assert float(discriminator_loss(logits, nothing_made)) == pytest.approx(
        -math.log(1 - float(with_made[2])), rel=1e-4
    )


def test_feature_matching_by_hand() -> None:
    real, made = torch.tensor([[0.0, 2.0], [2.0, 4.0]]), torch.tensor([[1.0, 1.0]])
    assert float(feature_matching(real, made)) == pytest.approx((0.0 + 4.0) / 2)


def test_each_step_moves_its_own_weights_only() -> None:
    model = gan(spectral=False)
    groups = model.parameter_groups()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for names, loss in model.steps(batch()):
        before = {name: [p.detach().clone() for p in group] for name, group in groups.items()}
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for name, group in groups.items():
            if name not in names:
                for p in group:
                    p.grad = None
        optimizer.step()
        moved = {
            name
            for name, group in groups.items()
            if any(not torch.equal(p, old) for p, old in zip(group, before[name], strict=True))
        }
        assert moved == set(names)


def test_training_moves_each_group_at_its_own_step_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """As above in the training loop: with one of the steps left out, its groups stay as they are."""
    for left_out in (0, 1):
        model = gan(spectral=False)
        both = GAN.steps

        def one(self: GAN, batch: Batch, left_out: int = left_out, both=both):  # type: ignore[no-untyped-def]
            return (step for number, step in enumerate(both(self, batch)) if number != left_out)

        monkeypatch.setattr(GAN, "steps", one)
        before = {name: [p.clone() for p in group] for name, group in model.parameter_groups().items()}
        pixels = (batch().views[0].numpy() * 255).astype(np.uint8)
        data = TrainingSet((pixels,), (np.arange(6),), batch().labels.numpy())  # type: ignore[union-attr]
        fit(model, data, plain_view(SIZE), Schedule(2, 6, 1e-2))
        moved = {
            name
            for name, group in model.parameter_groups().items()
            if any(not torch.equal(p, old) for p, old in zip(group, before[name], strict=True))
        }
        assert moved == ({"generator"} if left_out == 0 else {"encoder", "head"})
        monkeypatch.undo()


def test_a_frozen_extractor_does_not_move() -> None:
    model = gan()
    model.freeze_encoder()
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    pixels = (batch().views[0].numpy() * 255).astype(np.uint8)
    data = TrainingSet((pixels,), (np.arange(6),), batch().labels.numpy())  # type: ignore[union-attr]
    fit(model, data, plain_view(SIZE), Schedule(3, 6, 1e-2))
    after = model.encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_same_seed_makes_the_same_images_of_the_class_asked_for() -> None:
    model = gan().eval()
    made = []
    for seed, y in ((3, 0), (3, 0), (4, 0), (3, 1)):
        torch.manual_seed(seed)
        made.append(model.make(torch.full((2,), y)))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert not torch.equal(made[0], made[3])
    assert made[0].shape == (2, 1, SIZE, SIZE)


def test_the_average_follows_the_generator() -> None:
    model = gan(momentum=0.9)
    with torch.no_grad():
        model.generator.first.weight.add_(1.0)
    before = model.averaged.first.weight.clone()
    model.after_step(1, 100)  # the mean of two steps
    torch.testing.assert_close(model.averaged.first.weight, before + 0.5)
    model.after_step(50, 100)
    torch.testing.assert_close(model.averaged.first.weight, before + 0.55)


def test_spectral_norms_are_at_most_1_and_can_be_taken_away() -> None:
    model = gan()
    model.train()
    for _ in range(30):  # the power iteration goes on with every pass in training
        model.predict(batch().views[0])
    model.eval()
    for layer in model.encoder.modules():
        if isinstance(layer, torch.nn.Conv2d):
            norm = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
            assert float(norm.detach()) < 1.05
    with torch.no_grad():
        plain = model.plain_encoder()
    assert not any("parametrizations" in name for name in plain.state_dict())
    x = batch().views[0]
    torch.testing.assert_close(plain(x), model.encoder(x))


@pytest.mark.parametrize("arguments", [{"real_target": 0.3}, {"momentum": 1.0}, {"classes": 1}])
def test_wrong_arguments_are_one_sentence(arguments: dict[str, float]) -> None:
    with pytest.raises(FewlabelError, match="2 or more, above"):
        gan(**arguments)
