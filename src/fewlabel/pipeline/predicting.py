"""`fewlabel predict`: calibrated probabilities for new files, one row a file."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from fewlabel.adaptation.features import extract_features
from fewlabel.adaptation.probe import Calibration, LinearProbe, Scaling
from fewlabel.collection import Target, square_image
from fewlabel.images import read_file
from fewlabel.networks import Encoder
from fewlabel.pipeline.evaluating import Probe
from fewlabel.pipeline.runs import ENCODER, load_encoder, read_json, save_encoder, write_json
from fewlabel.training import load_tensors, replace_file, save_tensors
from fewlabel.types import FewlabelError, ProgressCallback, UnreadableImage

CLASSIFIER = "classifier.safetensors"


@dataclass(frozen=True)
class Classifier:
    """An encoder with a calibrated linear probe, as `fewlabel learn` leaves it in run/model.

    classes: names by column of the probabilities; empty for a number.
    """

    encoder: Encoder
    probe: LinearProbe
    target: str
    classes: tuple[str, ...]
    size_px: int
    store_px: int
    max_side_px: int


@dataclass(frozen=True)
class Predictions:
    """rows: one a file, in the order given. unreadable: how many of them could not be read."""

    rows: list[dict[str, str]]
    unreadable: int


def save_classifier(
    folder: Path,
    encoder: Encoder,
    probe: Probe,
    target: Target,
    *,
    size_px: int,
    store_px: int,
    max_side_px: int,
    labels: int,
    trained_on: str,
) -> None:
    """Write encoder, probe and their description; all weights as safetensors."""
    assert isinstance(probe, LinearProbe)
    save_encoder(encoder, folder / ENCODER)
    arrays = {
        "mean": probe.scaling.mean,
        "scale": np.array([probe.scaling.scale]),
        "weights": probe.weights,
        "intercept": probe.intercept,
    }
    save_tensors(
        {key: torch.from_numpy(np.asarray(a, dtype=np.float64)) for key, a in arrays.items()},
        folder / CLASSIFIER,
    )
    write_json(
        folder / "model.json",
        {
            "format": 1,
            "target": target.name,
            "kind": target.kind,
            "classes": list(target.classes),
            "calibration": asdict(probe.calibration),
            "strength": probe.strength,
            "size_px": size_px,
            "store_px": store_px,
            "max_side_px": max_side_px,
            "training_labels": labels,
            "trained_on": trained_on,
        },
    )


def load_classifier(run: str | Path) -> Classifier:
    """The classifier in run/model. Raises FewlabelError if the run is not finished or a file is damaged."""
    folder = Path(run) / "model"
    said = read_json(folder / "model.json", "fewlabel learn")
    tensors = {key: value.numpy() for key, value in load_tensors(folder / CLASSIFIER)[0].items()}
    try:
        probe = LinearProbe(
            said["kind"],
            Scaling(tensors["mean"], float(tensors["scale"][0])),
            tensors["weights"],
            tensors["intercept"],
            Calibration(**said["calibration"]),
            float(said["strength"]),
        )
        classes = tuple(said["classes"])
        sizes = (said["size_px"], said["store_px"], said["max_side_px"])
        return Classifier(load_encoder(folder / ENCODER), probe, said["target"], classes, *sizes)
    except KeyError as error:
        raise FewlabelError(
            f"{folder} lacks {error}: it is damaged; make it again with `fewlabel learn`."
        ) from error


def list_files(inputs: Sequence[str | Path]) -> list[Path]:
    """The files given, folders opened, each once. Raises FewlabelError if one does not exist or all are empty."""
    files: list[Path] = []
    for given in map(Path, inputs):
        if given.is_dir():
            files += sorted(path for path in given.rglob("*") if path.is_file())
        elif given.exists():
            files.append(given)
        else:
            raise FewlabelError(f"There is no file or folder {given}: check the path.")
    if not files:
        raise FewlabelError("No file was found to predict on: give image files, or a folder that holds some.")
    return list(dict.fromkeys(files))


def predict(
    run: str | Path,
    inputs: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    batch_size: int = 256,
    progress: ProgressCallback | None = None,
) -> Predictions:
    """Predict on image files or folders.

    Each row has file, status ("ok" or "unreadable"), reason, prediction, and one probability a class.
    out: a .csv to write, atomically. Raises FewlabelError for a broken model or paths that do not exist; a file that
    cannot be read is a row with its reason, not an error.
    """
    classifier = load_classifier(run)
    files = list_files(inputs)
    rows = []
    for start in range(0, len(files), batch_size):
        rows += list(_predict_batch(classifier, files[start : start + batch_size]))
        if progress:
            progress(len(rows), len(files), "files")
    if out:
        _write(rows, Path(out))
    return Predictions(rows, sum(row["status"] != "ok" for row in rows))


def _predict_batch(classifier: Classifier, files: Sequence[Path]) -> Iterator[dict[str, str]]:
    squares, reasons = [], []
    channels = classifier.encoder.settings.channels
    for file in files:
        try:
            squares.append(
                square_image(
                    read_file(file),
                    classifier.store_px,
                    channels=channels,
                    max_side_px=classifier.max_side_px,
                )
            )
            reasons.append("")
        except UnreadableImage as error:
            reasons.append(str(error))
    outputs: Iterator[np.ndarray] = iter(())
    if squares:
        features = extract_features(classifier.encoder, np.stack(squares), size_px=classifier.size_px)
        outputs = iter(classifier.probe.predict(features))
    for file, reason in zip(files, reasons, strict=True):
        row = {
            "file": str(file),
            "status": "unreadable" if reason else "ok",
            "reason": reason,
            "prediction": "",
        }
        columns = [f"probability_{name}" for name in _column_names(classifier)]
        row.update(dict.fromkeys(columns, ""))
        if not reason:
            row.update(_answer(classifier, next(outputs), columns))
        yield row


def _column_names(classifier: Classifier) -> tuple[str, ...]:
    if classifier.probe.kind == "number":
        return ()
    return (classifier.target,) if classifier.probe.kind == "binary" else classifier.classes


def _answer(classifier: Classifier, output: np.ndarray, columns: Sequence[str]) -> dict[str, str]:
    if classifier.probe.kind == "number":
        return {"prediction": f"{float(output):.6g}"}
    if classifier.probe.kind == "binary":
        positive = float(output[1])
        return {"prediction": classifier.classes[int(positive >= 0.5)], columns[0]: f"{positive:.4f}"}
    named = {column: f"{p:.4f}" for column, p in zip(columns, output, strict=True)}
    return {"prediction": classifier.classes[int(output.argmax())], **named}


def _write(rows: Sequence[dict[str, str]], out: Path) -> None:
    temporary = out.with_name(out.name + ".part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        replace_file(temporary, out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise FewlabelError(
            f"{out} could not be written ({error}): free some space or choose another --out."
        ) from error
