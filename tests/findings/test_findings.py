"""Vocabulary, label sets and prompts: consistent with each other and with the data sets they name."""

import numpy as np
import pytest

from lgdea_jax.errors import UserError
from lgdea_jax.findings.label_sets import LABEL_SETS, labels_from_evidence
from lgdea_jax.findings.prompts import STYLES, negative_prompts, positive_prompts
from lgdea_jax.findings.vocabulary import BY_NAME, FINDINGS, LABEL_ONLY, LABELLED, canonical, find, find_label
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, UNCERTAIN, Evidence


def _evidence(finding, certainty="present", temporality=""):
    return Evidence(finding, "", "", "", certainty, temporality, "x", 0, 1)


def _labels(names, *evidence, normal=False, **options):
    return labels_from_evidence(evidence, normal, names, **options).tolist()


def test_the_vocabulary_refers_to_itself_only():
    assert len(BY_NAME) == len(FINDINGS)
    for finding in FINDINGS:
        assert set(finding.parents) | set(finding.members) <= set(BY_NAME)
        assert finding.synonyms and all(text == text.lower() for text in finding.synonyms)
        assert len(set(finding.synonyms)) == len(finding.synonyms)


def test_label_sets_have_the_official_sizes_and_known_names():
    sizes = {"chexpert14": 14, "chexpert5": 5, "chestxray14": 14, "ct_rate18": 18, "openi33": 33, "phantom": 12,
             "chestxdet10": 10, "vindr28": 28, "ms_cxr8": 8, "covidx3": 3}
    assert {name: len(names) for name, names in LABEL_SETS.items()} == sizes
    for names in LABEL_SETS.values():
        assert len(set(names)) == len(names) and set(names) <= set(LABELLED)


@pytest.mark.parametrize(("column", "name"), [
    ("Effusion", "Pleural Effusion"), ("Pleural_Thickening", "Pleural Thickening"), ("Infiltration", "Infiltrate"),
    ("Lung nodule", "Nodule"), ("Hiatal hernia", "Hernia"), ("pleural effusion", "Pleural Effusion"),
    ("Medical material", "Medical Material")])
def test_official_spellings_are_found(column, name):
    assert find(column) == name
    assert canonical(column) == name


def test_an_unknown_finding_names_the_nearest():
    assert find("uid") is None
    with pytest.raises(UserError, match="did you mean 'Atelectasis'"):
        canonical("Atelectasys")


def test_the_strongest_statement_wins():
    names = ("Edema", "Mass", "Hernia")
    labels = _labels(names, _evidence("Edema", "absent"), _evidence("Edema", "uncertain"), _evidence("Mass", "absent"))
    assert labels == [UNCERTAIN, NEGATIVE, MISSING]
    assert _labels(names, _evidence("Edema", "absent"), _evidence("Edema")) == [POSITIVE, MISSING, MISSING]


def test_history_says_nothing_about_this_study():
    assert _labels(("Pneumonia",), _evidence("Pneumonia", temporality="historical")) == [MISSING]
    assert _labels(("Pneumonia",), unmentioned=NEGATIVE) == [NEGATIVE]


def test_members_raise_a_finding_but_deny_it_only_together():
    names = ("Lung Lesion", "Lung Opacity", "Medical Material")
    assert _labels(names, _evidence("Nodule"), _evidence("Infiltrate", "uncertain"), _evidence("Support Devices")) == [
        POSITIVE, UNCERTAIN, POSITIVE]
    assert _labels(("Lung Lesion",), _evidence("Nodule", "absent")) == [MISSING]
    members = BY_NAME["Lung Lesion"].members
    assert _labels(("Lung Lesion",), *(_evidence(name, "absent") for name in members)) == [NEGATIVE]


def test_the_chexpert_hierarchy_is_applied_only_when_asked():
    names = ("Edema", "Lung Opacity")
    assert _labels(names, _evidence("Edema")) == [POSITIVE, MISSING]
    assert _labels(names, _evidence("Edema"), hierarchy=True) == [POSITIVE, POSITIVE]
    assert _labels(names, _evidence("Edema", "absent"), hierarchy=True) == [NEGATIVE, MISSING]


def test_no_finding_needs_stated_normality_and_no_disease():
    names = ("No Finding", "Mass", "Support Devices")
    assert _labels(names, normal=True) == [POSITIVE, NEGATIVE, MISSING]
    assert _labels(names, _evidence("Support Devices"), normal=True) == [POSITIVE, NEGATIVE, POSITIVE]
    assert _labels(names, _evidence("Mass", "uncertain"), normal=True) == [NEGATIVE, UNCERTAIN, MISSING]
    assert _labels(names) == [MISSING, MISSING, MISSING]


def test_labels_are_int8_and_unmentioned_is_checked():
    assert labels_from_evidence((), False, ("Mass",)).dtype == np.int8
    with pytest.raises(ValueError, match="unmentioned"):
        labels_from_evidence((), False, ("Mass",), unmentioned=POSITIVE)


@pytest.mark.parametrize("style", STYLES)
def test_every_finding_has_distinct_prompts_both_ways(style):
    for finding in FINDINGS:
        positive, negative = (f(finding.name, style=style) for f in (positive_prompts, negative_prompts))
        assert len(positive) >= 4 and len(negative) >= 4
        assert len(set(positive) | set(negative)) == len(positive) + len(negative)


def test_prompts_name_sides_and_refuse_the_unknown():
    texts = " ".join(positive_prompts("Pleural Effusion"))
    assert "right pleural effusion" in texts and "left pleural effusion" in texts
    with pytest.raises(UserError, match="not a finding"):
        positive_prompts("Effusions")
    with pytest.raises(UserError, match="style"):
        negative_prompts("Mass", style="mri")


def test_labels_that_reports_are_not_asked_about_stay_apart():
    assert not {finding.name for finding in LABEL_ONLY} & set(BY_NAME)
    assert len(LABELLED) == len(FINDINGS) + len(LABEL_ONLY)
    assert find("COVID-19") is None and find_label("covid_19") == "COVID-19"
    # VinDr-CXR's spellings, and one that everybody shares.
    names = {"Nodule/Mass": "Nodule Or Mass", "ILD": "Interstitial Lung Disease", "Lung cavity": "Cavitation",
             "Pulmonary fibrosis": "Fibrosis", "Other diseases": "Other Disease", "Effusion": "Pleural Effusion"}
    assert {name: find_label(name) for name in names} == names
    assert find_label("patient_id") is None
    assert len(positive_prompts("COVID-19")) >= 4 and "No tuberculosis" in negative_prompts("Tuberculosis")
