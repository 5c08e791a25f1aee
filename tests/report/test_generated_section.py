"""The section about made images: what is there is shown with its meaning, what is not is not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from example import JSON
from parsed_page import Page

from fewlabel.report import write_report
from fewlabel.types import FewlabelError

BARE: JSON = {
    "format": 1, "target": {"name": "Opacity", "kind": "binary", "classes": ["0", "1"]}, "metric": "auroc",
    "metrics": [], "arms": [{"key": "simclr", "label": "VAE, linear probe", "role": "method"}],
}  # fmt: skip
FIGURES = ("samples", "reconstructions", "interpolations")


def _generated() -> JSON:
    return {
        "objective": "VAE",
        "reconstructions": {"figure": "figures/reconstructions.png", "images": 16},
        "interpolations": {"figure": "figures/interpolations.png", "ways": 4, "steps": 7},
        "samples": {"figure": "figures/samples.png", "classes": ["0", "1"]},
        "memorisation": {
            "drawn": 512, "kept": 476, "share": {"value": 0.0703, "low": 0.051, "high": 0.094}, "of_held_out": 0.08,
            "quantile": 0.05, "training": 4708, "held_out": 524, "held_out_patients": 500,
        },
        "frechet": {
            "value": 3.21, "low": 2.9, "high": 3.6, "n": 624, "patients": 601, "samples": 476, "floor": 0.41,
            "floor_n": 476,
        },
    }  # fmt: skip


def _page(run: Path, generated: JSON) -> str:
    (run / "figures").mkdir(parents=True, exist_ok=True)
    for name in FIGURES:
        PIL.Image.fromarray(np.zeros((30, 60, 3), np.uint8)).save(run / "figures" / f"{name}.png")
    (run / "results.json").write_text(json.dumps(BARE | {"generated": generated}))
    return write_report(run).read_text(encoding="utf-8")


def _section(html: str) -> Page:
    found = re.search(r'<section aria-labelledby="made">.*?</section>', html, re.DOTALL)
    assert found is not None
    return Page(found[0])


def test_everything_is_told_with_its_meaning(tmp_path: Path) -> None:
    html = _page(tmp_path, _generated())
    assert '<a href="#made">Made images</a>' in html
    section = _section(html)
    for shown in (
        "Whatever bears the mark “made” in its lower left corner was made by a network. Samples show no patient.",
        "follow images of patients",
        "the samples lie farther from test images than real training images do",
        "One row a class, from the top: no, yes.",
        "7.0 % of 512 samples lie too close to a training image (95 % interval 5.1 to 9.4 %); 476 are kept.",
        "About as many as among real images: nothing speaks for copies.",
        "nearest of 4,708 training images",
        "524 validation images of 500 patients",
        "nearer than all but 5.0 % of these, in pixels or in features; of these images themselves that is 8.0 %",
        "no proof of privacy",
        "Samples that are kept 476 3.21 2.90 to 3.60 Real training images 476 0.410 Lower is nearer",
        "624 test images of 601 patients",
        "below each what the VAE makes of its code",
        "between them 7 images on the straight line",
    ):
        assert shown in section.text, shown
    assert sum(tag == "img" for tag, _ in section.elements) == 3


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.2, 0.3, "the generator repeats images"), (0.01, 0.02, "Fewer than among real images")],
)
def test_the_share_is_held_against_that_of_real_images(
    tmp_path: Path, low: float, high: float, verdict: str
) -> None:
    given = _generated()
    given["memorisation"]["share"] = {"value": (low + high) / 2, "low": low, "high": high}
    assert verdict in _section(_page(tmp_path, given)).text


def test_samples_near_the_floor_are_not_told_from_real_images(tmp_path: Path) -> None:
    given = _generated()
    given["frechet"] |= {"low": 0.35}
    assert "the samples are not told from real images" in _section(_page(tmp_path, given)).text


def test_of_a_generator_that_only_repeats_no_sample_is_shown(tmp_path: Path) -> None:
    given = _generated() | {"samples": None}
    given["memorisation"] |= {"kept": 0, "share": {"value": 1.0, "low": 1.0, "high": 1.0}}
    section = _section(_page(tmp_path, given))
    assert "No sample is shown, since all of them lie too close" in section.text
    assert "Samples by class" not in section.text


def test_parts_may_be_missing(tmp_path: Path) -> None:
    given = {"objective": "Autoencoder", "reconstructions": _generated()["reconstructions"]}
    text = _section(_page(tmp_path, given)).text
    assert "what the autoencoder makes of its code" in text
    assert "straight line" not in text
    assert "samples" not in text
    assert 'id="made"' not in _page(tmp_path / "none", {})


def test_damaged_blocks_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FewlabelError, match='holds a "generated" that is no dict'):
        _page(tmp_path, ["x"])  # type: ignore[arg-type]
    wrong = _generated()
    del wrong["memorisation"]["share"]
    with pytest.raises(FewlabelError, match="cannot be shown in the part 'generated'"):
        _page(tmp_path, wrong)
