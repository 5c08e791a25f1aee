"""The run folder: what was asked (run.json), and who is in which part (split.csv)."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fewlabel.collection import Collection
from fewlabel.files import replacing, write_text
from fewlabel.splits import PARTS, Split
from fewlabel.training.checkpoint import flat_settings
from fewlabel.types import JSON, FewlabelError

RUN = "run.json"
_LIBRARIES = ("fewlabel", "torch", "timm", "lightning-fabric", "numpy", "scikit-learn", "pydicom", "pyarrow")


def write_json(path: Path, content: JSON) -> None:
    """Write JSON atomically; NaN and infinities become null, since JSON has none."""
    write_text(path, json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value


def read_json(path: Path, made_by: str) -> JSON:
    """Read a JSON file of a run. Raises FewlabelError if it is missing or damaged, naming the command that makes it."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise FewlabelError(
            f"{path} is missing: {path.parent} is no finished run; make one with `{made_by}`."
        ) from error
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FewlabelError(
            f"{path} cannot be read ({error}): it is damaged; make it again with `{made_by}`."
        ) from error


def read_history(folder: Path) -> list[JSON]:
    """The rows of a pretraining's metrics.jsonl; none where there is no such file."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def versions() -> JSON:
    """Versions of what made a result, and the machine's kind."""
    found: JSON = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
    found["threads"] = torch.get_num_threads()
    found["cores"] = os.cpu_count()
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    for library in _LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "not installed"
    return found


def finished_results(out: Path, run: JSON, name: str) -> JSON | None:
    """Write run.json, or check that `out` holds this very run; the file `name` of results, if it was finished by this
    version already.

    Raises FewlabelError for a folder with something else, or a run with other settings.
    """
    if not (out / RUN).exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise FewlabelError(f"{out} is not empty and holds no run: give a new folder with --out.")
        write_json(out / RUN, run)
        return None
    there, here = flat_settings(read_json(out / RUN, f"fewlabel {run['command']}")), flat_settings(run)
    for key, value in here.items():
        if there.get(key) != value:
            raise FewlabelError(
                f"{out} holds a run with another setting ({key}: {there.get(key)} there, {value} here): "
                "give the same settings to continue it, or another --out to start a new one."
            )
    if not (out / name).exists():
        return None
    results = read_json(out / name, f"fewlabel {run['command']}")
    same = flat_settings(results.get("settings", {})) == here
    return results if same and results["versions"]["fewlabel"] == versions()["fewlabel"] else None


def write_split(path: Path, collections: Sequence[Collection], splits: Sequence[Split]) -> None:
    """split.csv: collection, case, hash of the pixels, part ("dropped" for rows that leaked), and how it came about."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["collection", "case_id", "pixel_hash", "part", "origin"])
        for collection, split in zip(collections, splits, strict=True):
            ids, hashes = collection.column("case:case_id"), collection.column("case:pixel_hash")
            parts = [
                *((part, split.part(part)) for part in PARTS),
                ("dropped", np.array(split.dropped, dtype=int)),
            ]
            for part, rows in parts:
                writer.writerows([collection.name, ids[row], hashes[row], part, split.origin] for row in rows)


def read_split(path: Path, collection: Collection) -> Split | None:
    """The split that a run kept for these images, whatever the collection is called now; None if it has not seen them.

    Images that were added to the collection since take no part.
    """
    if not path.exists():
        return None
    parts: dict[tuple[str, str], str] = {}
    origins: dict[tuple[str, str], str] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            key = (row["case_id"], row["pixel_hash"])
            parts[key], origins[key] = row["part"], row["origin"]
    keys = list(zip(collection.column("case:case_id"), collection.column("case:pixel_hash"), strict=True))
    assigned = np.array([parts.get(key, "") for key in keys])
    known = np.flatnonzero(assigned != "")
    if len(known) == 0:
        return None
    train, val, test, dropped = (np.flatnonzero(assigned == part) for part in (*PARTS, "dropped"))
    return Split(train, val, test, origins[keys[int(known[0])]], tuple(int(row) for row in dropped))
