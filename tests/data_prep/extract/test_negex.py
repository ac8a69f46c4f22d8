"""Plain NegEx on sentences whose answer follows from the published algorithm, its known weaknesses included."""

import pytest

from data_prep.extract.rules import extractor, negex


@pytest.mark.parametrize(("sentence", "concept", "answer"), [
    ("He denies chest pain.", "chest pain", "Negated"),
    ("No fever, chills or rash.", "rash", "Negated"),
    ("There is no sign of a tumour.", "tumour", "Negated"),
    ("No fever but he has chills.", "chills", "Affirmed"),
    ("He has chills but no fever.", "chills", "Affirmed"),
    ("Infarction was ruled out.", "infarction", "Negated"),
    ("Infarction must be ruled out.", "infarction", "Affirmed"),
    ("Rule out infarction.", "infarction", "Affirmed"),
    ("Infarction is unlikely.", "infarction", "Negated"),
    ("No change in the rash.", "rash", "Affirmed"),
    ("No fever, secondary to pneumonia.", "pneumonia", "Affirmed"),
    ("Without difficulty breathing.", "breathing", "Affirmed"),
    ("The rash is large.", "ulcer", "Affirmed"),
    # It knows no new statement after a comma or "and", and no verb after the concept but its own.
    ("No fever, he has a rash.", "rash", "Negated"),
    ("The rash has resolved.", "rash", "Affirmed"),
])
def test_the_published_algorithm(sentence, concept, answer):
    assert negex.assertion(sentence, concept) == answer


@pytest.mark.parametrize(("sentence", "concept", "answer"), [
    ("No fever, he has a rash.", "rash", "Affirmed"),
    ("No rash and was treated for fever.", "fever", "Affirmed"),
    ("The rash has resolved.", "rash", "Negated"),
    ("She doesn't have a rash.", "rash", "Negated"),
    ("Rash: none.", "rash", "Negated"),
    ("Rash: no.", "rash", "Negated"),
    ("There are no features consistent with sepsis.", "sepsis", "Negated"),
    ("Free fluid in the pelvis.", "fluid", "Affirmed"),
    ("No prior surgery.", "surgery", "Negated"),
])
def test_rules_go_beyond_it(sentence, concept, answer):
    assert extractor.assertion(sentence, concept) == answer


@pytest.mark.parametrize("assertion", [negex.assertion, extractor.assertion])
def test_the_place_in_capitals_is_meant_and_its_words_are_no_cues(assertion):
    assert assertion("He has PAIN in the arm but no pain in the leg.", "pain") == "Affirmed"
    assert assertion("He has pain in the arm but no PAIN in the leg.", "pain") == "Negated"
    assert assertion("Of sound mind; no MI on admission.", "MI") == "Negated"
    assert assertion("Admission for an MI.", "MI") == "Affirmed"
    assert assertion("He left without difficulty breathing.", "difficulty breathing") == "Negated"
