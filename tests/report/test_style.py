"""Colours and markers: each method has its own, in legends as in plots."""

from __future__ import annotations

import pytest

from fewlabel.report.canvas import swatch
from fewlabel.report.style import DARK, LIGHT, looks


@pytest.mark.parametrize(
    ("role", "count"), [("method", 8), ("reference", 2), ("baseline", 2), ("control", 2)]
)
def test_arms_of_one_role_look_different_and_have_a_legend(role: str, count: int) -> None:
    found = looks([{"key": str(i), "role": role} for i in range(count)])
    assert len({(look.colour, look.marker) for look in found.values()}) == count
    assert len({swatch(look) for look in found.values()}) == count
    assert all(look.colour in LIGHT and look.colour in DARK for look in found.values())
