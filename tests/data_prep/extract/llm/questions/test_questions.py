"""What is asked: the user's own prompt and examples, parts of long reports, votes of several passes."""

import csv
import itertools
import json
import random
from collections import Counter

import pytest

from data_prep import audit, datasheet
from data_prep.build import main
from data_prep.extract.llm import stage
from data_prep.extract.llm.cache import Cache
from data_prep.extract.llm.data_use import Route
from data_prep.extract.llm.jobs import Job, Replies
from data_prep.extract.llm.labels import Labels
from data_prep.extract.llm.pricing import estimate_tokens
from data_prep.extract.llm.questions import parts, votes
from data_prep.extract.llm.questions.question import Text
from data_prep.extract.llm.runners.online import extract
from data_prep.extract.llm.settings import Settings
from data_prep.extract.llm.survey import survey
from data_prep.extract.llm.tasks import Answer, load_task
from data_prep.extract.schema import Extraction, problems
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.errors import UserError
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, UNCERTAIN, Evidence
from tests.data_prep.extract.llm.server import FILLERS, FINDINGS, Server, make_report, truth
from tests.data_prep.extract.llm.test_runner import make_job
from tests.data_prep.shards import tables

# --- Own prompts ------------------------------------------------------------------------------------------------------

PROMPT = "Find diagnostic evidence, please. Names: {findings}."
GOOD = {"report": "Small left pleural effusion.", "terms": "own", "evidence": [
    {"quote": "Small left pleural effusion", "finding": "Pleural Effusion", "certainty": "present",
     "laterality": "left"}]}


def write(path, value):
    lines = value if isinstance(value, list) else [value]
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return str(path)


def item(**changes):
    return {**GOOD, "evidence": [{**GOOD["evidence"][0], **changes}]}


@pytest.mark.parametrize("prompt, examples, words", [
    ("List {finding}.", GOOD, r"p\.txt: the placeholder \{findings\} is missing"),
    ("{findings} {example}", GOOD, r"unknown placeholder \{example\} \(did you mean '\{examples\}'"),
    (PROMPT, [GOOD, item(quote="pneumothorax")], r"e\.jsonl, line 2: item 1: its quote is not in its report"),
    (PROMPT, item(certainty="maybe"), r"line 1: item 1: certainty is not one of present, uncertain, absent"),
    (PROMPT, item(finding="Glass"), r"item 1: unknown finding"),
    (PROMPT, item(side="left"), r"item 1: unknown field 'side'"),
    (PROMPT, {**GOOD, "evidences": []}, r"unknown field 'evidences' \(did you mean 'evidence'"),
    (PROMPT, {**GOOD, "terms": "secret"}, r"terms is not one of"),
    (PROMPT, {**GOOD, "normal": True}, r"normal, although a finding is present"),
    (PROMPT, {"report": "No effusion."}, r"evidence is no list of objects"),
    (PROMPT, [GOOD, "", "{"], r"line 3: no JSON"),
    (PROMPT, [""], r"no example"),
])
def test_faults_are_found_at_the_start(tmp_path, prompt, examples, words):
    with pytest.raises(UserError, match=words) as error:
        load_task("evidence", prompt=write(tmp_path / "p.txt", prompt), examples=write(tmp_path / "e.jsonl", examples))
    assert "\n" not in str(error.value) and "Small left" not in str(error.value)


def test_own_labels(tmp_path):
    names = dict.fromkeys(load_task("chexpert14").schema["properties"], "unmentioned") | {"Edema": "present"}
    path = write(tmp_path / "e.jsonl", {"report": "Edema.", "labels": names})
    prompt = load_task("chexpert14", examples=path).prompt
    assert prompt.endswith(json.dumps(names)) and prompt.startswith(load_task("chexpert14").prompt)
    del names["Edema"]
    with pytest.raises(UserError, match="line 1: a label is missing"):
        load_task("chexpert14", examples=write(tmp_path / "e.jsonl", {"report": "Edema.", "labels": names}))


def test_what_is_sent_and_recorded(tmp_path):
    table = tables.write(tmp_path / "t", [tables.row(f"s{i}", report=make_report(i)) for i in range(4)])
    prompt, examples = write(tmp_path / "p.txt", PROMPT), write(tmp_path / "e.jsonl", GOOD)
    options = ["--config=configs/data/table.py", f"--config.table.path={table}", "--config.workers=1",
               "--config.extractor=openai", "--config.llm.model=m", f"--config.llm.cache={tmp_path / 'c.sqlite'}"]
    with Server() as server:
        options.append(f"--config.llm.base_url={server.base_url('openai')}")
        assert main([*options, f"--out={tmp_path / 'plain'}"]) == 0
        own = [*options, f"--config.llm.prompt={prompt}", f"--config.llm.examples={examples}"]
        server.bodies.clear()
        assert main([*own, f"--out={tmp_path / 'own'}"]) == 0
        assert set(server.calls.values()) == {2}  # Another prompt is another question.
        sent = server.bodies[0]["messages"][0]["content"]
        write(tmp_path / "e.jsonl", [GOOD, GOOD])
        assert main([*own, f"--out={tmp_path / 'more'}"]) == 0 and set(server.calls.values()) == {3}
    assert sent.startswith("Find diagnostic evidence, please. Names: ") and "{findings}" not in sent
    assert "Report:\nSmall left pleural effusion.\nAnswer:\n{\"normal\": false" in sent
    metadata, other = load_metadata(tmp_path / "own"), load_metadata(tmp_path / "more")
    found = metadata.extraction["prompt"]
    assert found["name"].startswith("evidence@own-") and found["name"] in metadata.extractor
    assert (list(found["prompt"]), list(found["examples"])) == (["p.txt"], ["e.jsonl"])
    assert other.extraction["prompt"]["examples"] != found["examples"] and other.extractor != metadata.extractor
    text = datasheet.sheet(metadata, Counter())
    assert "Own prompt: `p.txt` (SHA-256 " in text and "1 own examples in the prompt: `e.jsonl`" in text
    assert "Small left" not in metadata.to_json()


def test_one_prompt_for_each_language(tmp_path):
    for code, words in (("en", "English"), ("de", "Deutsch")):
        write(tmp_path / f"p.{code}.txt", f"diagnostic evidence {words} {{findings}}")
    with Server() as server:
        job = make_job("openai", server, tmp_path, prompt=str(tmp_path / "p.{language}.txt"), concurrency=1)
        reports = [Text(make_report(0), "de-AT"), Text(make_report(0), "en"), make_report(1)]
        assert extract(lambda: reports, job).valid == 3 and server.calls[make_report(0)] == 2
        assert ["Deutsch" in body["messages"][0]["content"] for body in server.bodies] == [True, False, False]
        assert Replies(job).extract(make_report(0), "de").evidence
        with pytest.raises(UserError, match="no file for reports in 'fr', only for de, en"):
            extract(lambda: [Text(make_report(2), "fr")], job)


def test_examples_are_under_the_terms_that_are_stated(tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.extract.llm.data_use.find_route", lambda url: Route(("192.0.2.1",)))
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    for terms, words in (("credentialed", "credentialed terms"), ("unstated", 'state the field "terms" of each line')):
        examples = write(tmp_path / "e.jsonl", {**GOOD, "terms": terms})
        settings = Settings(model="m", base_url="https://llm.example.invalid/v1", examples=examples)
        with pytest.raises(UserError, match=words):
            stage.check(["open"], Job("openai", settings, str(tmp_path / "c.sqlite")), "x")


# --- Parts of long reports --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_parts_hold_every_word_and_overlap(seed):
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefgh", k=rng.randint(1, 11))) for _ in range(900)]
    ends = rng.choice(([". ", " ", " "], ["\n", " "], [" "], [". ", "\n\n"]))
    report = "".join(word + rng.choice(ends) for word in words).strip()
    limit = rng.choice((100, 150, 400))
    spans = parts.cut(report, limit)
    assert len(spans) > 1 and spans[0][0] == 0 and spans[-1][1] == len(report)
    for start, end in spans:
        text = report[start:end]
        assert text == text.strip() and 0 < estimate_tokens(text) <= limit
        # No word is cut through.
        assert report[start - 1:start].strip() == "" or not (report[start - 1:start + 1]).isalnum()
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert start < end  # They overlap.
    assert parts.cut(report, 0) == parts.cut(report, 10**6) == ((0, len(report)),)


def long_report(sentences=60):
    """Fillers, with a statement about one of FINDINGS after every tenth of them."""
    said = make_report(0b10101).split(". ", 1)[1].split(". ")
    text = []
    for i in range(sentences):
        text.append(FILLERS[i % len(FILLERS)])
        if i % 10 == 9:
            text.append(said[i // 10].rstrip(".") + ".")
    return "FINDINGS: " + " ".join(text)


def test_a_long_report_is_read_in_parts(tmp_path, capsys):
    report, short = long_report(), make_report(3)
    spans = parts.cut(report, 200)
    assert len(spans) > 2
    with Server() as server:
        job = make_job("openai", server, tmp_path, part_tokens=200)
        stage.ask(lambda: [report, short, report], job, terms=lambda: ("own",), where="x", progress=False)
        assert set(server.calls) == {short, *(report[start:end] for start, end in spans)}
        assert set(server.calls.values()) == {1}
        found = Replies(job).extract(f" {report}")
    printed = capsys.readouterr().out
    assert f"questions: {len(spans) + 1} (1 reports are longer than llm.part_tokens=200" in printed
    assert "reports 2: valid 2, quarantined 0, not complete 0" in printed
    # Each statement once, at its place in the whole report, although sentences stand in two parts.
    assert [(e.finding, e.certainty, e.phrase) for e in found.evidence] == sorted(
        truth(report), key=lambda item: report.index(item[2]))
    assert not problems(found, f" {report}") and len(found.evidence) == len(FINDINGS)


def test_a_report_whose_part_is_quarantined_is_rejected(tmp_path):
    report = long_report()
    bad = [report[start:end] for start, end in parts.cut(report, 200)][1]
    rows = [tables.row("long", report=report), tables.row("short", report=make_report(1))]
    table = tables.write(tmp_path / "t", rows)
    with Server(lambda text, nth: "garbage" if text == bad else None) as server:
        assert main(["--config=configs/data/table.py", f"--config.table.path={table}", "--config.workers=1",
                     "--config.extractor=openai", "--config.llm.model=m", "--config.llm.part_tokens=200",
                     f"--config.llm.base_url={server.base_url('openai')}", f"--out={tmp_path / 'data'}"]) == 3
    reason = (tmp_path / "data/rejected.csv").read_text().splitlines()[1]
    assert "long" in reason and "part 2 of " in reason and "no JSON in the reply" in reason


def statement(report, quote, finding="Edema", certainty="present", **fields):
    start = report.index(quote)
    values = {"anatomy": "", "laterality": "", "severity": "", "temporality": "", **fields}
    return Evidence(finding=finding, certainty=certainty, phrase=quote, start=start, end=start + len(quote), **values)


def answer(*evidence, normal=False):
    return Answer(Extraction(tuple(evidence), normal), {}, {})


def test_merging_counts_the_same_statement_once():
    report = "Mild edema in both lungs. No effusion. Mild edema again."
    spans = ((0, 38), (26, len(report)))
    first, second = (report[start:end] for start, end in spans)
    one = answer(statement(first, "Mild edema"), statement(first, "No effusion", "Pleural Effusion", "absent"))
    two = answer(statement(second, "effusion", "Pleural Effusion", "absent"), statement(second, "Mild edema"),
                 normal=True)
    merged = parts.merge(spans, [one, two])
    assert [(e.finding, e.start) for e in merged.value.evidence] == [
        ("Edema", 0), ("Pleural Effusion", 26), ("Edema", 39)]
    assert not problems(merged.value, report) and merged.dropped == {"duplicate": 1}
    assert not merged.value.normal and "normal overruled" in merged.flags
    labels = [Answer(Labels(values), {}, {}) for values in ((MISSING, NEGATIVE, UNCERTAIN, MISSING),
                                                            (NEGATIVE, POSITIVE, NEGATIVE, MISSING))]
    assert parts.merge(spans, labels).value.values == (NEGATIVE, POSITIVE, UNCERTAIN, MISSING)


# --- Votes ------------------------------------------------------------------------------------------------------------


def test_the_majority_counts():
    report = "Mild edema on the left. Possible nodule. No effusion."
    edema = statement(report, "Mild edema", laterality="left")
    wide, other = (statement(report, "Mild edema on the left", laterality=side) for side in ("left", "right"))
    nodule, sure = (statement(report, "Possible nodule", "Nodule", certainty) for certainty in ("uncertain", "present"))
    effusion = statement(report, "No effusion", "Pleural Effusion", "absent")
    verdict = votes.majority([answer(edema, nodule, effusion), answer(wide, nodule, effusion), answer(other, sure,
                                                                                                     effusion)])
    found = verdict.answer.value
    assert found.evidence == (wide, nodule, effusion) and found.votes == ("3/3", "2/3", "3/3")
    assert verdict.outvoted == ((), (), ("Nodule",)) and verdict.answer.dropped == {"outvoted": 1}
    assert verdict.answer.flags == ("split Nodule",) and verdict.answer.lost[0][1].certainty == "present"
    # Of two usable passes both must agree.
    assert votes.majority([answer(edema), answer(nodule)]).answer.value.evidence == ()
    # Two statements with the same words in one pass stay two.
    pair = votes.majority([answer(edema, other), answer(edema, other), answer(edema)]).answer.value
    assert [(e.laterality, vote) for e, vote in zip(pair.evidence, pair.votes)] == [("left", "3/3"), ("right", "2/3")]


def test_labels_by_majority():
    def labels(*values, p=()):
        return Answer(Labels(values, p), {}, {})

    verdict = votes.majority([labels(POSITIVE, NEGATIVE), labels(POSITIVE, MISSING), labels(NEGATIVE, UNCERTAIN)], "ab")
    assert verdict.answer.value.values == (POSITIVE, UNCERTAIN) and verdict.outvoted == (("b",), ("b",), ("a",))
    verdict = votes.majority([labels(0, 0, p=p) for p in ((0.9, None), (0.6, 0.1), (0.9, None))], "ab")
    assert verdict.answer.value == Labels((POSITIVE, MISSING), (pytest.approx(0.8), None))


class Wavering(Server):
    """Calls edema absent in the second pass, whatever the report says."""

    @staticmethod
    def text(prompt, report, fault):
        text = Server.text(prompt, report, None)
        if fault == "waver":
            value = json.loads(text)
            for item in value["evidence"]:
                if item["finding"] == "Edema":
                    item["certainty"] = {"present": "absent", "absent": "present"}[item["certainty"]]
            text = json.dumps(value)
        return text


def test_a_build_with_votes(tmp_path, capsys):
    table = tables.write(tmp_path / "t", [tables.row(f"s{i}", report=make_report(i)) for i in range(8)])
    with Wavering(lambda report, nth: "waver" if nth == 2 else None) as server:
        options = ["--config=configs/data/table.py", f"--config.table.path={table}", "--config.workers=1",
                   "--config.extractor=openai", "--config.llm.model=m", "--config.llm.votes=3",
                   "--config.llm.concurrency=1", f"--config.llm.base_url={server.base_url('openai')}",
                   f"--out={tmp_path / 'data'}"]
        with pytest.raises(UserError, match=r"llm\.votes needs llm\.temperature above 0"):
            main(options)
        assert main([*options, "--config.llm.temperature=0.7"]) == 0
        assert set(server.calls.values()) == {3} and [body["seed"] for body in server.bodies] == [1, 2, 3]
        assert {body["temperature"] for body in server.bodies} == {0.7}
    printed = capsys.readouterr().out
    assert "questions: 24 (3 passes, temperature 0.7, seeds 1 to 3)" in printed and "reports 8: valid 8" in printed
    with open(tmp_path / "data/evidence.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["finding"] == "Edema", row["votes"]) for row in rows} == {(True, "2/3"), (False, "3/3")}
    assert [row["certainty"] for row in rows if row["finding"] == "Edema"] == [
        certainty for i in range(8) for name, certainty, _ in truth(make_report(i)) if name == "Edema"]
    metadata = load_metadata(tmp_path / "data")
    assert metadata.extraction["votes"] == {"passes": 3, "sampling": "temperature 0.7, seeds 1 to 3",
                                            "by_majority": 8, "outvoted": 8}
    assert metadata.extraction["flagged"]["outvoted Edema"] == 8
    text = datasheet.sheet(metadata, Counter())
    assert "read every report 3 times (temperature 0.7, seeds 1 to 3)" in text and "8 were outvoted" in text
    page = tmp_path / "a.html"
    assert audit.main([f"--data_dir={tmp_path / 'data'}", f"--html={page}", "--second=none",
                       f"--replies={tmp_path / 'data.replies.sqlite'}"]) == 0
    assert "split Edema" in page.read_text() and "outvoted" in page.read_text()


@pytest.mark.parametrize("change, message", [
    ({"votes": 2, "temperature": 0.5}, "llm.votes must be odd"), ({"votes": 0}, "llm.votes must be 1 to 15"),
    ({"part_tokens": 5}, "llm.part_tokens must be 0 or at least 100")])
def test_settings(change, message):
    with pytest.raises(UserError, match=message):
        Settings.read({"model": "m", **change})


# --- Estimates --------------------------------------------------------------------------------------------------------


def test_hours_and_money_for_ten_thousand(tmp_path, capsys):
    (tmp_path / "prices.json").write_text(json.dumps({"currency": "EUR", "models": {
        "a": {"input": 10, "output": 20}, "b": {"input": 1, "output": 2, "batch": 0.25}}}))
    reports = [make_report(i) for i in range(20)]
    with Server() as server:
        job = make_job("openai", server, tmp_path, prices=str(tmp_path / "prices.json"), concurrency=4,
                       requests_per_minute=100)
        found, sent = stage.estimate(lambda: reports, job, terms=lambda: ("own",), where="x")
        assert sent == 0 and not server.calls
        printed = capsys.readouterr().out.splitlines()
        lines = {line.split()[0]: line.split() for line in printed if line.startswith("  ")}
        money = 500 * (found.tokens_in * 10 + found.tokens_out * 20) / 1e6
        # A hundred questions a minute: 100 minutes, more than the assumed 50 tokens a second for each of 4 requests.
        hours = max(10_000 / 100 / 60, 500 * found.tokens_out / 50 / 4 / 3600)
        assert lines["a"] == ["a", f"{money:.2f}", f"{hours:.1f}", f"{money / 2:.2f}", "up", "to", "24"]
        assert lines["b"][1:4] == [f"{money / 10:.2f}", f"{hours:.1f}", f"{money / 40:.2f}"]
        # Measured: ten reports are asked about, and no file is left.
        sampled = Job("openai", Settings(**{**vars(job.settings), "sample": 10, "requests_per_minute": 0}), job.cache)
        assert stage.estimate(lambda: reports, sampled, terms=lambda: ("own",), where="x")[1] == 10
        assert len(server.calls) == 10 and sorted(path.name for path in tmp_path.iterdir()) == ["prices.json"]
    printed = capsys.readouterr().out
    assert "measured on 10 reports: " in printed and "of 10 replies 10 valid" in printed
    assert "10,000 reports: " in printed and "the 20 to ask: " in printed


def test_reports_are_accounted_for_by_all_their_questions(tmp_path):
    report = long_report()
    with Server() as server:
        job = make_job("openai", server, tmp_path, part_tokens=200, votes=3, temperature=0.5)
        extract(lambda: [make_report(0)], job)
        with Cache(job.cache) as cache:
            found = survey([make_report(0), report, make_report(0)], job, cache)
    n = len(parts.cut(report, 200))
    assert (found.reports, found.unique, found.valid, found.pending, found.cut) == (3, 2, 1, 1, 1)
    assert found.questions == 3 * n and found.answered == {"valid": 3}
