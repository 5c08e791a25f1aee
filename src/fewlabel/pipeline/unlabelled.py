"""The block `unlabelled` of results.json: what can be said of an autoencoder or VAE without any label."""

from __future__ import annotations

import warnings
from dataclasses import asdict

import numpy as np

from fewlabel.adaptation.reconstruction import prior_features, reconstruct_images
from fewlabel.evaluation.frechet import frechet_with_interval
from fewlabel.evaluation.unlabelled import reconstruction_metrics
from fewlabel.objectives import VAE
from fewlabel.pipeline.arms import Task, encoder_features
from fewlabel.pipeline.pretraining import Pretrained
from fewlabel.types import JSON

FEWEST_IMAGES, MOST_IMAGES, RESAMPLES = 2, 1000, 100
"""Test images for a distance, and its resamples: each takes a singular value decomposition."""


def unlabelled_results(task: Task, pretrained: Pretrained, *, resamples: int = 1000, seed: int = 0) -> JSON:
    """{"unlabelled": [...]}: one row a measure, on all images of test patients, labelled or not; {} where the run has
    no decoder, or fewer than 2 such images.

    Features are of the run's own encoder. Distances are of at most 1,000 images, drawn; their floor is that of as many
    training images.
    """
    decoding, rows = pretrained.reconstructor, task.split.test
    if decoding is None or len(rows) < FEWEST_IMAGES:
        return {}
    patients = task.collection.patients()[rows]
    made = reconstruct_images(decoding, task.pixels[rows], size_px=task.size_px, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the report itself says when the test patients are few
        measured = reconstruction_metrics(
            made.errors, made.elbo, made.dimensions, patients, resamples=resamples, seed=seed
        )
    some = np.sort(np.random.default_rng(seed).permutation(len(rows))[:MOST_IMAGES])
    spare = encoder_features(task, [pretrained.encoder])(0)[task.split.train]
    compared = {"frechet_reconstructions": made.of_remade[some]}
    if isinstance(decoding, VAE):
        compared["frechet_samples"] = prior_features(decoding, len(some), seed=seed)
    distances = []
    for name, others in compared.items():
        found = frechet_with_interval(
            made.features[some],
            others,
            patients[some],
            paired=name == "frechet_reconstructions",
            spare=spare,
            resamples=RESAMPLES,
            seed=seed,
        )
        told = {**asdict(found.distance), "name": name, "floor": found.floor, "floor_n": found.floor_n}
        distances.append(told)
    return {"unlabelled": [*(asdict(one) for one in measured), *distances]}
