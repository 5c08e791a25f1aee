"""Report texts: read from where they are, cut into sections and sentences, and brought to the images of their study.

`Reports.from_...` reads them, `Reports.pair(collection)` gives the rows of images with the sentences of each, and
counts what was left out and why.
"""

from fewlabel.reports.finding import find_reports
from fewlabel.reports.phrases import is_negated, mentions_prior, split_clauses
from fewlabel.reports.reading import Report
from fewlabel.reports.sections import DEFAULT_KEEP, Section, find_sections, kept_sections
from fewlabel.reports.sentences import count_tokens, split_sentences
from fewlabel.reports.texts import PairedTexts, Reports, TextCounts

__all__ = [
    "DEFAULT_KEEP",
    "PairedTexts",
    "Report",
    "Reports",
    "Section",
    "TextCounts",
    "count_tokens",
    "find_reports",
    "find_sections",
    "is_negated",
    "kept_sections",
    "mentions_prior",
    "split_clauses",
    "split_sentences",
]
