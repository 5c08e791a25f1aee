"""`Reports`: the texts of studies; and `PairedTexts`: the images that have one, with its sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fewlabel.collection import Collection
from fewlabel.reports.matching import By, match_reports
from fewlabel.reports.phrases import mentions_prior, split_clauses
from fewlabel.reports.public_sets import read_chexpert_plus, read_mimic_cxr, read_openi
from fewlabel.reports.reading import Refused, Report, read_dicom_folder, read_table, read_text_folder
from fewlabel.reports.sections import DEFAULT_KEEP, kept_sections
from fewlabel.reports.sentences import count_tokens, split_sentences, without_marker
from fewlabel.types import FewlabelError


@dataclass(frozen=True)
class TextCounts:
    """How many texts and images came, how many are left, and why the others are not.

    texts, refused, images: what was read, what could not be read, and the images of the collection.
    unused: texts that match no image. blank, without_section, short, without_sentence: matched texts that were dropped,
        as they are empty, have headings but none that is kept, have too few tokens, or no sentence was left.
    without_text, ambiguous, dropped: images that no text matches, that several match equally well, and whose text was
        dropped. paired: images that have a text.
    wordless, priors: sentences that were left out, as they hold no word or speak of an earlier study.
    fewest_tokens: what counts as short.
    """

    texts: int
    images: int
    refused: int = 0
    unused: int = 0
    blank: int = 0
    without_section: int = 0
    short: int = 0
    without_sentence: int = 0
    without_text: int = 0
    ambiguous: int = 0
    dropped: int = 0
    paired: int = 0
    wordless: int = 0
    priors: int = 0
    fewest_tokens: int = 3

    def lines(self) -> tuple[str, ...]:
        """One sentence for each thing that happened, for the user and the report."""
        said = (
            (self.refused, "files gave no text"),
            (self.unused, f"of {self.texts} texts match no image"),
            (self.blank, "matched texts are empty and were dropped"),
            (self.without_section, "matched texts have none of the sections that are kept and were dropped"),
            (self.short, f"matched texts have fewer than {self.fewest_tokens} tokens and were dropped"),
            (self.without_sentence, "matched texts were dropped with all their sentences"),
            (self.without_text, f"of {self.images} images have no text"),
            (self.ambiguous, "images fit several texts equally well and got none"),
            (self.dropped, "images lost their text with those that were dropped"),
            (self.wordless, "sentences without a word were left out"),
            (self.priors, "sentences on earlier studies were left out"),
        )
        return (
            f"{self.paired} of {self.images} images have a text",
            *(f"{count} {what}" for count, what in said if count),
        )


@dataclass(frozen=True)
class PairedTexts:
    """Images with their texts: what training on pairs draws from. P images have one of Q texts.

    rows: (P,) int64 rows of the collection, ascending. text_of: (P,) int64, the text of each of them, 0 to Q - 1;
    images of one study share a number. texts: Q kept texts. sentences: for each text its sentences, at least one.
    priors: for each sentence whether it speaks of an earlier study. by: how texts and images were matched.
    """

    rows: np.ndarray
    text_of: np.ndarray
    texts: tuple[str, ...] = field(repr=False)
    sentences: tuple[tuple[str, ...], ...] = field(repr=False)
    priors: tuple[tuple[bool, ...], ...] = field(repr=False)
    by: By
    counts: TextCounts

    def __len__(self) -> int:
        return len(self.rows)

    def of_row(self, row: int) -> tuple[str, ...]:
        """The sentences of one row of the collection. Raises FewlabelError for a row without text."""
        place = int(np.searchsorted(self.rows, row))
        if place == len(self.rows) or self.rows[place] != row:
            raise FewlabelError(f"row {row} has no text: take rows from PairedTexts.rows")
        return self.sentences[self.text_of[place]]


@dataclass(frozen=True)
class Reports:
    """Report texts of studies, as their source has them. Nothing is dropped before `pair`.

    refused: (file, reason) of what gave no text.
    """

    reports: tuple[Report, ...] = field(repr=False)
    refused: tuple[Refused, ...] = ()

    def __len__(self) -> int:
        return len(self.reports)

    @staticmethod
    def from_column(collection: Collection, name: str = "text") -> Reports:
        """From a column of the collection. An image with a blank cell takes the texts of its study's other images.

        Raises FewlabelError for an unknown column, and for one that holds no text.
        """
        cells = collection.column(name)
        if cells.dtype != object or any(isinstance(cell, list) for cell in cells):
            raise FewlabelError(f'"{name}" holds numbers, not texts: name the column of the reports')
        cases = collection.column("case:case_id")
        images: dict[int, list[int]] = {}
        for row, study in enumerate(collection.studies()):
            images.setdefault(int(study), []).append(row)
        reports = []
        for rows in images.values():
            blank = [row for row in rows if not (cells[row] or "").strip()]
            for text in dict.fromkeys(cells[row] for row in rows if row not in blank):
                own = [row for row in rows if cells[row] == text]
                said_of = tuple(cases[row] for row in sorted(own + blank))
                reports.append(Report(text, cases=said_of, source=f"column {name}"))
        if not reports:
            raise FewlabelError(f'"{name}" is empty for all {len(collection)} images: name another column')
        return Reports(tuple(reports))

    @staticmethod
    def from_folder(path: str | Path) -> Reports:
        """From .txt files named by study or image, or patient/study.txt. Raises FewlabelError where there is none."""
        return _read(*read_text_folder(path))

    @staticmethod
    def from_table(
        path: str | Path,
        *,
        text: str,
        study: str | None = None,
        patient: str | None = None,
        file: str | None = None,
    ) -> Reports:
        """From columns of a CSV or TSV file. Raises FewlabelError for unknown columns."""
        return _read(read_table(path, text=text, study=study, patient=patient, file=file))

    @staticmethod
    def from_dicom(path: str | Path) -> Reports:
        """From DICOM structured reports and encapsulated text. Raises FewlabelError where there is none."""
        return _read(*read_dicom_folder(path))

    @staticmethod
    def from_mimic_cxr(path: str | Path) -> Reports:
        """From the text tree of MIMIC-CXR: files/p10/p10000032/s50414267.txt."""
        return _read(*read_mimic_cxr(path))

    @staticmethod
    def from_chexpert_plus(path: str | Path) -> Reports:
        """From df_chexpert_plus_240401.csv."""
        return _read(read_chexpert_plus(path))

    @staticmethod
    def from_openi(path: str | Path) -> Reports:
        """From the XML files of ecgen-radiology (Open-i, Indiana University)."""
        return _read(*read_openi(path))

    def pair(
        self,
        collection: Collection,
        *,
        by: By | None = None,
        keep: Sequence[str] = DEFAULT_KEEP,
        fewest_tokens: int = 3,
        drop_priors: bool = False,
        clauses: bool = False,
    ) -> PairedTexts:
        """The images of the collection that have a text, with its sentences.

        by: how texts find images; None = the way that fits most (see `match_reports`). keep: sections; () = all.
        fewest_tokens: shorter texts are dropped, 3 as in ConVIRT. drop_priors: leave out sentences on earlier studies.
        clauses: also cut sentences where negation allows it (`split_clauses`).
        Several texts of one study are joined. Raises FewlabelError where no text matches or none is left.
        """
        matching = match_reports(self.reports, collection, by)
        groups = _distinct(self.reports, matching.of_image, collection.studies())
        made = {
            texts: _prepared(texts, keep, fewest_tokens, drop_priors, clauses)
            for texts in dict.fromkeys(groups)
            if texts
        }
        left = {texts: n for n, texts in enumerate(t for t, text in made.items() if not text.why)}
        rows = [row for row, texts in enumerate(groups) if texts in left]
        why = [text.why for text in made.values()]
        used = {n for numbers in matching.of_image for n in numbers}
        counts = TextCounts(
            texts=len(self),
            images=len(collection),
            refused=len(self.refused),
            unused=len(self) - len(used),
            blank=why.count("blank"),
            without_section=why.count("without_section"),
            short=why.count("short"),
            without_sentence=why.count("without_sentence"),
            without_text=groups.count(()) - matching.ambiguous,
            ambiguous=matching.ambiguous,
            dropped=len(groups) - groups.count(()) - len(rows),
            paired=len(rows),
            wordless=sum(text.wordless for text in made.values()),
            priors=sum(text.dropped_priors for text in made.values()),
            fewest_tokens=fewest_tokens,
        )
        if not rows:
            raise FewlabelError(
                f"no text is left of those that match an image ({'; '.join(counts.lines()[1:])}): "
                "keep more sections, or shorter texts"
            )
        kept = [made[texts] for texts in left]
        return PairedTexts(
            rows=np.array(rows, np.int64),
            text_of=np.array([left[groups[row]] for row in rows], np.int64),
            texts=tuple(text.text for text in kept),
            sentences=tuple(text.sentences for text in kept),
            priors=tuple(text.priors for text in kept),
            by=matching.by,
            counts=counts,
        )


@dataclass(frozen=True)
class _Prepared:
    """A text made ready; `why` names the field of TextCounts where it is dropped."""

    text: str = ""
    sentences: tuple[str, ...] = ()
    priors: tuple[bool, ...] = ()
    wordless: int = 0
    dropped_priors: int = 0
    why: str = ""


def _read(reports: Sequence[Report], refused: Sequence[Refused] = ()) -> Reports:
    if not reports:
        name, reason = refused[0]
        raise FewlabelError(f"none of {len(refused)} files gave a text, such as {name}: {reason}")
    return Reports(tuple(reports), tuple(refused))


def _distinct(
    reports: Sequence[Report], of_image: Sequence[tuple[int, ...]], studies: np.ndarray
) -> list[tuple[tuple[str, str], ...]]:
    """For each image the different texts of its reports with their study, () for none.

    studies: (N,) the collection's, for reports that name none.
    """
    names = ["\0".join((r.patient_id, r.study_id, r.folder)) if r.study_id else "" for r in reports]
    return [
        tuple(dict.fromkeys((names[n] or str(study), reports[n].text) for n in numbers))
        for numbers, study in zip(of_image, studies, strict=True)
    ]


def _prepared(
    texts: tuple[tuple[str, str], ...],
    keep: Sequence[str],
    fewest_tokens: int,
    drop_priors: bool,
    clauses: bool,
) -> _Prepared:
    whole = [text for _, text in texts]
    if not any(text.strip() for text in whole):
        return _Prepared(why="blank")
    kept = [s.text.strip() for text in whole for s in kept_sections(text, keep) if s.text.strip()]
    if not kept:
        return _Prepared(why="without_section")
    if count_tokens(" ".join(kept)) < fewest_tokens:
        return _Prepared(why="short")
    sentences = [without_marker(sentence) for text in kept for sentence in split_sentences(text)]
    if clauses:
        sentences = [clause for sentence in sentences for clause in split_clauses(sentence)]
    worded = [s for s in sentences if any(c.isalpha() for c in s) and count_tokens(s)]
    wordless = len(sentences) - len(worded)
    priors = [mentions_prior(sentence) for sentence in worded]
    chosen = [n for n, prior in enumerate(priors) if not (drop_priors and prior)]
    return _Prepared(
        text="\n\n".join(kept),
        sentences=tuple(worded[n] for n in chosen),
        priors=tuple(priors[n] for n in chosen),
        wordless=wordless,
        dropped_priors=len(worded) - len(chosen),
        why="" if chosen else "without_sentence",
    )
