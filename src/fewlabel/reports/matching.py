"""Which texts belong to which images of a collection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from fewlabel.collection import Collection
from fewlabel.collection.matching import path_parts, stem
from fewlabel.reports.reading import Report
from fewlabel.types import FewlabelError

By = Literal["case", "file", "study", "folder", "patient"]
WAYS: tuple[By, ...] = ("case", "file", "study", "folder", "patient")
_DEEPEST, _LONG_ID = 4, 8
K = TypeVar("K")


@dataclass(frozen=True)
class Matching:
    """of_image: for each of the N images the numbers of its reports, ascending. ambiguous: images for which several
    reports fit equally well and that were given none.
    """

    by: By
    of_image: tuple[tuple[int, ...], ...]
    ambiguous: int = 0

    @property
    def matched(self) -> int:
        """How many images have a report."""
        return sum(bool(found) for found in self.of_image)


def match_reports(reports: Sequence[Report], collection: Collection, by: By | None = None) -> Matching:
    """Find the reports of each image.

    by: "case" (`case_id`), "file" (name of the image file, with as many folders as agree), "study" (study id, within
    the patient), "folder" (the study's folder in the image's path) or "patient" (only where the patient has one study).
    None takes the way that fits most images, of equals the first of this list; "patient" only where no other fits any.
    Raises FewlabelError with examples of both sides where nothing fits.
    """
    if by is not None and by not in WAYS:
        raise FewlabelError(f'texts were to be matched by "{by}": choose one of {", ".join(WAYS)}')
    for ways in ((by,),) if by else (WAYS[:-1], WAYS[-1:]):
        best = max((_match(reports, collection, way) for way in ways), key=lambda found: found.matched)
        if best.matched:
            return best
    raise FewlabelError(_no_match(reports, collection, by))


def _match(reports: Sequence[Report], collection: Collection, by: By) -> Matching:
    if by == "case":
        index = _index((case, n) for n, report in enumerate(reports) for case in report.cases)
        return _matching(by, [index.get(case, []) for case in collection.column("case:case_id")], ())
    if by == "file":
        return _by_file(reports, collection.column("case:source").tolist())
    if by == "study":
        return _by_study(reports, *_ids(collection))
    if by == "folder":
        return _by_folder(reports, collection.column("case:source").tolist())
    return _by_patient(reports, *_ids(collection))


def _by_file(reports: Sequence[Report], sources: Sequence[str]) -> Matching:
    """Each file name goes to the image that shares most of its path; to none, where several share as much.

    Where folders disagree before either path ends, name and image must be the only ones of that tail.
    """
    cells = [(_stemmed(file), n) for n, report in enumerate(reports) for file in dict.fromkeys(report.files)]
    index = _index((tail, number) for number, (file, _) in enumerate(cells) for tail in _tails(file))
    takers: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for image, source in enumerate(sources):
        parts = _stemmed(source)
        tail = next((t for t in _tails(parts) if t in index), "")
        numbers, depth = index.get(tail, []), tail.count("/") + 1
        for number in numbers:
            if len(numbers) == 1 or depth in (len(parts), len(cells[number][0]), _DEEPEST):
                takers[number].append((depth, image))
    found: list[list[int]] = [[] for _ in sources]
    contested = set()
    for number, hits in takers.items():
        deepest = max(depth for depth, _ in hits)
        images = [image for depth, image in hits if depth == deepest]
        if len(images) > 1:
            contested.update(images)
        else:
            found[images[0]].append(cells[number][1])
    found, rivals = _without_rivals(reports, found)
    return _matching("file", found, {image for image in contested if not found[image]} | rivals)


def _by_study(reports: Sequence[Report], patients: Sequence[str], studies: Sequence[str]) -> Matching:
    """By patient and study; by study alone where a side names no patient or the id is long, if it is one patient's."""
    both = _index(((r.patient_id, r.study_id), n) for n, r in enumerate(reports) if r.study_id)
    alone = _index((r.study_id, n) for n, r in enumerate(reports) if r.study_id)
    owners: dict[str, set[str]] = defaultdict(set)
    for patient, study in zip(patients, studies, strict=True):
        owners[study].add(patient)
    found = []
    for patient, study in zip(patients, studies, strict=True):
        numbers = both.get((patient, study)) if study else []
        if numbers is None:
            others = alone.get(study, []) if len(owners[study]) == 1 else []
            unnamed = not patient or len(study) >= _LONG_ID
            numbers = [n for n in others if unnamed or not reports[n].patient_id]
        found.append(numbers)
    return _matching("study", *_without_rivals(reports, found))


def _by_folder(reports: Sequence[Report], sources: Sequence[str]) -> Matching:
    """The image lies in the study's folder, or in one inside it; whichever of the paths is shorter agrees wholly."""
    wanted = [path_parts(report.folder.lower()) for report in reports]
    index = _index((tail, n) for n, parts in enumerate(wanted) for tail in _tails(parts))
    known: dict[str, list[int]] = {}
    places: dict[int, set[str]] = defaultdict(set)
    found = []
    for source in sources:
        folders = path_parts(source.lower())[:-1]
        key = "/".join(folders)
        if key not in known:
            known[key] = []
            for end in range(len(folders), 0, -1):
                tail = next((t for t in _tails(folders[:end]) if t in index), "")
                depth = tail.count("/") + 1
                fits = [n for n in index.get(tail, []) if depth in (end, len(wanted[n]))]
                if fits:
                    known[key] = fits
                    for n in fits:
                        places[n].add("/".join(folders[:end]))
                    break
        found.append(known[key])
    scattered = {n for n, where in places.items() if len(where) > 1}
    clear = [[n for n in numbers if n not in scattered] for numbers in found]
    lost = {i for i, numbers in enumerate(found) if numbers and not clear[i]}
    clear, rivals = _without_rivals(reports, clear)
    return _matching("folder", clear, lost | rivals)


def _by_patient(reports: Sequence[Report], patients: Sequence[str], studies: Sequence[str]) -> Matching:
    """Only patients with no more than one study among the images and one among the texts."""
    index = _index((report.patient_id, n) for n, report in enumerate(reports) if report.patient_id)
    known: dict[str, set[str]] = defaultdict(set)
    for patient, study in zip(patients, studies, strict=True):
        known[patient] |= {study} - {""}
    found, rivals = _without_rivals(reports, [index.get(patient, []) for patient in patients])
    several = {i for i, patient in enumerate(patients) if found[i] and len(known[patient]) > 1}
    clear = [[] if i in several else numbers for i, numbers in enumerate(found)]
    return _matching("patient", clear, rivals | several)


def _ids(collection: Collection) -> tuple[Sequence[str], Sequence[str]]:
    """(patient ids, study ids) of all images, "" where unknown."""
    columns = (collection.column(f"case:{name}") for name in ("patient_id", "study_id"))
    patients, studies = ([value or "" for value in column] for column in columns)
    return patients, studies


def _without_rivals(
    reports: Sequence[Report], found: Sequence[Sequence[int]]
) -> tuple[list[list[int]], set[int]]:
    """Reports of different studies cannot both be an image's: such images get none, and are returned as the second."""
    rivals = {i for i, numbers in enumerate(found) if len({_identity(reports[n], n) for n in numbers}) > 1}
    return [[] if i in rivals else list(numbers) for i, numbers in enumerate(found)], rivals


def _identity(report: Report, number: int) -> tuple[str, ...]:
    """What study a report is of; without any id, each text is its own."""
    named = (report.patient_id, report.study_id, report.folder)
    return named if any(named[1:]) else (report.text,)


def _matching(by: By, found: Sequence[Iterable[int]], ambiguous: Iterable[int]) -> Matching:
    return Matching(by, tuple(tuple(sorted(set(numbers))) for numbers in found), len(set(ambiguous)))


def _index(pairs: Iterable[tuple[K, int]]) -> dict[K, list[int]]:
    index: dict[K, list[int]] = defaultdict(list)
    for key, number in pairs:
        index[key].append(number)
    return dict(index)


def _stemmed(name: str) -> list[str]:
    parts = path_parts(name.lower())
    return [*parts[:-1], stem(parts[-1])] if parts else []


def _tails(parts: Sequence[str]) -> Iterator[str]:
    """ "b/c/d", "c/d", "d": the ends of a path, the longest first, of at most 4 parts."""
    for first in range(max(0, len(parts) - _DEEPEST), len(parts)):
        yield "/".join(parts[first:])


def _no_match(reports: Sequence[Report], collection: Collection, by: By | None) -> str:
    texts = ", ".join(r.files[0] if r.files else r.folder or r.study_id or r.patient_id for r in reports[:3])
    images = ", ".join(
        f"{source} (study {study or 'unknown'})"
        for source, study in zip(
            collection.column("case:source")[:3], collection.column("case:study_id")[:3], strict=True
        )
    )
    return (
        f"none of the {len(reports)} texts belongs to one of the {len(collection)} images"
        f"{f' by {by}' if by else ''}: the texts are of {texts or 'nothing that is named'}, the images are {images}: "
        "give the reports of these images, or a table with a column of file names"
    )
