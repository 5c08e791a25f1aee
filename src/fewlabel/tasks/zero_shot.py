"""Zero-shot classification: a class is what several sentences say of it, and an image the class whose sentences fit.

As CLIP does it (Radford et al. 2021, arXiv:2103.00020, sections 3.1.2 and 3.1.4): the unit vectors of a class's
sentences are averaged and brought to unit length again; the probabilities of an image v are
softmax_c( <v, u_c> / tau ), with the tau of the training. A finding that is there or not is two classes, one with
sentences of presence and one with sentences of absence.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import softmax

from fewlabel.objectives.contrast import check_temperature
from fewlabel.tasks.image_text import ImageText
from fewlabel.types import FewlabelError

PRESENCE = (
    "There is {finding}.",
    "There is {article} {finding}.",
    "{Finding} is seen.",
    "Findings are consistent with {finding}.",
    "The image shows {finding}.",
    "{Finding} is present.",
)
ABSENCE = (
    "There is no {finding}.",
    "There is no evidence of {finding}.",
    "No {finding}.",
    "The image shows no {finding}.",
    "No {finding} is seen.",
)


@dataclass(frozen=True)
class Prompts:
    """What to say of each class.

    classes: names, in the order of the probabilities. sentences: one or more for each class.
    Raises FewlabelError for fewer than two classes, two of one name, or a class without words.
    """

    classes: tuple[str, ...]
    sentences: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len({*self.classes}) < len(self.classes):
            raise FewlabelError(
                f"The prompts are of the classes {', '.join(self.classes) or 'none'}: give two or more, each once."
            )
        silent = [
            name
            for name, said in zip(self.classes, self.sentences, strict=True)
            if not said or not all(sentence.strip() for sentence in said)
        ]
        if silent:
            raise FewlabelError(
                f"The class {silent[0]!r} has no sentence, or an empty one: give each class one sentence or more."
            )


def default_prompts(finding: str) -> Prompts:
    """Sentences for the absence (class 0) and the presence (class 1) of a finding, named as a binary `Target` is.

    finding: as it stands within a sentence, such as "pleural effusion" or "a fracture of the clavicle".
    """
    return Prompts((f"not {finding}", finding), (_filled(ABSENCE, finding), _filled(PRESENCE, finding)))


def class_prompts(findings: Sequence[str]) -> Prompts:
    """Sentences for the presence of each of several findings, of which an image has one."""
    return Prompts(tuple(findings), tuple(_filled(PRESENCE, finding) for finding in findings))


def _filled(templates: tuple[str, ...], finding: str) -> tuple[str, ...]:
    if not finding.strip():
        raise FewlabelError(
            "A finding without a name came to be asked for: name it as it stands in a sentence."
        )
    words = {
        "finding": finding,
        "Finding": finding[0].upper() + finding[1:],
        "article": "an" if finding[0].lower() in "aeiou" else "a",
    }
    return tuple(template.format(**words) for template in templates)


def read_prompts(path: Path) -> Prompts:
    """Prompts from a JSON file: {"class": ["sentence", ...], ...}, at least two classes, in their order.

    Raises FewlabelError if the file is missing, is no such JSON, or names a class twice.
    """
    wanted = 'give {"class": ["sentence", ...], ...} with two classes or more'
    try:
        pairs: object = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=list)
    except OSError as error:
        raise FewlabelError(f"{path} cannot be read ({error.strerror or error}): {wanted}.") from error
    except ValueError as error:
        raise FewlabelError(f"{path} holds no JSON ({error}): {wanted}.") from error
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise FewlabelError(f"{path} holds a {type(pairs).__name__} and no classes by name: {wanted}.")
    for name, said in pairs:
        if not isinstance(said, list) or not all(isinstance(sentence, str) for sentence in said):
            raise FewlabelError(f"In {path} the class {name!r} has no list of sentences: {wanted}.")
    try:
        return Prompts(tuple(name for name, _ in pairs), tuple(tuple(said) for _, said in pairs))
    except FewlabelError as error:
        raise FewlabelError(f"In {path}: {error}") from error


def class_embeddings(model: ImageText, prompts: Prompts) -> np.ndarray:
    """Unit vectors (classes, K): of each class the mean of its sentences' unit vectors, brought to unit length."""
    units = model.embed_texts([sentence for said in prompts.sentences for sentence in said])
    ends = np.cumsum([len(said) for said in prompts.sentences])
    means = np.stack([part.mean(axis=0) for part in np.split(units, ends[:-1])])
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def class_probabilities(images: np.ndarray, classes: np.ndarray, *, temperature: float) -> np.ndarray:
    """softmax over classes of cosine / tau; unit vectors (N, K) and (classes, K) -> (N, classes)."""
    check_temperature(temperature)
    return softmax(images.astype(np.float64) @ classes.T / temperature, axis=1)


def zero_shot(
    model: ImageText,
    pixels: np.ndarray,
    prompts: Prompts,
    *,
    temperature: float | None = None,
    batch_size: int = 256,
) -> np.ndarray:
    """Probabilities (N, classes) of images (N, C, S, S), without a label having been seen.

    They are as sharp as tau makes them and not calibrated. temperature: None = the model's own.
    """
    tau = model.temperature if temperature is None else temperature
    images = model.embed_images(pixels, batch_size=batch_size)
    return class_probabilities(images, class_embeddings(model, prompts), temperature=tau)
