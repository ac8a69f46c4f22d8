"""Kinds of wording in which labelers of reports are known to err: `wordings.json`, written for these tests.

The file has, by kind, lists of [text, finding, certainty or "none", side where it matters].
"""

import json
from pathlib import Path

import pytest

from data_prep.extract.rules import extractor

CASES = json.loads(Path(__file__).with_name("wordings.json").read_text(encoding="utf-8"))
ORDER = ("none", "absent", "uncertain", "present")


def said(report, finding):
    """(the strongest certainty of a finding that is not history, the sides stated with it)."""
    items = [item for item in extractor.extract(report).evidence
             if item.finding == finding and item.temporality != "historical"]
    certainty = max((item.certainty for item in items), default="none", key=ORDER.index)
    return certainty, {item.laterality for item in items if item.certainty == certainty}


@pytest.mark.parametrize("kind", CASES)
def test_wordings(kind):
    wrong = []
    for text, finding, expected, *side in CASES[kind]:
        certainty, sides = said(text, finding)
        if certainty != expected or not sides.issuperset(side):
            wrong.append((text, finding, expected, *side, certainty, sides))
    assert wrong == []


def test_the_table_is_well_formed():
    rows = [row for cases in CASES.values() for row in cases]
    assert len(rows) > 600 and len({(text, finding) for text, finding, *_ in rows}) == len(rows)
    assert {row[2] for row in rows} == set(ORDER)
