"""Retrieval: candidates in the order of their similarity to a query, and how right the first of them are.

Image to image, text to image and image to text differ only in who is embedded. A candidate of the query's own patient
is never a hit: it would be found by the patient and not by the finding. Intervals draw patients with replacement,
queries and candidates together, by `evaluation.intervals`: whoever was drawn twice asks twice, and stands twice in
the ranking of everybody else.
"""

from fewlabel.evaluation.retrieval.precision import Retrieval, precision_at
from fewlabel.evaluation.retrieval.protocol import Protocol, draw_protocol, exclusive_classes
from fewlabel.evaluation.retrieval.ranking import RankMeasure, rank_measures
from fewlabel.evaluation.retrieval.search import NO_PATIENT, Search, cosines, ranked

__all__ = [
    "NO_PATIENT",
    "Protocol",
    "RankMeasure",
    "Retrieval",
    "Search",
    "cosines",
    "draw_protocol",
    "exclusive_classes",
    "precision_at",
    "rank_measures",
    "ranked",
]
