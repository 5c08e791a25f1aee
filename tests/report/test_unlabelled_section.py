"""The section on figures without labels: every measure with its sentence, small numbers, none where there are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from parsed_page import Page

from fewlabel.report import write_report
from fewlabel.report.unlabelled import MEASURES, small_number, without_labels

BARE = {
    "format": 1,
    "target": {"name": "Opacity"},
    "metric": "auroc",
    "metrics": [],
    "arms": [{"key": "simclr"}],
}
ROWS = [
    {"name": name, "value": 0.0123, "low": 0.0091, "high": 12.5, "n": 1200, "patients": 300, "unit": ""}
    for name in MEASURES
]


def test_every_measure_is_told(tmp_path: Path) -> None:
    rows = [
        {**row, "floor": 0.004, "floor_n": 1000} if "frechet" in str(row["name"]) else row for row in ROWS
    ]
    (tmp_path / "results.json").write_text(json.dumps(BARE | {"unlabelled": rows}))
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "unlabelled" in page.ids
    for label, meaning in MEASURES.values():
        assert f"{label} 0.012 0.0091 to 12.50 1,200 300 {meaning}" in page.text
    assert page.text.count("1,000 training images lie 0.004 from them.") == 2


def test_a_run_without_a_decoder_has_no_such_section(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(BARE))
    assert "unlabelled" not in Page(write_report(tmp_path).read_text(encoding="utf-8")).ids
    assert without_labels([]) == []


@pytest.mark.parametrize(
    ("value", "shown"), [(0.00012, "0.00012"), (-0.02, "−0.02"), (0.5, "0.500"), (0, "0.000"), (None, "–")]
)
def test_small_numbers_keep_two_digits(value: float | None, shown: str) -> None:
    assert small_number(value) == shown
