"""Report texts for made radiographs, as true as the images they speak of.

A sentence that speaks of a finding is true of its image on its own, so that any one may be paired with the image. What
is there is always said. What is not there is denied now and then, as is a pneumothorax, which made images never have.
What is said of heart, bones and mediastinum is the same for all images, in which these vary but are never ill.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from fewlabel.phantoms.radiographs import CHEST_WIDTH_MM, MadeRadiographs

T = TypeVar("T")
Facts = dict[str, str]
STREAM = 7  # apart from the numbers that the images are drawn from
USUAL_LUNG = (-0.80, 0.42)  # its top and base in body coordinates, in the middle of what is drawn
ZONES = ("upper", "mid", "lower")


class _Term(NamedTuple):
    """A name of a finding. said: with its article and side, as something that is there; denied: as it follows "no"."""

    said: str
    denied: str
    verb: str = "is"


class _Words(NamedTuple):
    """How a finding is put into words: its names, sentences of the findings, and what the impression says.

    {it}: a name as it is said; {noun}: without its article; {is_}: its verb; all else are facts of the image.
    """

    terms: tuple[_Term, ...]
    sentences: tuple[str, ...]
    summaries: tuple[str, ...]


OPACITY = _Words(
    (
        _Term("an opacity", "focal opacity"),
        _Term("a consolidation", "focal consolidation"),
        _Term("an airspace opacity", "airspace opacity"),
        _Term("an infiltrate", "focal infiltrate"),
    ),
    (
        "there is {it} in the {where}, about {size} across",
        "{it} of {size} is seen in the {where}",
        "the {where} shows {it} measuring {size}",
        "{it} projects over the {where} and measures about {size}",
        "in the {where} there is {it}",
    ),
    ("{noun} in the {where}", "{side} {zone} zone {noun}", "{noun} of {size} in the {where}"),
)
EFFUSION = _Words(
    (
        _Term("a {side} pleural effusion", "pleural effusion"),
        _Term("a {side}-sided effusion", "effusion"),
        _Term("{side} pleural fluid", "pleural fluid"),
        _Term("blunting of the {side} costophrenic angle", "blunting of the costophrenic angles"),
    ),
    ("there {is_} {it}", "{it} {is_} seen", "{it} {is_} present", "the image shows {it}"),
    ("{noun}",),
)
RETICULATION = _Words(
    (
        _Term("a reticular pattern", "reticular pattern"),
        _Term("fine reticulation", "reticulation"),
        _Term("reticular opacities", "reticular opacities", "are"),
        _Term("fine interstitial opacities", "interstitial opacities", "are"),
        _Term("prominent interstitial markings", "prominent interstitial markings", "are"),
    ),
    (
        "there {is_} {it} in both lungs",
        "{it} {is_} seen bilaterally",
        "both lungs show {it}",
        "{it} {is_} spread over both lungs",
    ),
    ("bilateral {noun}", "{noun} in both lungs"),
)
PNEUMOTHORAX = _Term("", "pneumothorax")
DENIALS = (
    "no {them}",
    "there {is_} no {them}",
    "there is no evidence of {them}",
    "negative for {them}",
    "no {them} {is_} seen",
)
DENIALS_BEHIND = (
    "{them} {is_} not seen",
    "{them} {is_} absent",
)  # of one finding: of two, one might be there
NOTHING = (
    "no acute abnormality",
    "no acute cardiopulmonary process",
    "normal chest radiograph",
    "clear lungs",
    "unremarkable radiograph of the chest",
)
NEUTRAL = (
    ("the heart size is within normal limits", "heart size is normal", "the cardiac silhouette is normal"),
    ("the mediastinal contours are normal", "the trachea is in the midline", "unremarkable mediastinum"),
    ("the bones are unremarkable", "no rib fracture is seen", "the visible skeleton is intact"),
    ("no free air below the diaphragm", "there is no free subdiaphragmatic air"),
)
MAGNIFIED = "the heart is magnified by the AP projection"
WHERE = ("{side} {zone} zone", "{side} {zone} lung zone", "{zone} zone of the {side} lung")


def radiograph_reports(made: MadeRadiographs, *, seed: int) -> tuple[str, ...]:
    """One report for each of the N images, with the sections FINDINGS and IMPRESSION and at times TECHNIQUE.

    Of an opacity it gives side, zone (thirds of the usual height of a lung) and often its diameter, to half a cm, on an
    image 35 cm wide; of an effusion the side; a reticular pattern is in both lungs. Texts are drawn from `seed` and the
    image's number, so that the first m of n are the same for every n.
    """
    return tuple(
        _report(made, i, np.random.default_rng([seed, i, STREAM])) for i in range(len(made.patients))
    )


def _report(made: MadeRadiographs, i: int, rng: np.random.Generator) -> str:
    there, absent = _seen(made, i, rng)
    sections = {
        "TECHNIQUE": _text([f"single {made.views[i]} view of the chest"] if rng.random() < 0.6 else []),
        "FINDINGS": _findings(there, absent, made.views[i], rng),
        "IMPRESSION": _impression(there, absent, rng),
    }
    gap = _pick(rng, (" ", "\n"))
    return "\n\n".join(f"{heading}:{gap}{text}" for heading, text in sections.items() if text)


def _seen(
    made: MadeRadiographs, i: int, rng: np.random.Generator
) -> tuple[list[tuple[_Words, Facts]], list[_Words]]:
    """The findings that are there with their facts, and those that are not."""
    there: list[tuple[_Words, Facts]] = []
    if made.opacity[i]:
        there.append((OPACITY, _opacity_facts(made, i, rng)))
    if made.effusion[i]:
        there.append((EFFUSION, {"side": made.effusion_side[i]}))
    if made.reticulation[i]:
        there.append((RETICULATION, {}))
    found = [words for words, _ in there]
    return there, [words for words in (OPACITY, EFFUSION, RETICULATION) if words not in found]


def _opacity_facts(made: MadeRadiographs, i: int, rng: np.random.Generator) -> Facts:
    size_px = made.pixels.shape[1]
    height = (made.centre_px[i, 0] + 0.5) / size_px * 2 - 1
    top, base = USUAL_LUNG
    third = int(np.clip(3 * (height - top) / (base - top), 0, 2))
    diameter_cm = 2 * made.radius_px[i] / size_px * CHEST_WIDTH_MM / 10
    place = {"side": made.side[i], "zone": ZONES[third]}
    return {
        **place,
        "where": _pick(rng, WHERE).format(**place),
        "size": f"{max(1, round(2 * diameter_cm)) / 2:g} cm",
    }


def _findings(
    there: Sequence[tuple[_Words, Facts]], absent: Sequence[_Words], view: str, rng: np.random.Generator
) -> str:
    sentences = [_beside(_said(words, facts, words.sentences, rng), absent, rng) for words, facts in there]
    sentences += _denials(absent, rng)
    sentences += [_pick(rng, options) for options in NEUTRAL if rng.random() < 0.6]
    if view == "AP" and rng.random() < 0.3:
        sentences.append(MAGNIFIED)
    if not there and rng.random() < 0.5:
        sentences.append("the lungs are clear")
    if not sentences:
        sentences.append(_pick(rng, NEUTRAL[0]))
    return _text([sentences[k] for k in rng.permutation(len(sentences))])


def _impression(
    there: Sequence[tuple[_Words, Facts]], absent: Sequence[_Words], rng: np.random.Generator
) -> str:
    lines = [_said(words, facts, words.summaries, rng) for words, facts in there]
    lines = [lines[k] for k in rng.permutation(len(lines))]
    if len(lines) > 1 and rng.random() < 0.35:
        lines = [_listed(lines, "and")]
    lines = lines or [_pick(rng, NOTHING)]
    if absent and rng.random() < 0.3:
        lines.append(_denial([_pick(rng, _pick(rng, absent).terms)], rng))
    return _text(lines, numbered=len(lines) > 1 and rng.random() < 0.5)


def _said(words: _Words, facts: Facts, templates: Sequence[str], rng: np.random.Generator) -> str:
    term = _pick(rng, words.terms)
    it = term.said.format(**facts)
    noun = it.removeprefix("an ").removeprefix("a ")
    return _pick(rng, templates).format(it=it, noun=noun, is_=term.verb, **facts)


def _beside(sentence: str, absent: Sequence[_Words], rng: np.random.Generator) -> str:
    """At times the sentence with something that is not there beside what is."""
    if not absent or rng.random() < 0.8:
        return sentence
    denied = _pick(rng, _pick(rng, absent).terms).denied
    return f"{sentence}, without {denied}" if rng.random() < 0.5 else f"no {denied}, but {sentence}"


def _denials(absent: Sequence[_Words], rng: np.random.Generator) -> list[str]:
    """What is not there, each finding three times of four, in one sentence or one each."""
    terms = [_pick(rng, words.terms) for words in absent if rng.random() < 0.75]
    if rng.random() < 0.5:
        terms.append(PNEUMOTHORAX)
    terms = [terms[k] for k in rng.permutation(len(terms))]
    together = len(terms) > 1 and rng.random() < 0.5
    return [_denial(terms, rng)] if together else [_denial([term], rng) for term in terms]


def _denial(terms: Sequence[_Term], rng: np.random.Generator) -> str:
    options = DENIALS + (DENIALS_BEHIND if len(terms) == 1 else ())
    verb = "are" if any(term.verb == "are" for term in terms) else "is"
    return _pick(rng, options).format(them=_listed([term.denied for term in terms], "or"), is_=verb)


def _listed(words: Sequence[str], last: str) -> str:
    """ "a", "a or b", "a, b or c"."""
    return f" {last} ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _text(sentences: Sequence[str], *, numbered: bool = False) -> str:
    said = [f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences]
    if numbered:
        return "\n".join(f"{number}. {sentence}" for number, sentence in enumerate(said, start=1))
    return " ".join(said)


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]
