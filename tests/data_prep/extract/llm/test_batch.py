"""Batches of the Gemini API, through the real package, against a local server: cheaper, nothing lost, nothing twice."""

import fcntl
import logging
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from types import SimpleNamespace

import pytest

from data_prep.build import main
from data_prep.extract.llm import stage
from data_prep.extract.llm.cache import FAILED, INVALID, Cache
from data_prep.extract.llm.jobs import Replies
from data_prep.extract.llm.runners import batch as batch_runner
from data_prep.extract.llm.runners.batch_ledger import Ledger
from data_prep.extract.llm.survey import survey
from data_prep.extract.llm.tasks import load_task
from lgdea_jax.errors import UserError
from tests.data_prep.extract.llm.server import KEY, Server, make_report
from tests.data_prep.extract.llm.test_runner import check_answers, make_job, misbehave, prices
from tests.data_prep.shards import run, tables


def job_of(server, folder, **settings):
    return make_job("genai", server, folder, **{"batch": True, "batch_poll": 0.02, **settings})


def extract(job, reports, **options):
    return batch_runner.extract(lambda: reports, job, **options)


def test_batches_bring_what_single_requests_bring(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(batch_runner, "_MOST_REQUESTS", 20)
    reports = [make_report(i) for i in range(50)]
    with Server() as server:
        job = job_of(server, tmp_path, prices=prices(tmp_path))
        summary = extract(job, [*reports, *reports[:5], " "], progress=True)
        assert (summary.asked, summary.valid, summary.calls, len(server.batches)) == (50, 50, 50, 3)
        assert set(server.deleted) == set(server.batches)  # They hold reports.
        body = server.bodies[0]
        assert extract(job, reports).asked == 0 and set(server.calls.values()) == {1}
    task = load_task("evidence")
    assert body["systemInstruction"]["parts"][0]["text"] == task.prompt
    assert body["generationConfig"]["temperature"] == 0
    assert body["generationConfig"]["responseMimeType"] == "application/json"
    assert set(body["generationConfig"]["responseSchema"]["properties"]) == {"normal", "evidence"}
    assert check_answers(job, reports) == (50, 0)
    with Cache(job.cache) as cache:
        spent = cache.spent(job.scope)
        assert not cache.batches_under_way(job.scope)
    # The table says 1 and 2 for a million tokens.
    assert spent.cost == pytest.approx((spent.tokens_in + 2 * spent.tokens_out) / 2e6) == summary.cost
    shown = capsys.readouterr().err
    assert "50/50" in shown and f"spent {summary.cost:.4f}" in shown
    with Server() as server:  # The same question, asked singly, has its answer there.
        job = make_job("genai", server, tmp_path)
        assert Replies(job).extract(reports[0]) and stage.ask(
            lambda: reports, job, terms=lambda: ("open",), where="x", progress=False).asked == 0


def test_every_report_is_accounted_for(tmp_path):
    reports = [make_report(i) for i in range(150)]

    def fault(report, nth):
        wrong = misbehave(report, nth)
        return None if wrong in ("hang", "close") else wrong

    with Server(fault) as server:
        job = job_of(server, tmp_path, asks=2)
        summary = extract(job, reports)
        assert summary.asked == 150 == summary.valid + summary.quarantined + summary.failed and not summary.left
        assert all(fault(report, nth) for report in reports for nth in range(1, server.calls[report]))
        assert max(server.calls.values()) == 2 and summary.calls <= sum(server.calls.values())
        assert check_answers(job, reports) == (summary.valid, summary.quarantined + summary.failed)
        assert summary.dropped["unsupported"] and summary.repairs["fence"] and summary.valid > 130
        asked = [body["contents"][0]["parts"][0]["text"] for body in server.bodies]
        assert not any("Your previous reply" in text for text in asked)
    with Cache(job.cache) as cache:
        found = Counter(entry.status for _, entry in cache.quarantined(job.scope))
    assert found == +Counter({INVALID: summary.quarantined, FAILED: summary.failed})


CHILD = """
import sys
from data_prep.extract.llm.runners import batch as batch_runner
from data_prep.extract.llm.jobs import Job
from data_prep.extract.llm.settings import Settings
from tests.data_prep.extract.llm.server import make_report
batch_runner._MOST_REQUESTS = 10
job = Job("genai", Settings(model="m", base_url=sys.argv[1], batch=True, batch_poll=0.05), sys.argv[2], base_wait=0.02)
print(batch_runner.extract(lambda: (make_report(i) for i in range(40)), job).valid)
"""


@pytest.mark.parametrize("moment", ["submitting", *(pytest.param(moment, marks=pytest.mark.slow)
                                                    for moment in ("waiting", "collecting"))])
def test_killed_it_goes_on_with_the_batches_under_way(moment, tmp_path):
    command = [sys.executable, "-c", CHILD]
    with Server() as server:
        command += [server.url, str(tmp_path / "c.sqlite")]
        server.looks = 10**9 if moment != "collecting" else 3
        process = subprocess.Popen(command, cwd=run.ROOT, env=run.environment(), stdout=subprocess.DEVNULL)

        def reached():
            if moment == "submitting":
                return server.submissions >= 2
            looks = sorted(batch["looks"] for batch in server.batches.values())
            return len(looks) == 4 and looks[-1] >= (2 if moment == "waiting" else 3)

        while not reached():
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        server.looks = 3
        out = subprocess.run(command, cwd=run.ROOT, env=run.environment(), stdout=subprocess.PIPE, check=True,
                             text=True, timeout=300)
        assert set(server.calls.values()) == {1} and len(server.calls) == 40 and len(server.batches) == 4
        job = job_of(server, tmp_path)
        assert check_answers(job, [make_report(i) for i in range(40)]) == (40, 0)
    assert int(out.stdout) == 40 or moment == "collecting"
    with Cache(job.cache) as cache:
        assert cache.spent(job.scope).calls == 40 and not cache.batches_under_way(job.scope)


def test_an_answer_that_is_lost_on_its_way_makes_no_second_batch(tmp_path):
    with Server() as server:
        server.batch_fault = lambda nth: "lost" if nth == 1 else None
        assert extract(job_of(server, tmp_path), [make_report(i) for i in range(5)]).valid == 5
        assert server.submissions == 1


def test_a_batch_that_was_written_down_but_never_submitted_is_submitted(tmp_path):
    with Server() as server:
        job = job_of(server, tmp_path)
        with Cache(job.cache) as cache:
            Ledger(cache, job.scope).write_down(
                [(job.question(make_report(i)).key, make_report(i), 0.0) for i in range(3)], 0.0)
            assert cache.reap() == 0  # It outlives its process.
        single = make_job("genai", server, tmp_path)
        with pytest.raises(UserError, match=r"collect them with llm\.batch"):
            stage.ask(lambda: [make_report(0)], single, terms=lambda: ("open",), where="x", progress=False)
        assert extract(job, [make_report(i) for i in range(5)]).valid == 5 and len(server.calls) == 5
        # Its reports are asked about even if the source has others now.
        with Cache(job.cache) as cache:
            Ledger(cache, job.scope).write_down([(job.question(make_report(9)).key, make_report(9), 0.0)], 0.0)
        assert extract(job, []).valid == 1


@pytest.mark.parametrize("fault, reason", [("EXPIRED", "the batch has expired"), ("FAILED", "the batch has failed")])
def test_batches_that_fail(fault, reason, tmp_path):
    with Server() as server:
        server.batch_fault = lambda nth: fault if nth == 1 else None
        job = job_of(server, tmp_path, prices=prices(tmp_path))
        summary = extract(job, [make_report(i) for i in range(5)])
        assert (summary.failed, summary.reasons) == (5, {reason: 5}) and summary.cost > 0  # Perhaps it is charged.
        assert extract(job, [make_report(i) for i in range(5)]).valid == 5
        server.batches.clear()
        with Cache(job.cache) as cache:
            ledger = Ledger(cache, job.scope)
            label, _ = ledger.write_down([(job.question(make_report(7)).key, make_report(7), 0.0)], 0.0)
            ledger.submitted(label, "batches/gone")
        assert extract(job, []).reasons == {"the batch is not known any more": 1}


def test_the_limit_is_never_exceeded(tmp_path):
    with Server() as server:
        job = job_of(server, tmp_path, prices=prices(tmp_path), max_cost=0.03)
        summary = extract(job, [make_report(i) for i in range(200)])
        assert 0 < summary.left < 200 and summary.asked == 200 == summary.valid + summary.left
        with Cache(job.cache) as cache:
            spent = cache.spent(job.scope)
        assert 0.02 < spent.cost <= 0.03 and len(server.batches) > 1
        calls = sum(server.calls.values())
        assert extract(job, [make_report(i) for i in range(200)]).valid == 0 and sum(server.calls.values()) == calls


def test_the_estimate_is_halved(tmp_path):
    reports = [make_report(i) for i in range(10)]
    with Server() as server:
        found = {}
        for batch in (False, True):
            job = make_job("genai", server, tmp_path, prices=prices(tmp_path), batch=batch)
            with Cache(job.cache) as cache:
                found[batch] = survey(reports, job, cache)
            assert ("EUR, batch price" in "".join(found[batch].lines(job))) == batch
    assert found[True].cost == pytest.approx(found[False].cost / 2) and found[True].cost > 0


def test_nothing_leaks(tmp_path, capsys, caplog):
    caplog.set_level(logging.INFO)
    texts = []
    for status, words in ((400, "refused the key"), (500, "does not take batches"), (404, "does not take batches")):
        with Server(lambda report, nth: "500") as server:
            server.batch_fault = lambda nth, status=status: status
            with pytest.raises(UserError, match=words) as error:
                extract(job_of(server, tmp_path, attempts=2), [make_report(0)], progress=True)
        texts.append("".join(traceback.format_exception(error.value)))
    with Server(lambda report, nth: "500") as server:
        texts.append(repr(extract(job_of(server, tmp_path), [make_report(0)])))
    texts += [*capsys.readouterr(), caplog.text]
    for secret in (KEY, "xamination number", "neumothorax is"):
        assert not [text for text in texts if secret in text]
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert {path.name for path in tmp_path.iterdir()} <= {"c.sqlite", "c.sqlite.batches.lock"}


def test_a_build(tmp_path, capsys):
    path = tables.write(tmp_path / "t", [tables.row(f"s{i}", report=make_report(i)) for i in range(12)])
    options = ["--config=configs/data/table.py", f"--config.table.path={path}", "--config.workers=1",
               "--config.llm.model=gemini-2.5-flash-lite", "--config.llm.batch=true", "--config.llm.batch_poll=0.02",
               f"--out={tmp_path / 'data'}"]
    with Server() as server:
        options.append(f"--config.llm.base_url={server.url}")
        for extractor in ("local", "gemini"):
            with pytest.raises(UserError, match=r"llm\.batch is for the extractors genai and openai"):
                main([*options, f"--config.extractor={extractor}"])
        with pytest.raises(UserError, match="leave out --runner=beam"):
            main([*options, "--config.extractor=genai", "--runner=beam"])
        assert not server.calls
        assert main([*options, "--config.extractor=genai"]) == 0
        assert server.submissions == 1 and len(server.calls) == 12
    assert "asked 12: valid 12" in capsys.readouterr().out


def test_one_process_at_a_time_also_where_the_lock_was_just_removed(tmp_path, monkeypatch):
    flock = fcntl.flock

    def removed_meanwhile(handle, flags):
        (tmp_path / "c.batches.lock").unlink()
        flock(handle, flags)

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with pytest.raises(UserError, match="another process is waiting"), batch_runner._alone(
            SimpleNamespace(cache=tmp_path / "c")):
        pass
