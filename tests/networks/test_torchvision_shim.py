"""The shim: torchvision can be imported whatever its binary, and is left alone where it works by itself."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from fewlabel.networks import torchvision_shim


def test_torchvision_can_be_imported() -> None:
    code = (
        "from fewlabel.networks.torchvision_shim import ensure_torchvision; ensure_torchvision();"
        "import torchvision.transforms, timm; ensure_torchvision()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class FakeImports:
    """Stands for importlib: raises `error` at the first import of torchvision, `after` at the second."""

    def __init__(self, error: Exception | None, after: Exception | None = None) -> None:
        self.left: list[Exception | None] = [error, after]
        self.names: list[str] = []

    def import_module(self, name: str) -> Any:
        self.names.append(name)
        error = self.left.pop(0)
        if error:
            raise error
        return SimpleNamespace()


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is declared, instead of declaring it."""
    declared: list[tuple[str, str]] = []

    def library(name: str, kind: str) -> Any:
        return SimpleNamespace(define=lambda schema: declared.append((name, schema.split("(")[0])))

    monkeypatch.setattr(torchvision_shim.torch.library, "Library", library)
    monkeypatch.setattr(torchvision_shim, "_libraries", [])
    monkeypatch.setattr(torchvision_shim, "sys", SimpleNamespace(modules={}))
    return declared


def test_nothing_is_declared_where_the_import_works(
    monkeypatch: pytest.MonkeyPatch, libraries: list[tuple[str, str]]
) -> None:
    fake = FakeImports(None)
    monkeypatch.setattr(torchvision_shim, "importlib", fake)
    torchvision_shim.ensure_torchvision()
    assert fake.names == ["torchvision"]
    assert libraries == []


def test_missing_operators_are_declared_and_the_import_repeated(
    monkeypatch: pytest.MonkeyPatch, libraries: list[tuple[str, str]]
) -> None:
    fake = FakeImports(RuntimeError("operator torchvision::nms does not exist"))
    monkeypatch.setattr(torchvision_shim, "importlib", fake)
    torchvision_shim.ensure_torchvision()
    assert fake.names == ["torchvision", "torchvision"]
    assert libraries == [("torchvision", "nms"), ("torchvision", "qnms")]


def test_other_failures_are_not_hidden(
    monkeypatch: pytest.MonkeyPatch, libraries: list[tuple[str, str]]
) -> None:
    monkeypatch.setattr(torchvision_shim, "importlib", FakeImports(RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        torchvision_shim.ensure_torchvision()
    assert libraries == []
