"""From the results of a run to one self-contained page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from fewlabel.files import write_text
from fewlabel.report import (
    comparison,
    evidence,
    facts,
    generated,
    grades,
    image_text,
    inspection,
    pretraining,
    unlabelled,
)
from fewlabel.report.contract import read_results, read_settings
from fewlabel.report.results import Results
from fewlabel.report.style import DARK, LIGHT, variables
from fewlabel.report.words import count
from fewlabel.types import JSON, FewlabelError

HERE = Path(__file__).parent


def write_report(run: Path) -> Path:
    """Write run/report.html from run/results.json, run/run.json and the pictures they name; return its path.

    The page needs no other file, font, script or network. It is written beside its final place and then moved
    there, so a report is never half-written. FewlabelError: results.json is missing or not what is expected,
    or the page cannot be stored.
    """
    run = Path(run)
    results = Results(read_results(run))
    path = run / "report.html"
    write_text(path, render("page.html", _context(run, results)))
    return path


def _context(run: Path, results: Results) -> JSON:
    chosen = read_settings(run, results.raw)
    builders: dict[str, Callable[[], Any]] = {
        "headline": lambda: comparison.headline(results),
        "efficiency": lambda: comparison.efficiency(results),
        "savings": lambda: comparison.savings(results),
        "differences": lambda: comparison.differences(results),
        "grades": lambda: grades.grades(results),
        "decisions": lambda: inspection.decisions(results),
        "abstention": lambda: inspection.abstention(results),
        "scatter": lambda: inspection.scatter(results),
        "embedding": lambda: inspection.embedding(results),
        "retrieval": lambda: image_text.retrieval(run, results),
        "zero_shot": lambda: image_text.zero_shot(results),
        "similarity": lambda: image_text.similarity(run, results),
        "few_shot": lambda: evidence.few_shot(results),
        "evidence": lambda: evidence.nearest_cases(run, results),
        "worth_a_look": lambda: evidence.worth_a_look(run, results),
        "unlabelled": lambda: unlabelled.without_labels(results.raw.get("unlabelled") or []),
        "generated": lambda: generated.generated(run, results),
        "views": lambda: pretraining.views(run, results, chosen),
        "mistakes": lambda: facts.mistakes(run, results),
        "health": lambda: pretraining.health(results, chosen),
        "data": lambda: facts.data(results),
        "method": lambda: facts.method(results),
        "settings": lambda: facts.settings(results, chosen),
    }
    shown = {name: built(run / "results.json", name, build) for name, build in builders.items()}
    raw = results.raw
    target = raw["target"]
    return {
        **shown,
        "missing": facts.missing(results, shown),
        "title": raw.get("title") or target.get("name") or run.name,
        "target": {"name": target.get("name") or "the target", "where": target.get("where")},
        "warnings": raw.get("warnings") or [],
        "made_images": bool(raw.get("made_images")),
        "smoke": bool(raw.get("smoke")),
    }


def built(path: Path, name: str, build: Callable[[], Any]) -> Any:
    """What build() makes of the results at `path` for one part of a page.

    Raises FewlabelError, naming the part, where they are not what is expected.
    """
    try:
        return build()
    except FewlabelError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise FewlabelError(
            f"{path} cannot be shown in the part {name!r} ({type(error).__name__}: {error}): "
            "evaluate the run again with this version"
        ) from error


def render(template: str, context: JSON) -> str:
    """A page of this folder in the style of all of them; whatever comes from data is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["count"] = count
    css = (HERE / "page.css").read_text(encoding="utf-8")
    css = css.replace("/* light */", variables(LIGHT)).replace("/* dark */", variables(DARK))
    return environment.get_template(template).render(**context, css=Markup(css))
