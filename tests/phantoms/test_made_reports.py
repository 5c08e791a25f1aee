"""Reports of made radiographs say what is there, deny only what is not, and say it in many ways."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fewlabel.collection import Collection, import_images
from fewlabel.phantoms import Difficulty, MadeRadiographs, radiograph_reports, radiographs, write_radiographs
from fewlabel.reports import (
    Reports,
    find_sections,
    is_negated,
    mentions_prior,
    split_clauses,
    split_sentences,
)

COUNT, SIZE_PX = 350, 16
OFTEN = Difficulty(opacity_share=0.5, effusion_share=0.5, reticulation_share=0.5, radius_range=(0.05, 0.25))
NAMES = {
    "opacity": ("opacity", "consolidation", "airspace opacity", "infiltrate"),
    "effusion": ("effusion", "pleural effusion", "pleural fluid", "blunting of the"),
    "reticulation": (
        "reticular pattern", "reticulation", "reticular opacities", "interstitial opacities",
        "interstitial markings",
    ),
}  # fmt: skip
SIDED = re.compile(r"\b(left|right)\b", re.IGNORECASE)
ZONE = re.compile(r"\b(upper|mid|lower)\b", re.IGNORECASE)
SIZE = re.compile(r"\b(\d+(?:\.5)?) cm\b")


@pytest.fixture(scope="module")
def made() -> MadeRadiographs:
    """Many findings together: half of the patients have an opacity, half an effusion, half a net."""
    return radiographs(COUNT, size_px=SIZE_PX, seed=3, difficulty=OFTEN)


@pytest.fixture(scope="module")
def texts(made: MadeRadiographs) -> tuple[str, ...]:
    return radiograph_reports(made, seed=3)


def sentences_of(text: str, section: str) -> list[str]:
    (found,) = [part.text for part in find_sections(text) if part.name == section]
    return split_sentences(found)


def said(sentence: str, finding: str) -> set[str]:
    """The names of a finding that a sentence uses without negating them."""
    lowered = sentence.lower()
    return {name for name in NAMES[finding] if name in lowered and not is_negated(sentence, name)}


def denied(sentence: str, finding: str) -> set[str]:
    return {name for name in NAMES[finding] if is_negated(sentence, name)}


def test_every_text_has_findings_and_impression(texts: tuple[str, ...]) -> None:
    assert len(texts) == COUNT
    for text in texts:
        names = [part.name for part in find_sections(text)]
        assert names in (["findings", "impression"], ["technique", "findings", "impression"])
        assert all(part.text.strip().endswith(".") for part in find_sections(text))
        assert "{" not in text
        assert not any(mentions_prior(sentence) for sentence in split_sentences(text))


@pytest.mark.parametrize("finding", NAMES)
@pytest.mark.parametrize("section", ["findings", "impression"])
def test_what_is_there_is_said_and_what_is_not_is_never_said(
    section: str, finding: str, made: MadeRadiographs, texts: tuple[str, ...]
) -> None:
    truth = getattr(made, finding)
    assert 0.2 < truth.mean() < 0.8
    for i, text in enumerate(texts):
        sentences = sentences_of(text, section)
        assert any(said(sentence, finding) for sentence in sentences) == truth[i], text
        assert not (truth[i] and any(denied(sentence, finding) for sentence in sentences)), text


def test_clauses_keep_their_truth_too(made: MadeRadiographs, texts: tuple[str, ...]) -> None:
    for i, text in enumerate(texts):
        clauses = [clause for sentence in split_sentences(text) for clause in split_clauses(sentence)]
        for finding in NAMES:
            assert any(said(clause, finding) for clause in clauses) == getattr(made, finding)[i], text


def test_lungs_are_clear_only_where_nothing_is_there(made: MadeRadiographs, texts: tuple[str, ...]) -> None:
    ill = made.opacity | made.effusion | made.reticulation
    wholesale = re.compile(r"\bclear\b|no acute|normal chest|unremarkable radiograph", re.IGNORECASE)
    found = np.array([wholesale.search(text) is not None for text in texts])
    assert not found[ill].any()
    assert found[~ill].mean() > 0.9


def test_absent_findings_are_denied_often_and_not_always(
    made: MadeRadiographs, texts: tuple[str, ...]
) -> None:
    for finding in NAMES:
        without = [text for text, there in zip(texts, getattr(made, finding), strict=True) if not there]
        share = np.mean([any(denied(s, finding) for s in split_sentences(text)) for text in without])
        assert 0.6 < share < 0.95
    assert 0.3 < np.mean(["pneumothorax" in text.lower() for text in texts]) < 0.7
    assert all(is_negated(s, "pneumothorax") for t in texts for s in split_sentences(t) if "thorax" in s)


def named_sides(sentence: str) -> set[str]:
    return {side.lower() for side in SIDED.findall(sentence)}


def test_sides_are_those_of_the_findings(made: MadeRadiographs, texts: tuple[str, ...]) -> None:
    for i, text in enumerate(texts):
        true = {"opacity": made.side[i], "effusion": made.effusion_side[i]}
        assert named_sides(text) == set(true.values()) - {"none"}, text
        for section in ("findings", "impression"):
            for sentence in sentences_of(text, section):
                speaks_of = {finding for finding in true if said(sentence, finding)}
                assert named_sides(sentence) == {true[finding] for finding in speaks_of}, text


def test_zones_are_thirds_of_the_lung(made: MadeRadiographs, texts: tuple[str, ...]) -> None:
    """Of the image's height: a usual lung goes from 0.1 to 0.71."""
    limits = {"upper": (0.0, 0.304), "mid": (0.303, 0.507), "lower": (0.506, 1.0)}
    seen = []
    for i, text in enumerate(texts):
        zones = {zone.lower() for zone in ZONE.findall(text)}
        if not made.opacity[i]:
            assert zones == set()
            continue
        (zone,) = zones
        low, high = limits[zone]
        assert low <= (made.centre_px[i, 0] + 0.5) / SIZE_PX <= high
        seen.append(zone)
    assert min(seen.count(zone) for zone in limits) > 0.05 * len(seen)


def test_sizes_are_the_diameter_to_half_a_centimetre(made: MadeRadiographs, texts: tuple[str, ...]) -> None:
    sizes = []
    for i, text in enumerate(texts):
        found = {float(size) for size in SIZE.findall(text)}
        assert "cm" not in SIZE.sub("", text)
        if not made.opacity[i]:
            assert found == set()
        elif found:
            (size,) = found
            assert abs(size - 2 * made.radius_px[i] / SIZE_PX * 35) <= 0.25 + 1e-9
            sizes.append(size)
    assert len(sizes) > 0.6 * made.opacity.sum()
    assert {2.0, 3.5, 5.0} <= set(sizes)


def test_the_size_is_that_of_what_is_drawn() -> None:
    large = radiographs(40, size_px=64, difficulty=Difficulty(opacity_share=1, radius_range=(0.2, 0.25)))
    ratios = []
    for i, text in enumerate(radiograph_reports(large, seed=0)):
        across_cm = 2 * np.sqrt(large.opacity_mask[i].sum() / np.pi) * 35 / 64
        ratios += [float(size) / across_cm for size in SIZE.findall(text)[:1]]
    assert len(ratios) > 20
    assert 0.9 < np.median(ratios) < 1.1


def test_the_technique_names_the_view(made: MadeRadiographs, texts: tuple[str, ...]) -> None:
    named = 0
    for view, text in zip(made.views, texts, strict=True):
        assert {"AP": "PA", "PA": "AP"}[view] not in re.findall(r"\b(?:AP|PA)\b", text)
        named += f"{view} view" in text
    assert 0.4 < named / COUNT < 0.8


@pytest.mark.parametrize("finding", NAMES)
def test_every_name_is_used_and_denied(finding: str, texts: tuple[str, ...]) -> None:
    sentences = {sentence for text in texts for sentence in split_sentences(text)}
    for name in NAMES[finding]:
        assert sum(name in said(sentence, finding) for sentence in sentences) > 3
        assert sum(name in denied(sentence, finding) for sentence in sentences) > 3


def test_texts_differ_in_words_and_order(made: MadeRadiographs, texts: tuple[str, ...]) -> None:
    assert len(set(texts)) > 0.95 * COUNT
    sentences = {sentence for text in texts for sentence in split_sentences(text)}
    assert len(sentences) > COUNT
    together = np.flatnonzero(made.opacity & made.effusion)
    firsts = []
    for i in together:
        found = sentences_of(texts[i], "findings")
        where = [next(k for k, s in enumerate(found) if said(s, f)) for f in ("opacity", "effusion")]
        firsts.append(where[0] < where[1])
    assert 0.3 < np.mean(firsts) < 0.7


def test_the_same_seed_gives_the_same_texts_and_more_images_begin_with_them(
    made: MadeRadiographs, texts: tuple[str, ...]
) -> None:
    few = radiographs(30, size_px=SIZE_PX, seed=3, difficulty=OFTEN)
    assert radiograph_reports(few, seed=3) == texts[:30]
    assert radiograph_reports(made, seed=4)[:30] != texts[:30]


def test_texts_follow_the_truth_that_they_are_given(made: MadeRadiographs) -> None:
    mirrored = replace(made, side=tuple({"left": "right", "right": "left"}.get(s, s) for s in made.side))
    texts = radiograph_reports(mirrored, seed=3)
    for i in np.flatnonzero(made.opacity & ~made.effusion):
        assert named_sides(texts[i]) == {mirrored.side[i]}


@pytest.mark.parametrize("count", [1, 40])
def test_the_column_can_be_imported_as_text_and_does_no_harm_otherwise(count: int, tmp_path: Path) -> None:
    """Not declared, it is free text and no label, and reports are found in it by its own name."""
    labels = write_radiographs(tmp_path / "images", count, seed=2, size_px=16, dicom_files=1)
    expected = radiograph_reports(radiographs(count, size_px=16, seed=2), seed=2)
    for declared in ("report", None):
        to = tmp_path / f"declared {declared}"
        import_images(
            tmp_path / "images",
            to,
            labels=labels,
            patient_column="Patient ID",
            text_column=declared,
            workers=1,
        )
        collection = Collection.open(to)
        assert "report" not in collection.labels
        assert {"opacity", "effusion", "reticulation"} <= set(collection.labels)
        paired = Reports.from_column(collection, "text" if declared else "report").pair(collection)
        assert len(paired) == count
        by_file = {str(source): row for row, source in enumerate(collection.column("case:source"))}
        for name, text in zip(names_in(labels), expected, strict=True):
            kept = paired.of_row(by_file[name])
            assert list(kept)[: len(sentences_of(text, "findings"))] == sentences_of(text, "findings")


def names_in(labels: Path) -> list[str]:
    return re.findall(r"^(images/\S+?),", labels.read_text(encoding="utf-8"), re.MULTILINE)
