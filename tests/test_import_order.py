"""The import rule: a module imports only from names above it in the list. Read from the source, not by importing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fewlabel

SOURCE = Path(fewlabel.__file__).parent
ORDER = (
    "types", "files", "processes", "cluster", "images", "phantoms", "collection", "reports", "splits", "views",
    "networks", "objectives", "training", "adaptation", "search", "tasks", "evaluation", "report", "pipeline", "serve",
    "cli",
)  # fmt: skip
EXEMPT = ("__init__", "cli")
FORBIDDEN = ("utils", "util", "common", "helpers", "misc")


def imported_modules(source: str, inside: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line, dotted name as parts) of every import anywhere in the source, relative ones made absolute.

    inside: the package that the module lies in, such as ("fewlabel", "images").
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, tuple(name.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            for name in node.names:
                yield node.lineno, (*module, name.name)
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield node.lineno, tuple(first.value.split("."))


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def mistakes(path: Path, source: str) -> list[str]:
    """What is wrong with the imports of one module. path: relative to the package's folder."""
    parts = path.with_suffix("").parts
    home = parts[0]
    if home in EXEMPT:
        return []
    if home not in ORDER:
        return [f"{path}: {home!r} has no place in the order"]
    found = []
    for line, name in imported_modules(source, ("fewlabel", *parts[:-1])):
        if name[0] != "fewlabel":
            continue
        other = name[1] if len(name) > 1 else "__init__"
        if other not in ORDER:
            found.append(f"{path}:{line}: imports the package itself ({'.'.join(name)})")
        elif ORDER.index(other) > ORDER.index(home):
            found.append(f"{path}:{line}: {home} may not import {other}, which stands below it")
    return found


def modules() -> list[Path]:
    return sorted(path.relative_to(SOURCE) for path in SOURCE.rglob("*.py"))


def test_every_import_points_upwards() -> None:
    assert len(modules()) > 50
    found = [text for path in modules() for text in mistakes(path, (SOURCE / path).read_text())]
    assert found == []


def test_no_drawer_for_odds_and_ends() -> None:
    assert [path for path in modules() if set(path.with_suffix("").parts) & set(FORBIDDEN)] == []


WRONG = [
    ("images/made_up.py", "from fewlabel.collection import Collection"),
    ("images/made_up.py", "import fewlabel.collection.cases"),
    ("images/made_up.py", "from fewlabel import collection"),
    ("images/made_up.py", "from ..collection import Collection"),
    ("images/made_up.py", "from .. import collection"),
    ("splits.py", "if TYPE_CHECKING:\n    from fewlabel.views import ViewSettings"),
    ("splits.py", "def f():\n    from fewlabel.cli import main"),
    ("splits.py", "x = importlib.import_module('fewlabel.pipeline')"),
    ("types.py", "try:\n    import fewlabel.images\nexcept ImportError:\n    pass"),
    ("report/page.py", "import fewlabel"),
    ("report/page.py", "from fewlabel import learn"),
    ("made_up.py", "import os"),
    ("objectives/x.py", "class A:\n    async def f(self):\n        from fewlabel.training import fit"),
]


@pytest.mark.parametrize(("path", "source"), WRONG)
def test_the_checker_sees_wrong_imports(path: str, source: str) -> None:
    assert len(mistakes(Path(path), source)) == 1


RIGHT = [
    ("images/made_up.py", "from fewlabel.types import Image\nfrom fewlabel.images.source import Source"),
    ("images/made_up.py", "from .source import Source\nfrom ..types import Image"),
    ("pipeline/x.py", "import numpy\nfrom fewlabel.training import fit"),
    ("cli/x.py", "from fewlabel.pipeline import learn"),
    ("__init__.py", "from fewlabel.pipeline import learn"),
    ("splits.py", "from collection import x"),
]


@pytest.mark.parametrize(("path", "source"), RIGHT)
def test_the_checker_lets_right_ones_pass(path: str, source: str) -> None:
    assert mistakes(Path(path), source) == []
