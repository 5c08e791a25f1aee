"""`fewlabel score`: how unlike normal images new files are, by the detector of a run of `fewlabel anomalies`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewlabel.pipeline.anomalies import MODEL
from fewlabel.pipeline.figures import map_figure, unit_image
from fewlabel.pipeline.predicting import list_files, read_squares, write_rows
from fewlabel.tasks.detector import Detector, load_detector
from fewlabel.types import FewlabelError, ProgressCallback

TABLE, PICTURES = "scores.csv", "maps"
ABOVE = "_above"
MAP = "_map"
"""End the columns that say whether a score lies above its threshold, and where the picture of a map is."""


@dataclass(frozen=True)
class FileScores:
    """rows: one a file, in the order given. unreadable: how many of them could not be read. table: the CSV file."""

    rows: list[dict[str, str]]
    unreadable: int
    table: Path

    @property
    def summary(self) -> str:
        """How many files were scored."""
        return f"{len(self.rows) - self.unreadable} of {len(self.rows)} files scored"


def score_files(
    run: str | Path,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    batch_size: int = 256,
    progress: ProgressCallback | None = None,
) -> FileScores:
    """Score image files or folders; writes out/scores.csv and a picture of each map to out/maps.

    Files are prepared as `predict` does it: shrunk to squares of the run's size, colour as luminance where the run is
    grey. Each row has file, status ("ok" or "unreadable"), reason, and for each score its value and whether it lies
    above the threshold that normal validation patients gave ("yes" or "no"); then the paths of its maps below `out`.
    The colours of a map mean the same in all pictures: as on the page of the run.
    Raises FewlabelError for a run without a detector, paths that do not exist, a folder that holds something else, or
    where a file cannot be written; a file that cannot be read is a row with its reason.
    """
    detector, files, out = load_detector(Path(run) / MODEL), list_files(inputs), Path(out)
    if out.exists() and (
        not out.is_dir() or any(path.name not in (TABLE, PICTURES) for path in out.iterdir())
    ):
        raise FewlabelError(
            f"{out} holds something else than scores: give an empty or a new folder with --out."
        )
    rows: list[dict[str, str]] = []
    for start in range(0, len(files), batch_size):
        rows += _score_batch(detector, files[start : start + batch_size], start, out)
        if progress:
            progress(len(rows), len(files), "files")
    write_rows(rows, out / TABLE)
    return FileScores(rows, sum(row["status"] != "ok" for row in rows), out / TABLE)


def _score_batch(detector: Detector, files: Sequence[Path], first: int, out: Path) -> list[dict[str, str]]:
    """first: how many files came before these, so that pictures have names of their own."""
    channels = detector.encoder.settings.channels
    squares, reasons, _ = read_squares(
        files, detector.store_px, channels=channels, max_side_px=detector.max_side_px
    )
    looked, place = detector.look(squares) if len(squares) else None, 0
    rows = []
    for number, (file, reason) in enumerate(zip(files, reasons, strict=True), start=first + 1):
        row = {"file": str(file), "status": "unreadable" if reason else "ok", "reason": reason}
        row |= dict.fromkeys(_columns(detector), "")
        if looked and not reason:
            for name, values in looked.scores.items():
                row[name] = f"{values[place]:.6g}"
                row[name + ABOVE] = "yes" if values[place] > detector.thresholds[name] else "no"
            for name, maps in looked.maps.items():
                row[name + MAP] = f"{PICTURES}/{number:06d}-{file.stem}-{name}.png"
                low, high = detector.ranges[name]
                _draw(unit_image(squares, place), maps[place], low, high, out / row[name + MAP])
            place += 1
        rows.append(row)
    return rows


def _columns(detector: Detector) -> list[str]:
    scores = [column for name in detector.thresholds for column in (name, name + ABOVE)]
    return [*scores, *(name + MAP for name in detector.ranges)]


def _draw(image: np.ndarray, found: np.ndarray, low: float, high: float, path: Path) -> None:
    try:
        map_figure(image, found, low, high, path)
    except OSError as error:
        raise FewlabelError(
            f"{path} could not be written ({error}): free some space or choose another --out."
        ) from error
