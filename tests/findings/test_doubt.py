"""Likely or merely possible: on phrases written for these tests."""

import pytest

from lgdea_jax.findings.hedging import is_merely_possible, without_possibilities
from lgdea_jax.records import Evidence


def _evidence(phrase, certainty="uncertain", finding="Mass"):
    return Evidence(finding, anatomy="", laterality="", severity="", certainty=certainty, temporality="", phrase=phrase,
                    start=0, end=len(phrase))


@pytest.mark.parametrize(("phrase", "possible"), [
    ("probable mass", False),
    ("mass is most likely", False),
    ("presumed mass", False),
    ("borderline heart size", False),
    ("Favored to be a mass", False),
    ("hint of a mass", False),  # A doubt of an unknown kind.
    ("possible mass", True),
    ("may represent a mass", True),
    ("mass cannot be excluded", True),
    ("scar versus mass", True),
    ("Questionable mass", True),
    ("mass?", True),
    ("mass is less likely", True),
    ("probably scar, but a mass is not excluded", True),
    ("Nodular opacity", True),
])
def test_words_of_doubt(phrase, possible):
    assert is_merely_possible(_evidence(phrase)) is possible


@pytest.mark.parametrize("certainty", ["present", "absent"])
def test_what_is_certain_is_not_merely_possible(certainty):
    assert not is_merely_possible(_evidence("possible mass", certainty))


def test_only_possibilities_are_left_out():
    items = tuple(_evidence(phrase) for phrase in ("probable mass", "possible mass"))
    assert without_possibilities((*items, _evidence("mass", "present"))) == (items[0], _evidence("mass", "present"))
