"""Sections, sentences and the literal matcher."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.extract import sections
from data_prep.extract.extractors import open_extractor
from data_prep.extract.rules import scanner
from lgdea_jax.errors import UserError


def _split(report):
    return [(section.name, report[section.start:section.end]) for section in sections.split(report)]


def test_headings_on_their_line_inline_and_alone():
    report = ("EXAM: Chest\nReason for exam: cough\nFINDINGS: Heart: normal. IMPRESSION:\n1. Clear.\nTECHNIQUE\nPA "
        "view")
    assert _split(report) == [("examination", "Chest"), ("indication", "cough"), ("findings", "Heart: normal."),
                              ("impression", "1. Clear."), ("technique", "PA view")]


def test_headings_with_a_dash_and_within_a_line():
    assert _split("Clinical details - cough. Report - Clear lungs - no mass. Conclusion: Normal.") == [
        ("indication", "cough."), ("findings", "Clear lungs - no mass."), ("impression", "Normal.")]
    assert _split("The question - is there a mass? - was asked.") == [
        ("body", "The question - is there a mass? - was asked.")]
    assert _split("Wet read: Clear. Final report: Findings: Mass.")[-1] == ("findings", "Mass.")


def test_a_report_without_headings_is_its_body():
    assert _split("  Clear lungs. \n") == [("body", "Clear lungs.")]
    assert _split("") == []


def test_a_title_before_findings_is_skipped_but_free_text_before_an_impression_is_not():
    def spans(report):
        return [report[start:end] for start, end in sections.evidence_spans(report)]

    assert spans("CHEST PA\nFINDINGS: Clear.") == ["Clear."]
    assert spans("Small effusion.\nIMPRESSION: Effusion.") == ["Small effusion.", "Effusion."]


@given(st.text(max_size=80) | st.lists(st.sampled_from(["FINDINGS:", "Impression :", "\n", "a b", "HISTORY\n",
    " "])).map("".join))
def test_sections_lie_in_the_text_in_order_and_are_trimmed(report):
    end = 0
    for section in sections.split(report):
        assert end <= section.start < section.end <= len(report)
        text = report[section.start:section.end]
        assert text == text.strip()
        end = section.end


@pytest.mark.parametrize(("text", "expected"), [
    ("1. Left effusion. 2. No mass.", ["Left effusion", "No mass"]),
    ("A 1.5 cm nodule. Seen by Dr. Hall.", ["A 1.5 cm nodule", "Seen by Dr. Hall"]),
    ("Scar vs. mass at T8. Stable", ["Scar vs. mass at T8", "Stable"]),
    ("In the apex.There is a mass", ["In the apex", "There is a mass"]),
    ("Small effusion on the\nleft side. Clear", ["Small effusion on the\nleft side", "Clear"]),
    ("No mass; clear\n\nNormal heart", ["No mass", "clear", "Normal heart"]),
    ("- Clear lungs\n- Normal heart", ["Clear lungs", "Normal heart"]),
    ("No mass\nHeart: normal", ["No mass", "Heart: normal"]),
    ("No mass\nheart normal", ["No mass", "heart normal"]),
    ("No mass in the right upper\nlobe", ["No mass in the right upper\nlobe"]),
    ("There is no mass and no effusion, and there is no nodule in the left\nlung",
     ["There is no mass and no effusion, and there is no nodule in the left\nlung"]),
    ("There is no mass and no effusion, and the left lung has no more nodules\ntoday than it had before this long line",
     ["There is no mass and no effusion, and the left lung has no more nodules\ntoday than it had before this long "
      "line"]),
    ("No mass Heart is large", ["No mass", "Heart is large"]),
    ("Kerley B lines by Dr Heart are seen", ["Kerley B lines by Dr Heart are seen"]),
    ("Mass? No. Clear", ["Mass? No", "Clear"]),
    ("? mass", ["? mass"]),
    ("a &lt; b; clear", ["a &lt; b", "clear"]),
    ("Clear<br>Normal heart", ["Clear", "Normal heart"]),
])
def test_sentences(text, expected):
    assert [text[start:end] for start, end in scanner.sentences(text, 0, len(text))] == expected


@given(st.text(max_size=60))
def test_normalising_keeps_every_character_in_its_place(text):
    normal = scanner.normalise(text)
    assert len(normal) == len(text)
    assert all(a == b for a, b in zip(text, normal) if a.isascii() and (a.islower() or a.isdigit()))


def test_expand_writes_out_nested_alternatives():
    assert scanner.expand("(a|an|) (big |)dog(s|)") == [
        "a big dogs", "a big dog", "a dogs", "a dog", "an big dogs", "an big dog", "an dogs", "an dog", "big dogs",
        "big dog",
        "dogs", "dog"]


@settings(max_examples=200)
@given(st.lists(st.text("ab ", min_size=1, max_size=5).map(str.strip).filter(lambda s: s and "  " not in s),
    min_size=1),
       st.text("ab ", max_size=20).map(lambda s: re.sub(" +", " ", s)))
def test_the_matcher_finds_what_a_plain_alternation_finds(literals, text):
    plain = re.compile("(?<![a-z0-9])(?:" + "|".join(sorted(map(re.escape, literals), key=len, reverse=True))
                       + ")(?![a-z0-9])")
    found = scanner.Literals({literal: literal for literal in literals}).find(scanner.split(text, 0, len(text)))
    assert list(found) == [(*m.span(), m.group()) for m in plain.finditer(text)]


@pytest.mark.parametrize(("text", "found"), [
    ("left pleural   effusion", [(5, 23)]), ("pleural effusions", []), ("s/p w/o s/p", [(0, 3), (8, 11)]),
    ("no pleural", []), ("", [])])
def test_literals_are_whole_words_and_a_space_matches_a_run(text, found):
    literals = scanner.Literals({"pleural effusion": 1, "s/p": 2})
    assert [(start, end) for start, end, _ in literals.find(scanner.split(text, 0, len(text)))] == found


def test_extractors_by_name():
    assert open_extractor("rules").name == "rules@4"
    with pytest.raises(UserError, match="did you mean 'rules'"):
        open_extractor("rule")
