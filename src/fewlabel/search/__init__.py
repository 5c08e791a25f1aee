"""Search among the cases of a collection by features of their images: an index in a folder, or in PostgreSQL."""

from fewlabel.search.cases import (
    Difference,
    Hit,
    NoIndex,
    Origin,
    case_facts,
    difference,
    left_out_mark,
    shown_labels,
    unit,
    usual_place,
    without_left_out,
)
from fewlabel.search.folder import FolderIndex
from fewlabel.search.places import CaseIndex, begin_index, open_index

__all__ = [
    "CaseIndex",
    "Difference",
    "FolderIndex",
    "Hit",
    "NoIndex",
    "Origin",
    "begin_index",
    "case_facts",
    "difference",
    "left_out_mark",
    "open_index",
    "shown_labels",
    "unit",
    "usual_place",
    "without_left_out",
]
