from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabel.reports import count_tokens, split_sentences
from fewlabel.reports.sentences import without_marker

SPLITS = [
    "O2 sat. 98 % and post op. changes.|Fracture at T11.|It is old.",
    "A nodule of 3.5 cm is seen.|It was shown to Dr. Smith.",
    "T. bili is high.|The duct is wide.",
    "It measures approx. 2 mm.|It is benign, e.g. a cyst.",
    "Compare image No. 3 of series 2.|Effusion: no.|Pneumothorax: no.",
    "Left vs. right side.|Read by J. R. Miller.|See Fig. 2 for it.",
    "1. Finding one|2. Finding two|3. Finding three",
    "1. Finding one.|It is large.|2. Finding two.",
    "(1) Effusion.|(2) Nodule.",
    "A 3 x 4 mm. nodule is seen.|It is 4 cm.|The rest is normal.",
    "One a.p. view at 5:04 p.m. on 12/3/2019.|No change.",
    "Done on 12. March 2020.|Seen at 7 p.m.|The tube is gone.",
    "Small effusion... the rest is normal.|Nodule…|Biopsy it.",
    "Compared to ___.|The heart is large.|___ was called by Dr. ___ at ___.",
    "Seen by [**First Name8 (NamePattern2) 12. Last**].|It was called.",
    "Is it a nodule?|Yes!|Or is it?",
    'It is "stable."|The aorta (see above.) is wide.',
    "lungs are clear.|heart is normal.",
    "The lungs are clear.|Heart is normal.",
    "No effusion in segment 4.|The aorta is wide.",
    "Hepatitis and segment B.|Normal",
    "The T. bilirubin, i.e. the total, is high; and so on",
]
WORD_LIST = """The lungs are clear. clear.The 3.5 cm. Dr. No. no. 1. 2. 12. March T. bili - • (a) a) #1 e.g. ... … ? !
___. [**x y**] [** **]. " ). p.m. Ünklar A. vs. effusion; is: 2) 3) ( 。"""
WORDS = st.sampled_from(WORD_LIST.split())
GAPS = st.sampled_from([" ", "  ", "\n", "\r\n", "\n\n", "\r", "\t", "\n \n", "", "\u00a0", "\u2028"])
TEXTS = st.lists(st.tuples(WORDS, GAPS), max_size=20).map(lambda pairs: "".join(a + b for a, b in pairs))


def without_blanks(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("expected", SPLITS)
def test_sentences(expected: str) -> None:
    assert split_sentences(expected.replace("|", " ")) == expected.split("|")


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_line_breaks(line_end: str) -> None:
    wrapped = "The heart is\nbig. The Swan\nGanz catheter ends\n\nNo effusion\n- Nodule\n  of the lobe\n- Cyst\n2. End"
    assert split_sentences(wrapped.replace("\n", line_end)) == [
        "The heart is big.",
        "The Swan Ganz catheter ends",
        "No effusion",
        "- Nodule of the lobe",
        "- Cyst",
        "2. End",
    ]


def test_a_missing_blank_after_the_period() -> None:
    assert split_sentences("The lungs are clear.The heart is normal.") == [
        "The lungs are clear.",
        "The heart is normal.",
    ]


def test_nothing_gives_nothing() -> None:
    assert split_sentences("") == split_sentences(" \r\n\t ") == []


@settings(max_examples=300)
@given(TEXTS | st.text())
def test_no_character_is_lost_and_splitting_again_changes_nothing(text: str) -> None:
    sentences = split_sentences(text)
    assert without_blanks("".join(sentences)) == without_blanks(text)
    assert all(sentence and sentence == " ".join(sentence.split()) for sentence in sentences)
    assert [again for sentence in sentences for again in split_sentences(sentence)] == sentences


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Nodule of 3.5 cm.", 4),
        ("T. bili", 2),
        ("follow-up of ___", 2),
        ("[**Last Name 12**] was told", 2),
        ("", 0),
        ("... - ;", 0),
        ("12/3/2019", 1),
        ("Ödem der Lunge", 3),
    ],
)
def test_tokens(text: str, tokens: int) -> None:
    assert count_tokens(text) == tokens


def test_list_numbers_are_taken_off() -> None:
    assert without_marker("1. - Nodule of 2 cm") == "Nodule of 2 cm"
    assert without_marker("2 nodules") == "2 nodules"
    assert without_marker("1.") == ""


def test_long_texts() -> None:
    assert len(split_sentences("x" * 10_000_000)) == 1
    assert len(split_sentences("The lungs are clear. " * 30_000)) == 30_000
    assert len(split_sentences("- " * 200_000)) < 200_000
    assert len(split_sentences("clear.The" * 50_000)) == 50_001
    assert len(split_sentences("[**" * 50_000)) == 1
    assert count_tokens("word " * 200_000) == 200_000
