"""Phantom reports: the bank's test-only wordings, consistency with what is drawn, length and variety."""

import re
import string

import pytest

from data_prep.synthetic.xray.phrases import ABSENT_HEADS, HEADS, POSITIVE, STATEMENTS, all_banks
from data_prep.synthetic.xray.reports import _both, _plural
from data_prep.synthetic.xray.source import PhantomOptions, PhantomSource
from data_prep.synthetic.xray.world import FINDINGS

COUNT = 1200


@pytest.fixture(scope="module")
def train():
    source = PhantomSource(PhantomOptions(train=COUNT), "train")
    return [(source.scene(i), source.report(i)) for i in range(COUNT)]


@pytest.fixture(scope="module")
def others():
    return {split: [source.report(i) for i in range(600)] for split in ("validation", "test")
            for source in [PhantomSource(PhantomOptions(validation=600, test=600), split)]}


def test_share_of_wordings_kept_for_the_test_world():
    banks = all_banks()
    shared = sum(len(bank.shared) for bank in banks.values())
    kept = sum(len(bank.test_only) for bank in banks.values())
    assert kept / (shared + kept) == pytest.approx(0.3, abs=0.03)
    for name, bank in banks.items():
        everything = bank.of(test=True)
        assert len(set(everything)) == len(everything), name
        assert bank.test_only and bank.of(test=False) == bank.shared, name


def test_kept_wordings_never_occur_outside_the_test_world(train, others):
    banks = all_banks().values()
    shared = {wording for bank in banks for wording in bank.shared}
    kept = {wording for bank in banks for wording in bank.test_only}
    assert not shared & kept
    for reports in ([report for _, report in train], others["validation"]):
        used = set().union(*(report.templates for report in reports))
        assert used <= shared
        assert len(used) > 0.97 * len(shared)
    used = set().union(*(report.templates for report in others["test"]))
    assert used <= shared | kept
    assert len(used & kept) > 0.9 * len(kept)


def test_kept_sentences_do_not_stand_in_the_texts_either(train, others):
    """By the text itself: sentences without slots, and noun phrases that are no part of a shared one."""
    banks = all_banks()
    shared = " | ".join(wording for bank in banks.values() for wording in bank.shared).lower()
    sentences = [w for bank in banks.values() for w in bank.test_only if "{" not in w and w.endswith(".")]
    nouns = [re.sub("^an? ", "", w) for name, bank in banks.items() if "heads" in name for w in bank.test_only]
    looked_for = [w.lower() for w in sentences + nouns if w.lower() not in shared]
    assert len(looked_for) > 60
    world = "\n".join([r.text for _, r in train] + [r.text for r in others["validation"]]).lower()
    assert [w for w in looked_for if w in world] == []
    test = "\n".join(r.text for r in others["test"]).lower()
    assert sum(w in test for w in looked_for) > 0.8 * len(looked_for)


def test_every_finding_has_many_ways_to_be_stated():
    for finding in FINDINGS:
        assert len(HEADS[finding].shared) * len(POSITIVE.shared) + len(STATEMENTS[finding].shared) >= 25
        assert len(ABSENT_HEADS[finding].of(True)) >= 6


def test_slots_are_known():
    known = {"a", "n", "n2", "is", "has", "side", "Sev", "sevly", "rib", "place", "zone", "cm", "big", "number", "date",
             "time", "four", "kv", "feet", "age", "department", "view", "list_or", "list_nor", "list_pair"}
    for name, bank in all_banks().items():
        for wording in bank.of(True):
            assert {slot for _, slot, _, _ in string.Formatter().parse(wording) if slot} <= known, (name, wording)


def test_phrases_stand_verbatim_in_the_report(train):
    stated = 0
    for scene, report in train:
        assert len(report.phrases) == len(scene.lesions)
        for lesion, phrase in zip(scene.lesions, report.phrases):
            assert phrase and phrase == phrase.strip(" .")
            if lesion.finding in report.stated:
                assert phrase in report.text
                stated += 1
    lesions = sum(len(scene.lesions) for scene, _ in train)
    assert stated > 0.95 * lesions


def test_phrases_name_the_side(train):
    for scene, report in train:
        for lesion, phrase in zip(scene.lesions, report.phrases):
            opposite = {"left": "right", "right": "left"}.get(lesion.side)
            assert opposite is None or not re.search(rf"\b{opposite}\b", phrase), phrase
    named = [bool(re.search(r"\b(left|right)\b", phrase.lower())) for scene, report in train
             for lesion, phrase in zip(scene.lesions, report.phrases) if lesion.side in ("left", "right")]
    assert sum(named) > 0.95 * len(named)


def test_what_is_stated_agrees_with_the_picture(train):
    hedged = {"subtle": [], "clear": []}
    for scene, report in train:
        for finding, state in report.stated.items():
            if state == "present":
                assert finding in scene.present
            if state == "absent":
                assert finding not in scene.present
        for lesion in scene.lesions:
            if lesion.finding in report.stated:
                hedged["subtle" if lesion.subtle else "clear"].append(report.stated[lesion.finding] == "uncertain")
        if report.normal:
            assert not scene.present and "present" not in report.stated.values()
    assert sum(hedged["subtle"]) > 0.45 * len(hedged["subtle"])
    assert sum(hedged["clear"]) < 0.1 * len(hedged["clear"])
    alarms = sum(state == "uncertain" and finding not in scene.present
                 for scene, report in train for finding, state in report.stated.items())
    assert 0.01 * COUNT < alarms < 0.1 * COUNT  # Hedged but absent, now and then.
    denied = sum(state == "absent" for _, report in train for state in report.stated.values()) / COUNT
    assert 1 < denied < 6


def test_most_normal_studies_say_so(train):
    normal = [report for scene, report in train if not scene.lesions]
    assert sum(report.normal for report in normal) > 0.88 * len(normal)


def test_reports_are_long_and_mostly_about_other_things(train):
    lengths = sorted(len(report.text.split()) for _, report in train)
    assert lengths[COUNT // 20] >= 60 and lengths[-COUNT // 20] <= 125
    said = sum(len(sentence.split()) for scene, report in train for sentence in re.split(r"(?<=[.])\s+", report.text)
               if any(head.split(" ", 1)[-1].lower() in sentence.lower() for f in FINDINGS for head in (
                   *HEADS[f].shared, *ABSENT_HEADS[f].shared)))
    assert said < 0.5 * sum(lengths)


def test_reports_differ(train):
    assert len({report.text for _, report in train}) >= 0.999 * COUNT


def test_text_is_clean(train, others):
    for report in [r for _, r in train] + others["validation"] + others["test"]:
        text = report.text
        assert not re.search(r"[{}\x01\x02]|  | \.|\.\.| ,|\bNone\b(?!( available)?\.)", text), text
        assert not re.search(r"\b(a|an) (a|an)\b|\ba [aeio]\w|\ban [^aeiouAEIOU]", text.split("FINDINGS: ")[1]), text
        assert "the bilateral" not in text and "midline pleural" not in text
        sections = re.findall(r"^([A-Z]+): ", text, flags=re.M)
        assert sections[-2:] == ["FINDINGS", "IMPRESSION"] and "COMPARISON" in sections and "TECHNIQUE" in sections
        findings = text.split("FINDINGS: ")[1]
        assert not re.search(r"(?<=[a-z]\. )[a-z]", findings), text


def test_view_agrees_with_the_technique():
    source = PhantomSource(PhantomOptions(train=200), "train")
    for i in range(200):
        other = {"PA": "AP", "AP": "PA"}[source[i].images[0].view]
        assert not re.search(rf"\b{other}\b", source[i].report)


@pytest.mark.parametrize(("noun", "plural"), [
    ("pleural effusion", "pleural effusions"), ("nodular opacity", "nodular opacities"), ("mass", "masses"),
    ("area of consolidation", "areas of consolidation"),
    ("hernia with an air-fluid level", "hernias with an air-fluid level")])
def test_plural(noun, plural):
    assert _plural(noun) == plural


@pytest.mark.parametrize(("place", "both"), [
    ("on the bilateral", "on both sides"), ("at the bilateral lung base", "at both lung bases"),
    ("in the bilateral lower lobe", "in both lower lobes"), ("in the middle third of the bilateral lung",
                                                              "in the middle third of both lungs"),
    ("at the bilateral basal segments", "at both basal segments")])
def test_both_sides(place, both):
    assert _both(place) == both
