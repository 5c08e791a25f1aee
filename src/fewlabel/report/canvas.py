"""From a matplotlib figure to SVG that lives inside the page and takes its colours from it."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewlabel.report.style import LIGHT, Look

INK, QUIET, LINE = LIGHT["ink"], LIGHT["quiet"], LIGHT["line"]

house_style = matplotlib.rc_context(
    {
        "svg.fonttype": "none",
        "svg.hashsalt": "fewlabel",
        "text.parse_math": False,
        "font.size": 13,
        "text.color": INK,
        "axes.labelcolor": QUIET,
        "axes.edgecolor": LINE,
        "axes.titlecolor": QUIET,
        "axes.titlesize": 13,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": LINE,
        "grid.linewidth": 0.8,
        "xtick.color": LINE,
        "ytick.color": LINE,
        "xtick.labelcolor": QUIET,
        "ytick.labelcolor": QUIET,
        "xtick.minor.visible": False,
        "ytick.major.size": 0,
        "axes.unicode_minus": True,
    }
)
"""Put over every function that draws: `@house_style`. File names are text here, so "$" starts no formula."""


@dataclass(frozen=True)
class Margins:
    """The room around the axes, in CSS pixels."""

    left: float = 50
    right: float = 14
    top: float = 30
    bottom: float = 46


@dataclass(frozen=True)
class Plot:
    """One plot of the page: its SVG, and another for narrow screens where the first would shrink."""

    wide: Markup
    narrow: Markup | None
    width: int


def sheet(width: int, height: int, margins: Margins | None = None) -> tuple[Figure, Axes]:
    """An empty figure of `width` x `height` CSS pixels with one pair of axes inside `margins`."""
    room = margins or Margins()
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    figure.patch.set_alpha(0)
    box = (
        room.left / width,
        room.bottom / height,
        1 - (room.left + room.right) / width,
        1 - (room.top + room.bottom) / height,
    )
    axes = figure.add_axes(box)
    axes.patch.set_alpha(0)
    return figure, axes


@house_style
def to_svg(figure: Figure, name: str, alt: str, raster_dpi: int = 160) -> Markup:
    """The figure as an <svg> element with a view box, no fixed size, and ids that begin with `name`.

    alt: what is read aloud in the picture's place. raster_dpi: resolution of the parts drawn as pixels.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", dpi=raster_dpi, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = _own_ids(text, name)
    text = re.sub(r'style="[^"]*"', lambda found: _themed(found[0]), text)
    text = re.sub(r'\b(?:d|x|y|transform|points)="[^"]*"', lambda found: _rounded(found[0]), text)
    opening = re.match(r"<svg[^>]*>", text)
    if opening is None:
        raise RuntimeError("matplotlib wrote an SVG file without an <svg> element")
    box = re.search(r'viewBox="[^"]*"', opening[0])
    head = f'<svg {box[0] if box else ""} role="img" aria-label="{escape(alt)}">'
    return Markup(head + re.sub(r"\n\s*", "\n", text[opening.end() :]).strip())


def one_width(figure: Figure, name: str, alt: str) -> Plot:
    """A plot that is small enough for every screen."""
    return Plot(to_svg(figure, name, alt), None, round(figure.get_figwidth() * 72))


def two_widths(
    draw: Callable[[int, int, bool], Figure],
    name: str,
    alt: str,
    wide: tuple[int, int],
    narrow: tuple[int, int],
) -> Plot:
    """A plot drawn twice by draw(width, height, is_narrow): as it is on a desk and on a phone."""
    return Plot(
        to_svg(draw(*wide, False), f"{name}-wide", alt),
        to_svg(draw(*narrow, True), f"{name}-narrow", alt),
        wide[0],
    )


def log_budget_axis(axes: Axes, budgets: Sequence[float], everything: float | None = None) -> None:
    """A logarithmic x axis whose ticks are the budgets; `everything` is the one of all labels."""
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.set_xticks(list(budgets))
    axes.set_xticklabels([f"{b:,g}\nall" if b == everything else f"{b:,g}" for b in budgets])
    axes.set_xlabel("labelled training images")


def swatch(look: Look) -> Markup:
    """A method's line and marker, as a tiny picture for legends."""
    dash = f' stroke-dasharray="{look.dash}"' if look.dash else ""
    return Markup(
        f'<svg class="swatch" viewBox="0 0 30 12" aria-hidden="true" style="color:var(--{look.colour})">'
        f'<path d="M1 6H29" stroke="currentColor" stroke-width="2"{dash}/>'
        f'<path d="{_MARKER_PATHS[look.marker]}" transform="translate(15 6)" fill="currentColor"/></svg>'
    )


_MARKER_PATHS = {
    "o": "M-4.2 0a4.2 4.2 0 1 0 8.4 0a4.2 4.2 0 1 0-8.4 0z",
    "p": "M0-4.8 4.6-1.5 2.8 3.9-2.8 3.9-4.6-1.5z",
    "h": "M0-4.8 4.2-2.4 4.2 2.4 0 4.8-4.2 2.4-4.2-2.4z",
    "*": "M0.0 -5.0 1.2 -1.6 4.8 -1.5 1.9 0.6 2.9 4.0 0.0 2.0 -2.9 4.0 -1.9 0.6 -4.8 -1.5 -1.2 -1.6z",
    "<": "M-4.6 0 3.8-4.6 3.8 4.6z",
    ">": "M4.6 0-3.8 4.6-3.8-4.6z",
    "d": "M0-5 3 0 0 5-3 0z",
    "8": "M-1.9-4.6H1.9L4.6-1.9V1.9L1.9 4.6H-1.9L-4.6 1.9V-1.9z",
    "D": "M0-5 5 0 0 5-5 0z",
    "X": "M-4.6-2.3-2.3-4.6 0-2.3 2.3-4.6 4.6-2.3 2.3 0 4.6 2.3 2.3 4.6 0 2.3-2.3 4.6-4.6 2.3-2.3 0z",
    "^": "M0-4.6 4.6 3.8-4.6 3.8z",
    "v": "M0 4.6 4.6-3.8-4.6-3.8z",
    "s": "M-4-4H4V4H-4z",
    "P": "M-1.6-4.8H1.6V-1.6H4.8V1.6H1.6V4.8H-1.6V1.6H-4.8V-1.6H-1.6z",
}


def shortened(text: str, letters: int) -> str:
    """The text, cut with an ellipsis where it is longer than `letters`."""
    return text if len(text) <= letters else text[: letters - 2].rstrip() + " …"


def data_uri(content: bytes, mime: str) -> str:
    """The bytes as a data URI."""
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def finite(value: object) -> bool:
    """Whether value is a number that can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _own_ids(text: str, name: str) -> str:
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))

    def mend(found: re.Match[str]) -> str:
        return f' id="{name}-{found[1]}"' if found[1] in used else ""

    text = re.sub(r'\s+id="([^"]*)"', mend, text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    return re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)


def _themed(style: str) -> str:
    for variable, colour in LIGHT.items():
        style = style.replace(colour, f"var(--{variable})")
    return re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", style)


def _rounded(attribute: str) -> str:
    return re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", attribute)
