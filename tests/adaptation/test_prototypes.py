"""Nearest prototypes: the paper's two equations by loops, and one case by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fewlabel.adaptation.prototypes import fit_prototypes
from fewlabel.types import FewlabelError


def test_a_case_by_hand() -> None:
    features = np.array([[0.0, 0.0], [2.0, 0.0], [10.0, 4.0]])
    found = fit_prototypes(features, np.array([0, 0, 1]), classes=2)
    assert found.centres.tolist() == [[1.0, 0.0], [10.0, 4.0]]
    # The middle between the centres is (5.5, 2): 20.25 + 4 to either side.
    assert found.nearest(np.array([[5.4, 2.0], [5.6, 2.0], [5.5, 2.0]])).tolist() == [0, 1, 0]


def test_against_loops_over_the_papers_equations() -> None:
    rng = np.random.default_rng(0)
    features, y, asked = rng.normal(size=(12, 5)), np.arange(12) % 3, rng.normal(size=(40, 5))
    found = fit_prototypes(features, y, classes=3)
    for x, called in zip(asked, found.nearest(asked), strict=True):
        likelihood = []
        for k in range(3):
            members = [f for f, label in zip(features, y, strict=True) if label == k]
            centre = [sum(m[d] for m in members) / len(members) for d in range(5)]
            likelihood.append(math.exp(-sum((a - b) ** 2 for a, b in zip(x, centre, strict=True))))
        assert called == likelihood.index(max(likelihood))


def test_a_class_without_an_example() -> None:
    with pytest.raises(FewlabelError, match="Class 1 has no example among the 2 given"):
        fit_prototypes(np.zeros((2, 3)), np.array([0, 2]), classes=3)
