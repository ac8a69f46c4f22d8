"""Batches of the OpenAI API and files for vLLM, through the real package: cheaper, nothing lost, nothing twice."""

import json
import signal
import subprocess
import sys
import time
import traceback

import pytest

from data_prep.build import main
from data_prep.extract.llm import stage
from data_prep.extract.llm.cache import Cache
from data_prep.extract.llm.data_use import Route
from data_prep.extract.llm.runners import batch as batch_runner
from data_prep.extract.llm.tasks import load_task
from lgdea_jax.errors import UserError
from tests.data_prep.extract.llm.openai_batches import chat
from tests.data_prep.extract.llm.server import KEY, Server, evidence_reply, make_report
from tests.data_prep.extract.llm.test_batch import extract
from tests.data_prep.extract.llm.test_runner import check_answers, make_job, prices
from tests.data_prep.shards import run, tables


def job_of(server, folder, **settings):
    return make_job("openai", server, folder, **{"batch": True, "batch_poll": 0.02, **settings})


def test_batches_bring_what_single_requests_bring(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_runner, "_MOST_REQUESTS", 20)
    reports = [make_report(i) for i in range(50)]
    with Server() as server:
        job = job_of(server, tmp_path, prices=prices(tmp_path))
        summary = extract(job, [*reports, *reports[:5], " "])
        assert (summary.asked, summary.valid, summary.calls, len(server.files.batches)) == (50, 50, 50, 3)
        assert extract(job, reports).asked == 0 and set(server.calls.values()) == {1}
        # They hold reports: what was sent and what came is removed at the server.
        assert not server.files.files and len(server.files.deleted) == 6
        assert all(name.startswith("batch-") for name in server.files.names)
        body = server.bodies[0]
    task = load_task("evidence")
    assert body["messages"] == [{"role": "system", "content": task.prompt}, {"role": "user", "content": reports[0]}]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.0, 4096)
    assert body["response_format"]["json_schema"]["schema"] == task.schema and "seed" not in body
    assert check_answers(job, reports) == (50, 0)
    with Cache(job.cache) as cache:
        spent = cache.spent(job.scope)
        assert not cache.batches_under_way(job.scope)
    # The table says 1 and 2 for a million tokens; a batch costs half.
    assert spent.cost == pytest.approx((spent.tokens_in + 2 * spent.tokens_out) / 2e6) == summary.cost > 0


def test_requests_that_fail_are_asked_again_and_then_quarantined(tmp_path):
    bad, odd = make_report(3), make_report(4)
    faults = {bad: lambda nth: "400", odd: lambda nth: "garbage" if nth == 1 else None}
    with Server(lambda report, nth: faults.get(report, lambda nth: None)(nth)) as server:
        job = job_of(server, tmp_path)
        summary = extract(job, [make_report(i) for i in range(10)])
        assert (summary.valid, summary.quarantined, summary.failed) == (9, 1, 0)
        assert summary.reasons == {"request refused (400)": 1}
        assert (server.calls[bad], server.calls[odd], len(server.files.batches)) == (2, 2, 2)


def test_what_a_batch_had_no_time_for_is_asked_again(tmp_path):
    with Server() as server:
        server.batch_fault = lambda nth: "EXPIRED" if nth == 1 else None
        summary = extract(job_of(server, tmp_path), [make_report(i) for i in range(10)])
        assert summary.valid == 10 and set(server.calls.values()) == {1} and server.submissions == 2
        server.batch_fault = lambda nth: "EXPIRED"
        # Of four two are answered in time, of the other two one more.
        summary = extract(job_of(server, tmp_path), [make_report(i) for i in range(20, 24)])
        assert (summary.valid, summary.failed, summary.reasons) == (3, 1, {"the batch has expired": 1})


def test_batches_that_fail_or_get_lost(tmp_path):
    reports = [make_report(i) for i in range(5)]
    with Server() as server:
        server.batch_fault = lambda nth: {1: "FAILED", 2: "lost"}.get(nth)
        job = job_of(server, tmp_path)
        summary = extract(job, reports)
        assert (summary.failed, summary.reasons) == (5, {"the batch has failed": 5})
        assert extract(job, reports).valid == 5 and server.submissions == 2  # Found by its label: not made twice.


def test_a_refused_parameter_is_left_out_of_the_next_batch(tmp_path):
    refusal = (400, {"error": {"message": "Unsupported value", "param": "temperature"}})
    with Server(refuse=lambda asked: refusal if "temperature" in asked else None) as server:
        job = job_of(server, tmp_path)
        assert extract(job, [make_report(i) for i in range(4)]).valid == 4
        assert [len(batch["asked"]["metadata"]["form"]) > 0 for batch in server.files.batches.values()] == [False, True]
    with Cache(job.cache) as cache:
        assert cache.totals(job.scope).forms == {"no temperature": 4}


CHILD = """
import sys
from data_prep.extract.llm.runners import batch as batch_runner
from data_prep.extract.llm.jobs import Job
from data_prep.extract.llm.settings import Settings
from tests.data_prep.extract.llm.server import make_report
batch_runner._MOST_REQUESTS = 10
settings = Settings(model="m", base_url=sys.argv[1], batch=True, batch_poll=0.05)
job = Job("openai", settings, sys.argv[2], base_wait=0.02)
print(batch_runner.extract(lambda: (make_report(i) for i in range(40)), job).valid)
"""


@pytest.mark.slow
def test_killed_it_goes_on_with_the_batches_under_way(tmp_path):
    with Server() as server:
        command = [sys.executable, "-c", CHILD, server.base_url("openai"), str(tmp_path / "c.sqlite")]
        server.looks = 10**9
        process = subprocess.Popen(command, cwd=run.ROOT, env=run.environment(), stdout=subprocess.DEVNULL)
        while len(server.files.batches) < 3:
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        server.looks = 1
        out = subprocess.run(command, cwd=run.ROOT, env=run.environment(), stdout=subprocess.PIPE, check=True,
                             text=True, timeout=300)
        assert int(out.stdout) == 40 and set(server.calls.values()) == {1} and len(server.files.batches) == 4


def test_the_guards_hold(tmp_path, monkeypatch, caplog, capsys):
    caplog.set_level("INFO")
    texts = []
    for fault, words in (({"key": "another"}, "refused the key"), ({}, "does not take batches")):
        with Server(**fault) as server:
            server.redirect = None if fault else "http://192.0.2.1/"
            with pytest.raises(UserError, match=words) as error:
                extract(job_of(server, tmp_path, attempts=2), [make_report(0)])
            assert not server.calls
        texts.append("".join(traceback.format_exception(error.value)))
    texts += [caplog.text, *capsys.readouterr()]
    assert not [text for text in texts for secret in (KEY, "xamination number") if secret in text]
    with Server() as server:
        # It stands for a remote one: terms are asked for, and over plain http no key is sent.
        monkeypatch.setattr("data_prep.extract.llm.data_use.find_route", lambda url: Route(("127.0.0.1",)))
        for terms, words in (("credentialed", "attest_data_use"), ("unstated", "state x")):
            with pytest.raises(UserError, match=words):
                stage.ask(lambda: [make_report(0)], job_of(server, tmp_path), terms=lambda terms=terms: (terms,),
                          where="x", progress=False)
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(UserError, match="none is sent over plain http"):
            extract(job_of(server, tmp_path), [make_report(0)])
        assert server.headers.get("authorization") != f"Bearer {KEY}" and not server.calls


# --- Files for vLLM ---------------------------------------------------------------------------------------------------


def run_vllm(path, *, wrong=None, most=None):
    """What `vllm run-batch` writes: every answer in one line, with the whole response of its server as the body."""
    lines = []
    for text in path.read_text().splitlines()[:most]:
        item = json.loads(text)
        prompt, report = (message["content"] for message in item["body"]["messages"])
        body = chat(json.dumps(evidence_reply(report)), prompt, report)
        answer = {"id": "vllm-1", "custom_id": item["custom_id"], "error": None,
                  "response": {"status_code": 200, "request_id": "r", "body": body}}
        if report == wrong:
            answer["response"] = {"status_code": 400, "request_id": "r", "body": None}
            answer["error"] = {"message": "This model's maximum context length is 2048 tokens", "code": 400}
        lines.append(json.dumps(answer))
    path.with_name(path.name.replace(".input.", ".output.")).write_text("\n".join(lines) + "\n")


def test_questions_and_answers_as_files(tmp_path, capsys):
    path = tables.write(tmp_path / "t", [tables.row(f"s{i}", report=make_report(i)) for i in range(12)])
    folder = tmp_path / "files"
    options = ["--config=configs/data/table.py", f"--config.table.path={path}", "--config.workers=1",
               "--config.extractor=openai", "--config.llm.model=org/model", f"--config.llm.exchange={folder}",
               f"--out={tmp_path / 'data'}"]
    for _ in range(2):  # Nothing is written twice.
        with pytest.raises(UserError, match=r"vllm run-batch -i .*input\.jsonl -o .*output\.jsonl --model org/model"):
            main(options)
    questions, = folder.iterdir()
    assert (folder.stat().st_mode & 0o777, questions.stat().st_mode & 0o777) == (0o700, 0o600)
    lines = [json.loads(line) for line in questions.read_text().splitlines()]
    assert [line["custom_id"] for line in lines] == [str(i) for i in range(12)]
    assert {(line["method"], line["url"], line["body"]["model"]) for line in lines} == {
        ("POST", "/v1/chat/completions", "org/model")}
    run_vllm(questions, most=5)  # It is still being written.
    with pytest.raises(UserError, match="run-batch"):
        main(options)
    run_vllm(questions, wrong=make_report(4))
    with pytest.raises(UserError, match="run-batch"):  # What went wrong is asked once more.
        main(options)
    again, = folder.iterdir()
    assert len(again.read_text().splitlines()) == 1
    run_vllm(again, wrong=make_report(4))
    assert main(options) == 3 and not list(folder.iterdir())
    assert "4,," in (tmp_path / "data" / "rejected.csv").read_text() and capsys.readouterr()
    with pytest.raises(UserError, match=r"llm\.exchange is for the extractor openai"):
        main([*options, "--config.llm.base_url=http://localhost:1/v1", f"--out={tmp_path / 'other'}"])
