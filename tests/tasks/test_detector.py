"""The detector as a whole: every score and map, thresholds and colours from normal images, kept without a pickle."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewlabel.networks import Encoder, EncoderSettings
from fewlabel.objectives import VAE, Autoencoder
from fewlabel.tasks import detector as module
from fewlabel.tasks.detector import DESCRIPTION, MAPS, NORMAL, SCORES, Detector, load_detector
from fewlabel.types import FewlabelError

SIZE = 32


def images(count: int, seed: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, channels, 40, 40), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector() -> Detector:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = VAE(Encoder(EncoderSettings("test_resnet", 1, SIZE)), latent_dim=4, width=4).eval()
    made = Detector.of(vae.encoder, vae, images(20, 0), size_px=SIZE, max_side_px=512, patches=100)
    return made.fixed(images(30, 1), specificity=0.9)


def test_every_score_and_map_and_none_without_a_decoder(detector: Detector) -> None:
    looked = detector.look(images(5, 2))
    assert set(looked.scores) == set(SCORES) == set(detector.thresholds)
    assert set(looked.maps) == set(MAPS) == set(detector.ranges)
    assert all(values.shape == (5,) for values in looked.scores.values())
    assert all(maps.shape == (5, SIZE, SIZE) for maps in looked.maps.values())
    assert looked.scores["reconstruction"] == pytest.approx(
        looked.maps["reconstruction"].mean(axis=(1, 2)), rel=0.02
    )
    assert looked.scores["reconstruction-local"] == pytest.approx(
        np.quantile(looked.maps["reconstruction-local"], 0.99, axis=(1, 2))
    )
    plain = Autoencoder(detector.encoder, latent_dim=4, width=4).eval()
    assert set(replace(detector, reconstructor=plain).look(images(2, 2)).scores) == set(SCORES) - {"elbo"}
    alone = replace(detector, reconstructor=None).look(images(2, 2))
    assert set(alone.scores) == {"patches", "mahalanobis"}
    assert set(alone.maps) == {"patches"}


def test_blocks_make_no_difference(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = detector.look(images(5, 2))
    monkeypatch.setattr(module, "BLOCK", 2)
    parts = detector.look(images(5, 2))
    for name, values in whole.scores.items():
        assert parts.scores[name] == pytest.approx(values, rel=1e-3), name
    assert parts.maps["patches"] == pytest.approx(whole.maps["patches"], abs=1e-3)
    assert detector.look(images(5, 2), maps=False).maps == {}


def test_a_black_patch_shows_in_the_map_of_places(detector: Detector) -> None:
    pixels = images(1, 3)
    pixels[..., 20:30, 5:15] = 0
    looked, before = detector.look(pixels), detector.look(images(1, 3))
    change = (looked.maps["patches"] - before.maps["patches"])[0]
    row, column = divmod(int(change.argmax()), SIZE)
    assert 20 * 0.8 - 3 < row < 30 * 0.8 + 3
    assert 5 * 0.8 - 3 < column < 15 * 0.8 + 3
    assert looked.scores["patches"][0] > before.scores["patches"][0]


def test_what_is_usual_at_a_pixel_takes_letters_from_the_map(detector: Detector) -> None:
    """Letters that every fourth normal image has are the peak of the error, and not of the error by what is usual."""
    lettered = np.full((40, 1, 40, 40), 100, np.uint8)
    lettered[::4, :, :8, :8] = 255
    seen = Detector.of(
        detector.encoder, detector.reconstructor, lettered, size_px=SIZE, max_side_px=512, patches=100
    )
    asked = lettered[:1].copy()
    asked[..., 28:36, 28:36] = 180
    maps = seen.look(asked).maps
    assert np.unravel_index(maps["reconstruction"][0].argmax(), (SIZE, SIZE))[0] < SIZE / 2
    assert np.unravel_index(maps["reconstruction-local"][0].argmax(), (SIZE, SIZE))[0] > SIZE / 2


def test_thresholds_leave_their_share_of_normal_images_below(detector: Detector) -> None:
    normal = detector.look(images(30, 1))
    for name, values in normal.scores.items():
        assert (
            np.count_nonzero(
                values > detector.thresholds[name] * (1 + 1e-5 * np.sign(detector.thresholds[name]))
            )
            == 2
        )
        assert (
            np.count_nonzero(values >= detector.thresholds[name] - 1e-3 * abs(detector.thresholds[name])) >= 3
        )
    for name, maps in normal.maps.items():
        low, high = detector.ranges[name]
        assert np.mean(maps <= low) == pytest.approx(0.5, abs=0.01)
        assert np.mean(maps > high) == pytest.approx(0.001, abs=5e-4)


def test_a_detector_comes_back_as_it_was(detector: Detector, tmp_path: Path) -> None:
    detector.save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
    again = load_detector(tmp_path)
    assert (again.thresholds, again.ranges) == (detector.thresholds, detector.ranges)
    assert (again.size_px, again.store_px, again.max_side_px) == (SIZE, 40, 512)
    before, after = detector.look(images(4, 5)), again.look(images(4, 5))
    for name, values in before.scores.items():
        assert after.scores[name] == pytest.approx(values, rel=1e-4), name
    replace(detector, reconstructor=None).save(tmp_path / "simclr")
    assert load_detector(tmp_path / "simclr").reconstructor is None


def test_images_of_other_channels_and_damaged_files_are_one_sentence(
    detector: Detector, tmp_path: Path
) -> None:
    for pixels in (images(2, 0, channels=3), images(0, 0), images(1, 0)[0]):
        with pytest.raises(FewlabelError, match="came to be scored and the detector was trained on 1"):
            detector.look(pixels)
    with pytest.raises(FewlabelError, match="holds no whole detector"):
        load_detector(tmp_path)
    detector.save(tmp_path / "whole")
    for name, said in ((DESCRIPTION, "no whole detector"), (NORMAL, "cannot be read as safetensors")):
        shutil.copytree(tmp_path / "whole", tmp_path / name)
        damaged = tmp_path / name / name
        damaged.write_bytes(damaged.read_bytes()[:30])
        with pytest.raises(FewlabelError, match=said):
            load_detector(tmp_path / name)
    text = (tmp_path / "whole" / DESCRIPTION).read_text()
    shutil.copytree(tmp_path / "whole", tmp_path / "old")
    (tmp_path / "old" / DESCRIPTION).write_text(text.replace('"format": 2', '"format": 1'))
    with pytest.raises(FewlabelError, match="format 1 and 2 is read here"):
        load_detector(tmp_path / "old")
    shutil.copy(tmp_path / "whole" / "encoder.safetensors", tmp_path / "whole" / NORMAL)
    with pytest.raises(FewlabelError, match="lacks 'centre'"):
        load_detector(tmp_path / "whole")
    said = json.loads((tmp_path / "whole" / DESCRIPTION).read_text())
    (tmp_path / "whole" / DESCRIPTION).write_text(json.dumps({**said, "thresholds": 3}))
    with pytest.raises(FewlabelError, match="no whole detector"):
        load_detector(tmp_path / "whole")
