"""Documents: links lead somewhere, modules that are named exist, and the examples run."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from forked import run_forked

PROJECT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted(PROJECT.glob("*.md")),
    *sorted((PROJECT / "docs").rglob("*.md")),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
PACKAGE = PROJECT / "src" / "fewlabel"

# The README's example, made small; each text must be there.
SMALLER = {
    "600": "90",
    "steps=200, batch_size=128": 'steps=2, batch_size=16, encoder="test_resnet"',
    "budgets=(10, 50), seeds=3": "budgets=(10,), seeds=1, resamples=20, supervised=False",
}


def name_of(page: Path) -> str:
    return str(page.relative_to(PROJECT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    links = [link.split("#")[0] for link in LINK.findall(page.read_text())]
    inside = [link for link in links if link and "://" not in link]
    missing = [link for link in inside if not (page.parent / link).exists()]
    assert not missing


def test_every_page_is_reached() -> None:
    linked = {
        (page.parent / link.split("#")[0]).resolve()
        for page in PAGES
        for link in LINK.findall(page.read_text())
        if "://" not in link
    }
    alone = [name_of(page) for page in PAGES if page.name != "README.md" and page.resolve() not in linked]
    assert not alone


def test_the_design_names_modules_that_exist() -> None:
    text = (PROJECT / "docs" / "design.md").read_text()
    tree = text.split("```")[1]
    named = re.findall(r"^  (\S+)", tree, re.M)
    assert [name for name in named if not (PACKAGE / name).exists()] == []
    there = {path.name for path in PACKAGE.iterdir() if not path.name.startswith(("__", "py.typed"))}
    assert there == {name.rstrip("/") for name in named}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_scripts_and_modules_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    named = set(re.findall(r"\b((?:benchmarks|recipes|tests)/[\w/]+\.py)", text))
    named = {name for name in named if "NAME" not in name}
    assert not [name for name in named if not (PROJECT / name).exists()]
    inside = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", text)) - named
    inside = {name for name in inside if not name.startswith("src/")}
    roots = (PROJECT, PACKAGE, PROJECT / "src", PROJECT / "docs")
    assert not [name for name in inside if not any((root / name).exists() for root in roots)]


def test_commands_and_options_that_are_named_exist() -> None:
    from typer.main import get_command

    from fewlabel.cli import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    for page in PAGES:
        for line in re.findall(r"^fewlabel (.+)$", page.read_text(), re.M):
            words = line.split("#")[0].split()
            assert words[0] in commands, f"{name_of(page)}: fewlabel {line}"
            known = {option for parameter in commands[words[0]].params for option in parameter.opts}
            unknown = [word for word in words if word.startswith("--") and word not in known]
            assert not unknown, f"{name_of(page)}: fewlabel {line}"


def test_the_defaults_that_are_named_are_the_defaults() -> None:
    from fewlabel.pipeline import EvaluateSettings, PretrainSettings
    from fewlabel.pipeline.settings import resolve_settings

    text = " ".join((PROJECT / "docs" / "main-job.md").read_text().split())
    grey: Any = SimpleNamespace(column=lambda name: [(1, 8, 8)])
    settings = resolve_settings(PretrainSettings(), [grey])
    assert f"{settings.steps} steps of {settings.batch_size} images" in text
    assert f"temperature {settings.temperature}, {settings.views} views" in text
    assert f"fixed beforehand ({EvaluateSettings('x').headline_budget}, or the nearest)" in text


def run_python(code: str, folder: Path) -> str:
    (folder / "example.py").write_text(code)
    return run_forked(folder / "example.py", path=[PROJECT / "src"], folder=folder)


@pytest.mark.slow
def test_the_readme_example_runs(tmp_path: Path) -> None:
    found = re.search(r"```python\n(.*?)```", (PROJECT / "README.md").read_text(), re.S)
    assert found
    code = found[1]
    for text, small in SMALLER.items():
        assert text in code
        code = code.replace(text, small)
    assert "report.html" in run_python(code, tmp_path)
    assert (tmp_path / "run" / "report.html").is_file()
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 91


@pytest.mark.slow
def test_the_recipe_on_made_images_runs(tmp_path: Path) -> None:
    code = f"""
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
sys.path.insert(0, {str(PROJECT / "recipes")!r})
import phantoms
phantoms.IMAGES = 90
phantoms.PRETRAINING = replace(phantoms.PRETRAINING, steps=2, batch_size=16, encoder="test_resnet")
phantoms.EVALUATION = replace(phantoms.EVALUATION, budgets=(10,), seeds=1, resamples=20, supervised=False)
phantoms.run(Path("here"))
"""
    assert "report.html" in run_python(code, tmp_path)


def test_the_other_recipe_can_be_loaded(tmp_path: Path) -> None:
    path = f"import sys; sys.path.insert(0, {str(PROJECT / 'recipes')!r})"
    assert run_python(f"{path}; import pneumoniamnist as p; print(*p.VARIANTS)", tmp_path).split() == [
        "medical",
        "simclr-views",
        "info-nce",
    ]
