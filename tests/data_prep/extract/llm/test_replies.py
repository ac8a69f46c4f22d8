"""Reading replies: bounded repair, validation, verification of quotes, labels."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.extract.llm import labels
from data_prep.extract.llm.repair import MAX_CHARACTERS, ReplyError, load_objects, repeats
from data_prep.extract.llm.tasks import load_task
from data_prep.extract.llm.verify import Report, Statement, verify
from data_prep.extract.schema import problems
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, UNCERTAIN
from tests.data_prep.extract.llm.server import evidence_reply, make_report

OBJECT = {"a": [1, {"b": "}"}], "c": 'say "x"'}


@pytest.mark.parametrize("text, repairs", [
    (json.dumps(OBJECT), ()),
    (f"```json\n{json.dumps(OBJECT)}\n```", ("fence",)),
    (f"Here: ```\n{json.dumps(OBJECT)}", ("fence", "prose")),
    (f"Sure! {json.dumps(OBJECT)} I hope {{it}} helps.", ("prose",)),
    (f"As in {{this}}: {json.dumps(OBJECT)}", ("prose",)),
    ('{"a": [1, {"b": "}"},], "c": "say \\"x\\"",}', ("trailing comma",)),
    (f'{{"a": "bro"ken"}} {json.dumps(OBJECT)}', ("prose",)),
])
def test_repairs(text, repairs):
    assert load_objects(text) == ([OBJECT], repairs)


DRAFT, FINAL = '{"draft": 1}', '{"final": 1}'


@pytest.mark.parametrize("text", [
    f"<think>maybe {DRAFT}</think>{FINAL}", f"maybe {DRAFT}\n</think>\n\n{FINAL}",
    f"<Thinking>{DRAFT}</Thinking> {FINAL}",
    f"<think>a</think><think>b <think>{DRAFT}</think> c</think>{FINAL}", f"[THINK]{DRAFT}[/THINK]{FINAL}",
    f"<reasoning>\n{DRAFT}\n</reasoning>\n```json\n{FINAL}\n```",
    f"<|begin_of_thought|>{DRAFT}<|end_of_thought|>{FINAL}",
    f"<|channel|>analysis<|message|>so {DRAFT}<|end|><|start|>assistant<|channel|>final<|message|>{FINAL}",
    f"analysisThe user wants {DRAFT}assistantfinal{FINAL}"])
def test_what_a_model_thinks_is_no_answer(text):
    objects, repairs = load_objects(text)
    assert objects == [json.loads(FINAL)] and "reasoning" in repairs


@pytest.mark.parametrize("text", [
    f"<think>maybe {DRAFT}", f"<think>{DRAFT}</think>", f"{DRAFT}</think>I cannot tell.", f"[THINK]{DRAFT}",
    f"<|channel|>analysis<|message|>{DRAFT}", f"analysis{DRAFT[:0]}So {DRAFT}"])
def test_thoughts_without_an_answer_are_nothing(text):
    with pytest.raises(ReplyError, match="no JSON"):
        load_objects(text)


def test_a_draft_does_not_stand_in_for_a_broken_answer():
    assert load_objects(f"{DRAFT} No: {FINAL}")[0] == [json.loads(DRAFT), json.loads(FINAL)]
    for broken in ('{"final": [1, {"a": 2}, {"b', '{"final": "x" "y"}'):
        try:
            assert json.loads(DRAFT) not in load_objects(f"{DRAFT} No: {broken}")[0]
        except ReplyError:
            continue


@pytest.mark.parametrize("text, reason", [
    ("", "empty"), ("I cannot.", "no JSON"), ("[1, 2]", "no JSON"), ("{", "no JSON"), ('{"a', "repaired"),
    ('{"a": "' + "x" * MAX_CHARACTERS, "too long"), ("{}", "no JSON"), ('{"a":' * 20000, "too long"),
    ('{"a":' * 5000, "repaired"), ("<think>" + "x" * 2_000_000, "too long"),
    ('{"a": [1, {"b": "}"}], "c": "d", "e": 1', "quotes|no list|missing|repaired"),
])
def test_what_cannot_be_repaired(text, reason):
    with pytest.raises(ReplyError, match=reason):
        load_task("evidence").read(text, "Lungs are clear.")


values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8),
                      lambda inner: (st.lists(inner, max_size=3)
                                     | st.dictionaries(st.text(max_size=4), inner, max_size=3)), max_leaves=12)


@given(st.dictionaries(st.text(max_size=4), values, min_size=1, max_size=4), st.data())
@settings(max_examples=150, deadline=None)
def test_objects_survive_words_around_them_and_cuts_never_invent(value, data):
    text = json.dumps(value)
    assert load_objects(f"Yes.\n{text}\nDone.")[0] == [value]
    cut = data.draw(st.integers(1, len(text) - 1))
    try:
        found, _ = load_objects(text[:cut])
    except ReplyError:
        return
    assert all(_inside(item, value) for item in found)  # Whole ones only.


def _inside(item, whole):
    inner = whole.values() if isinstance(whole, dict) else whole if isinstance(whole, list) else ()
    return any(item == part or _inside(item, part) for part in inner)


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


def test_a_reply_that_lost_its_end_is_not_used():
    whole = json.dumps({"normal": True, "evidence": [
        item(quote="No pleural effusion", certainty="absent", laterality="", severity="")] * 2})
    for cut in range(1, len(whole)):
        with pytest.raises(ReplyError):
            load_task("evidence").read(whole[:cut], REPORT)


@pytest.mark.parametrize("text, expected", [
    ('{"evidence": [' + 9 * '{"quote": "edema", "finding": "Edema"}, ', True),
    ('{"evidence": [' + 9 * '{"quote": "edema", "finding": "Edema"}, ' + '{"quote": "ed', True),
    ('{"evidence": [' + 4 * '{"quote": "edema", "finding": "Edema"}, ', False),
    # A whole statement three times in a row.
    ('{"evidence": [' + 3 * f"{json.dumps(item())}, " + '{"quote": "ed', True),
    ('{"evidence": [' + 2 * f"{json.dumps(item())}, " + '{"quote": "ed', False),
    ('{"evidence": [' + "".join(f'{{"quote": "edema {i}", "finding": "Edema"}}, ' for i in range(60)), False),
    (json.dumps(evidence_reply(make_report(5))), False), ("", False)])
def test_a_reply_that_repeats_itself_is_known(text, expected):
    assert repeats(text) == expected


def test_the_last_object_that_fits_the_schema_counts():
    present, absent = (json.dumps({"normal": False, "evidence": [
        item(quote=quote, finding="Pneumothorax", certainty=certainty, severity="", laterality="")]})
        for quote, certainty in (("pneumothorax", "present"), ("No pneumothorax", "absent")))
    for text in (f"<think>{present}</think>{absent}", f"{present}\nNo, it is denied:\n{absent}",
                 f'{present} {absent} {{"note": "done"}}'):
        (found,) = load_task("evidence").read(text, REPORT).value.evidence
        assert found.certainty == "absent"
    with pytest.raises(ReplyError):
        load_task("evidence").read(f"{present}\nNo, it is denied:\n{absent[:-3]}", REPORT)


@pytest.mark.parametrize("kind, probability", [("evidence", False), *((kind, p) for kind in labels.LABEL_TASKS
                                                                      for p in (False, True))])
def test_the_example_of_the_prompt_is_no_answer(kind, probability):
    task = load_task(kind, probability)
    example = task.prompt[task.prompt.rindex('{"normal"' if kind == "evidence" else "{"):]
    keys = labels.keys(kind) if kind != "evidence" else ()
    filled = json.dumps(dict.fromkeys(keys, "<answer>"))
    for text in (example, example.replace("<true or false>", "false"), example.replace(", ...", ""), filled):
        with pytest.raises(ReplyError):
            task.read(text, REPORT)


@pytest.mark.parametrize("items, flags", [
    ([item(quote="pneumothorax", finding="Pneumothorax")], ("polarity Pneumothorax",)),
    ([item(quote="No pneumothorax", finding="Pneumothorax")], ("polarity Pneumothorax",)),
    ([item(certainty="absent")], ("polarity Pleural Effusion",)),
    ([item(quote="No pneumothorax", finding="Pneumothorax", certainty="absent"), item()], ()),
    ([item(quote="pneumothorax", finding="Pneumothorax", certainty="uncertain")], ())])
def test_the_rules_look_at_the_polarity_of_each_quote(items, flags):
    reply = json.dumps({"normal": False, "evidence": items})
    assert load_task("evidence").read(reply, REPORT, cross_check=True).flags == flags


def test_a_reply_of_unsupported_statements_is_not_used():
    with pytest.raises(ReplyError, match="quotes the report"):
        read(item(quote="large cavity"), item(quote="", finding="Unicorn"))
    assert read().value.evidence == () and read(item(finding="Unicorn")).dropped == {"unknown finding": 1}
    answer = read(item(), item(quote="large cavity"))
    assert (answer.statements, answer.unsupported) == (2, 1)


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
    "evidence@2": "1b995ad23a5f", "chexpert14@2": "8dd976b12d80", "chexpert14_probability@2": "c9bca3beb2d6",
    "ct_rate18@2": "d51107c70a2c", "ct_rate18_probability@2": "7e93488ad88c"}


def test_prompts_do_not_change_without_a_new_version():
    found = {task.name: task.digest.hex()[:12] for task in (
        load_task("evidence"), *(load_task(kind, p) for kind in labels.LABEL_TASKS for p in (False, True)))}
    assert found == DIGESTS
