"""Fine-tuning: what is kept, what moves, at which rate, and on which labels."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewlabel.adaptation import finetune
from fewlabel.adaptation.distill import DistillSettings, distill
from fewlabel.adaptation.features import extract_features
from fewlabel.adaptation.finetune import (
    FineTuneSettings,
    LabelledImages,
    TrainedNetwork,
    network_outputs,
    train_on_labels,
    tuned_start,
)
from fewlabel.adaptation.ordinal import OrdinalProbe, fit_ordinal_probe
from fewlabel.adaptation.probe import Scaling, fit_linear_probe
from fewlabel.networks import Encoder, EncoderSettings, HeadedEncoder, mlp_head
from fewlabel.objectives import Supervised
from fewlabel.pipeline.simclr_v2 import as_probe
from fewlabel.training import Compute, loop
from fewlabel.training.optimizers import make_optimizer
from fewlabel.types import FewlabelError, Schedule
from fewlabel.views import light_views, plain_view

SIZE, COUNT = 16, 60
ROWS, VAL = np.arange(30), np.arange(30, 50)


def made(kind: Any = "binary") -> LabelledImages:
    """Bright images are class 1; a number is the brightness."""
    rng = np.random.default_rng(0)
    level = rng.uniform(40, 200, COUNT)
    pixels = np.clip(level[:, None, None, None] + rng.normal(0, 20, (COUNT, 1, SIZE, SIZE)), 0, 255)
    y = level if kind == "number" else (level > 120).astype(np.int64)
    classes = 0 if kind == "number" else 2
    return LabelledImages(pixels.astype(np.uint8), y, ROWS, VAL, kind, classes, SIZE)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(EncoderSettings("test_resnet", 1, SIZE)).eval()


@pytest.fixture(scope="module")
def head(encoder: Encoder) -> torch.nn.Sequential:
    torch.manual_seed(1)
    return mlp_head(encoder.dim, 24, 8, layers=3).eval()


def begun(encoder: Encoder, head: Any, images: LabelledImages, **settings: Any) -> Supervised:
    chosen = FineTuneSettings(**settings)
    torch.manual_seed(2)
    return tuned_start(copy.deepcopy(encoder), copy.deepcopy(head), images, chosen, steps=20)


def test_from_the_heads_first_layer_exactly_that_layer_is_kept(encoder: Encoder, head: Any) -> None:
    objective = begun(encoder, head, made(), keep_head_layers=1)
    body = objective.encoder
    assert isinstance(body, HeadedEncoder)
    kept = body.first.state_dict()
    assert set(kept) == {key for key in head.state_dict() if key.split(".")[0] in "01"}
    assert all(torch.equal(value, head.state_dict()[key]) for key, value in kept.items())
    assert all(
        torch.equal(a, b)
        for a, b in zip(body.body.state_dict().values(), encoder.state_dict().values(), strict=True)
    )
    assert objective.head.in_features == 24
    x = torch.rand(3, 1, SIZE, SIZE)
    objective.eval()
    assert torch.allclose(objective.predict(x), objective.head(head[:3](encoder(x))), atol=1e-6)
    assert begun(encoder, head, made()).head.in_features == encoder.dim


def test_from_a_probe_the_first_answers_are_the_probes(encoder: Encoder) -> None:
    images = made()
    features = extract_features(encoder, images.pixels, size_px=SIZE)
    x, y = features[ROWS], images.y[ROWS]
    scaling = Scaling.of(features)
    probe = fit_linear_probe(x, y, features[VAL], images.y[VAL], kind="binary", classes=2, scaling=scaling)
    settings = FineTuneSettings(start_from_probe=True)
    objective = tuned_start(encoder, None, images, settings, steps=20, probe=probe)
    found = network_outputs(objective, images.pixels, VAL, SIZE)
    assert np.allclose(found, probe.logits(features[VAL]), atol=1e-3)


def test_from_an_ordinal_probe_the_first_answers_are_the_probes(encoder: Encoder) -> None:
    images = replace(made(), kind="ordinal", classes=3, y=np.digitize(made("number").y, [90, 150]))
    features = extract_features(encoder, images.pixels, size_px=SIZE)
    probe = fit_ordinal_probe(
        features[ROWS], images.y[ROWS], features[VAL], images.y[VAL], classes=3, scaling=Scaling.of(features)
    )
    assert np.ptp(probe.logits(features[VAL]), axis=0).min() > 0.1
    settings = FineTuneSettings(start_from_probe=True)
    objective = tuned_start(copy.deepcopy(encoder), None, images, settings, steps=20, probe=probe)
    found = network_outputs(objective, images.pixels, VAL, SIZE)
    assert np.allclose(found, probe.logits(features[VAL]), atol=1e-3)
    body, back = as_probe(TrainedNetwork(objective, SIZE, probe.calibration))
    assert isinstance(back, OrdinalProbe)
    again = back.predict(extract_features(body, images.pixels, size_px=SIZE)[VAL])
    assert np.allclose(again, probe.predict(features[VAL]), atol=1e-3)


def test_rates_decay_with_depth_and_the_head_warms_up_alone(encoder: Encoder, head: Any) -> None:
    objective = begun(encoder, head, made(), keep_head_layers=1, layer_decay=0.5, head_warmup=0.25)
    assert objective.head_warmup_steps == 5
    groups = objective.parameter_groups()
    assert groups["1"][0] is objective.encoder.first[0].weight
    assert sum(len(group) for group in groups.values()) == len(list(objective.parameters()))
    assert [objective.rate_scale(name, 5) for name in ("head", "1", "2", "3")] == [1.0, 0.5, 0.25, 0.125]
    assert [objective.rate_scale(name, 4) for name in ("head", "1", "2")] == [1.0, 0.0, 0.0]
    named = {group["name"] for group in make_optimizer(objective, Schedule(1, 1, 0.1)).param_groups}
    assert named == set(groups)


def test_in_the_warm_up_only_the_new_layer_moves(encoder: Encoder) -> None:
    objective = begun(encoder, None, made(), head_warmup=1.0)
    before = copy.deepcopy(objective)
    train_on_labels(objective, made(), Schedule(4, 16, 0.05))
    assert not torch.equal(objective.head.weight, before.head.weight)
    stood, moved = before.encoder.state_dict(), objective.encoder.state_dict()
    changed = {key for key, value in moved.items() if not torch.equal(value, stood[key])}
    assert changed
    assert all(key.endswith(("running_mean", "running_var", "num_batches_tracked")) for key in changed)


@pytest.mark.parametrize("kind", ["binary", "number"])
def test_it_learns_and_labels_outside_change_nothing(encoder: Encoder, kind: Any) -> None:
    images, found = made(kind), []
    other = images.y.copy()
    other[50:] = 1 - other[50:] if kind == "binary" else 0.0
    for y in (images.y, other):
        start = begun(encoder, None, images, layer_decay=1.0, head_warmup=0.0)
        trained = train_on_labels(start, replace(images, y=y), Schedule(40, 16, 0.01))
        found.append(trained.predict(images.pixels, np.arange(50, COUNT)))
    assert np.array_equal(found[0], found[1])
    answer = found[0][:, 1] if kind == "binary" else found[0]
    assert np.corrcoef(answer, images.y[50:])[0, 1] > 0.7


def test_classes_are_balanced_on_request(encoder: Encoder) -> None:
    images = replace(
        made(), train=np.concatenate([np.flatnonzero(made().y == 1)[:9], np.flatnonzero(made().y == 0)[:3]])
    )
    weights = begun(encoder, None, images, balanced=True).class_weights
    assert weights.tolist() == pytest.approx([2.0, 2 / 3])
    assert begun(encoder, None, images).class_weights is None


def test_training_goes_on_where_it_was_stopped(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, plan = made(), Schedule(120, 8, 0.01)
    monkeypatch.setattr(finetune, "PATIENCE", 99)
    save, one_step, steps = loop._Run._save, loop._Run._one_step, []

    def train() -> TrainedNetwork:
        start = begun(encoder, None, images)
        return train_on_labels(start, images, plan, out=tmp_path, compute=Compute("32"))

    def stop(run: Any) -> None:
        save(run)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_save", stop)
        with pytest.raises(KeyboardInterrupt):
            train()

    def counted(run: Any, feeder: Any) -> float:
        steps.append(run.step)
        return one_step(run, feeder)

    monkeypatch.setattr(loop._Run, "_one_step", counted)
    train()
    assert steps == list(range(100, 120))


def test_mistakes(encoder: Encoder, head: Any) -> None:
    with pytest.raises(FewlabelError, match="layer_decay is 2"):
        FineTuneSettings(layer_decay=2)
    with pytest.raises(FewlabelError, match="leave keep_head_layers at 0"):
        FineTuneSettings(start_from_probe=True, keep_head_layers=1)
    with pytest.raises(FewlabelError, match="projection head was not kept"):
        begun(encoder, None, made(), keep_head_layers=1)
    with pytest.raises(FewlabelError, match="keep from 0 to 2"):
        begun(encoder, head, made(), keep_head_layers=3)
    with pytest.raises(FewlabelError, match="needs a linear probe"):
        begun(encoder, None, made(), start_from_probe=True)
    with pytest.raises(FewlabelError, match="one class only"):
        replace(made(), train=np.flatnonzero(made().y == 1))


def student(encoder: Encoder, classes: int = 2) -> Supervised:
    torch.manual_seed(3)
    return Supervised(copy.deepcopy(encoder), classes=classes)


@pytest.mark.parametrize("kind", ["binary", "number"])
def test_a_student_follows_its_teacher_on_images_without_labels(encoder: Encoder, kind: Any) -> None:
    images = made(kind)
    teacher = train_on_labels(begun(encoder, None, images, layer_decay=1.0), images, Schedule(40, 16, 0.01))
    before = {key: value.clone() for key, value in teacher.objective.state_dict().items()}
    settings = DistillSettings(steps=60, batch_size=16, learning_rate=0.01)
    found = distill(student(encoder, images.classes), [teacher], images, np.arange(COUNT), settings, seed=0)
    answers = [one.predict(images.pixels, np.arange(50, COUNT)) for one in (teacher, found)]
    if kind == "binary":
        answers = [one[:, 1] for one in answers]
    assert np.corrcoef(*answers)[0, 1] > 0.8
    after = teacher.objective.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_what_a_teacher_says_is_asked_once_where_views_stay_the_same(encoder: Encoder) -> None:
    images, asked = made(), []

    class Counted(Supervised):
        def predict(self, x: torch.Tensor) -> torch.Tensor:
            asked.append(len(x))
            return super().predict(x)

    torch.manual_seed(0)
    teacher = TrainedNetwork(Counted(copy.deepcopy(encoder), classes=2), SIZE)
    settings = DistillSettings(steps=5, batch_size=12)
    for views, alpha, times in (
        (plain_view(SIZE), 1.0, 1),
        (light_views(SIZE), 1.0, 5),
        (plain_view(SIZE), 0.5, 5),
    ):
        asked.clear()
        distill(
            student(encoder),
            [teacher],
            images,
            np.arange(COUNT),
            replace(settings, alpha=alpha),
            seed=0,
            views=views,
        )
        assert len(asked) == times


def test_labels_that_were_not_given_do_not_count_in_distillation(encoder: Encoder) -> None:
    images, found = made(), []
    other = images.y.copy()
    other[50:] = 1 - other[50:]
    teacher = TrainedNetwork(student(encoder), SIZE)
    settings = DistillSettings(steps=5, batch_size=16, alpha=0.5)
    for y in (images.y, other):
        one = distill(student(encoder), [teacher], replace(images, y=y), np.arange(COUNT), settings, seed=0)
        found.append(one.predict(images.pixels, VAL))
    assert np.array_equal(found[0], found[1])


def test_teachers_need_one_scale(encoder: Encoder) -> None:
    teachers = [TrainedNetwork(student(encoder, 0), SIZE, centre=centre) for centre in (0.0, 1.0)]
    with pytest.raises(FewlabelError, match="different labels"):
        distill(student(encoder, 0), teachers, made("number"), ROWS, DistillSettings(), seed=0)


def test_teachers_of_other_classes_or_none(encoder: Encoder) -> None:
    teachers = [TrainedNetwork(student(encoder, classes), SIZE) for classes in (2, 3)]
    with pytest.raises(FewlabelError, match="tell 2 and 3 classes"):
        distill(student(encoder), teachers, made(), ROWS, DistillSettings(), seed=0)
    with pytest.raises(FewlabelError, match="tell 2 and 3 classes"):
        distill(student(encoder, 3), teachers[:1], made(), ROWS, DistillSettings(), seed=0)
    with pytest.raises(FewlabelError, match="No teacher was given"):
        distill(student(encoder), [], made(), ROWS, DistillSettings(), seed=0)
