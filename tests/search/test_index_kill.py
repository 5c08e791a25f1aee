"""A process that is killed while it changes an index leaves the old state or the new one, and the next change works."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from made_cases import ORIGIN, made_facts, made_vectors

from fewlabel.search import FolderIndex
from fewlabel.search import vectors as search_vectors

VECTORS = made_vectors(90)
OLD, NEW = {f"c{i}" for i in range(60)}, {f"c{i}" for i in range(4, 90)}


def change(folder: Path) -> None:
    FolderIndex.open(folder).change(
        remove=[f"c{i}" for i in range(4)], add=(VECTORS[60:], made_facts(range(60, 90))), fingerprint="new"
    )


def killed_at(nth: int, name: str, work: Callable[[Path], None], folder: Path) -> bool:
    """Work in a forked process that kills itself before its nth call of os.NAME; False if it came to its end."""
    child = os.fork()
    if child == 0:
        calls, real = [], getattr(os, name)

        def deadly(*arguments, **named):
            calls.append(arguments)
            if len(calls) == nth:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        setattr(os, name, deadly)
        try:
            work(folder)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def filled(folder: Path) -> None:
    index = FolderIndex.begin(folder, ORIGIN)
    index.change(add=(VECTORS[:60], made_facts(range(60))), fingerprint="old")


@pytest.mark.parametrize("name", ["replace", "unlink"])
def test_killed_at_each_step_of_a_change(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_vectors, "EXACT", 30)
    nth, states = 1, []
    while True:
        folder = tmp_path / str(nth)
        filled(folder)
        killed = killed_at(nth, name, change, folder)
        index = FolderIndex.open(folder)
        ids = index.known().keys()
        assert (ids, index.fingerprint) in [(OLD, "old"), (NEW, "new")]
        states.append(index.fingerprint)
        for row in (10, 50):
            assert index.nearest(VECTORS[row], 1)[0].case == f"c{row}"
        if index.fingerprint == "old":
            change(folder)
        index.change()
        assert index.known().keys() == NEW
        kept = {file.name for file in index._state.manifest.files}
        assert {path.name for path in folder.iterdir()} == {".lock", "manifest.json", *kept}
        if not killed:
            break
        nth += 1
    assert nth > 4
    assert states == sorted(states, reverse=True)  # old ones, then new ones
    assert set(states) == {"old", "new"}


def test_killed_in_the_first_change(tmp_path: Path) -> None:
    assert killed_at(1, "replace", filled, tmp_path / "index")
    assert killed_at(3, "replace", filled, tmp_path / "index")
    filled(tmp_path / "index")
    assert FolderIndex.open(tmp_path / "index").known().keys() == OLD
