"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
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
    """run(script, *arguments, path=modules): the output of a script that two gloo processes run under torchrun."""

    def run(script: str, *arguments: object, path: Path | None = None) -> str:
        file = tmp_path / "two.py"
        file.write_text(textwrap.dedent(script))
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        command = [sys.executable, *torchrun, str(file), *map(str, arguments)]
        found = os.pathsep.join(filter(None, [str(path or ""), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": found}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved BERT of 2 layers with random weights, which knows the words of tests/toy_texts.py."""
    folder = tmp_path_factory.mktemp("bert")
    make_bert(folder)
    return folder
