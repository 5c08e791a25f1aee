"""What comes from disk: results.json, run.json and pictures, right and wrong."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from example import binary, write_run

from fewlabel.report.contract import LARGEST_SIDE_PX, picture, read_results, read_settings
from fewlabel.types import FewlabelError

ABSTENTION = binary()["abstention"]
WRONG: dict[str, tuple[Any, str]] = {
    "other format": ({"format": 2}, "format 2"),
    "no arms": ({"arms": None}, '"arms"'),
    "metrics a dict": ({"metrics": {}}, '"metrics"'),
    "no target": ({"target": "Pneumonia"}, '"target"'),
    "arm without key": ({"arms": [{"label": "x"}]}, '"key"'),
    "unknown arm": ({"arms": [{"key": "simclr"}]}, "not among its arms"),
    "calibration a dict": ({"calibration": {"simclr": []}}, '"calibration" that is no list'),
    "abstention a list": ({"abstention": [1]}, '"abstention" that is no dict'),
    "abstention without a curve": ({"abstention": ABSTENTION | {"curve": None}}, 'without a dict "curve"'),
    "abstention without asked risks": ({"abstention": ABSTENTION | {"asked": {}}}, 'without a list "asked"'),
    "a curve without its band": (
        {"abstention": ABSTENTION | {"curve": {"coverage": [1], "risk": [1]}}},
        "one length",
    ),
    "an empty curve": (
        {"abstention": ABSTENTION | {"curve": {key: [] for key in ABSTENTION["curve"]}}},
        "one length",
    ),
}


@pytest.mark.parametrize("change", WRONG)
def test_wrong_results_are_one_sentence(tmp_path: Path, change: str) -> None:
    changes, words = WRONG[change]
    run = write_run(tmp_path, binary() | changes)
    with pytest.raises(FewlabelError, match=words) as caught:
        read_results(run)
    assert "results.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_results_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """Blocks that came later may be missing, null or empty."""
    old = {key: value for key, value in binary().items() if key != "abstention"}
    assert read_results(write_run(tmp_path / "missing", old)) == old
    for nothing in ({"abstention": None, "calibration": None}, {"abstention": {}, "calibration": []}):
        assert read_results(write_run(tmp_path / "null", old | nothing)) == old | nothing


@pytest.mark.parametrize(("content", "words"), [("{", "cannot be read as JSON"), ("[1]", "holds a list")])
def test_results_that_are_no_object(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(FewlabelError, match=words):
        read_results(tmp_path)


def test_results_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(b'{"title": "\xff\xfe"}')
    with pytest.raises(FewlabelError, match="cannot be read as JSON"):
        read_results(tmp_path)


def test_missing_results_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FewlabelError, match=r"is missing.*fewlabel evaluate"):
        read_results(tmp_path / "nowhere")


def test_settings_of_results_win_over_run_json(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"seed": 7}))
    assert read_settings(tmp_path, {"settings": {"seed": 1}}) == {"seed": 1}
    assert read_settings(tmp_path, {}) == {"seed": 7}
    assert read_settings(tmp_path / "nowhere", {}) == {}


def test_small_picture_goes_in_as_it_is(tmp_path: Path) -> None:
    PIL.Image.new("L", (20, 30), 7).save(tmp_path / "a.png")
    uri = picture(tmp_path, "a.png")
    assert uri is not None
    assert base64.b64decode(uri.removeprefix("data:image/png;base64,")) == (tmp_path / "a.png").read_bytes()


def test_heavy_picture_is_made_smaller(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (900, 2000), np.uint8)
    PIL.Image.fromarray(noise).save(tmp_path / "a.png")
    uri = picture(tmp_path, "a.png")
    assert uri is not None
    with PIL.Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as small:
        assert small.format == "JPEG"
        assert small.size == (LARGEST_SIDE_PX, 720)


def test_a_picture_that_is_not_there(tmp_path: Path) -> None:
    assert picture(tmp_path, None) is None
    assert picture(tmp_path, "figures/none.png") is None


def test_a_picture_outside_of_the_run_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    PIL.Image.new("L", (4, 4)).save(tmp_path / "secret.png")
    (run / "link.png").symlink_to(tmp_path / "secret.png")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png"):
        with pytest.raises(FewlabelError, match="lies outside"):
            picture(run, name)


def test_a_file_that_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<svg onload=alert(1)>")
    with pytest.raises(FewlabelError, match="not a picture"):
        picture(tmp_path, "a.png")
