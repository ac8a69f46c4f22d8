"""The rules extractor on sentences written for these tests, and properties that hold for any text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.extract.rules import extractor
from data_prep.extract.schema import Extraction, problems
from lgdea_jax.findings.label_sets import LABEL_SETS, labels_from_evidence
from lgdea_jax.findings.prompts import negative_prompts, positive_prompts
from lgdea_jax.records import NEGATIVE, POSITIVE


def _said(report):
    """{finding: certainty} with the strongest statement of each finding that is not history."""
    order = ("absent", "uncertain", "present")
    said = {}
    for item in extractor.extract(report).evidence:
        if item.temporality != "historical":
            said[item.finding] = max(said.get(item.finding, "absent"), item.certainty, key=order.index)
    return said


def _one(report, finding):
    items = [item for item in extractor.extract(report).evidence if item.finding == finding]
    assert len(items) == 1, [item.phrase for item in items]
    return items[0]


@pytest.mark.parametrize(("sentence", "finding", "certainty"), [
    # Plain and composed statements.
    ("Small right pleural effusion.", "Pleural Effusion", "present"),
    ("The heart is mildly enlarged.", "Cardiomegaly", "present"),
    ("Enlarged cardiac silhouette.", "Cardiomegaly", "present"),
    ("There is enlargement of the heart.", "Cardiomegaly", "present"),
    ("The superior mediastinum is widened.", "Enlarged Cardiomediastinum", "present"),
    ("Blunting of the left costophrenic angle.", "Costophrenic Blunting", "present"),
    ("The right hemidiaphragm is elevated.", "Elevated Diaphragm", "present"),
    ("Hyperexpanded lungs.", "Hyperinflation", "present"),
    ("Flattened diaphragms.", "Hyperinflation", "present"),
    ("Lung volumes are low.", "Low Lung Volume", "present"),
    ("The aorta is tortuous.", "Aortic Abnormality", "present"),
    ("A calcified 4 mm nodule in the left upper lobe.", "Granuloma", "present"),
    ("Degenerative changes of the thoracic spine.", "Degenerative Spine", "present"),
    ("Right internal jugular central venous catheter.", "Support Devices", "present"),
    ("The tip projects over the lower SVC.", "Support Devices", "present"),
    ("Patient is status post aortic valve replacement.", "Support Devices", "present"),
    ("Deformity from a previous fracture of the rib.", "Fracture", "present"),
    ("A calcified 4 mm nodule in the left upper lobe.", "Nodule", "present"),
    ("A calcified 4 mm nodule in the left upper lobe.", "Calcification Other", "present"),
    ("Nodular opacity in the left upper lobe.", "Lung Opacity", "present"),
    ("Nodular opacity in the left upper lobe.", "Nodule", "uncertain"),
    ("A tortuous, calcified thoracic aorta.", "Calcification Other", "present"),
    ("There is fusion of the lower cervical spine.", "Surgical Hardware", "present"),
    ("Apical pleural scarring.", "Scar", "present"),
    # Denial before, after, in lists and by normal statements.
    ("No pneumothorax.", "Pneumothorax", "absent"),
    ("No effusion, pneumothorax or focal consolidation.", "Consolidation", "absent"),
    ("No displaced, acute rib fractures are seen.", "Fracture", "absent"),
    ("The lungs are free of consolidation.", "Consolidation", "absent"),
    ("Without evidence of pulmonary edema.", "Edema", "absent"),
    ("Pneumothorax is not seen.", "Pneumothorax", "absent"),
    ("The effusion has resolved.", "Pleural Effusion", "absent"),
    ("Heart size is normal.", "Cardiomegaly", "absent"),
    ("The heart is not enlarged.", "Cardiomegaly", "absent"),
    ("The heart is at the upper limits of normal in size.", "Cardiomegaly", "absent"),
    ("The lungs are clear.", "Lung Opacity", "absent"),
    ("Costophrenic angles are sharp.", "Pleural Effusion", "absent"),
    ("Bony structures are intact.", "Fracture", "absent"),
    ("Lung volumes are low normal.", "Low Lung Volume", "absent"),
    ("Pneumothorax: none.", "Pneumothorax", "absent"),
    ("Pneumonia is unlikely.", "Pneumonia", "absent"),
    # The end of a denial's reach.
    ("No pneumothorax, but a small effusion is present.", "Pleural Effusion", "present"),
    ("No pneumothorax; small effusion.", "Pleural Effusion", "present"),
    ("No effusion. Atelectasis at the left base.", "Atelectasis", "present"),
    ("There is no pneumothorax, the heart is enlarged.", "Cardiomegaly", "present"),
    ("No acute findings except a healed rib fracture.", "Fracture", "present"),
    # Words that look like denials.
    ("No change in the left effusion.", "Pleural Effusion", "present"),
    ("No significant interval increase in the effusion.", "Pleural Effusion", "present"),
    # Doubt.
    ("Possible left lower lobe pneumonia.", "Pneumonia", "uncertain"),
    ("Pneumonia cannot be excluded.", "Pneumonia", "uncertain"),
    ("Underlying pneumonia is not excluded.", "Pneumonia", "uncertain"),
    ("Findings suspicious for pneumonia.", "Pneumonia", "uncertain"),
    ("Questionable nodule at the right apex.", "Nodule", "uncertain"),
    ("Opacity in the left base may represent atelectasis.", "Atelectasis", "uncertain"),
    ("Opacity in the left base may represent atelectasis.", "Lung Opacity", "present"),
    ("Borderline heart size.", "Cardiomegaly", "uncertain"),
    ("Atelectasis?", "Atelectasis", "uncertain"),
    ("Pneumonia is in the differential.", "Pneumonia", "uncertain"),
    ("Edema is also possible.", "Edema", "uncertain"),
    ("Pneumonia is less likely.", "Pneumonia", "uncertain"),
])
def test_certainty(sentence, finding, certainty):
    assert _said(sentence).get(finding) == certainty


@pytest.mark.parametrize("sentence", [
    "Recommend CT to evaluate for mass.", "If there is concern for pneumonia, repeat.", "Soft tissue density is noted.",
    "The trachea is midline.", "Well-positioned patient."])
def test_questions_and_other_matters_are_no_evidence(sentence):
    assert extractor.extract(sentence).evidence == ()


@pytest.mark.parametrize(("sentence", "finding"), [
    ("Calcified left hilar granuloma.", "Calcification Other"),
    ("Atherosclerotic calcification of the aorta.", "Calcification Other"),  # Atherosclerosis, as coders write it.
    ("Changes of cystic fibrosis.", "Fibrosis"),
    ("Degenerative changes of the knee.", "Degenerative Spine"),
    ("Small volume ascites.", "Low Lung Volume"),
    ("Chest wall mass.", "Mass"),
    ("No calcified nodule.", "Nodule"),
    ("No calcified granuloma or nodule.", "Calcification Other"),
])
def test_words_of_something_else(sentence, finding):
    assert finding not in _said(sentence)


def test_history_is_kept_apart():
    item = _one("History of pneumonia.", "Pneumonia")
    assert (item.certainty, item.temporality) == ("present", "historical")
    assert "Pneumonia" not in _said("History of pneumonia.")


@pytest.mark.parametrize(("sentence", "finding", "phrase"), [
    ("There is a small right pleural effusion with adjacent atelectasis.", "Pleural Effusion",
     "small right pleural effusion"),
    ("There is a small right pleural effusion with adjacent atelectasis.", "Atelectasis", "adjacent atelectasis"),
    ("A 2.3 cm spiculated mass is seen in the left upper lobe today.", "Mass",
     "2.3 cm spiculated mass is seen in the left upper lobe"),
    ("The heart is mildly enlarged.", "Cardiomegaly", "heart is mildly enlarged"),
    ("Again, no left pleural effusion or pneumothorax.", "Pneumothorax", "no left pleural effusion or pneumothorax"),
    ("Apical lucency suspicious for pneumothorax.", "Pneumothorax", "Apical lucency suspicious for pneumothorax"),
    ("Nodule in the right\nlower lobe.", "Nodule", "Nodule in the right\nlower lobe"),
    ("No nodul. A small rigth pleural efusion is seen today.", "Pleural Effusion", "small rigth pleural efusion"),
    ("Pnuemothorax on the left. Edema.", "Edema", "Edema"),
])
def test_phrases_are_verbatim_and_readable(sentence, finding, phrase):
    item = _one(sentence, finding)
    assert item.phrase == phrase
    assert sentence[item.start:item.end] == phrase


@pytest.mark.parametrize(("sentence", "finding", "expected"), [
    ("Small right pleural effusion.", "Pleural Effusion", ("pleura", "right", "mild", "")),
    ("Bibasilar atelectasis, unchanged.", "Atelectasis", ("base", "bilateral", "", "unchanged")),
    ("New large left apical pneumothorax.", "Pneumothorax", ("apex", "left", "severe", "new")),
    ("In the right upper lobe there is a nodule.", "Nodule", ("upper lobe", "right", "", "")),
    ("Improving moderate pulmonary edema.", "Edema", ("lung", "", "moderate", "improved")),
])
def test_attributes(sentence, finding, expected):
    item = _one(sentence, finding)
    assert (item.anatomy, item.laterality, item.severity, item.temporality) == expected


@pytest.mark.parametrize(("report", "normal"), [
    ("No acute cardiopulmonary abnormality.", True),
    ("Heart size normal. Lungs clear.", True),
    ("Normal chest.", True),
    ("No pneumothorax.", False),
    ("No acute cardiopulmonary abnormality. Possible small nodule.", False),
    ("No acute disease. Pacemaker in place.", False),
    ("", False),
])
def test_normality_is_stated_and_unspoilt(report, normal):
    assert extractor.extract(report).normal is normal


def test_what_has_resolved_was_there():
    items = extractor.extract("There was an effusion. It has now resolved.").evidence
    assert [(item.phrase, item.certainty, item.temporality) for item in items] == [
        ("effusion", "present", "historical"), ("It has now resolved", "absent", "")]


def test_only_findings_and_impression_are_evidence():
    report = ("INDICATION: Rule out pneumonia, known mass.\nCOMPARISON: Edema on the prior film.\n"
              "FINDINGS: Small left effusion.\nIMPRESSION: Atelectasis.\n")
    assert set(_said(report)) == {"Pleural Effusion", "Atelectasis"}


def test_repeated_statements_collapse_to_the_most_specific():
    items = extractor.extract("Effusion. Small left pleural effusion. There is a left effusion.").evidence
    assert [item.phrase for item in items] == ["Small left pleural effusion"]
    both = extractor.extract("No right effusion. Small left effusion.").evidence
    assert [item.certainty for item in both] == ["absent", "present"]


@pytest.mark.parametrize("finding", LABEL_SETS["phantom"])
def test_prompts_say_what_the_extractor_reads(finding):
    for prompt in positive_prompts(finding):
        extraction = extractor.extract(prompt)
        assert labels_from_evidence(extraction.evidence, extraction.normal, (finding,))[0] == POSITIVE, prompt
    for prompt in (text for text in negative_prompts(finding) if text.startswith(("No ", "There is no "))):
        extraction = extractor.extract(prompt)
        assert labels_from_evidence(extraction.evidence, extraction.normal, (finding,))[0] == NEGATIVE, prompt


@pytest.mark.parametrize(("sentence", "concept", "answer"), [
    ("The patient denies chest pain.", "CHEST PAIN", "Negated"),
    ("He has chest pain but no fever.", "chest pain", "Affirmed"),
    ("He has chest pain but no fever.", "fever", "Negated"),
    ("Signs not consistent with dissection.", "dissection", "Negated"),
    ("Rule out appendicitis.", "appendicitis", "Affirmed"),
    ("No change in the ulcer.", "ulcer", "Affirmed"),
    ("No change in the ulcer.", "tumour", "Affirmed"),
    ("", "tumour", "Affirmed"),
])
def test_assertion_of_any_concept(sentence, concept, answer):
    assert extractor.assertion(sentence, concept) == answer


_PIECES = (
    "no ", "small ", "left ", "pleural effusion", "pneumothorax", "heart ", "is enlarged", "may represent ", ", ", ". ",
    "\n", "but ", "or ", "IMPRESSION: ", "history of ", "not seen", "in the right lower lobe", "1. ", "?", "İ",
    "\u2013", " - ", "pnuemothorax ", "efusion", "It has resolved",
    "[no]", ": none", "| ", "nodule ", "calcified ", "; ", "/", "and ")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(_PIECES), st.text(max_size=6)), max_size=25).map("".join))
def test_any_text_gives_well_formed_evidence(report):
    extraction = extractor.extract(report)
    assert problems(extraction, report) == []
    assert extraction == extractor.extract(report)


def test_problems_names_what_is_wrong():
    good = extractor.extract("Small left effusion.")
    assert problems(good, "Small left effusion.") == []
    assert problems(good, "Something else entirely.") == ["evidence 0: the phrase is not the text at 0:19"]
    assert problems(Extraction(good.evidence, True), "Small left effusion.") == [
        "normal, although a finding is present or uncertain"]


@pytest.mark.parametrize(("report", "finding", "certainty"), [
    ("Cardiothoracic ratio 0.58.", "Cardiomegaly", "present"),
    ("CTR of 47 %.", "Cardiomegaly", "absent"),
    ("Cardiothoracic index: 0,50", "Cardiomegaly", "absent"),
    ("The ascending aorta measures 4.3 cm.", "Aortic Abnormality", "present"),
    ("The ascending aorta measures 36 mm.", "Aortic Abnormality", None),
    ("The ascending aorta is less than 40 mm wide.", "Aortic Abnormality", None),
    ("A lymph node of 12 mm in short axis.", "Lymphadenopathy", "present"),
    ("A lymph node, short axis 1.2 cm.", "Lymphadenopathy", "present"),
    ("The short axis of the largest node is 11 mm.", "Lymphadenopathy", "present"),
    ("Lymph nodes below 10 mm in short axis.", "Lymphadenopathy", None),
    ("Lymph nodes of 7 mm in short axis.", "Lymphadenopathy", None),
    ("A mass of 30 mm in short axis.", "Lymphadenopathy", None),
])
def test_measures(report, finding, certainty):
    assert _said(report).get(finding) == certainty


# Words that are a finding of the lungs only where the sentence speaks of the lungs.
@pytest.mark.parametrize(("report", "finding", "certainty"), [
    ("A spiculated lesion in the lingula.", "Lung Lesion", "present"),
    ("A spiculated lesion.", "Lung Lesion", None),
    ("A lesion of the liver, lungs clear.", "Lung Lesion", None),
    ("No fracture or lytic lesion.", "Lung Lesion", None),
    ("The middle lobe is collapsed.", "Atelectasis", "present"),
    ("No edema, collapse or nodule.", "Atelectasis", "absent"),
    ("Syncope with collapse.", "Atelectasis", None),
    ("The left lung is collapsed by a large pneumothorax.", "Atelectasis", None),
    ("The lingula is consolidated.", "Consolidation", "present"),
    ("This is a consolidated list.", "Consolidation", None),
    ("A tumour of the right upper lobe.", "Mass", "present"),
    ("The tumour board met.", "Mass", None),
])
def test_words_that_need_the_lungs(report, finding, certainty):
    assert _said(report).get(finding) == certainty


@pytest.mark.parametrize(("report", "phrase"), [
    ("Small left pneumo\u00adthorax.", "Small left pneumo\u00adthorax"),
    ("Interstitial \ufb01brosis, no nodule.", "Interstitial \ufb01brosis"),
    ("Large e\u200bff\u200busion on the right.", "Large e\u200bff\u200busion on the right"),
])
def test_a_phrase_keeps_the_characters_of_the_report(report, phrase):
    item = extractor.extract(report).evidence[0]
    assert (item.phrase, report[item.start:item.end]) == (phrase, phrase)


def test_headings_with_marks_of_emphasis():
    report = ("**Indication:** exclude a nodule\n**Findings:**\nNo *effusion*, **mild edema**.\n"
              "## Recommendation:\nCT for a mass.")
    assert _said(report) == {"Pleural Effusion": "absent", "Edema": "present"}
