"""Numbers in words, and what the plots work out themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from example import binary, regression
from hypothesis import given
from hypothesis import strategies as st

from fewlabel.report.diagnostics import wilson
from fewlabel.report.results import Results
from fewlabel.report.style import DARK, LIGHT, looks
from fewlabel.report.words import (
    LabelCount,
    count,
    duration,
    interval,
    label_count,
    number,
    p_value,
    percent,
    percent_interval,
    signed,
    value_with_interval,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("230", LabelCount(230)),
        ("4,708", LabelCount(4708)),
        ("more than 4,708", LabelCount(4708, "above")),
        ("fewer than 10", LabelCount(10, "below")),
        ("> 50", LabelCount(50, "above")),
        (120, LabelCount(120)),
        ("cannot be told", None),
        (None, None),
        ("0", None),
    ],
)
def test_label_count(text: object, expected: LabelCount | None) -> None:
    assert label_count(text) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.8, "80 %"),
        (0.0712, "7.1 %"),
        (0.0996, "10 %"),
        (0, "0 %"),
        (1, "100 %"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_percent(value: object, expected: str) -> None:
    assert percent(value) == expected


def test_percent_interval() -> None:
    assert percent_interval({"low": 0.042, "high": 0.1}) == "4.2 to 10 %"
    assert percent_interval({"low": None, "high": 0.1}) == percent_interval({}) == "–"


@given(st.integers(1, 10**9))
def test_label_count_reads_what_is_written(labels: int) -> None:
    assert label_count(f"{labels:,}") == LabelCount(labels)
    assert label_count(f"more than {labels:,}") == LabelCount(labels, "above")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.9284, "0.928"), (-0.005, "−0.005"), (7.154, "7.15"), (412.34, "412.3"), (None, "–")],
)
def test_number(value: float | None, expected: str) -> None:
    assert number(value) == expected


@given(st.floats())
def test_number_never_says_nan(value: float) -> None:
    assert number(value) == "–" or not {"nan", "inf"} & {number(value).lower().lstrip("−")}
    assert (number(value) == "–") == (not math.isfinite(value))


def test_signs_intervals_and_p_values() -> None:
    assert (signed(0.09), signed(-0.09), signed(None)) == ("+0.090", "−0.090", "–")
    assert interval(0.1, 0.2) == "0.100 to 0.200"
    assert interval(0.1, None) == "–"
    assert [p_value(p) for p in (0.0, 0.0004, 0.0121, 0.213, None)] == [
        "< 0.001",
        "< 0.001",
        "0.012",
        "0.21",
        "–",
    ]
    assert [count(n) for n in (4708, 0, None, "all")] == ["4,708", "0", "–", "all"]
    assert [duration(s) for s in (12, 600, 9000, None)] == ["12 s", "10 min", "2.5 h", "–"]


def test_a_value_with_its_interval() -> None:
    given = {"value": 0.61, "low": 0.5, "high": 0.7}
    assert value_with_interval(given) == {"value": "0.610", "interval": "0.500 to 0.700"}
    assert value_with_interval(given | {"low": None}) == {"value": "0.610", "interval": "–"}
    assert value_with_interval(given | {"value": None}) == {"value": "–", "interval": ""}


def test_wilson_by_hand() -> None:
    low, high = wilson(np.array([0.5, 0.0]), np.array([10, 10]))
    np.testing.assert_allclose(low, [0.2366, 0.0], atol=1e-4)
    np.testing.assert_allclose(high, [0.7634, 0.2775], atol=1e-4)


def test_looks_differ_and_both_schemes_know_them() -> None:
    found = looks([{"key": f"{role}{i}", "role": role} for role in ("method", "control") for i in range(2)])
    assert len({(look.colour, look.marker) for look in found.values()}) == 4
    assert LIGHT.keys() == DARK.keys()
    assert all(look.colour in LIGHT for look in found.values())
    assert looks([{"key": "x", "role": "new"}])["x"].role == "baseline"


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_text_can_be_read(scheme: dict[str, str]) -> None:
    for ink in ("ink", "quiet", "m0", "m1", "r0", "b0", "c0", "c1"):
        assert _contrast(scheme[ink], scheme["card"]) >= 4.5, ink
    assert _contrast(scheme["alert"], scheme["alert-wash"]) >= 4.5
    assert _contrast(scheme["quiet"], scheme["page"]) >= 4.5


def _contrast(first: str, second: str) -> float:
    """WCAG 2's contrast ratio."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_best_is_highest_or_lowest() -> None:
    results = Results(binary())
    at_ten = [row["value"] for row in results.raw["metrics"] if (row["name"], row["budget"]) == ("auroc", 10)]
    assert results.best("auroc", 10) == max(at_ten)
    results = Results(regression())
    at_ten = [row["value"] for row in results.raw["metrics"] if (row["name"], row["budget"]) == ("mae", 10)]
    assert results.best("mae", 10) == min(at_ten)


def test_classes_in_words() -> None:
    assert Results(binary()).class_name("1") == "yes"
    named = Results(binary() | {"target": {"kind": "binary", "classes": ["healthy", "ill"]}})
    assert named.class_name("ill") == "ill"
