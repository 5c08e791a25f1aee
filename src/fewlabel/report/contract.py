"""What the report reads: results.json, run.json and the pictures of a run, checked before use."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import PIL.Image

from fewlabel.report.canvas import data_uri
from fewlabel.types import JSON, FewlabelError

FORMAT = 1
LARGEST_PICTURE_BYTES = 400_000
LARGEST_SIDE_PX = 1600

_REQUIRED: dict[str, type] = {"target": dict, "metric": str, "arms": list, "metrics": list}
_LATER: dict[str, type] = {
    "calibration": list,
    "abstention": dict,
    "retrieval": dict,
    "zero_shot": dict,
    "similarity": dict,
    "grades": dict,
    "evidence": dict,
    "few_shot": dict,
    "worth_a_look": dict,
    "unlabelled": list,
    "generated": dict,
}
"""Blocks that runs of earlier versions lack, wholly or in part: they may be missing or null."""

_ABSTENTION: dict[str, type] = {"error": dict, "aurc": dict, "curve": dict, "asked": list}
_CURVE = ("coverage", "risk", "low", "high")


def read_results(run: Path, name: str = "results.json") -> JSON:
    """The content of run/results.json, or of another file of its form; FewlabelError where it is missing or not what is
    expected.
    """
    path = run / name
    results = _read_object(path)
    if results is None:
        raise FewlabelError(
            f"{path} is missing: a report is written from it, so run `fewlabel evaluate` first"
        )
    if results.get("format") != FORMAT:
        raise FewlabelError(
            f"{path} has format {results.get('format')!r}, this version reads format {FORMAT}: "
            "evaluate the run again with this version"
        )
    for key, kind in _REQUIRED.items():
        if not isinstance(results.get(key), kind):
            raise FewlabelError(f'{path} holds no "{key}" that is a {kind.__name__}: evaluate the run again')
    for key, kind in _LATER.items():
        if results.get(key) is not None and not isinstance(results[key], kind):
            raise FewlabelError(f'{path} holds a "{key}" that is no {kind.__name__}: evaluate the run again')
    for arm in results["arms"]:
        if not isinstance(arm, dict) or "key" not in arm:
            raise FewlabelError(f'{path} lists an arm without a "key": evaluate the run again')
    known = {arm["key"] for arm in results["arms"]}
    strange = sorted({str(row.get("arm")) for row in results["metrics"] if row.get("arm") not in known})
    if strange:
        raise FewlabelError(
            f"{path} gives metrics of {strange[0]!r}, which is not among its arms: evaluate the run again"
        )
    if results.get("abstention"):
        _check_abstention(path, results["abstention"])
    return results


def _check_abstention(path: Path, given: JSON) -> None:
    """Raise FewlabelError where a part is missing or the curve's four lists are not of one length."""
    for key, kind in _ABSTENTION.items():
        if not isinstance(given.get(key), kind):
            raise FewlabelError(
                f'{path} holds an "abstention" without a {kind.__name__} "{key}": evaluate the run again'
            )
    lists = [given["curve"].get(name) for name in _CURVE]
    if not all(isinstance(values, list) and len(values) == len(lists[0]) > 0 for values in lists):
        raise FewlabelError(
            f"{path} holds a risk-coverage curve whose {', '.join(_CURVE)} are not lists of one length: "
            "evaluate the run again"
        )


def read_settings(run: Path, results: JSON) -> JSON:
    """Every setting of the run: what results.json says of them, else run.json, else nothing."""
    return results.get("settings") or _read_object(run / "run.json") or {}


def picture(run: Path, name: Any, largest_side_px: int | None = None) -> str | None:
    """The picture run/name as a data URI, made smaller where it is heavy; None where there is no such file.

    largest_side_px: pictures with a longer side are made smaller too; None leaves those that are not heavy.
    FewlabelError: the name leads out of the run, or the file is no picture.
    """
    if not name:
        return None
    path = (run / str(name)).resolve()
    if not path.is_relative_to(run.resolve()):
        raise FewlabelError(
            f"results.json names the picture {str(name)!r}, which lies outside {run}: evaluate the run again"
        )
    if not path.is_file():
        return None
    content = path.read_bytes()
    try:
        with PIL.Image.open(io.BytesIO(content)) as image:
            fits = largest_side_px is None or max(image.size) <= largest_side_px
            if image.format in ("PNG", "JPEG") and len(content) <= LARGEST_PICTURE_BYTES and fits:
                return data_uri(content, f"image/{image.format.lower()}")
            return _lighter(image, largest_side_px or LARGEST_SIDE_PX)
    except (OSError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise FewlabelError(
            f"{path} is not a picture that can be shown ({error}): evaluate the run again"
        ) from error


def _lighter(image: PIL.Image.Image, side_px: int) -> str:
    small = image.convert("L" if image.mode in ("1", "L", "I;16", "I") else "RGB")
    small.thumbnail((side_px, side_px))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=86)
    return data_uri(stream.getvalue(), "image/jpeg")


def _read_object(path: Path) -> JSON | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FewlabelError(f"{path} cannot be read as JSON ({error}): evaluate the run again") from error
    if not isinstance(content, dict):
        raise FewlabelError(
            f"{path} holds a {type(content).__name__} where an object was expected: evaluate the run again"
        )
    return content
