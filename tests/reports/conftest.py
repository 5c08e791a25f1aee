"""Small collections and DICOM reports for the tests of report texts."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewlabel.collection import Collection, import_images

MakeCollection = Callable[..., Collection]


@pytest.fixture
def make_collection(tmp_path: Path) -> MakeCollection:
    """make_collection({"a/x.png": {"patient": "1", "study": "2", "report": "..."}}): one small image each."""

    def make(images: dict[str, dict[str, str]]) -> Collection:
        rng = np.random.default_rng(0)
        columns = list(dict.fromkeys(name for facts in images.values() for name in facts))
        for name in images:
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
        table = tmp_path / "labels.csv"
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", *columns])
            writer.writerows([name, *(facts.get(c, "") for c in columns)] for name, facts in images.items())
        roles = {f"{role}_column": role for role in ("patient", "study") if role in columns}
        roles |= {"text_column": "report"} if "report" in columns else {}
        labels = {"labels": table, "file_column": "file", **roles} if columns else {}
        import_images(tmp_path / "images", tmp_path / "collection", workers=1, **labels)
        return Collection.open(tmp_path / "collection")

    return make
