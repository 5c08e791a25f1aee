"""How things look: one set of colours in two schemes, and a colour, a dash and a marker for each method.

A plot is drawn in the colours of the light scheme; the page then swaps each of them for a CSS variable, so
the same plot is legible on white and on black. The hues follow Okabe and Ito (2008), darkened or lightened
until text in them can be read; dash and marker say the same again for those who see no hue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fewlabel.types import JSON

LIGHT = {
    "page": "#f4f6f7",
    "card": "#ffffff",
    "ink": "#14191e",
    "quiet": "#56616c",
    "line": "#d5dbe0",
    "wash": "#e9edf0",
    "alert": "#8a4b00",
    "alert-wash": "#fdf3e1",
    "m0": "#0066a6",
    "m1": "#94489a",
    "m2": "#007a80",
    "m3": "#4a4fb8",
    "m4": "#a0307a",
    "m5": "#2f6f2f",
    "m6": "#7d4a21",
    "m7": "#5a6600",
    "r0": "#bf4800",
    "r1": "#a83250",
    "b0": "#00775a",
    "b1": "#806600",
    "c0": "#444d56",
    "c1": "#6d7680",
}

DARK = {
    "page": "#0d1013",
    "card": "#15191d",
    "ink": "#e8ecef",
    "quiet": "#9ba6b0",
    "line": "#2e353c",
    "wash": "#20262b",
    "alert": "#f2bf73",
    "alert-wash": "#2a2113",
    "m0": "#6db9f2",
    "m1": "#dc9fd8",
    "m2": "#5bcfd2",
    "m3": "#a5a8ff",
    "m4": "#ff8fcb",
    "m5": "#8fd08a",
    "m6": "#d8ab7f",
    "m7": "#c4cf6e",
    "r0": "#ff9a5c",
    "r1": "#ff90a6",
    "b0": "#4fce9f",
    "b1": "#dcc052",
    "c0": "#c0c8d0",
    "c1": "#8c96a0",
}

POINT_COLOURS = ("#2f8fd8", "#e56b23", "#1fa67d", "#b86ab3", "#b3931f", "#1fa3aa", "#d9566b", "#7f8893")
"""Middle tones for clouds of points: they are drawn as pixels, so one colour has to serve both schemes."""

SIMILARITY_COLOURS = "viridis"
"""matplotlib's name of the colours of similarity maps: perceptually uniform, legible without red and green."""

_FAMILIES = {
    "method": ("m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7"),
    "reference": ("r0", "r1"),
    "baseline": ("b0", "b1"),
    "control": ("c0", "c1"),
}
_DASHES = {"method": "", "reference": "", "baseline": "6 3", "control": "2 3"}
_MARKERS = {"method": "oph*<>d8", "reference": "DX", "baseline": "^v", "control": "sP"}


@dataclass(frozen=True)
class Look:
    """How one method is drawn everywhere on the page.

    colour: a name in `LIGHT` and `DARK`. dash: an SVG dash pattern, "" for a solid line.
    marker: matplotlib's letter.
    """

    colour: str
    dash: str
    marker: str
    role: str

    @property
    def ink(self) -> str:
        """The colour in the light scheme, as "#rrggbb"."""
        return LIGHT[self.colour]

    @property
    def linestyle(self) -> str | tuple[int, tuple[float, ...]]:
        """The dash pattern as matplotlib wants it."""
        return (0, tuple(float(part) for part in self.dash.split())) if self.dash else "-"


def looks(arms: Sequence[JSON]) -> dict[str, Look]:
    """A look for each arm key; arms of one role share a family of colours, in the order they come."""
    found: dict[str, Look] = {}
    seen: dict[str, int] = {}
    for arm in arms:
        role = arm.get("role", "baseline")
        role = role if role in _FAMILIES else "baseline"
        place = seen[role] = seen.get(role, -1) + 1
        family, markers = _FAMILIES[role], _MARKERS[role]
        found[str(arm["key"])] = Look(
            family[place % len(family)], _DASHES[role], markers[place % len(markers)], role
        )
    return found


def variables(scheme: dict[str, str]) -> str:
    """The scheme as CSS variables, one a line."""
    return "\n".join(f"  --{name}: {colour};" for name, colour in scheme.items())
