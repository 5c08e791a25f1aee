"""The sections on pretraining: the views that it saw, and what it said of itself. Words follow the objective."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewlabel.report import diagnostics
from fewlabel.report.canvas import one_width
from fewlabel.report.contract import picture
from fewlabel.report.results import Results
from fewlabel.report.words import is_number, number
from fewlabel.types import JSON


@dataclass(frozen=True)
class Wording:
    """loss: title of its curve. falls: what that means. views: what is done with them, and what follows."""

    loss: str
    falls: str
    views: str


_PULLED = (
    "Pretraining pulls the views of one image together: whatever differs between them, the encoder learns to ignore. "
    "If a view hides the finding, it cannot be learned."
)
_CONTRAST = Wording("Contrastive loss", "Falls while the network learns to tell images apart.", _PULLED)
_AGREEMENT = Wording("Loss", "Falls while the views of one image come to agree.", _PULLED)
_RETURN = Wording(
    "Loss",
    "Falls while the network learns to give back what it saw.",
    "Pretraining asks the network to give the view back from its code. What is small or faint costs little if it is "
    "left out, so a small finding may not be in the code.",
)
_GUESS = Wording(
    "Loss",
    "Falls while the network learns to fill in what was hidden.",
    "Pretraining hides most patches of the view and asks the network to fill them in from the others.",
)
_TEXT = Wording(
    "Contrastive loss",
    "Falls while the network learns which sentence belongs to which image.",
    "Pretraining pulls a view and a sentence of its report together. If a view hides the finding, the sentence teaches "
    "what is not there.",
)
_WORDING = {
    **dict.fromkeys(("simclr", "moco"), _CONTRAST),
    **dict.fromkeys(("byol", "barlow", "vicreg"), _AGREEMENT),
    **dict.fromkeys(("autoencoder", "vae"), _RETURN),
    "mae": _GUESS,
    "convirt": _TEXT,
}
_ALSO = (
    ("alignment", "Alignment", "How far two views of one image lie apart: lower is better."),
    ("uniformity", "Uniformity", "How evenly the images fill the space: lower is better."),
    ("effective_rank", "Effective rank", "How many directions are in use: a fall towards 1 is collapse."),
)


def _wording(settings: JSON) -> Wording:
    """For the objective in the run's settings; SimCLR's where they tell none, as those of the first versions."""
    return _WORDING.get(str((settings.get("pretraining") or {}).get("objective")), _CONTRAST)


def views(run: Path, results: Results, settings: JSON) -> JSON | None:
    """The picture of augmented views as a data URI, and what they are for; None where there is no picture."""
    found = picture(run, results.raw.get("views_figure"))
    return {"picture": found, "words": _wording(settings).views} if found else None


def health(results: Results, settings: JSON) -> JSON | None:
    """What pretraining without labels said about itself."""
    given = results.raw.get("health")
    if not given or not given.get("step"):
        return None
    wording = _wording(settings)
    panels = []
    for name, title, meaning in (("loss", wording.loss, wording.falls), *_ALSO):
        values = given.get(name) or []
        if values:
            steps = given["step"][: len(values)]
            drawn = [value if is_number(value) else np.nan for value in values[: len(steps)]]
            last = next((v for v in reversed(drawn) if np.isfinite(v)), None)
            alt = f"{title} over {len(steps)} measurements, last {number(last)}."
            plot = one_width(diagnostics.health(steps, drawn, title), f"health-{name}", alt)
            panels.append({"plot": plot, "meaning": meaning})
    return {"panels": panels, "warnings": given.get("warnings") or []} if panels else None
