"""What lies beside made images, so that nobody takes them for real ones."""

from __future__ import annotations

NOTE_NAME = "MADE_IMAGES.txt"
NOTE = (
    "These images were made by a computer program (fewlabel.phantoms, seed {seed}). They show no person.\n"
    "What a model reaches on them says nothing about patients.\n"
)
