"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from forked import run_forked, two_ranks
from toy_texts import make_bert

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images beside the project (or where FEWLABEL_REAL_DATA says); skips where it is not."""
    folder = Path(os.environ.get("FEWLABEL_REAL_DATA", SHARED_DATA))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}: set FEWLABEL_REAL_DATA to the folder that holds them")
    return folder


@pytest.fixture
def in_two_processes(tmp_path: Path) -> Callable[..., str]:
    """run(script, *arguments, path=folders): the output of a script in two gloo processes, as torchrun starts them."""

    def run(script: str, *arguments: object, path: Sequence[Path] = ()) -> str:
        file = tmp_path / "two.py"
        file.write_text(textwrap.dedent(script))
        return run_forked(file, arguments, environments=two_ranks(), path=path)

    return run


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved BERT of 2 layers with random weights, which knows the words of tests/toy_texts.py."""
    folder = tmp_path_factory.mktemp("bert")
    make_bert(folder)
    return folder
