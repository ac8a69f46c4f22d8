"""Reading replies: bounded repair, validation, verification of quotes, labels."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.extract.llm import labels
from data_prep.extract.llm.repair import MAX_CHARACTERS, ReplyError, load_object
from data_prep.extract.llm.tasks import load_task
from data_prep.extract.llm.verify import Report, Statement, verify
from data_prep.extract.schema import problems
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, UNCERTAIN

OBJECT = {"a": [1, {"b": "}"}], "c": 'say "x"'}


@pytest.mark.parametrize("text, repairs", [
    (json.dumps(OBJECT), ()),
    (f"```json\n{json.dumps(OBJECT)}\n```", ("fence",)),
    (f"Here: ```\n{json.dumps(OBJECT)}", ("prose", "fence")),
    (f"Sure! {json.dumps(OBJECT)} I hope {{it}} helps.", ("prose",)),
    (f"As in {{this}}: {json.dumps(OBJECT)}", ("prose",)),
    ('{"a": [1, {"b": "}"},], "c": "say \\"x\\"",}', ("trailing comma",)),
    ('{"a": [1, {"b": "}"}], "c": "say \\"x\\"", "d": [1, {"e": "cut of', ("truncated",)),
])
def test_repairs(text, repairs):
    found, made = load_object(text)
    if "truncated" in made:
        assert found.pop("d") == [1]
    assert (found, made) == (OBJECT, repairs)


@pytest.mark.parametrize("text, reason", [
    ("", "empty"), ("I cannot.", "no JSON"), ("[1, 2]", "no JSON"), ("{", "repaired"), ('{"a', "repaired"),
    ('{"a": "' + "x" * MAX_CHARACTERS, "too long"), ("{}", "repaired"), ('{"a":' * 20000, "too long"),
    ('{"a":' * 5000, "repaired"),
])
def test_what_cannot_be_repaired(text, reason):
    with pytest.raises(ReplyError, match=reason):
        load_object(text)


values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8),
                      lambda inner: (st.lists(inner, max_size=3)
                                     | st.dictionaries(st.text(max_size=4), inner, max_size=3)), max_leaves=12)


@given(st.dictionaries(st.text(max_size=4), values, min_size=1, max_size=4), st.data())
@settings(max_examples=150, deadline=None)
def test_objects_survive_words_around_them_and_cuts_never_invent(value, data):
    text = json.dumps(value)
    assert load_object(f"Yes.\n{text}\nDone.")[0] == value
    cut = data.draw(st.integers(1, len(text)))
    try:
        found, _ = load_object(text[:cut])
    except ReplyError:
        return
    assert _part(found, value)


def _part(found, whole):
    if isinstance(found, dict) and isinstance(whole, dict):
        return all(key in whole and _part(item, whole[key]) for key, item in found.items())
    if isinstance(found, list) and isinstance(whole, list):
        return len(found) <= len(whole) and all(map(_part, found, whole))
    return found == whole


REPORT = ("INDICATION: Small left effusion?\nFINDINGS: Small  left pleural\neffusion. No ___ pneumothorax. "
          "The heart is XXXX enlarged. Left\tlung mass is seen.\nIMPRESSION: No pleural effusion.")


def item(**change):
    return {"quote": "small left pleural effusion", "finding": "Pleural Effusion", "certainty": "present",
            "laterality": "left", "severity": "mild", "temporality": "", "anatomy": "", **change}


def read(*items, normal=False, task="evidence", **more):
    return load_task(task).read(json.dumps({"normal": normal, "evidence": items, **more}), REPORT)


def test_a_quote_may_differ_in_white_space_case_and_marks_only():
    answer = read(item(), item(quote="No pneumothorax", finding="Pneumothorax", certainty="absent"),
                  item(quote="heart is enlarged", finding="Cardiomegaly"),
                  item(quote="heart was enlarged", finding="Cardiomegaly"), item(quote="eft lung mass", finding="Mass"),
                  item(quote="left lung mas", finding="Mass"), item(quote="no", finding="Mass"),
                  item(quote="", finding="Mass"))
    assert [e.phrase for e in answer.value.evidence] == [
        "Small  left pleural\neffusion", "No ___ pneumothorax", "heart is XXXX enlarged"]
    assert answer.dropped == {"unsupported": 5} and problems(answer.value, REPORT) == []


def test_the_quote_is_taken_from_a_section_that_holds_evidence():
    answer = load_task("evidence").read(json.dumps({"normal": False, "evidence": [item(quote="left effusion")]}),
                                        "INDICATION: left effusion?\nFINDINGS: There is a left effusion.")
    assert answer.value.evidence[0].start > 40


def test_duplicates_contradictions_and_overruled_normality():
    answer = read(item(), item(), item(severity="severe"),
                  item(quote="No pleural effusion", certainty="absent", laterality="left", severity=""), normal=True)
    assert answer.dropped == {"duplicate": 2} and not answer.value.normal
    assert answer.flags == ("contradiction Pleural Effusion", "normal overruled")
    denied = item(quote="No pleural effusion", certainty="absent", laterality="", severity="")
    assert read(item(), denied).flags == ()  # Not the same place.
    assert read(denied, normal=True).value.normal


def test_wrong_values_are_put_right_or_dropped_but_never_invented():
    answer = read(item(certainty="Positive", laterality="LEFT-SIDED", severity="gigantic", temporality=None),
                  item(quote="No pneumothorax", finding="pneumothorax", certainty="negative", laterality="n/a"),
                  item(finding="Unicorn"), item(certainty="perhaps-ish"), item(finding=None), "text",
                  {"finding": "Mass"})
    first, second = answer.value.evidence
    assert (first.certainty, first.laterality, first.severity, first.temporality) == ("present", "left", "", "")
    assert (second.finding, second.certainty, second.laterality) == ("Pneumothorax", "absent", "")
    assert answer.dropped == {"unknown finding": 1, "unknown certainty": 1, "malformed": 3}
    assert answer.repairs["certainty"] == 2 and answer.repairs["severity"] == 1


@pytest.mark.parametrize("reply", ['{"normal": true}', '{"evidence": 3}', '{"evidence": ["a", "b"]}',
                                   json.dumps({"normal": False, "evidence": [item()] * 201})])
def test_replies_of_another_form_are_refused(reply):
    with pytest.raises(ReplyError):
        load_task("evidence").read(reply, REPORT)


def test_a_truncated_reply_is_never_normal():
    whole = json.dumps({"normal": True, "evidence": [
        item(quote="No pleural effusion", certainty="absent", laterality="", severity="")] * 2})
    answer = load_task("evidence").read(whole[:-40], REPORT)
    assert answer.repairs["truncated"] == 1 and not answer.value.normal and len(answer.value.evidence) == 1


@given(st.text(alphabet="ab X_[]*\n.,", max_size=40), st.text(alphabet="ab X_\n", max_size=12), st.booleans())
@settings(max_examples=200, deadline=None)
def test_what_is_kept_is_always_well_formed(report, quote, normal):
    for start, end in Report(report).find(quote):
        assert report[start:end].strip() == report[start:end] != ""
    statement = Statement("Edema", "", "", "", "absent", "", quote)
    assert problems(verify(report, [statement], normal).extraction, report) == []


@given(st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_text_is_read_or_refused(text):
    for kind in ("evidence", "chexpert14", "ct_rate18"):
        try:
            load_task(kind).read(text, REPORT)
        except ReplyError as error:
            assert len(error.reason) < 60


# --- Labels -----------------------------------------------------------------------------------------------------------


def test_label_values_and_percentages():
    names = LABEL_SETS["chexpert14"]
    words = dict.fromkeys(names, "unmentioned") | {"Edema": "present", "Fracture": "ABSENT", "Pneumonia": "possible"}
    found = load_task("chexpert14").read(json.dumps(words), REPORT)
    assert dict(zip(names, found.value.values)) == dict.fromkeys(names, MISSING) | {
        "Edema": POSITIVE, "Fracture": NEGATIVE, "Pneumonia": UNCERTAIN}
    assert found.repairs == {"value": 2} and found.value.probabilities == ()
    percent = dict.fromkeys(labels.keys("ct_rate18"), None) | {"MM": 0, "AC": 20, "CM": 21, "PE": "79%", "CC": 80,
                                                               "HH": 97.0}
    found = load_task("ct_rate18", probability=True).read(json.dumps({"labels": percent}), REPORT)
    assert found.value.values[:7] == (NEGATIVE, NEGATIVE, UNCERTAIN, UNCERTAIN, POSITIVE, POSITIVE, MISSING)
    assert found.value.probabilities[:7] == (0, 0.2, 0.21, 0.79, 0.8, 0.97, None)


def test_shares_instead_of_percentages():
    reply = dict.fromkeys(LABEL_SETS["chexpert14"], 0) | {"Edema": 0.97, "Fracture": 1, "Pneumonia": 1.0}
    found = load_task("chexpert14", probability=True).read(json.dumps(reply), REPORT).value.probabilities
    assert sorted(found)[-3:] == [0.97, 1.0, 1.0] and sum(found) == pytest.approx(2.97)


@pytest.mark.parametrize("change, reason", [
    ({"Edema": None, "drop": "Edema"}, "missing"), ({"Edema": "sometimes"}, "not asked for"),
    ({"edema": "present"}, "twice")])
def test_label_replies_that_are_refused(change, reason):
    reply = dict.fromkeys(LABEL_SETS["chexpert14"], "absent") | change
    if reply.pop("drop", None):
        del reply["Edema"]
    with pytest.raises(ReplyError, match=reason):
        load_task("chexpert14").read(json.dumps(reply), REPORT)


@pytest.mark.parametrize("value", [-1, 101, 1.0, True, "many"])
def test_percentages_out_of_range_are_refused(value):
    reply = dict.fromkeys(LABEL_SETS["chexpert14"], 5) | {"Edema": value}
    with pytest.raises(ReplyError):
        load_task("chexpert14", probability=True).read(json.dumps(reply), REPORT)


def test_codes_are_unique_and_in_the_official_order():
    codes = labels.keys("ct_rate18")
    assert len(set(codes)) == 18
    prompt = load_task("ct_rate18").prompt
    places = [prompt.index(f"{code} {name}") for code, name in zip(codes, LABEL_SETS["ct_rate18"])]
    assert places == sorted(places)


# Prompts are versioned: who changes one without a new version changes answers that are cached and published.
DIGESTS = {
    "evidence@1": "be8f847937f4", "chexpert14@1": "6cbc5ec18ad2", "chexpert14_probability@1": "07e8b9a45af7",
    "ct_rate18@1": "102b1ad132ff", "ct_rate18_probability@1": "bb880dcfedab"}


def test_prompts_do_not_change_without_a_new_version():
    found = {task.name: task.digest.hex()[:12] for task in (
        load_task("evidence"), *(load_task(kind, p) for kind in labels.LABEL_TASKS for p in (False, True)))}
    assert found == DIGESTS
