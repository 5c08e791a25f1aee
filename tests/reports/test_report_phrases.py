from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewlabel.reports import is_negated, mentions_prior, split_clauses


@pytest.mark.parametrize(
    "sentence",
    [
        "Heart size is unchanged compared to ___.",
        "In comparison with the study of ___, the tube is higher.",
        "New since the prior examination.",
        "There is a new opacity.",
        "Interval removal of the tube.",
        "Again seen is a nodule.",
        "The heart is again\nenlarged.",
        "Stable cardiomegaly.",
        "No significant interval change.",
        "The effusion has slightly decreased.",
        "Worsening edema.",
        "The line has been removed.",
        "Increased opacity since yesterday's study, from prior.",
        "As seen on the previous chest radiograph, the nodule is small.",
        "Persistent effusion.",
        "The pneumothorax is no longer seen.",
        "Similar to prior exam.",
        "Devices are in constant position.",
    ],
)
def test_references_to_earlier_studies(sentence: str) -> None:
    assert mentions_prior(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "No effusion.",
        "Prior sternotomy.",
        "Evidence of previous granulomatous disease.",
        "Increased interstitial markings.",
        "The heart is enlarged.",
        "Unremarkable mediastinum.",
        "Left lower lobe opacity.",
        "",
    ],
)
def test_sentences_that_stand_for_themselves(sentence: str) -> None:
    assert not mentions_prior(sentence)


@pytest.mark.parametrize(
    ("sentence", "term", "expected"),
    [
        ("No effusion or pneumothorax.", "pneumothorax", True),
        ("There is no focal consolidation, pleural effusion, or pneumothorax.", "pneumothorax", True),
        ("No effusion, but there is a nodule.", "nodule", False),
        ("No effusion; the heart is enlarged.", "heart", False),
        ("No effusion and the heart is enlarged.", "heart", False),
        ("The lungs are clear without effusion.", "effusion", True),
        ("Pneumothorax is not seen.", "pneumothorax", True),
        ("Nodule in the lobe, effusion is not seen.", "nodule", False),
        ("No increase in effusion.", "effusion", False),
        ("Effusion.", "effusion", False),
        ("No effusion on the left. Effusion on the right", "nodule", False),
        ("Neither effusion nor pneumothorax.", "pneumothorax", True),
        ("The lungs are free of nodules", "nodule", True),
        ("Left effusion but no right effusion", "effusion", False),
        ("No effusion", " ", False),
    ],
)
def test_negation(sentence: str, term: str, expected: bool) -> None:
    assert is_negated(sentence, term) is expected


@pytest.mark.parametrize(
    "clauses",
    [
        "No effusion or pneumothorax|; |the heart is enlarged.",
        "The lungs are clear| and |there is no effusion.",
        "No effusion is seen|, but |the heart is enlarged.",
        "There is a nodule|; |no effusion or pneumothorax.",
        "The aorta is wide|, while |the heart is not enlarged.",
        "No effusion and pneumothorax.",
        "No mass; nodule; effusion.",
        "Heart size and mediastinum are normal.",
        "There is no evidence that the heart and the lungs are abnormal.",
        "Neither the heart is enlarged; the aorta is wide.",
        "No effusion or pneumothorax and consolidation is seen.",
        "There is an opacity that is new and is ill-defined.",
        "Nodule and cyst.",
    ],
)
def test_clauses_keep_their_negation(clauses: str) -> None:
    parts = clauses.split("|")
    assert split_clauses("".join(parts)) == parts[::2]


TERMS = ("effusion", "pneumothorax", "nodule", "cardiomegaly")
TEMPLATES = st.sampled_from(
    [
        "no {}",
        "there is {}",
        "there is no {}",
        "{} is seen",
        "no {} is seen",
        "the heart shows {}",
        "{}",
        "without {}",
    ]
)
JOINTS = st.sampled_from(["; ", ", and ", " and ", " or ", ", but ", " while ", ", "])


@given(st.lists(TEMPLATES, min_size=1, max_size=4), st.lists(JOINTS, min_size=3, max_size=3))
def test_cutting_never_loses_a_negation(templates: list[str], joints: list[str]) -> None:
    clauses = [template.format(term) for template, term in zip(templates, TERMS, strict=False)]
    sentence = clauses[0] + "".join(
        joint + clause for joint, clause in zip(joints, clauses[1:], strict=False)
    )
    parts = split_clauses(sentence)
    for term in TERMS[: len(templates)]:
        (part,) = [p for p in parts if term in p]
        if is_negated(sentence, term):
            assert is_negated(part, term), (sentence, parts)
