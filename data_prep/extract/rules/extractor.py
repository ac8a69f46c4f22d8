"""Rules extractor: diagnostic evidence from an English chest report without network, key or model.

Mentions are found with one regex over thousands of literals (`lexicon`); what negates or hedges them follows NegEx
(Chapman et al., J Biomed Inform 2001) and ConText (Harkema et al., 2009): cues act up to the next break of scope.
Unlike those, a cue's reach also ends at a comma that opens a new statement, and findings may be composed of a subject
and a predicate ("the heart is mildly enlarged").
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from data_prep.extract import sections
from data_prep.extract.rules import lexicon, scanner, spelling
from data_prep.extract.rules.mentions import Mention
from data_prep.extract.rules.phrases import phrase_span
from data_prep.extract.rules.sentences import Sentence, Status
from data_prep.extract.schema import Extraction
from lgdea_jax.findings.vocabulary import BY_NAME
from lgdea_jax.records import Evidence

NAME = "rules@4"


# What was put in, broken or scarred before is still seen today ("status post valve replacement").
_LASTING = frozenset(("Fracture", "Granuloma", "Scar"))


def _blocked(sentence: Sentence, mention: Mention, name: str, start: int, end: int) -> bool:
    """Whether the words of a finding are about something else: a nodule of the thyroid, an opacity of a bone."""
    words = lexicon.BLOCKED.get(name)
    if words and not words.isdisjoint(re.findall(r"[a-z]+", sentence.text[start:end])):
        return True
    goes_on = lexicon.GOES_ON.get(name)
    if goes_on and goes_on.match(sentence.text, mention.end, sentence.end):
        return True
    if name not in lexicon.OF_ANY_ORGAN:
        return False
    return lexicon.elsewhere(sentence.text[sentence.start:mention.start], sentence.text[mention.end:sentence.end])


_CALCIFIED = re.compile(r"(?<!non )\bcalcified\b(?!.*(?:,|\bor\b|\band\b))")


def _instances(name: str, certainty: str, words: str) -> tuple[str, ...]:
    """What a named finding is: a nodule called calcified, though at a distance ("calcified 5 mm nodule"), is three.

    Args:
      words: what the report states of it, from the phrase's first word to the finding's name.
    """
    if name == "Nodule" and _CALCIFIED.search(words):
        # Without calcified nodules there may still be others.
        return ("Granuloma",) if certainty == "absent" else ("Nodule", "Calcification Other", "Granuloma")
    return (name,)


def extract(report: str) -> Extraction:
    """Evidence of one report.

    Args:
      report: any text; sections that ask or compare (indication, history, technique, comparison) hold no evidence.

    Returns:
      The statements in the order of the text. The same finding stated twice in the same way is kept once, in its most
      specific wording; what a report affirms in one sentence and denies in another is kept both times.
    """
    corrected = spelling.Corrected(report)
    text = scanner.normalise(corrected.text)
    found: list[Evidence] = []
    stated = set()
    for start, end in sections.evidence_spans(corrected.text):
        last: list[Evidence] = []
        for left, right in scanner.sentences(corrected.text, start, end):
            last = _sentence_evidence(corrected.text, Sentence(text, left, right), last, found, stated) or last
    evidence = [_as_written(report, corrected, item) for item in _collapse(found)]
    normal = ("normal" in stated or {"lungs", "heart"} <= stated) and all(
        item.certainty == "absent" or item.temporality == "historical" for item in evidence)
    return Extraction(tuple(evidence), normal)


def _as_written(report: str, corrected: spelling.Corrected, item: Evidence) -> Evidence:
    if corrected.text is report:
        return item
    start, end = corrected.offset(item.start), corrected.offset(item.end)
    return dataclasses.replace(item, start=start, end=end, phrase=report[start:end])


# What stands for the finding of the sentence before: "It has resolved", "the left one persists".
_STANDS_FOR = re.compile(
    r"(?:(?:and|but|however|now|today|this time|,)\s+)*(?P<it>(?:it|they|both|this|these|that|those)"
    r"(?=\s+(?:has|have|is|are|appears?|remains?|persists?|had|was|were)\b)"
    r"|(?:the\s+|an?\s+)(?:[a-z]+\s+){0,2}?ones?\b)"
    r"|(?:(?:and|but|now|today|currently|there|is|are|,)\s+)*(?P<none>none)(?:\s+(?:is|are|was|were|seen|visible|"
    r"present|today|now|currently|at present|"
    r"on (?:this|the current|today's) (?:study|film|examination|radiograph|image)|remains?))*\s*$")
_STATE = re.compile(
    r"\b(?:resolved|gone|cleared|disappeared|no longer|not|persist\w*|remain\w*|unchanged|stable|larger|smaller|"
    r"increas\w+|decreas\w+|improv\w+|worse\w*|enlarg\w+|grown|visible|seen|present|removed|absent|new)\b")


def _standing_for(sentence: Sentence, last: Sequence[Evidence]) -> Mention | None:
    """A mention by a word that stands for the finding mentioned last, or None."""
    match = _STANDS_FOR.match(sentence.text, sentence.start, sentence.end) if last else None
    if match is None or not (match["none"] or _STATE.search(sentence.text, match.end(), sentence.end)):
        return None
    word, certainty = ("none", "absent") if match["none"] else ("it", "present")
    return Mention(tuple(dict.fromkeys(item.finding for item in last)), *match.span(word), match.start(word), certainty)


def _sentence_evidence(report: str, sentence: Sentence, last: Sequence[Evidence], found: list[Evidence],
                       stated: set[str]) -> list[Evidence]:
    """Adds the evidence of a sentence; returns that of its last mention. `last` is the one before the sentence."""
    if lexicon.NORMALITY.search(sentence.text, sentence.start, sentence.end):
        stated.add("normal")
    mentions = sentence.mentions()
    latest: list[Evidence] = []
    referring = _standing_for(sentence, last) if not mentions else None
    for mention in [referring] if referring else mentions:
        status = sentence.status(mention)
        if mention.certainty == "absent" and status.start < 0:
            stated.add({"Lung Opacity": "lungs", "Cardiomegaly": "heart"}.get(mention.names[0], ""))
        if status.hypothetical:
            continue
        if referring:
            if status.certainty == "absent":  # What has resolved was there before.
                found[:] = [dataclasses.replace(item, temporality="historical") if item in last
                            and item.certainty != "absent" else item for item in found]
            elif last[0].certainty == "absent" and "one" not in sentence.text[mention.start:mention.end]:
                continue
        start, end = phrase_span(sentence, mention, status, mentions)
        attributes = sentence.attributes(mention, status.certainty, start, end)
        latest = []
        for name in mention.names:
            if _blocked(sentence, mention, name, start, end):
                continue
            latest += [Evidence(
                finding=finding, anatomy=attributes.get("anatomy", ""), laterality=attributes.get("laterality", ""),
                severity=attributes.get("severity", "") if status.certainty != "absent" else "",
                certainty=status.certainty,
                temporality=_temporality(finding, status, attributes),
                phrase=report[start:end], start=start, end=end)
                for finding in _instances(name, status.certainty, sentence.text[start:mention.end])]
        found += latest
    return latest


def _temporality(name: str, status: Status, attributes: Mapping[str, str]) -> str:
    if status.certainty == "absent":
        return ""
    if status.historical and not (name in _LASTING or BY_NAME[name].kind == "device"):
        return "historical"
    return attributes.get("temporality", "")


def _collapse(found: Sequence[Evidence]) -> list[Evidence]:
    """Drops statements that another one of the same finding and certainty covers in every detail."""
    kept: list[Evidence] = []
    for item in found:
        if any(_covers(other, item) for other in kept):
            continue
        kept = [other for other in kept if not _covers(item, other)]
        kept.append(item)
    return sorted(kept, key=lambda item: (item.start, item.end))


def _covers(one: Evidence, other: Evidence) -> bool:
    fields = ("anatomy", "laterality", "severity")
    return (one.finding == other.finding and one.certainty == other.certainty
            and (one.temporality == "historical") == (other.temporality == "historical")
            and all(getattr(other, field) in ("", getattr(one, field)) for field in fields))


def assertion(sentence: str, concept: str) -> str:
    """Whether `sentence` denies `concept`: "Negated", or "Affirmed" (present, uncertain or asked for).

    The concept need not be of the vocabulary. It is found by its words, white space and case aside; where it does not
    stand in the sentence as such, the span of its longest word counts; without any the answer is "Affirmed".
    """
    text = scanner.normalise(sentence)
    span = scanner.concept_span(sentence, concept)
    if span is None:
        return "Affirmed"
    text = scanner.masked(text, span)
    for start, end in scanner.sentences(sentence, 0, len(sentence)):
        if start <= span[0] < end:
            mention = Mention((), *span, span[0], "present")
            return "Negated" if Sentence(text, start, end).status(mention).certainty == "absent" else "Affirmed"
    return "Affirmed"
