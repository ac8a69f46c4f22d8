"""Plain NegEx (Chapman et al., J Biomed Inform 2001), the baseline that negation by rules is measured against.

The published algorithm with its public English triggers, and nothing of our own: a sentence is cut at its triggers;
a denial before a concept reaches to the next trigger that ends it or to the end of the sentence, one behind it back to
the previous trigger. Not used for evidence: `rules` knows findings, doubt and history too.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from data_prep.extract.rules import scanner

NAME = "negex"

# Kinds of triggers: a denial of what follows or of what precedes, the same in doubt, what looks like a denial, and
# what ends the reach of all of them.
BEFORE, AFTER, DOUBT_BEFORE, DOUBT_AFTER = "before", "after", "doubt_before", "doubt_after"
PSEUDO, END = "pseudo", "end"
_WHOM = "(him |her |the patient |)"
_TRIGGERS: Mapping[str, tuple[str, ...]] = {
    PSEUDO: ("no (increase|change|suspicious change|definite change|(significant |interval |significant interval )"
             "change)", "not (extend|cause|drain|necessarily|only|certain if|certain whether)", "gram negative",
             "without difficulty"),
    BEFORE: (
        "absence of", "cannot( see|)", "checked for", "declin(ed|es)", "den(ied|ies|ying)", "evaluate for",
        "fails to reveal", "free of", "negative for", "never (developed|had)", "rather than", "resolved", "test for",
        "to exclude", "unremarkable for", "with no", "patient was not",
        "no( abnormal| cause of| complaints of| new| significant| suspicious| findings of| findings to indicate|"
        " sign of| signs of| suggestion of| mammographic evidence of| radiographic evidence of| evidence|"
        " new evidence| other evidence| evidence to suggest|)",
        "not( appear| appreciate| associated with| complain of| demonstrate| exhibit| feel| had| have| know of|"
        " known to have| reveal| see| to be|)",
        "without( any evidence of| evidence| indication of| sign of|)",
        f"(rules|ruled|did rule|can rule|adequate to rule|sufficient to rule) {_WHOM}out( for| against|)"),
    AFTER: ("unlikely", "free", "(is|are|was|have been|has been) ruled out"),
    DOUBT_BEFORE: (f"rule {_WHOM}out( for|)", "r/o", "ro", "what must be ruled out is",
                   "(should |ought to |may |might |could |will |can |must |is to |)be ruled out for"),
    DOUBT_AFTER: ("(did not rule|not ruled|not been ruled|being ruled) out",
                  "(should |ought to |may |might |could |will |can |must |is to |)be ruled out"),
    END: ("but", "however", "nevertheless", "yet", "(al|)though", "still", "aside from", "except", "apart from",
          "secondary to", "(as (the|a|an) (secondary |)|)(cause|source|reason|etiology|origin)(s|) (of|for)",
          "trigger event for", "other possibilities of"),
}


@functools.cache
def _literals() -> scanner.Literals[str]:
    return scanner.Literals({text: kind for kind, patterns in _TRIGGERS.items() for pattern in patterns
                             for text in scanner.expand(pattern)})


def assertion(sentence: str, concept: str) -> str:
    """"Negated" when a denial reaches the span of `concept` in `sentence`, else "Affirmed"."""
    span = scanner.concept_span(sentence, concept)
    if span is None:
        return "Affirmed"
    text = scanner.masked(scanner.normalise(sentence), span)
    triggers = list(_literals().find(scanner.split(text, 0, len(text))))
    before = [kind for _, end, kind in triggers if end <= span[0]]
    after = [kind for start, _, kind in triggers if start >= span[1]]
    denied = (before and before[-1] == BEFORE) or (after and after[0] == AFTER)
    return "Negated" if denied else "Affirmed"
