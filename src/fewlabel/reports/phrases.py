"""What a sentence says of earlier studies, what it negates, and where it may be cut without losing that."""

from __future__ import annotations

import re

_STUDY = (
    r"(?:\w+[ -]){0,3}(?:exam\w*|stud(?:y|ies)|films?|radiographs?|x-?rays?|images?|imaging|ct|mri?|pet|ultrasound|"
    r"scans?|reports?|series|mammograms?|views?|date|day|one)"
)
_PRIOR = re.compile(
    r"\b(?:"
    r"compar(?:ed|ing) (?:to|with)|(?:in|by|for|of) comparison|comparison (?:is |was )?(?:made|with|to)|"
    r"unchanged|(?:no|without|little|not) (?:\w+ ){0,3}changed?|changed? (?:since|from)|stable|"
    r"(?:re-?|again )(?:demonstrat|visuali[sz]|identif)\w*|again (?:seen|noted|is|are|shown|evident)|(?:is|are) again|"
    r"interval|(?:since|from|than|to|on) (?:the |a |her |his )?(?:prior|previous|last|preceding|earlier|old)|"
    rf"(?:prior|previous|preceding|earlier) {_STUDY}|(?:no|any) priors?|priors? (?:is|are)|previously|"
    r"new(?! (?:york|england|jersey|zealand))|newly|no longer|"
    r"(?:has|have|had) (?:\w+ ){0,3}(?:been (?:\w+ ){0,2}(?:removed|placed|inserted|withdrawn|advanced)|improved|"
    r"worsened|resolved|cleared|increased|decreased|progressed|enlarged|developed|grown|regressed)|"
    r"worsen(?:ed|ing)|improv(?:ed|ing|ement)|resol(?:ved|ving|ution)|progress(?:ed|ion|ive(?:ly)?)|"
    r"(?:in|de)creas(?:ed|e|ing)(?: \w+){0,6} (?:since|from|compared)|increasing|decreasing|enlarging|"
    r"persist(?:s|ent|ently|ing)?|constant|remains?|similar (?:to|in)|as before|still"
    r")\b",
    re.IGNORECASE,
)
_PSEUDO = re.compile(
    r"\b(?:no|not|without) (?:\w+ )?(?:increase|decrease|changed?|improvement|worsening)\b|\bnot only\b",
    re.IGNORECASE,
)
_NEGATION = re.compile(
    r"\b(?:no|not|without|neither|nor|never|denies|cannot|absence of|absent|free of|clear of|negative for|"
    r"(?:ruled?|rules) out|resolution of)\b|n't\b",
    re.IGNORECASE,
)
_NEGATED_AFTER = re.compile(
    r"^[^,;]{0,60}?\b(?:(?:is|are|was|were|has been|have been) (?:\w+ )?(?:not|absent|excluded|ruled out)|"
    r"not (?:\w+ )?(?:seen|identified|present|visuali[sz]ed|demonstrated|evident)|unlikely)\b",
    re.IGNORECASE,
)
_SCOPE_END = re.compile(
    r";|\b(?:but|however|although|though|except|apart from|aside from|while|whereas|otherwise|"
    r"and (?:there|the|a|an) )|, (?:and )?(?:there|the|with) ",
    re.IGNORECASE,
)
_JOINT = re.compile(
    r";\s+|,?\s+(?:but|while|whereas|although|however,?)\s+|(?P<weak>,?\s+and\s+)", re.IGNORECASE
)
_VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|had|appears?|remains?|shows?|demonstrates?|contains?|projects?|lies?|terminates?|ends?|"
    r"measures?|suggests?|seen|noted|identified|present)\b",
    re.IGNORECASE,
)
_OWN_START = re.compile(r"(?:no|not|without|there|the|an?|this|these|both|its?)\b", re.IGNORECASE)
_BOUND = re.compile(r"\b(?:that|whether|if|which|neither)\b", re.IGNORECASE)


def mentions_prior(sentence: str) -> bool:
    """Whether a sentence speaks of an earlier study or of change ("unchanged", "new", "compared to", "has improved").

    Such a sentence cannot be checked on the image alone. "Prior sternotomy" is history and not flagged. Word rules;
    they are wrong at times: "new" and "stable" are always taken as a comparison.
    """
    return _PRIOR.search(" ".join(sentence.split())) is not None


def is_negated(sentence: str, term: str) -> bool:
    """Whether every mention of `term` in the sentence is negated; False where it is not mentioned.

    After NegEx (Chapman et al. 2001, J Biomed Inform 34:301): a cue before the term with no end of scope ("but", ";",
    "and the") between, or after it ("... is not seen"); "no increase in" and the like are no cues. Its window of five
    words is left out, as lists in reports are longer.
    """
    plain = " ".join(sentence.split())
    found = list(re.finditer(rf"\b{re.escape(term)}", plain, re.IGNORECASE)) if term.strip() else []
    return bool(found) and all(_negated_at(plain, place.start(), place.end()) for place in found)


def split_clauses(sentence: str) -> list[str]:
    """A sentence cut at ";", "but", "while" and "and" where each part stands alone and keeps its negation.

    "No effusion or pneumothorax; the heart is enlarged" -> 2 parts, "No effusion and pneumothorax" -> 1. Every part
    after the first has a verb or a negation of its own; nothing is cut behind "no ... that" or "neither".
    """
    parts, start = [], 0
    for joint in _JOINT.finditer(sentence):
        left, right = sentence[start : joint.start()], sentence[joint.end() :]
        if _stands_alone(left, right, weak=joint["weak"] is not None):
            parts.append(left.strip())
            start = joint.end()
    parts.append(sentence[start:].strip())
    return [part for part in parts if part]


def _negated_at(sentence: str, start: int, end: int) -> bool:
    before = _PSEUDO.sub(lambda m: " " * len(m[0]), sentence[:start])
    scope_start = max((match.end() for match in _SCOPE_END.finditer(before)), default=0)
    if _NEGATION.search(before, scope_start):
        return True
    return _NEGATED_AFTER.search(_SCOPE_END.split(sentence[end:])[0]) is not None


def _stands_alone(left: str, right: str, *, weak: bool) -> bool:
    next_joint = _JOINT.search(right)
    clause = right[: next_joint.start()] if next_joint else right
    negates_itself = _NEGATION.match(clause) is not None
    verb = _VERB.search(clause)
    if not (negates_itself or (verb and verb.start() > 0)):
        return False
    left_negation = _NEGATION.search(left)
    if not (_VERB.search(left) or left_negation):
        return False
    if left_negation is None:
        return True
    if _BOUND.search(left, left_negation.start()) or left_negation[0].lower() == "neither":
        return False
    return negates_itself or not weak or _OWN_START.match(clause) is not None
