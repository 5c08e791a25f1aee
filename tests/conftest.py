"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images beside the project (or where FEWLABEL_REAL_DATA says); skips where it is not."""
    folder = Path(os.environ.get("FEWLABEL_REAL_DATA", SHARED_DATA))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}: set FEWLABEL_REAL_DATA to the folder that holds them")
    return folder
