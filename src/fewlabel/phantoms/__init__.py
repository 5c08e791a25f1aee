"""Made images with known truth: radiographs with reports, CT volumes and fundus photographs. They show no person.

They serve demonstrations and fast tests; what a model reaches on them says nothing about patients.
"""

from fewlabel.phantoms.fundi import MadeFundus, fundus, write_fundi
from fewlabel.phantoms.notes import NOTE_NAME
from fewlabel.phantoms.radiographs import EASY, Difficulty, MadeRadiographs, radiographs
from fewlabel.phantoms.reports import radiograph_reports
from fewlabel.phantoms.volumes import MadeVolume, Nodule, ct_volume
from fewlabel.phantoms.writing import write_radiographs

__all__ = [
    "EASY",
    "NOTE_NAME",
    "Difficulty",
    "MadeFundus",
    "MadeRadiographs",
    "MadeVolume",
    "Nodule",
    "ct_volume",
    "fundus",
    "radiograph_reports",
    "radiographs",
    "write_fundi",
    "write_radiographs",
]
