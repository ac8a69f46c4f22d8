"""Whole runs against a server that misbehaves: every report is accounted for, none is asked twice, nothing leaks."""

import json
import random
import signal
import subprocess
import sys
import time
import traceback
import zlib

import pytest

from data_prep.extract.llm import stage
from data_prep.extract.llm.cache import FAILED, INVALID, VALID, Cache, Spent
from data_prep.extract.llm.jobs import Job, Quarantined, Replies
from data_prep.extract.llm.runners.online import extract
from data_prep.extract.llm.settings import Settings
from data_prep.extract.llm.survey import survey
from lgdea_jax.errors import UserError
from tests.data_prep.extract.llm.server import (
    FAULTS,
    KEY,
    Server,
    evidence_reply,
    make_report,
    number_of_words,
    report_of_real_length,
    truth,
)
from tests.data_prep.shards.run import ROOT, environment

BACKENDS = ("openai", "genai", "gemini")


def make_job(backend, server, folder, *, kind="evidence", **settings):
    settings = {"model": "m", "base_url": server.base_url(backend), "timeout": 60.0, "concurrency": 8, **settings}
    return Job(backend, Settings(**settings), str(folder / "c.sqlite"), kind=kind, base_wait=0.02)


def misbehave(report, nth):
    """Three in ten first calls go wrong, and one in ten of the later ones."""
    rng = random.Random(f"{report}{nth}")
    return rng.choice(FAULTS) if rng.random() < (0.3 if nth == 1 else 0.1) else None


def check_answers(job, reports):
    """Every report has evidence that it states, or is quarantined; returns how many of both."""
    replies, valid, quarantined = Replies(job), 0, 0
    for report in reports:
        try:
            found = {(e.finding, e.certainty, e.phrase) for e in replies.extract(report).evidence}
        except Quarantined:
            quarantined += 1
            continue
        assert found <= set(truth(report))
        valid += 1
    return valid, quarantined


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_report_is_accounted_for(backend, tmp_path):
    reports = [make_report(i) for i in range(150)]
    with Server(misbehave, hang=2.5) as server:
        job = make_job(backend, server, tmp_path, timeout=1.5)
        summary = extract(lambda: [*reports, *reports[:50], "  ", ""], job)
        assert set(server.calls) == set(reports)
        calls = sum(server.calls.values())
        # None was asked again but for a fault. (A request may be lost before the server counts it.)
        assert all(misbehave(report, nth) for report in reports for nth in range(1, server.calls[report]))
        assert calls <= summary.calls <= calls + 5
        again = extract(lambda: reports, job)
        assert again.asked == 0 and sum(server.calls.values()) == calls
    assert summary.asked == 150 == summary.valid + summary.quarantined + summary.failed
    assert check_answers(job, reports) == (summary.valid, summary.quarantined + summary.failed)
    assert summary.valid > 140 and summary.dropped["unsupported"] and summary.dropped["duplicate"]
    assert {"fence", "prose", "certainty"} <= set(summary.repairs)


def test_quarantine_keeps_the_raw_reply_and_is_asked_once(tmp_path):
    with Server(lambda report, nth: "garbage" if "number 1." in report else None) as server:
        job = make_job("openai", server, tmp_path)
        summary = extract(lambda: [make_report(0), make_report(1)], job)
        assert (summary.valid, summary.quarantined) == (1, 1) and summary.reasons == {"no JSON in the reply": 1}
        assert server.calls[make_report(1)] == 2 and extract(lambda: [make_report(1)], job).asked == 0
    with Cache(job.cache) as cache:
        (_, entry), = cache.quarantined(job.scope)
    assert entry.status == INVALID and entry.reply == "I am sorry, I cannot do that."


def test_a_second_question_can_mend_it(tmp_path):
    with Server(lambda report, nth: "garbage" if nth == 1 else None) as server:
        summary = extract(lambda: [make_report(0)], make_job("openai", server, tmp_path))
        asked = [body["messages"][1]["content"] for body in server.bodies]
    assert summary.valid == 1 and "(no JSON in the reply)" in asked[1] and asked[1].startswith(asked[0])


def test_what_got_no_reply_is_asked_again_next_time(tmp_path):
    down = [True]
    with Server(lambda report, nth: "503" if down[0] and "number 1." in report else None) as server:
        job = make_job("openai", server, tmp_path, attempts=3)
        summary = extract(lambda: [make_report(0), make_report(1)], job)
        assert (summary.valid, summary.failed, server.calls[make_report(1)]) == (1, 1, 3)
        with Cache(job.cache) as cache:
            assert cache.statuses([job.question(make_report(1)).key]) == {job.question(make_report(1)).key: FAILED}
        down[0] = False
        assert extract(lambda: [make_report(0), make_report(1)], job).valid == 1
        assert server.calls[make_report(0)] == 1


def test_what_another_process_answered_meanwhile_is_not_left_over(tmp_path):
    reports = [make_report(i) for i in range(10)]
    with Server() as server:
        job = make_job("openai", server, tmp_path)
        with Cache(job.cache) as cache:
            before = survey(reports, job, cache)
        extract(lambda: reports[:4], job)
        summary = extract(lambda: reports, job, surveyed=before)
        assert (summary.asked, summary.valid, summary.left, summary.calls) == (10, 10, 0, 6)
        assert sum(server.calls.values()) == 10


def test_a_server_that_refuses_everything_leaves_no_report_quarantined(tmp_path):
    with Server(lambda report, nth: "400") as server:
        job = make_job("openai", server, tmp_path, structured="none", concurrency=2)
        with pytest.raises(UserError, match=r"request refused \(400\)"):
            extract(lambda: [make_report(i) for i in range(50)], job)
        server.fault = lambda report, nth: "400" if "number 3." in report and server.answered else None
        summary = extract(lambda: [make_report(i) for i in range(50)], job)
    assert (summary.valid, summary.quarantined) == (49, 1) and summary.reasons == {"request refused (400)": 1}


@pytest.mark.parametrize("fault, message", [("503", "requests to http.* failed"), ("wrong key", "refused the key")])
def test_a_dead_endpoint_stops_the_run(tmp_path, fault, message):
    with Server(lambda report, nth: fault, key="another" if fault == "wrong key" else KEY) as server:
        job = make_job("openai", server, tmp_path, attempts=2, concurrency=4)
        with pytest.raises(UserError, match=message):
            extract(lambda: (make_report(i) for i in range(400)), job)
        assert sum(server.calls.values()) < 60


def test_limits_per_minute(tmp_path):
    with Server() as server:
        started = time.monotonic()
        extract(lambda: [make_report(i) for i in range(11)],
                make_job("openai", server, tmp_path, requests_per_minute=600))
        assert 1.0 <= time.monotonic() - started < 30
    with Server() as server:
        started = time.monotonic()
        # Each question is some 650 tokens and 400 more are kept for the reply.
        extract(lambda: [make_report(i) for i in range(20, 26)],
                make_job("openai", server, tmp_path, tokens_per_minute=240_000))
        assert time.monotonic() - started > 0.3


def prices(folder):
    (folder / "p.json").write_text(json.dumps({"currency": "EUR", "models": {"m": {"input": 1, "output": 2}}}))
    return str(folder / "p.json")


def misbehave_within_max_tokens(report, nth):
    # A reply of a megabyte is more than was allowed: no bound holds for a server that ignores it.
    fault = misbehave(report, nth)
    return None if fault == "megabyte" else fault


@pytest.mark.parametrize("fault", [None, misbehave_within_max_tokens])
def test_the_limit_is_never_exceeded(tmp_path, fault):
    with Server(fault, hang=1.0) as server:
        job = make_job("openai", server, tmp_path, prices=prices(tmp_path), max_cost=0.05,
                       timeout=0.3 if fault else 20.0)
        summary = extract(lambda: [make_report(i) for i in range(200)], job)
        assert 0 < summary.left < 200 and summary.asked == 200
        assert summary.asked == summary.valid + summary.quarantined + summary.failed + summary.left
        with Cache(job.cache) as cache:
            spent = cache.spent(job.scope)
        # Less than one request's upper bound is left unused.
        assert 0.03 < spent.cost <= 0.05 and spent.cost == pytest.approx(summary.cost)
        if fault is None:
            assert spent.cost == pytest.approx((spent.tokens_in + 2 * spent.tokens_out) / 1e6)
            calls = sum(server.calls.values())
            assert extract(lambda: [make_report(i) for i in range(200)], job).valid == 0
            assert sum(server.calls.values()) == calls  # What was spent before counts.


def test_survey_counts_and_corrects_its_estimate(tmp_path, capsys):
    reports = [make_report(i) for i in range(40)]
    with Server() as server:
        job = make_job("openai", server, tmp_path, prices=prices(tmp_path))
        with Cache(job.cache) as cache:
            before = survey([*reports, *reports[:7], ""], job, cache)
        assert (before.reports, before.unique, before.pending, before.measured) == (47, 40, 40, False)
        assert not server.calls
        summary = extract(lambda: reports[:30], job, progress=True)
        with Cache(job.cache) as cache:
            after = survey(reports, job, cache)
    assert (after.valid, after.pending, after.measured) == (30, 10, True)
    assert after.tokens_in == pytest.approx(summary.tokens_in / 3, rel=0.01)
    assert after.cost == pytest.approx(summary.cost / 3, rel=0.01)
    assert before.tokens_in == pytest.approx(summary.tokens_in * 4 / 3, rel=0.2)
    shown = capsys.readouterr().err
    assert "30/30" in shown and f"spent {summary.cost:.4f} EUR" in shown
    assert "40 duplicates" not in "".join(after.lines(job)) and "corrected" in "".join(after.lines(job))


CHILD = """
import sys, time
from data_prep.extract.llm.jobs import Job
from data_prep.extract.llm.runners.online import extract
from data_prep.extract.llm.settings import Settings
from tests.data_prep.extract.llm import server
backend, url, cache, n, make, timeout = sys.argv[1:]
settings = Settings(model="m", base_url=url, concurrency=8, timeout=float(timeout))
job = Job(backend, settings, cache, base_wait=0.02)
print(extract(lambda: (getattr(server, make)(i) for i in range(int(n))), job).asked)
"""


def start_child(server, folder, n, *, backend="openai", make=make_report, timeout=60.0):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, backend, server.base_url(backend), folder / "c.sqlite", str(n), make.__name__,
         str(timeout)], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)


def finished_in(path):
    if not path.exists():
        return set()
    with Cache(path) as cache:
        return {row[0] for row in cache._db.execute("SELECT key FROM replies WHERE status != ?", (FAILED,))}


def survive(folder, n, kills, seed, *, fault=None, **child):
    """Kills a run at random moments; returns how many questions were asked again without a fault, and the answers."""
    rng, fault = random.Random(seed), fault or (lambda report, nth: None)
    reports = [child.get("make", make_report)(i) for i in range(n)]
    assert len(set(reports)) == n
    with Server(fault, delay=0.01, hang=3.0) as server:
        job = make_job(child.get("backend", "openai"), server, folder)
        keys = {job.question(report).key: report for report in reports}
        asked = {}
        for _ in range(kills):
            process = start_child(server, folder, n, **child)
            goal = len(server.answered) + rng.randrange(n // (2 * kills) or 1)
            while len(server.answered) <= goal and process.poll() is None:
                time.sleep(0.005)
            assert process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
            time.sleep(0.1)  # What is on its way at the server ends.
            done = finished_in(folder / "c.sqlite")
            # What was stored has not been asked again since.
            assert all(server.calls[report] == calls for report, calls in asked.items())
            asked = {keys[key]: server.calls[keys[key]] for key in done}
        process = start_child(server, folder, n, **child)
        out, _ = process.communicate(timeout=550)
        assert process.returncode == 0 and int(out) == n - len(done)
        assert all(server.calls[report] == calls for report, calls in asked.items())
        assert set(server.calls) == set(reports)
        again = sum(fault(report, nth) is None for report in reports for nth in range(1, server.calls[report]))
        return again, check_answers(job, reports)


def test_kill_9_loses_nothing_and_repeats_nothing(tmp_path):
    again, answers = survive(tmp_path, n=120, kills=2, seed=0)
    assert again <= 2 * 8 and answers == (120, 0)


def test_two_processes_share_the_work(tmp_path):
    with Server(delay=0.02) as server:
        processes = [start_child(server, tmp_path, 100) for _ in range(2)]
        valid = [int(process.communicate(timeout=120)[0]) for process in processes]
        assert sum(server.calls.values()) == len(server.calls) == 100
    assert all(100 <= sum(valid) <= 200 and v > 0 for v in valid)


def test_nothing_leaks(tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    secrets = (KEY, "Pneumothorax is", "examination number", "I am sorry")
    texts = []
    for backend in BACKENDS:
        with Server(misbehave, hang=1.0) as server:
            job = make_job(backend, server, tmp_path, timeout=0.3)
            summary = extract(lambda: (make_report(i) for i in range(30)), job, progress=True)
            texts += [repr(summary), *summary.lines("USD")]
        for server in (Server(key="another"), Server(lambda report, nth: "500")):
            with server, pytest.raises(UserError) as error:
                extract(lambda: (make_report(i) for i in range(40, 80)),
                        make_job(backend, server, tmp_path, attempts=1, concurrency=2))
            texts.append("".join(traceback.format_exception(error.value)))
    streams = capsys.readouterr()
    texts += [streams.out, streams.err, caplog.text]
    for secret in secrets:
        assert not [text for text in texts if secret.lower() in text.lower()]
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_spent_is_what_the_calls_cost(tmp_path):
    with Server() as server:
        job = make_job("openai", server, tmp_path, prices=prices(tmp_path))
        summary = extract(lambda: [make_report(i) for i in range(10)], job)
        with Cache(job.cache) as cache:
            spent = cache.spent(job.scope)
    assert isinstance(spent, Spent) and spent.calls == 10 == summary.calls
    assert spent.cost == pytest.approx(summary.tokens_in / 1e6 + 2 * summary.tokens_out / 1e6)


# --- The whole thing, slow --------------------------------------------------------------------------------------------


def some(report, nth):
    """One call in ten goes wrong, in every way in turn."""
    rng = random.Random(f"{report}{nth}")
    return rng.choice(FAULTS) if rng.random() < 0.1 else None


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_five_thousand_reports_and_five_kills(backend, tmp_path):
    n, kills = 5000, 5
    again, (valid, quarantined) = survive(tmp_path, n, kills, seed=1, fault=some, backend=backend, timeout=2.0,
                                          make=report_of_real_length)
    print(f"\n{backend}: {valid} valid, {quarantined} quarantined, {again} asked again after kills", end=" ")
    # At each kill eight requests were under way; their answers had nobody to come to.
    assert valid + quarantined == n and valid > 0.99 * n and again <= kills * 8


def test_the_reports_are_as_long_as_those_of_open_i():
    words = sorted(len(report_of_real_length(i).split()) for i in range(5000))
    assert words == sorted(number_of_words(i) for i in range(5000))
    assert (words[0], words[-1]) >= (3, 120) and len({report_of_real_length(i) for i in range(5000)}) == 5000
    assert words[250] == pytest.approx(15, abs=1) and words[2500] == pytest.approx(34, abs=1)
    assert words[4750] == pytest.approx(77, abs=4)


@pytest.mark.slow
def test_resuming_fifty_thousand_finished_reports_is_quick(tmp_path):
    reports = [report_of_real_length(i) for i in range(50_000)]
    with Server() as server:
        job = make_job("openai", server, tmp_path)
        with Cache(job.cache) as cache, cache._transaction():
            for report in reports:
                reply = zlib.compress(json.dumps(evidence_reply(report)).encode(), 1)
                cache._db.execute("INSERT INTO replies VALUES (?, ?, ?, '', ?, 650, 200, 0, '', '', 6, 0, '', NULL)",
                                  (job.question(report).key, job.scope, VALID, reply))
        started = time.monotonic()
        summary = stage.ask(lambda: reports, job, terms=lambda: ("open",), where="", progress=False)
        seconds = time.monotonic() - started
        print(f"\nresumed in {seconds:.2f} s", end=" ")
        assert summary.asked == 0 and seconds <= 5 and not server.calls
        assert Replies(job).extract(reports[-1]).evidence
