"""`fewlabel inspect`: labels and images of a collection that are worth a second look, as a list with reasons.

Whatever is listed is suspected by a program: nothing is left out or changed because of it, in training or in testing.
Labels of test images are looked at with what the other labels say, never the other way round.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewlabel.adaptation.features import extract_features
from fewlabel.collection import Collection, Target
from fewlabel.evaluation.hygiene import (
    Opinions,
    copies,
    how_well_told,
    opinions,
    opinions_on_others,
    outliers,
    suspected_labels,
)
from fewlabel.files import replacing
from fewlabel.pipeline.arms import Task, encoder_features
from fewlabel.pipeline.figures import case_figure
from fewlabel.pipeline.predicting import load_classifier
from fewlabel.pipeline.pretraining import Pretrained, kept_pretrained
from fewlabel.pipeline.runs import read_json, read_split
from fewlabel.pipeline.settings import PretrainSettings
from fewlabel.splits import PARTS, linked_groups
from fewlabel.types import JSON, FewlabelError

WORTH_A_LOOK = "worth_a_look.csv"
COLUMNS = ("case", "part", "label", "what", "why", "score", "suggested_label", "other_case")
CONTRADICTED, CROSSING = "copy with another label", "copy in another part"
LABEL, OUTLIER = "suspected label", "outlier"
KINDS = (CONTRADICTED, CROSSING, LABEL, OUTLIER)
FEWEST_LABELS = 20
SHOWN = 8
"""Of each kind in the report."""


@dataclass(frozen=True)
class Finding:
    """One image to be looked at again.

    row: of the collection. part: "train", "val", "test", or "" where there is no split. label: as it stands, "" = none.
    what: one of `KINDS`. why: one sentence. suggested: a label, "" = none. other: row of the copy, -1 = none.
    score: how strong the suspicion is, to be compared within a kind only: of a label by how much the mean of two
    opinions prefers the suggested one (at most 1; below 0 where a rare class is suggested that neither is sure of), of
    copies the correlation of their detail, of an outlier the modified z-score of its distance.
    """

    row: int
    part: str
    label: str
    what: str
    why: str
    score: float
    suggested: str = ""
    other: int = -1


@dataclass(frozen=True)
class Inspected:
    """findings: by kind in the order of `KINDS`, the strongest first. notes: what could not be looked at and why, and
    how far the suspicion of labels can be trusted.

    path: the CSV, None where none was asked for.
    """

    findings: list[Finding]
    notes: list[str]
    path: Path | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Images of each kind."""
        found = Counter(finding.what for finding in self.findings)
        return {what: found[what] for what in KINDS}

    @property
    def summary(self) -> str:
        """How many images are worth a second look, and why."""
        listed = ", ".join(f"{n} x {what}" for what, n in self.counts.items() if n)
        images = len({finding.row for finding in self.findings})
        return (
            f"{images} images are worth a second look ({listed})"
            if images
            else "nothing suspicious was found"
        )


@dataclass(frozen=True)
class _Subject:
    """What is inspected. parts, groups: (N,) of each image. labelled: (N,) bool, whose labels may be looked at.

    features: (N, F), None = copies only.
    """

    collection: Collection
    target: Target
    parts: np.ndarray
    groups: np.ndarray
    labelled: np.ndarray
    features: np.ndarray | None

    def label(self, row: int) -> str:
        if not self.target.usable[row]:
            return ""
        value = self.target.values[row]
        return f"{value:g}" if self.target.kind == "number" else self.target.classes[int(value)]


def inspect_labels(
    collection: Collection | str | Path,
    target: str,
    model: str | Path | None = None,
    out: str | Path | None = None,
    *,
    grades: Sequence[str] | None = None,
) -> Inspected:
    """Labels that may be wrong, copies that contradict each other or lie in two parts, and outliers.

    A label is suspected where confident learning (`evaluation.confident_learning`) does so twice: with a linear probe,
    and with the nearest neighbours, both without the image's own patient, and none where these cannot tell the target.

    model: a run of pretrain, learn or evaluate, whose encoder says what is alike; None = copies only, at once.
    Parts are those of the run, if it has seen this collection, else the collection's own; an encoder that saw labels
    (one that was fine-tuned or distilled) is not used where the run keeps a pretrained one.
    grades: where the target is graded, see `Collection.target`; a column of numbers has no labels to suspect else.
    out: a folder for worth_a_look.csv; None = nothing is written. Raises FewlabelError for an unknown target, a folder
    that holds no model, and where the list cannot be written.
    """
    opened = collection if isinstance(collection, Collection) else Collection.open(Path(collection))
    wanted = opened.target(target, grades=grades)
    parts = _own_parts(opened)
    features = None
    if model is not None:
        features = _features(opened, Path(model))
        split = read_split(Path(model) / "split.csv", opened)
        if split is not None:
            parts = _named({part: split.part(part) for part in PARTS}, len(opened))
    inspected = _inspect(_Subject(opened, wanted, parts, _groups(opened), wanted.usable, features))
    if model is None:
        inspected.notes.insert(0, "No model was given: labels and outliers were not looked at, only copies.")
    if out is None:
        return inspected
    path = Path(out) / WORTH_A_LOOK
    write_findings(path, inspected.findings, opened)
    return Inspected(inspected.findings, inspected.notes, path)


def hygiene_results(task: Task, pretrained: Pretrained, out: Path) -> JSON:
    """{"worth_a_look": ...} of results.json; writes worth_a_look.csv and the pictures of what the report shows."""
    features = encoder_features(task, [pretrained.encoder])(0)
    parts = _named({part: task.split.part(part) for part in PARTS}, len(task.pixels))
    collection, labelled = task.collection, np.zeros(len(task.pixels), dtype=bool)
    labelled[np.concatenate([task.train, task.val, task.test])] = True
    subject = _Subject(collection, task.target, parts, _groups(collection), labelled, features)
    inspected = _inspect(subject)
    write_findings(out / WORTH_A_LOOK, inspected.findings, collection)
    names, shown = collection.column("case:source"), []
    for what in KINDS:
        once = [one for one in inspected.findings if one.what == what and not 0 <= one.other < one.row]
        shown += [_shown(finding, task, names, out) for finding in once[:SHOWN]]
    return {
        "worth_a_look": {
            "findings": shown,
            "counts": inspected.counts,
            "images": int(np.count_nonzero(parts != "")),
            "labelled": int(np.count_nonzero(labelled)),
            "notes": inspected.notes,
            "file": WORTH_A_LOOK,
        }
    }


def _shown(finding: Finding, task: Task, names: np.ndarray, out: Path) -> JSON:
    figures = []
    for row in (finding.row, finding.other):
        figure = f"figures/case-{row}.png"
        if row >= 0 and not (out / figure).exists():
            case_figure(task.pixels, row, out / figure)
        figures.append(figure if row >= 0 else None)
    return {
        "what": finding.what,
        "why": finding.why,
        "case": str(names[finding.row]),
        "part": finding.part,
        "label": finding.label,
        "suggested": finding.suggested,
        "score": finding.score,
        "figure": figures[0],
        "other_case": str(names[finding.other]) if finding.other >= 0 else "",
        "other_figure": figures[1],
    }


def write_findings(path: Path, findings: Sequence[Finding], collection: Collection) -> None:
    """The list as CSV, one row an image and reason. Raises FewlabelError where it cannot be written."""
    ids = collection.column("case:case_id")
    try:
        with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for one in findings:
                other = ids[one.other] if one.other >= 0 else ""
                row = (ids[one.row], one.part, one.label, one.what, one.why, f"{one.score:.3f}")
                writer.writerow([*row, one.suggested, other])
    except OSError as error:
        raise FewlabelError(
            f"{path} could not be written ({error}): free some space or choose another folder."
        ) from error


def _groups(collection: Collection) -> np.ndarray:
    """(N,) patients, joined with those they share copies with: a copy's label is no second opinion."""
    exact, near = collection.column("case:exact_group"), collection.column("case:near_group")
    return linked_groups(collection.patients(), exact, near)


def _own_parts(collection: Collection) -> np.ndarray:
    """(N,) parts as the source states them, "" where it states none."""
    stated = np.array([str(part or "").strip().lower() for part in collection.column("case:split")])
    known = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}
    return np.array([known.get(part, part if part in PARTS else "") for part in stated], dtype=object)


def _named(rows: dict[str, np.ndarray], count: int) -> np.ndarray:
    parts = np.full(count, "", dtype=object)
    for part, of_part in rows.items():
        parts[of_part] = part
    return parts


def _features(collection: Collection, model: Path) -> np.ndarray:
    """Features (N, F) by the pretrained encoder of a run, or by the one of its classifier."""
    folders = [*sorted((model / "pretrain").glob("seed-*")), model]
    made = next((folder for folder in folders if (folder / "pretrain.json").exists()), None)
    if made is not None:
        said = read_json(made / "pretrain.json", "fewlabel pretrain")
        settings = PretrainSettings.from_json(said["settings"])
        encoder = kept_pretrained(made, settings, int(said["store_px"]), [], int(said["images"])).encoder
        size_px, store_px = settings.size_px, int(said["store_px"])
    else:
        classifier = load_classifier(model)
        encoder, size_px, store_px = classifier.encoder, classifier.size_px, classifier.store_px
    pixels = collection.square(store_px, channels=encoder.settings.channels)
    return extract_features(encoder, pixels, size_px=size_px)


def _inspect(subject: _Subject) -> Inspected:
    notes: list[str] = []
    found = _copies(subject)
    if subject.features is not None:
        found += _labels(subject, subject.features, notes)
        found += _outliers(subject, subject.features)
    order = sorted(found, key=lambda one: KINDS.index(one.what))
    return Inspected(order, notes)


def _copies(subject: _Subject) -> list[Finding]:
    """Each pair once from either side."""
    collection, names = subject.collection, subject.collection.column("case:source")
    near = collection.column("case:near_group")
    pairs = copies(collection.thumbnails(), collection.column("case:pixel_hash"), near)
    findings = []
    for a, b, exact, r in zip(pairs.a, pairs.b, pairs.exact, pairs.correlation, strict=True):
        how = (
            "The same picture as" if exact else f"Nearly the same picture (correlation of detail {r:.3f}) as"
        )
        for row, other in ((int(a), int(b)), (int(b), int(a))):
            label, its = subject.label(row), subject.label(other)
            part, its_part = str(subject.parts[row]), str(subject.parts[other])
            same = f"{how} {names[other]}"
            if label and its and label != its:
                why = f"{same}, which is labelled {its}."
                findings.append(Finding(row, part, label, CONTRADICTED, why, abs(float(r)), its, other))
            if part and its_part and part != its_part:
                why = f"{same}, which lies in {its_part}."
                findings.append(Finding(row, part, label, CROSSING, why, abs(float(r)), "", other))
    return sorted(findings, key=lambda one: (-one.score, min(one.row, one.other), one.row))


def _labels(subject: _Subject, features: np.ndarray, notes: list[str]) -> list[Finding]:
    """Suspected labels: of training and validation among themselves, of test by the labels of the others."""
    target, groups = subject.target, subject.groups
    if target.kind == "number":
        notes.append(f"{target.name} is a number: wrong ones are not looked for, only classes.")
        return []
    y, classes = target.values.astype(np.int64), len(target.classes)
    in_test = subject.parts == "test"
    rows = np.flatnonzero(subject.labelled & ~in_test)
    if len(rows) < FEWEST_LABELS or len(np.unique(y[rows])) < 2:
        notes.append(
            f"{len(rows)} labels of {len(np.unique(y[rows]))} class(es) outside of test: too few to doubt any of them."
        )
        return []
    held = opinions(features[rows], y[rows], groups[rows], classes=classes)
    told = how_well_told(held, y[rows], groups[rows])
    auroc = f"AUROC {told.value:.3f}, {told.low:.3f} to {told.high:.3f}"
    if not told.low > 0.5:
        notes.append(
            f"The labels of other patients tell {target.name} no better than chance ({auroc}): none is doubted."
        )
        return []
    notes.append(
        f"How well the labels of other patients tell {target.name}: {auroc}. The further below 1, the more of the "
        "suspected labels are right."
    )
    found = _label_findings(subject, rows, held)
    tested = np.flatnonzero(subject.labelled & in_test)
    rows = rows[~np.isin(groups[rows], groups[tested])]  # an official split may cut groups
    tested = tested[np.isin(y[tested], y[rows])]
    if len(tested) and len(np.unique(y[rows])) > 1:
        held = opinions_on_others(features[rows], y[rows], features[tested], classes=classes)
        found += _label_findings(subject, tested, held)
    return sorted(found, key=lambda one: -one.score)


def _label_findings(subject: _Subject, rows: np.ndarray, held: Opinions) -> list[Finding]:
    names, given = subject.target.classes, subject.target.values[rows].astype(np.int64)
    found = suspected_labels(held, given)
    findings = []
    for at, code, score in zip(found.positions, found.suggested, found.margin, strict=True):
        its, other, row = given[at], names[code], int(rows[at])
        p, share = held.probe[at], held.neighbours[at]
        why = (
            f"A probe without this patient says {other} {p[code]:.2f} and {names[its]} {p[its]:.2f}; of the nearest "
            f"images of other patients {share[code]:.0%} are labelled {other}, {share[its]:.0%} {names[its]}."
        )
        part = str(subject.parts[row])
        findings.append(Finding(row, part, names[its], LABEL, why, float(score), other))
    return findings


def _outliers(subject: _Subject, features: np.ndarray) -> list[Finding]:
    """Images far from all training images of others; from all images where there is no split."""
    trained = np.flatnonzero(subject.parts == "train")
    reference = trained if len(trained) else np.arange(len(features))
    found = outliers(features, subject.groups, reference)
    why = "Far from the images of all other patients in the features of the encoder."
    return [
        Finding(int(row), str(subject.parts[row]), subject.label(int(row)), OUTLIER, why, float(score))
        for row, score in zip(found.positions, found.score, strict=True)
    ]
