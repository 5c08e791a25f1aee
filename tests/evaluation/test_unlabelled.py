"""Figures without labels: means over images with intervals by patient, and the bound in bits."""

from __future__ import annotations

import numpy as np
import pytest

from fewlabel.evaluation.unlabelled import reconstruction_metrics


def test_means_and_bits_by_hand() -> None:
    """-ELBO of 4 ln 2 nats over 2 dimensions is 2 bits each."""
    errors, elbo = np.array([0.1, 0.3]), -np.log(2) * np.array([3.0, 5.0])
    found = reconstruction_metrics(errors, elbo, 2, np.array([0, 1]), resamples=20, seed=0)
    assert [one.name for one in found] == ["reconstruction_error", "elbo", "bits_a_dimension"]
    assert [one.value for one in found] == pytest.approx([0.2, -4 * np.log(2), 2.0])
    assert (found[2].low, found[2].high) == pytest.approx((1.5, 2.5))
    assert {(one.n, one.patients) for one in found} == {(2, 2)}


def test_an_autoencoder_has_no_bound_and_patients_are_drawn_whole() -> None:
    errors = np.repeat(np.random.default_rng(0).uniform(size=20), 4)
    by_patient, by_image = (
        reconstruction_metrics(errors, None, 9, patients, resamples=400, seed=0)
        for patients in (np.repeat(np.arange(20), 4), np.arange(80))
    )
    assert len(by_patient) == 1
    assert np.ptp([by_patient[0].low, by_patient[0].high]) > 1.5 * np.ptp([by_image[0].low, by_image[0].high])
