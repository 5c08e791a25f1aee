"""`fewlabel predict`: calibrated probabilities for new files, one row a file, with the nearest labelled cases."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from fewlabel.adaptation.features import extract_features
from fewlabel.adaptation.ordinal import OrdinalProbe
from fewlabel.adaptation.probe import Calibration, LinearProbe, Scaling
from fewlabel.collection import Target, square_image
from fewlabel.evaluation.selective import (
    DELTA,
    Cases,
    Threshold,
    bounded_thresholds,
    called_class,
    choose_threshold,
)
from fewlabel.files import replacing
from fewlabel.images import read_file
from fewlabel.networks import Encoder
from fewlabel.pipeline.evaluating import Probe
from fewlabel.pipeline.evidence import NEAREST
from fewlabel.pipeline.runs import read_json, write_json
from fewlabel.tasks.evidence import LabelledCases, disagreeing
from fewlabel.tasks.grading import Cuts, referable_probability
from fewlabel.training import load_tensors, save_tensors
from fewlabel.training.weights import ENCODER, load_encoder, save_encoder
from fewlabel.types import JSON, FewlabelError, ProgressCallback, UnreadableImage

CLASSIFIER = "classifier.safetensors"
VALIDATION = "validation.safetensors"
CASES = "cases.safetensors"
EVIDENCE_COLUMNS = ("neighbours", "agreement", "neighbours_disagree")


@dataclass(frozen=True)
class Classifier:
    """An encoder with a calibrated linear or ordinal probe, as `fewlabel learn` leaves it in run/model.

    classes: names by column of the probabilities; empty for a number. cuts: between grades, None for other targets;
    referable: the code of the grade from which on an image is referable. cases: the training images, as evidence; None
    for a number, and where a run of an earlier version kept none.
    """

    encoder: Encoder
    probe: LinearProbe | OrdinalProbe
    target: str
    classes: tuple[str, ...]
    size_px: int
    store_px: int
    max_side_px: int
    cuts: Cuts | None = None
    referable: int = 0
    cases: LabelledCases | None = None

    def called(self, probabilities: np.ndarray) -> np.ndarray:
        """(N, K) -> classes called, (N,)."""
        return self.cuts(probabilities) if self.cuts else called_class(probabilities)


@dataclass(frozen=True)
class Predictions:
    """rows: one a file, in the order given. unreadable: how many of them could not be read.

    threshold: what the confidence had to be above for an answer, None where all were answered. abstained: how many
    files were read and not answered.
    """

    rows: list[dict[str, str]]
    unreadable: int
    threshold: Threshold | None = None
    abstained: int = 0

    @property
    def summary(self) -> str:
        """How many files were predicted; with a threshold also how many were not answered, and the bounded risk."""
        read = len(self.rows) - self.unreadable
        if self.threshold is None:
            return f"{read} of {len(self.rows)} files predicted"
        return (
            f"{read} of {len(self.rows)} files read, {read - self.abstained} answered, {self.abstained} abstained; "
            f"at most {100 * self.threshold.bound:.1f} % of answers are wrong with {100 * (1 - DELTA):g} % confidence, "
            f"for patients like the {self.threshold.cases} of validation"
        )


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
    validation: Cases | None,
    cuts: Cuts | None,
    cases: LabelledCases | None,
) -> None:
    """Write encoder, probe, what abstaining and evidence need, and their description; all numbers as safetensors.

    Of the training images their features, labels and ids are kept, no pixels.
    """
    assert isinstance(probe, LinearProbe | OrdinalProbe)
    save_encoder(encoder, folder / ENCODER)
    if cases is not None:
        _save_cases(cases, folder / CASES)
    if validation is not None:
        save_tensors(
            {
                "confidence": torch.from_numpy(validation.confidence.astype(np.float64)),
                "wrong": torch.from_numpy(validation.wrong),
            },
            folder / VALIDATION,
            {"chosen_among": str(validation.chosen_among)},
        )
    arrays = {
        "mean": probe.scaling.mean,
        "scale": np.array([probe.scaling.scale]),
        "weights": probe.weights,
        **(
            {"thresholds": probe.thresholds}
            if isinstance(probe, OrdinalProbe)
            else {"intercept": probe.intercept}
        ),
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
            "cuts": cuts and list(cuts.at),
            "referable": target.referable,
            "calibration": asdict(probe.calibration),
            "strength": probe.strength,
            "size_px": size_px,
            "store_px": store_px,
            "max_side_px": max_side_px,
            "training_labels": labels,
            "trained_on": trained_on,
            "keeps": f"features, labels, case ids and patient ids of {labels} training images, no pixels"
            if cases is not None
            else "nothing of the training images",
        },
    )


def _save_cases(cases: LabelledCases, path: Path) -> None:
    tensors = {"features": torch.from_numpy(cases.features), "y": torch.from_numpy(cases.y)}
    ids = {"cases": json.dumps(cases.cases), "patients": json.dumps(cases.patients)}
    save_tensors(tensors, path, ids)


def _load_cases(path: Path) -> LabelledCases | None:
    """The training images as `_save_cases` wrote them; None where there is no such file."""
    if not path.exists():
        return None
    tensors, ids = load_tensors(path)
    try:
        return LabelledCases(
            tensors["features"].numpy(),
            tensors["y"].numpy(),
            tuple(json.loads(ids["cases"])),
            tuple(json.loads(ids["patients"])),
        )
    except (KeyError, ValueError) as error:
        raise FewlabelError(
            f"{path} does not hold the training cases ({error}): it is damaged; make the run again."
        ) from error


def load_classifier(run: str | Path) -> Classifier:
    """The classifier in run/model. Raises FewlabelError if the run is not finished or a file is damaged."""
    folder = Path(run) / "model"
    said = read_json(folder / "model.json", "fewlabel learn")
    tensors = {key: value.numpy() for key, value in load_tensors(folder / CLASSIFIER)[0].items()}
    try:
        cuts = Cuts(tuple(said["cuts"])) if said.get("cuts") else None
        classes = tuple(said["classes"])
        sizes = (said["size_px"], said["store_px"], said["max_side_px"])
        return Classifier(
            load_encoder(folder / ENCODER),
            _probe(said, tensors),
            said["target"],
            classes,
            *sizes,
            cuts,
            said.get("referable", 0),
            _load_cases(folder / CASES),
        )
    except KeyError as error:
        raise FewlabelError(
            f"{folder} lacks {error}: it is damaged; make it again with `fewlabel learn`."
        ) from error


def _probe(said: JSON, tensors: dict[str, np.ndarray]) -> LinearProbe | OrdinalProbe:
    scaling = Scaling(tensors["mean"], float(tensors["scale"][0]))
    weights, calibration = tensors["weights"], Calibration(**said["calibration"])
    if said["kind"] == "ordinal":
        return OrdinalProbe(scaling, weights, tensors["thresholds"], calibration, float(said["strength"]))
    intercept, strength = tensors["intercept"], float(said["strength"])
    return LinearProbe(said["kind"], scaling, weights, intercept, calibration, strength)


def abstention_threshold(run: str | Path, kind: str, risk: float) -> Threshold:
    """The confidence above which answers are wrong in at most `risk` of the cases, chosen on validation patients.

    kind: of the run's target. Raises FewlabelError for a number, for a run that kept no validation cases, and where
    no threshold has a bound that low with 95 % confidence.
    """
    if kind == "number":
        raise FewlabelError(
            f"{run} predicts a number: abstaining is there for yes/no targets and classes only; ask without it."
        )
    cases = _load_validation(Path(run) / "model" / VALIDATION)
    threshold = choose_threshold(cases, risk)
    if threshold is None:
        lowest = min(one.bound for one in bounded_thresholds(cases))
        chosen = f", who also chose among {cases.chosen_among} networks," if cases.chosen_among > 1 else ""
        raise FewlabelError(
            f"No confidence threshold keeps the risk at {risk:g} or below with {100 * (1 - DELTA):g} % confidence: "
            f"the lowest bound on the {len(cases.wrong)} validation patients of {run}{chosen} is {lowest:.3g}; ask for "
            "a higher risk, or evaluate with more labelled validation patients."
        )
    return threshold


def _load_validation(path: Path) -> Cases:
    if not path.exists():
        raise FewlabelError(
            f"{path} is missing, so no threshold can be chosen: the run was made before abstaining was there; make it "
            "again in a new folder with `fewlabel evaluate`."
        )
    tensors, told = load_tensors(path)
    try:
        confidence, wrong = tensors["confidence"].numpy(), tensors["wrong"].numpy().astype(bool)
        return Cases(confidence, wrong, int(told["chosen_among"]))
    except (KeyError, ValueError) as error:
        raise FewlabelError(
            f"{path} does not hold the validation cases ({error}): it is damaged; make the run again."
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


def read_squares(
    files: Sequence[Path], size_px: int, *, channels: int, max_side_px: int
) -> tuple[np.ndarray, list[str], list[str]]:
    """Files as `square_image` makes them of the images in them.

    Returns the squares (n, channels, S, S) uint16 of those that can be read, why not for every file ("" = it can), and
    the patients of those that can, "" = not known.
    """
    squares, reasons, patients = [], [], []
    for file in files:
        try:
            image = read_file(file)
            squares.append(square_image(image, size_px, channels=channels, max_side_px=max_side_px))
            patients.append(image.patient_id)
            reasons.append("")
        except UnreadableImage as error:
            reasons.append(str(error))
    shape = (len(squares), channels, size_px, size_px)
    return np.array(squares, dtype=np.uint16).reshape(shape), reasons, patients


def predict(
    run: str | Path,
    inputs: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    abstain_above_risk: float | None = None,
    batch_size: int = 256,
    progress: ProgressCallback | None = None,
) -> Predictions:
    """Predict on image files or folders.

    Each row has file, status ("ok" or "unreadable"), reason, prediction, and one probability a class; for classes also
    neighbours (the nearest labelled training images with label and cosine, none of the file's own patient, as far as
    the file says whose it is), agreement (the share of them that have the class with the highest probability), and
    neighbours_disagree ("yes" where more of them have another class). Runs of earlier versions have no such columns.
    out: a .csv to write, atomically. Raises FewlabelError for a broken model or paths that do not exist; a file that
    cannot be read is a row with its reason, not an error.
    abstain_above_risk: answer only where the confidence is high enough for at most this share of wrong answers, see
    `abstention_threshold`; rows then also have abstained ("yes" or "no"), and no prediction where it is "yes".
    """
    classifier = load_classifier(run)
    threshold = None
    if abstain_above_risk is not None:
        threshold = abstention_threshold(run, classifier.probe.kind, abstain_above_risk)
    files = list_files(inputs)
    rows: list[dict[str, str]] = []
    for start in range(0, len(files), batch_size):
        rows += list(_predict_batch(classifier, files[start : start + batch_size], threshold))
        if progress:
            progress(len(rows), len(files), "files")
    if out:
        write_rows(rows, Path(out))
    unreadable = sum(row["status"] != "ok" for row in rows)
    abstained = sum(row.get("abstained") == "yes" for row in rows)
    return Predictions(rows, unreadable, threshold, abstained)


def _predict_batch(
    classifier: Classifier, files: Sequence[Path], threshold: Threshold | None
) -> Iterator[dict[str, str]]:
    squares, reasons, patients = read_squares(
        files,
        classifier.store_px,
        channels=classifier.encoder.settings.channels,
        max_side_px=classifier.max_side_px,
    )
    outputs: Iterator[np.ndarray] = iter(())
    evidence: Iterator[dict[str, str]] = iter(())
    if len(squares):
        features = extract_features(classifier.encoder, squares, size_px=classifier.size_px)
        predicted = classifier.probe.predict(features)
        outputs = iter(predicted)
        if classifier.cases:
            evidence = iter(_evidence(classifier, classifier.cases, features, patients, predicted))
    for file, reason in zip(files, reasons, strict=True):
        row = {
            "file": str(file),
            "status": "unreadable" if reason else "ok",
            "reason": reason,
            "prediction": "",
        }
        if threshold:
            row["abstained"] = ""
        columns = [f"probability_{name}" for name in _column_names(classifier)]
        row.update(dict.fromkeys([*columns, *(EVIDENCE_COLUMNS if classifier.cases else ())], ""))
        if not reason:
            output = next(outputs)
            row.update(_answer(classifier, output, columns))
            row.update(next(evidence, {}))
            if threshold:
                sure = output[classifier.called(output[None])[0]] > threshold.value
                row.update({"abstained": "no"} if sure else {"abstained": "yes", "prediction": ""})
        yield row


def _evidence(
    classifier: Classifier,
    cases: LabelledCases,
    features: np.ndarray,
    patients: Sequence[str],
    outputs: np.ndarray,
) -> list[dict[str, str]]:
    """The columns of `EVIDENCE_COLUMNS` for images with features (N, F) and probabilities (N, K)."""
    nearest = cases.nearest(features, patients, NEAREST)
    votes, called = nearest.votes(cases.y, len(classifier.classes)), classifier.called(outputs)
    differs = disagreeing(votes, called)
    rows = []
    for i in range(len(features)):
        found = [
            f"{cases.cases[place]}: {classifier.classes[int(cases.y[place])]} ({cosine:.3f})"
            for place, cosine in zip(nearest.places[i], nearest.cosines[i], strict=True)
            if place >= 0
        ]
        values = ("; ".join(found), f"{votes[i, called[i]]:.2f}", "yes" if differs[i] else "no")
        rows.append(dict(zip(EVIDENCE_COLUMNS, values if found else ("", "", ""), strict=True)))
    return rows


def _column_names(classifier: Classifier) -> tuple[str, ...]:
    if classifier.probe.kind == "number":
        return ()
    if classifier.probe.kind == "ordinal":
        return (*classifier.classes, f"{classifier.classes[classifier.referable]}_or_more")
    return (classifier.target,) if classifier.probe.kind == "binary" else classifier.classes


def _answer(classifier: Classifier, output: np.ndarray, columns: Sequence[str]) -> dict[str, str]:
    if classifier.probe.kind == "number":
        return {"prediction": f"{float(output):.6g}"}
    called = classifier.classes[int(classifier.called(output[None])[0])]
    if classifier.probe.kind == "binary":
        return {"prediction": called, columns[0]: f"{float(output[1]):.4f}"}
    if classifier.probe.kind == "ordinal":
        output = np.append(output, referable_probability(output, classifier.referable))
    named = {column: f"{p:.4f}" for column, p in zip(columns, output, strict=True)}
    return {"prediction": called, **named}


def write_rows(rows: Sequence[dict[str, str]], out: Path) -> None:
    """Rows with the same columns as CSV, atomically. Raises FewlabelError where it cannot be written."""
    try:
        with replacing(out) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise FewlabelError(
            f"{out} could not be written ({error}): free some space or choose another --out."
        ) from error
