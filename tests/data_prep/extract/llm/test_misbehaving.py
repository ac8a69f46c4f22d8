"""Servers and models that misbehave in ways of their own, over real sockets: each report is accounted for, and `valid`
only where it is."""

import gzip
import json
import re
import subprocess
import sys
import zlib

import pytest

from data_prep.build import main
from data_prep.extract.llm import quality, quarantine
from data_prep.extract.llm.cache import FAILED, INVALID, VALID, Cache
from data_prep.extract.llm.clients import client as clients
from data_prep.extract.llm.clients.client import ClientError
from data_prep.extract.llm.clients.openai import subject
from data_prep.extract.llm.jobs import Replies
from data_prep.extract.llm.runners.online import extract
from data_prep.extract.llm.tasks import load_task
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.errors import UserError
from tests.data_prep.extract.llm.server import KEY, Server, make_report, truth
from tests.data_prep.extract.llm.test_clients import ask
from tests.data_prep.extract.llm.test_llm_build import arguments, write_table
from tests.data_prep.extract.llm.test_runner import make_job, prices
from tests.data_prep.shards.run import ROOT, environment


def http(body, status="200 OK", coding="", kind="application/json", more=""):
    """The bytes of an answer."""
    body = body if isinstance(body, bytes) else body.encode()
    extra = f"content-encoding: {coding}\r\n" if coding else ""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{extra}{more}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def chat(text, ended="stop", usage=None, **message):
    """The body of a chat completion."""
    return json.dumps({"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": ended}],
        "usage": usage or {"prompt_tokens": 900, "completion_tokens": 50, "total_tokens": 950}})


def swapped(text):
    """The opposite of an answer: what a model thinks first."""
    return text.replace('"present"', '"?"').replace('"absent"', '"present"').replace('"?"', '"absent"')


def bomb(megabytes):
    """A gzipped chat completion whose text goes on for so long."""
    pack = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([pack.compress(chat("").split('"content": "')[0].encode() + b'"content": "'),
                     *(pack.compress(b" " * (1 << 20)) for _ in range(megabytes)), pack.flush()])


ENDLESS = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
EXAMPLE = load_task("evidence").prompt.rsplit("\n", 1)[-1].replace("<true or false>", "false")
# What happens to one report of twelve -> (what is sent, what becomes of it, why).
KINDS = {
    "gzip bomb": (lambda text: [http(bomb(64), coding="gzip")], FAILED, "unreadable response"),
    "endless body": (lambda text: [ENDLESS, *[b"10000\r\n" + b" " * 65536 + b"\r\n"] * 200], FAILED, "unreadable"),
    "unknown coding": (lambda text: [http(chat(text), coding="br")], FAILED, "unreadable response"),
    "damaged gzip": (lambda text: [http(gzip.compress(chat(text).encode())[:-30] + b"x" * 30, coding="gzip")], FAILED,
                     "unreadable response"),
    "gzip": (lambda text: [http(gzip.compress(chat(text).encode()), coding="gzip")], VALID, ""),
    "half a body": (lambda text: [http(chat(text))[:-40]], FAILED, "connection lost"),
    "drips": (lambda text: [http(chat(text))[:200], *[0.2, b" "] * 100], FAILED, "timeout"),
    "login page": (lambda text: [http("<html>Sign in</html>", kind="text/html")], FAILED, "unreadable response"),
    "redirect": (lambda text: [http("", "302 Found", more="location: /login\r\n")], FAILED, r"not served \(302\)"),
    "no money": (lambda text: [http('{"error": "pay"}', "402 Payment Required")], FAILED, r"not served \(402\)"),
    "rate limit": (lambda text: [http("{}", "429 Too Many", more="retry-after: 0\r\n")], FAILED, "rate limit"),
    "server error": (lambda text: [http("{}", "500 Oh")], FAILED, r"server error \(500\) after 2 tries"),
    "too long": (lambda text: [http(json.dumps({"error": {
        "message": "This model's maximum context length is 4096 tokens, max_tokens and response_format included",
        "type": "BadRequestError", "param": None, "code": 400}}), "400 Bad")], INVALID, "report too long"),
    "refused": (lambda text: [http('{"error": {"message": "no"}}', "400 Bad")], INVALID, r"request refused \(400\)"),
    "filter": (lambda text: [http(chat("", "content_filter"))], INVALID, "filter"),
    "no choices": (lambda text: [http('{"id": "x", "object": "chat.completion", "choices": []}')], FAILED,
                   "unreadable"),
    "no object": (lambda text: [http("[1, 2]")], FAILED, "unreadable response"),
    "stream": (lambda text: [http(f"data: {chat(text)}\n\ndata: [DONE]\n\n", kind="text/event-stream")], FAILED,
               "unreadable"),
    "bad UTF-8": (lambda text: [http(b'{"choices": "\xff\xfe')], FAILED, "unreadable response"),
    "deep JSON": (lambda text: [http("[" * 100_000)], FAILED, "unreadable response"),
    "null": (lambda text: [http(chat(None))], INVALID, "empty reply"),
    "tool call": (lambda text: [http(chat(None, "tool_calls", tool_calls=[
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": text}}]))], INVALID, "empty reply"),
    "content in parts": (lambda text: [http(chat([{"type": "text", "text": text}]))], FAILED, "unreadable"),
    "lone surrogates": (lambda text: [http(chat("\ud800" + text))], VALID, ""),
    "odd counts": (lambda text: [http(chat(text).replace("900", "-7").replace('"completion_tokens": 50',
                                                                              f'"completion_tokens": {10**30}'))],
                   VALID, ""),
    "cut prompt": (lambda text: [http(chat(text, usage={"prompt_tokens": 256, "completion_tokens": 50,
                                                        "total_tokens": 306}))], INVALID, "only part of the question"),
    "length": (lambda text: [http(chat(text, "length"))], INVALID, "cut at 8192 tokens"),
    "half an answer": (lambda text: [http(chat(text[:-20]))], INVALID, "cannot be repaired"),
    "thinks": (lambda text: [http(chat(f"<think>{swapped(text)} No.</think>\n{text}"))], VALID, ""),
    "thinks aloud": (lambda text: [http(chat(f"First {swapped(text)}. That is wrong.\n{text}"))], VALID, ""),
    "only thinks": (lambda text: [http(chat(f"<think>{text}"))], INVALID, "no JSON"),
    "draft, then half": (lambda text: [http(chat(f"{swapped(text)}\nBetter:\n{text[:-20]}"))], INVALID,
                         "cannot be repaired"),
    "copies the example": (lambda text: [http(chat(EXAMPLE))], INVALID, "no statement of the reply quotes"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_that_goes_wrong_is_accounted_for(kind, tmp_path, capsys, caplog):
    sent, status, reason = KINDS[kind]
    reports = [make_report(i) for i in range(12)]
    with Server(raw=lambda report, text: sent(text) if report == reports[5] else None) as server:
        job = make_job("openai", server, tmp_path, attempts=2, concurrency=3, timeout=5.0 if kind == "drips" else 60.0)
        summary = extract(lambda: reports, job)
    assert (summary.asked, summary.valid) == (12, 11 + (status == VALID)) and summary.left == 0
    assert (summary.quarantined, summary.failed) == (int(status == INVALID), int(status == FAILED))
    with Cache(job.cache) as cache:
        entry = cache.get(job.question(reports[5]).key)
    assert entry.status == status
    replies = Replies(job)
    for report in reports:
        if report != reports[5] or status == VALID:
            assert sorted((e.finding, e.certainty, e.phrase) for e in replies.extract(report).evidence) == sorted(
                truth(report))
    if reason:
        (found,) = summary.reasons
        assert re.search(reason, found)
    for text in (repr(summary), *capsys.readouterr(), caplog.text):
        assert "xamination number" not in text and KEY not in text


CHILD = """
import sys
from pathlib import Path
from data_prep.extract.llm.jobs import Job
from data_prep.extract.llm.runners.online import extract
from data_prep.extract.llm.settings import Settings
from tests.data_prep.extract.llm.server import make_report
backend, url, cache = sys.argv[1:]
job = Job(backend, Settings(model="m", base_url=url, attempts=1, timeout=60.0), cache, base_wait=0.02)
summary = extract(lambda: map(make_report, range(12)), job)
# Not getrusage: its figure starts from what the process that started this one had.
print(summary.failed, int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["openai", "genai", "gemini"])
def test_memory_stays_small_whatever_is_sent(backend, tmp_path):
    body = http(bomb(1024), coding="gzip")  # A megabyte that unpacks to a gigabyte.
    with Server(raw=lambda report, text: [body]) as server:
        command = [sys.executable, "-c", CHILD, backend, server.base_url(backend), tmp_path / "c.sqlite"]
        process = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False,
                                 timeout=300)
    assert process.returncode == 0, process.stderr
    failed, megabytes = map(int, process.stdout.split())
    assert failed == 12 and megabytes < 300


# --- What a server does not take --------------------------------------------------------------------------------------

FORMAT = [
    {"error": {"message": "Invalid parameter: 'response_format' of type 'json_schema' is not supported", "code": None,
               "type": "invalid_request_error", "param": "response_format"}},
    {"error": {"message": "Invalid schema for response_format 'x'", "param": None, "code": "invalid_json_schema"}},
    {"object": "error", "message": "guided_json is not supported", "type": "BadRequestError", "code": 400},
    {"error": {"code": 400, "message": "failed to parse grammar", "type": "invalid_request_error"}},
    {"error": "'response_format.type' must be 'json_schema' or 'text'"},
    {"error": {"message": "invalid format: expected \"json\"", "type": "api_error"}},
    {"detail": [{"loc": ["body", "response_format", "type"], "msg": "Input should be 'text'", "type": "enum"}]},
]
LENGTH = [
    {"error": {"message": "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens "
                          "(4904 in the messages, 4096 in the completion).", "param": "messages",
               "code": "context_length_exceeded"}},
    {"object": "error", "type": "BadRequestError", "param": None, "code": 400, "message":
        "'max_tokens' or 'max_completion_tokens' is too large: 4096. This model's maximum context length is 4096"},
    {"error": {"code": 400, "message": "the request exceeds the available context size", "n_ctx": 4096,
               "type": "exceed_context_size_error"}},
    {"error": "The prompt is too long: 9000 tokens"},
]
OTHER = [{"error": {"message": "no"}}, {"error": {"message": "CT-guided biopsy; temperature normal"}}, None, "x", [1]]


@pytest.mark.parametrize("body, about", [*((b, "format") for b in FORMAT), *((b, "length") for b in LENGTH),
                                         *((b, "") for b in OTHER)])
def test_what_a_refusal_is_about(body, about):
    assert subject(body) == about


def form(asked):
    return asked.get("response_format", {}).get("type")


@pytest.mark.parametrize("body", FORMAT)
def test_the_ladder_goes_down_on_errors_about_the_format(body):
    with Server(refuse=lambda asked: (400, body) if form(asked) == "json_schema" else None) as server:
        assert ask("openai", server).form == "structured json_object"
    with Server(refuse=lambda asked: (422, body) if form(asked) else None) as server:
        assert ask("openai", server).form == "structured none"


def test_one_long_report_does_not_switch_the_schema_off(tmp_path):
    reports, forms = [make_report(0) + " Again." * 3000, *map(make_report, range(1, 30))], []

    def refuse(asked):
        forms.append(form(asked))
        return (400, LENGTH[len(forms) % 4]) if "Again." in asked["messages"][1]["content"] else None

    with Server(refuse=refuse) as server:
        job = make_job("openai", server, tmp_path, part_tokens=0)
        summary = extract(lambda: reports, job)
    assert (summary.valid, summary.quarantined) == (29, 1) and set(forms) == {"json_schema"}
    assert summary.reasons == {"report too long for the model (400)": 1}
    assert quality.record(job)["asked_with"] == {"structured json_schema": 29}


def test_a_format_that_one_report_breaks_stays_for_the_others(tmp_path):
    reports, forms = [*map(make_report, range(20))], []

    def refuse(asked):
        forms.append(form(asked))
        odd = "number 15." in asked["messages"][1]["content"]
        return (400, FORMAT[0]) if odd and form(asked) == "json_schema" else None

    with Server(refuse=refuse) as server:
        job = make_job("openai", server, tmp_path, concurrency=1)
        assert extract(lambda: reports, job).valid == 20
    assert forms.count("json_object") == 1 and forms[-1] == "json_schema"
    assert quality.record(job)["asked_with"] == {"structured json_object": 1, "structured json_schema": 19}


def test_what_was_used_is_said_and_stored(tmp_path, capsys):
    path = write_table(tmp_path / "t", 30)

    def refuse(asked):
        if "temperature" in asked:
            return 400, {"error": {"message": "Unsupported value: 'temperature' does not support 0",
                                   "param": "temperature", "code": "unsupported_value"}}
        if "max_tokens" in asked:
            return 400, {"error": {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.",
                                   "param": "max_tokens", "code": "unsupported_parameter"}}
        return (400, FORMAT[0]) if form(asked) == "json_schema" else None

    with Server(refuse=refuse) as server:
        assert main([*arguments(path, server), f"--out={tmp_path / 'data'}"]) == 0
        assert {"max_completion_tokens"} <= set(server.bodies[-1])
    assert "25 replies were asked for with structured json_object, no temperature" in capsys.readouterr().err
    found = load_metadata(tmp_path / "data").extraction
    assert found["asked_with"] == {"structured json_object, no temperature": 25}
    assert (found["replies"], found["warnings"], found["settings"]["max_tokens"]) == (25, [], 4096)


def test_a_temperature_below_0_is_not_sent_and_max_tokens_is(tmp_path):
    with Server() as server:
        for backend in ("openai", "genai", "gemini"):
            server.bodies.clear()
            job = make_job(backend, server, tmp_path / backend, temperature=-1.0, max_tokens=777)
            assert extract(lambda: [make_report(0)], job).valid == 1
            (body,) = server.bodies
            body = body.get("generationConfig", body)
            assert "temperature" not in body and 777 in (body.get("max_tokens"), body.get("maxOutputTokens"))


def test_a_reply_that_is_cut_is_asked_for_with_more_room_within_the_limit(tmp_path):
    limits = []

    def cut(report, text):
        limits.append(server.last["max_tokens"])
        return [http(chat(text[:50], "length"))] if server.last["max_tokens"] < 8192 else None

    with Server(raw=cut) as server:
        real = server.refuse
        server.refuse = lambda asked: setattr(server, "last", asked) or real(asked)
        job = make_job("openai", server, tmp_path, concurrency=1, prices=prices(tmp_path), max_cost=0.03, timeout=60.0)
        summary = extract(lambda: map(make_report, range(20)), job)
        assert limits[:4] == [4096, 8192, 4096, 8192] and summary.valid and summary.left
        with Cache(job.cache) as cache:
            assert cache.spent(job.scope).cost <= 0.03
        # More room opens what was quarantined for want of it.
        server.raw = lambda report, text: (
            [http(chat(text[:50], "length"))] if server.last["max_tokens"] < 20000 else None)
        small, large = (make_job("openai", server, tmp_path, max_tokens=n) for n in (5000, 20000))
        assert extract(lambda: [make_report(90)], small).reasons == {"the reply was cut at 10000 tokens: see "
                                                                     "llm.max_tokens": 1}
        assert extract(lambda: [make_report(90)], large).asked == 0
        with Cache(large.cache) as cache:
            assert quarantine.reopen(cache, large.scope, 3, 10000) == 0
            assert quarantine.reopen(cache, large.scope, 3, large.max_tokens) == 1
        assert extract(lambda: [make_report(90)], large).valid == 1


def test_a_long_wait_is_bounded_and_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("data_prep.extract.llm.limits.LONGEST_WAIT", 0.5)
    monkeypatch.setattr("data_prep.extract.llm.runners.online._UNSAID", 0.1)
    answers = iter([[http("{}", "429 X", more="retry-after: 86400\r\n")],
                    [http("{}", "503 X", more="retry-after: inf\r\n")]])
    with Server(raw=lambda report, text: next(answers, None)) as server:
        summary = extract(lambda: [make_report(0)], make_job("openai", server, tmp_path))
    assert summary.valid == 1 and summary.seconds < 30
    shown = capsys.readouterr().err
    assert "the server asks for a wait of 86400 s: waiting 1 s" in shown and "inf s" in shown


def test_a_session_that_ends_in_the_middle_stops_the_run(tmp_path):
    moved, away = [], http("", "302 Found", more="location: /in\r\n")
    with Server(raw=lambda report, text: [away] if moved else None) as server:
        job = make_job("openai", server, tmp_path, concurrency=2)
        assert extract(lambda: map(make_report, range(10)), job).valid == 10
        moved.append(True)
        with pytest.raises(UserError, match=r"not served \(302\)"):
            extract(lambda: map(make_report, range(60)), job)
        with Cache(job.cache) as cache:
            assert not cache.count(job.scope)[INVALID]
        moved.clear()
        assert extract(lambda: map(make_report, range(60)), job).valid == 50


def test_a_report_that_never_gets_a_reply_does_not_block_the_build(tmp_path, capsys):
    path, bad = write_table(tmp_path / "t", 30), make_report(17)
    with Server(lambda report, nth: "500" if report == bad else None) as server:
        command = [*arguments(path, server, "--config.llm.attempts=2"), f"--out={tmp_path / 'data'}"]
        for _ in range(2):
            with pytest.raises(UserError, match=r"1 reports got no reply \(server error"):
                main(command)
        # An endpoint that is away says nothing about the report.
        with pytest.raises(UserError, match="no connection"):
            main([*command, "--config.llm.base_url=http://127.0.0.1:9/v1"])
        assert main(command) == 3 and server.calls[bad] == 6
        assert "1 reports got no reply in 3 runs and are quarantined" in capsys.readouterr().err
    lines = (tmp_path / "data" / "rejected.csv").read_text().splitlines()
    assert lines[1:] == ["s17,,19,quarantined reply of the extractor: no reply in 3 runs: server error (500) after 2 "
                         "tries"]
    with Server() as server:  # Mended: a higher limit asks again.
        again = [*arguments(path, server, f"--config.llm.cache={tmp_path / 'data.replies.sqlite'}",
                            "--config.llm.max_runs=4"), f"--out={tmp_path / 'again'}"]
        assert main(again) == 0 and list(server.calls) == [bad]


# --- Models that are of no use ----------------------------------------------------------------------------------------


def evidence(quote, finding="Pneumothorax", certainty="present"):
    return {"quote": quote, "finding": finding, "certainty": certainty, "laterality": "", "severity": "",
            "temporality": "", "anatomy": ""}


@pytest.mark.parametrize("reply, words", [
    (lambda report: [], "replies to different reports are equal"),
    (lambda report: [evidence(report.split(". ")[1]), evidence("a cavity at the apex"), evidence("bilateral infarcts")],
     "statements do not quote their report"),
    (lambda report: [evidence(sentence.split(" is ")[0], finding)
                     for sentence, finding in zip(report.split(". ")[1:3], ("Pneumothorax", "Pleural Effusion"))],
     "what the rules read as denied")])
def test_a_useless_model_does_not_look_like_success(tmp_path, capsys, reply, words):
    path = write_table(tmp_path / "t", 30)

    def raw(report, text):
        return [http(chat(json.dumps({"normal": False, "evidence": reply(report)})))]

    with Server(raw=raw) as server:
        assert main([*arguments(path, server), f"--out={tmp_path / 'data'}"]) == 0
    found, shown = load_metadata(tmp_path / "data").extraction["warnings"], capsys.readouterr().err
    assert any(words in warning for warning in found) and all(f"warning: {warning}" in shown for warning in found)


def test_a_model_that_copies_the_example_brings_nothing(tmp_path):
    path = write_table(tmp_path / "t", 12)
    with Server(raw=lambda report, text: [http(chat(EXAMPLE))]) as server, pytest.raises(UserError, match="no row"):
        main([*arguments(path, server), f"--out={tmp_path / 'data'}"])


def test_refusals_before_the_first_answer_are_the_reports_fault_once_others_are_answered(tmp_path):
    with Server(raw=lambda report, text: [http("{}", "400 X")] if "number 0." in report else [0.3, http(chat(text))]
                ) as server:
        summary = extract(lambda: map(make_report, range(8)), make_job("openai", server, tmp_path, structured="none"))
    assert (summary.valid, summary.quarantined, summary.failed) == (7, 1, 0)


def test_a_refusal_is_raised_as_what_it_is():
    with Server(refuse=lambda asked: (400, LENGTH[0])) as server, pytest.raises(ClientError) as error:
        ask("openai", server)
    assert (error.value.kind, error.value.status) == (clients.TOO_LONG, 400)
