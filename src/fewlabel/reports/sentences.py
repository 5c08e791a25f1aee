"""Sentences and tokens of report text.

The rules are our own: they are few, and the splitters that could be installed are made for general prose, not for
"T. bili", "a.p.", "1. ... 2. ..." and "[** ... **]" (sentencex, nltk), bring a model along (wtpsplit) or have not been
kept up for years (pysbd, syntok, blingfire).
"""

from __future__ import annotations

import re

_NEVER_LAST = (
    r"drs?|mrs?|ms|prof|e\.g|i\.e|vs|approx|ca|cf|viz|incl|esp|resp|dept|st|figs?|nos|nr|ser|img|im|se|pp"
)
_RARELY_LAST = (  # the sentence ends here only before a capital or a list number
    r"cm|mm|ml|cc|mg|kg|in|hrs?|mins?|sec|yrs?|mos?|wks?|etc|al|lat|bilat|inc|jr|sr|post|ant|sup|inf|rt|lt|susp|exam|hx|"
    r"dx|tx|fx|sx|pts?|diff|abd|neg|pos|sl|mod|sm|lg|temp|max|avg|med|prox|dist|vert|tib|fib|art|sat|op|pre|obl|[a-z](?:\.[a-z])*"
)
_NEVER, _RARELY = re.compile(_NEVER_LAST), re.compile(_RARELY_LAST)
_MONTH = re.compile(
    r"jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?"
)
_BEFORE_INITIALS = re.compile(
    r"by|with|from|to|and|or|for|per|attending|resident|radiologist|doctor|nurse", re.IGNORECASE
)
_MARKER = re.compile(r"\(?\d{1,2}[.)]|\(?[a-hA-H]\)|[-*•·‣▪►–—>]|#\d{1,2}[.):]?")
_NUMBERED = re.compile(r"\(?(\d{1,2})([.)])")
_GAP = re.compile(r"\s+|(?<=[a-z]{3}[.!?])(?=[A-Z][a-z])")
_NEXT_WORD = re.compile(r"\S{0,40}")
_MASK = re.compile(r"\[\*\*[^\[\]]{0,200}\*\*\]")
_TOKEN = re.compile(r"[^\W_]+(?:[.,'’/-][^\W_]+)*")
_CLOSING, _OPENING = "\"'”’)]}»*", "\"'“‘([{«*"


def count_tokens(text: str) -> int:
    """Words and numbers; "3.5", "T. bili" and "follow-up" are 1, 2 and 1. Marks of de-identification are none."""
    return sum(1 for _ in _TOKEN.finditer(_MASK.sub(" ", text)))


def split_sentences(text: str) -> list[str]:
    """The sentences of a text in their order, each on one line with single blanks; list numbers stay in front.

    No character but white space is lost, and a sentence is not split again. Blank lines and bullets end a sentence, a
    mere line break does not.
    """
    sentences: list[str] = []
    words: list[str] = []
    masks = _MASK.finditer(text)
    mask = next(masks, None)
    start = begin = 0
    for gap in _GAP.finditer(text):
        while mask is not None and mask.end() <= gap.start():
            mask = next(masks, None)
        if mask is not None and mask.start() < gap.start():
            continue
        if gap.start() > begin:
            words.append(text[begin : gap.start()])
        begin = gap.end()
        following = _NEXT_WORD.match(text, begin)
        if words and following and following[0] and _ends(words, gap[0], following[0]):
            sentences.append(" ".join(text[start : gap.start()].split()))
            start, words = begin, []
    last = " ".join(text[start:].split())
    return [*sentences, last] if last else sentences


def without_marker(sentence: str) -> str:
    """The sentence without the numbers and bullets in front of it."""
    words = sentence.split(" ")
    first = 0
    while first < len(words) and _MARKER.fullmatch(words[first]):
        first += 1
    return " ".join(words[first:])


def _ends(words: list[str], gap: str, following: str) -> bool:
    """Whether a sentence ends after `words`; it looks one word ahead, so that splitting again gives the same."""
    if len(words) <= 3 and all(_MARKER.fullmatch(word) for word in words):
        return False
    lines = gap.replace("\r\n", "\n").replace("\r", "\n").count("\n")
    if lines > 1:
        return True
    last = words[-1].rstrip(_CLOSING)
    marker = _MARKER.fullmatch(following) is not None
    if lines and marker and last.lower() != "no.":
        return not _NEVER.fullmatch(last.rstrip(".").lower())
    if _is_next_number(words[0], following):
        return True
    head = following.lstrip(_OPENING)[:1] or following[0]
    if last.endswith(("...", "…")):
        return head.isupper() or marker
    if last.endswith(("!", "?")):
        return not head.islower()
    if head.islower() and last != words[-1]:
        return False
    before = words[-2] if len(words) > 1 else ""
    return last.endswith(".") and _ends_at_period(last.lstrip(_OPENING)[:-1], before, head, following, marker)


def _ends_at_period(word: str, before: str, head: str, following: str, marker: bool) -> bool:
    """word: without its period. before: the word before it. head: the first letter of the following word."""
    lowered = word.lower()
    if _NEVER.fullmatch(lowered) or head in ",;:)":
        return False
    if lowered == "no":
        return not (head.isdigit() or head == "#")
    if len(word) == 1 and word.isupper():
        is_initial = not before or before[0].isupper() or _BEFORE_INITIALS.fullmatch(before)
        return head.isupper() and not is_initial
    if _RARELY.fullmatch(lowered):
        return head.isupper() or marker
    if word.isdigit() and len(word) <= 2:
        is_date = _MONTH.fullmatch(following.rstrip(".,").lower()) is not None
        return marker or not (is_date or head.isdigit() or head.islower())
    return bool(word) or not head.islower()


def _is_next_number(first: str, following: str) -> bool:
    """ "1. Finding one 2. Finding two": the list number that follows the one in front of the sentence."""
    one, two = _NUMBERED.fullmatch(first), _NUMBERED.fullmatch(following)
    return bool(one and two and int(two[1]) == int(one[1]) + 1 and two[2] == one[2])
