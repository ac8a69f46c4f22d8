"""Answers that are no HTTP, no JSON or no protocol of ours in ways of their own, for each client over real sockets: one
report fails, the others do not, and nothing is taken for the answer to another question."""

import gzip
import json
import re
import subprocess
import sys

import pytest

from data_prep.extract.llm.cache import FAILED, INVALID, VALID
from data_prep.extract.llm.clients.openai_lines import read_lines
from data_prep.extract.llm.jobs import Replies
from data_prep.extract.llm.limits import parse_retry_after
from data_prep.extract.llm.runners.online import extract
from data_prep.extract.llm.tasks import load_task
from tests.data_prep.extract.llm.server import KEY, Server, labels_reply, make_report, truth
from tests.data_prep.extract.llm.test_clients import BACKENDS
from tests.data_prep.extract.llm.test_misbehaving import chat, http, swapped
from tests.data_prep.extract.llm.test_runner import make_job
from tests.data_prep.shards.run import ROOT, environment


def gemini(text):
    return json.dumps({"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, "finishReason": "STOP",
                                       "index": 0}], "usageMetadata": {"promptTokenCount": 900}})


def chunked(body, *, size=100, extension="", coding=""):
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: {coding}chunked\r\n\r\n"
    parts = [body[i:i + size].encode() for i in range(0, len(body), size)]
    return head.encode() + b"".join(f"{len(part):x}{extension}\r\n".encode() + part + b"\r\n" for part in parts)


def nested(depth):
    return '{"a":' * depth + "1" + "}" * depth


# (what is sent, by the text and the body of the right answer, what becomes of it).
KINDS = {
    "chunks of a byte, with extensions and trailers": (
        lambda text, body: [chunked(body, size=1, extension=";a=b") + b"0\r\nset-cookie: a=b\r\n\r\n"], VALID),
    "chunks without an end": (lambda text, body: [chunked(body)], FAILED),
    "a chunk of a size that is none": (lambda text, body: [chunked("") + b"zz\r\n" + body.encode()], FAILED),
    "a chunk of 2^80 bytes": (lambda text, body: [chunked("") + b"f" * 20 + b"\r\n" + body.encode()], FAILED),
    "HTTP/1.0 without a length": (lambda text, body: [b"HTTP/1.0 200 OK\r\n\r\n" + body.encode()], VALID),
    "HTTP/1.0 cut": (lambda text, body: [b"HTTP/1.0 200 OK\r\n\r\n" + body.encode()[:-60]], FAILED),
    "no head": (lambda text, body: [body.encode()], FAILED),
    "100 and again 100": (lambda text, body: [b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + http(body)], VALID),
    "101": (lambda text, body: [b"HTTP/1.1 101 X\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\nxxxx"], FAILED),
    "204": (lambda text, body: [b"HTTP/1.1 204 No Content\r\n\r\n"], FAILED),
    "206": (lambda text, body: [http(body[:-30], "206 Partial")], FAILED),
    "304": (lambda text, body: [b"HTTP/1.1 304 Not Modified\r\n\r\n"], FAILED),
    "a length that is too small": (lambda text, body: [
        f"HTTP/1.1 200 OK\r\ncontent-length: {len(body) - 40}\r\n\r\n{body}".encode()], FAILED),
    "a length of 10^40": (lambda text, body: [
        f"HTTP/1.1 200 OK\r\ncontent-length: {10**40}\r\n\r\n{body}".encode()], FAILED),
    "a head of a megabyte": (lambda text, body: [http(body, more=f"x: {'y' * 10**6}\r\n")], FAILED),
    "a charset that is a codec of bytes": (lambda text, body: [http(body, kind="application/json; charset=base64")],
                                           VALID),
    "an error in such a charset": (lambda text, body: [
        http('{"error": {"message": "x"}}', "500 X", kind="text/plain; charset=zlib_codec")], FAILED),
    "an error that is a list": (lambda text, body: [http('{"error": [[1]]}', "500 X")], FAILED),
    "zeros after the body": (lambda text, body: [http(body.encode() + b"\0\0")], FAILED),
    "an empty body": (lambda text, body: [http("")], FAILED),
    "null": (lambda text, body: [http("null")], FAILED),
    "a body of depth 9,000": (lambda text, body: [http(nested(9000))], FAILED),
    "a count of 10^6 digits": (lambda text, body: [http(body.replace("900", "9" * 10**6))], FAILED),
    "gzip in gzip": (lambda text, body: [http(gzip.compress(gzip.compress(body.encode())), coding="gzip")], FAILED),
    "gzip that is none": (lambda text, body: [http(body, coding="gzip")], FAILED),
    "gzip that is not stated": (lambda text, body: [http(gzip.compress(body.encode()))], FAILED),
    "gzip cut": (lambda text, body: [http(gzip.compress(body.encode())[:-20], coding="gzip")], FAILED),
    "TLS": (lambda text, body: [b"\x15\x03\x01\x00\x02\x02\x46"], FAILED),
    "SSH": (lambda text, body: [b"SSH-2.0-OpenSSH_9.6\r\n"], FAILED),
    "a date before all dates": (lambda text, body: [
        http("{}", "429 X", more="retry-after: Mon, 01 Jan 0001 00:00:00 +2359\r\n")], FAILED),
    "a date of 20 digits": (lambda text, body: [
        http("{}", "429 X", more=f"retry-after: Mon, 09 Jan {'9' * 20} 00:00:00 GMT\r\n")], FAILED),
}
# The same for what stands in the text of an answer.
TEXTS = {
    "a number of 5,000 digits": (lambda text: text.replace('"normal": false', f'"normal": {"1" * 5000}'), INVALID),
    "a key twice": (lambda text: text[:-1] + ', "evidence": []}', INVALID),
    "depth 900": (lambda text: text.replace('"present"', nested(900)).replace('"absent"', nested(900)), INVALID),
    "the same letter 600,000 times": (lambda text: "<" * 600_000 + text, INVALID),
    "thought in a tag with a prefix": (lambda text: f"{text}<seed:think>{swapped(text)}</seed:think>", VALID),
    "thought of Kimi": (lambda text: f"{text}\u25c1think\u25b7{swapped(text)}\u25c1/think\u25b7", VALID),
    "thought of Cohere": (lambda text: f"<|START_THINKING|>{text}<|END_THINKING|>", INVALID),
    "thought of MedGemma": (lambda text: f"<unused94>thought\n{text}<unused95>", INVALID),
    "thought with spaces": (lambda text: f"< think >{text}</ think >", INVALID),
    "thought that is escaped": (lambda text: f"&lt;think&gt;{text}&lt;/think&gt;", INVALID),
    "thought with a long name": (lambda text: f"<thought_process>{text}</thought_process>", INVALID),
    "thought after the answer, not closed": (lambda text: f"{text}\n<think>{swapped(text)}", VALID),
    "thought closed by another name": (lambda text: f"<think>{swapped(text)}</thinking>{text}", VALID),
}
CASES = {**KINDS, **{name: (lambda text, body, change=change: [http(body.replace(
    json.dumps(text), json.dumps(change(text))))], status) for name, (change, status) in TEXTS.items()}}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", CASES)
def test_one_report_fails_and_the_others_do_not(kind, backend, tmp_path, capfd):
    sent, status = CASES[kind]
    reports = [make_report(i) for i in range(4)]
    whole = chat if backend == "openai" else gemini
    with Server(raw=lambda report, text: sent(text, whole(text)) if report == reports[2] else None) as server:
        job = make_job(backend, server, tmp_path, attempts=2, concurrency=2)
        summary = extract(lambda: reports, job)
    assert (summary.valid, summary.quarantined, summary.failed) == (
        3 + (status == VALID), int(status == INVALID), int(status == FAILED)), summary.reasons
    replies = Replies(job)
    for report in reports:
        if report != reports[2] or status == VALID:
            assert sorted((e.finding, e.certainty, e.phrase) for e in replies.extract(report).evidence) == sorted(
                truth(report))
    shown = repr(summary) + "".join(capfd.readouterr())
    assert "xamination number" not in shown and KEY not in shown and "Traceback" not in shown


class Twice(Server):
    """Sends each answer twice."""

    def _send(self, writer, status, value, extra=None):
        return super()._send(writer, status, value, extra) and super()._send(writer, status, value, extra)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next(backend, tmp_path):
    reports = [make_report(i) for i in range(12)]
    with Twice() as server:  # Labels: nothing in them tells of which report they are.
        job = make_job(backend, server, tmp_path, concurrency=1, kind="chexpert14")
        assert extract(lambda: reports, job).valid == 12 and server.connections == 12
    replies = Replies(job)
    for report in reports:
        right = json.dumps(labels_reply(report, job.task.prompt))
        assert replies.labels(report) == job.task.read(right, report).value


CHILD = """
import sys
from data_prep.extract.llm.jobs import Job
from data_prep.extract.llm.runners.online import extract
from data_prep.extract.llm.settings import Settings
from tests.data_prep.extract.llm.server import make_report
backend, url, cache = sys.argv[1:]
job = Job(backend, Settings(model="m", base_url=url, attempts=1, timeout=1.0, concurrency=2), cache)
print(extract(lambda: map(make_report, range(2)), job).reasons)
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_server_that_never_ends_does_not_keep_the_process(backend, tmp_path):
    drip = [b"HTTP/1.1 200 OK\r\n", *[0.3, b"x: y\r\n"] * 10_000]
    with Server(raw=lambda report, text: drip) as server:
        command = [sys.executable, "-c", CHILD, backend, server.base_url(backend), str(tmp_path / "c.sqlite")]
        process = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False,
                                 timeout=300)
    assert process.returncode == 0 and re.search(r"timeout after 1 tries': 2", process.stdout), process.stderr


def test_labels_of_odd_types_are_refused():
    task = load_task("chexpert14")
    right = labels_reply(make_report(0), task.prompt)
    for value in ([], {}, [[1]], 1e400, 10**4000):
        with pytest.raises(Exception, match="was not asked for"):
            task.read(json.dumps({**right, next(iter(right)): value}), make_report(0))
    percent = load_task("chexpert14", True)
    with pytest.raises(Exception, match="was not asked for"):
        percent.read(json.dumps({**labels_reply(make_report(0), percent.prompt), next(iter(right)): "9" * 5000}), "x")


def test_lines_end_at_line_feeds_only():
    body = json.loads(chat("a\u2028b\x85c"))
    line = json.dumps({"custom_id": "0", "response": {"status_code": 200, "body": body}}, ensure_ascii=False)
    found = read_lines(f"{line}\n{json.dumps({'custom_id': float('inf')})}\n", "", set())
    assert [reply.text for reply in found.values()] == ["a\u2028b\x85c"]


@pytest.mark.parametrize("text", ["Mon, 01 Jan 0001 00:00:00 +2359", f"Mon, 9 Jan {'9' * 20} 0:0:0 GMT", ",", "x",
                                  "01 Jan 0 0:0:0 +99999999999999"])
def test_a_wait_that_is_no_time_is_none(text):
    assert parse_retry_after(text) in (None, 0.0)
