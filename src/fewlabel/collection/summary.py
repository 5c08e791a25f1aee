"""What an import says to the user: the summary, facts for the report, and why there is nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fewlabel import images
from fewlabel.collection.tables import State
from fewlabel.types import JSON


@dataclass(frozen=True)
class ImportSummary:
    """What an import did and what the collection holds now.

    images, patients: in the whole collection. added, changed, unchanged: sources of this import. quarantined:
    files of the collection that could not be read. exact_duplicates: images whose pixels another image has
    too; near_duplicates: images with a near copy (exact ones included). labels_matched, labels_unmatched:
    images of this source with and without labels; rows_unmatched: rows of the label file without an image.
    notes: sentences.
    """

    path: Path
    images: int
    patients: int
    added: int
    changed: int
    unchanged: int
    quarantined: int
    exact_duplicates: int
    near_duplicates: int
    labels_matched: int = 0
    labels_unmatched: int = 0
    rows_unmatched: int = 0
    notes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    reasons: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def __str__(self) -> str:
        lines = [
            f"{self.path}: {self.images} images of {self.patients} patients "
            f"({self.added} added, {self.changed} changed, {self.unchanged} unchanged, {self.seconds:.1f} s)"
        ]
        if self.labels:
            lines.append(f"label columns: {', '.join(self.labels)}")
        if self.exact_duplicates or self.near_duplicates:
            lines.append(
                f"{self.exact_duplicates} images have an exact copy, "
                f"{self.near_duplicates} an exact or near one"
            )
        if self.quarantined:
            lines.append(f"{self.quarantined} files could not be read (see {self.path / 'quarantine.csv'}):")
            lines += [f"  {count} x {reason}" for reason, count in list(self.reasons.items())[:5]]
        return "\n".join([*lines, *self.notes])


def facts_of(state: State) -> list[str]:
    """Sentences on the data that a report should repeat."""
    rows = state.rows
    facts = []
    unknown = sum(not r["patient_id"] for r in rows)
    if unknown:
        facts.append(
            f"{unknown} of {len(rows)} images have no patient id: each counts as a patient of its "
            "own, so a split by patient cannot keep images of one person together"
        )
    exact, near = (sum(r[k] >= 0 for r in rows) for k in ("exact_group", "near_group"))
    if exact:
        facts.append(f"{exact} images have the same pixels as another image")
    if near > exact:
        facts.append(f"{near} images have a copy or a near copy among the others")
    made = sum(r["attributes"].get("made") == 1 for r in rows)
    if made:
        facts.append(f"{made} images are made by a generator and show no patient (column made)")
    padded = sum(r["has_padding"] for r in rows)
    if padded:
        facts.append(f"{padded} images have pixels that the source marks as padding; they are drawn black")
    if state.quarantine:
        facts.append(f"{len(state.quarantine)} files could not be read (quarantine.csv)")
    return facts + [note for notes in state.facts.label_notes.values() for note in notes]


def nothing_found(place: Path, rejected: Sequence[images.Rejected]) -> str:
    """The sentence for a source in which a scan found no image."""
    if not rejected:
        return f"{place} holds no image: give the folder, archive or file that holds the images"
    some = "; ".join(f"{r.name}: {r.reason}" for r in rejected[:3])
    return f"none of the {len(rejected)} files in {place} is an image that can be read ({some})"


def nothing_read(quarantine: Sequence[JSON]) -> str:
    """The sentence for a source of which not one image could be read."""
    some = "; ".join(f"{q['name']}: {q['reason']}" for q in quarantine[:3])
    return f"none of the {len(quarantine)} files could be read ({some})"
