"""The model in this process: what llama.cpp is asked and told through a stand-in, and a build with real weights."""

import asyncio
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from data_prep.build import main as build
from data_prep.extract.llm import stage
from data_prep.extract.llm.cache import FAILED, INVALID, VALID
from data_prep.extract.llm.clients import client as clients
from data_prep.extract.llm.clients.client import ClientError, Endpoint, Request, open_client
from data_prep.extract.llm.data_use import IN_PROCESS
from data_prep.extract.llm.repair import REPEATS, repeats
from data_prep.extract.llm.runners.online import extract
from data_prep.extract.llm.settings import Settings
from data_prep.extract.llm.tasks import load_task
from lgdea_jax import cli
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from tests.data_prep.extract.llm.server import evidence_reply, make_report
from tests.data_prep.extract.llm.weights import real_weights
from tests.data_prep.shards import run, tables


class Llama(types.ModuleType):
    """Stands in for xllamacpp: replies as the tests' server does, in parts."""

    def __init__(self):
        super().__init__("xllamacpp")
        self.settled = []  # (questions before, prompt, report, whether what is in memory may serve)
        self.asked, self.options, self.error, self.parts_taken, self.seen = [], None, None, 0, {}
        llama = self

        class Server:
            def __init__(self, options):
                if llama.error == "load":
                    raise RuntimeError("Failed to init server, please check the input params.")
                llama.options = options
                folder = Path(options.hostnames[0]).parent
                llama.seen = {"mode": stat.S_IMODE(folder.stat().st_mode), "folder": folder}

            def handle_chat_completions(self, question, take=None):
                if take is None:
                    llama.settled.append((len(llama.asked), question["messages"][0]["content"],
                                          question["messages"][1]["content"], question["cache_prompt"]))
                    return {"choices": []}
                llama.asked.append(question)
                if isinstance(llama.error, dict):
                    return {"error": llama.error}
                if llama.error == "value":
                    raise ValueError("the words of the report")
                text = json.dumps(evidence_reply(question["messages"][1]["content"]))
                if llama.error == "loop":
                    text = text[:100] + 10_000 * '{"quote": "edema is seen", "finding": "Edema"}, '
                ended = "length" if llama.error == "cut" else "stop"
                for start in range(0, len(text), 20):
                    llama.parts_taken += 1
                    if take({"choices": [{"delta": {"content": text[start:start + 20]}, "finish_reason": None}]}):
                        return None
                take({"choices": [{"delta": {}, "finish_reason": ended}]})
                take({"choices": [], "usage": {"prompt_tokens": 5000, "completion_tokens": 70}})
                return None

        self.Server, self.devices = Server, ["CPU"]
        self.ggml_backend_dev_type = types.SimpleNamespace(
            **{f"GGML_BACKEND_DEVICE_TYPE_{kind}": kind for kind in ("CPU", "GPU", "IGPU", "ACCEL")})
        self.get_device_info = lambda: [{"type": kind} for kind in self.devices]
        self.CommonParams = lambda: types.SimpleNamespace(
            model=types.SimpleNamespace(), cpuparams=types.SimpleNamespace(), cpuparams_batch=types.SimpleNamespace())


@pytest.fixture
def llama(monkeypatch):
    stand_in = Llama()
    monkeypatch.setitem(sys.modules, "xllamacpp", stand_in)
    monkeypatch.delitem(sys.modules, "data_prep.extract.llm.clients.local", raising=False)
    yield stand_in
    sys.modules.pop("data_prep.extract.llm.clients.local", None)


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "small.gguf").write_bytes(b"GGUF and more")
    return tmp_path / "small.gguf"


def ask(path, closed=False, **options):
    async def run():
        client = open_client(Endpoint("local", str(path), route=IN_PROCESS, **options))
        if closed:
            client._closed.set()
        try:
            return await client.ask(Request("prompt", make_report(0), {"type": "object"}, "evidence@2", 99))
        finally:
            await client.close()

    return asyncio.run(run())


def test_a_reply_is_asked_for_in_this_process_only(llama, weights):
    reply = ask(weights, threads=3, gpu_layers=7, context=1000, concurrency=8)
    assert (reply.text, reply.tokens_in, reply.tokens_out, reply.cut) == (
        json.dumps(evidence_reply(make_report(0))), 5000, 70, False)
    [asked] = llama.asked
    assert [message["content"] for message in asked["messages"]] == ["prompt", make_report(0)]
    assert (asked["max_tokens"], asked["temperature"]) == (99, 0.0)
    assert asked["response_format"]["json_schema"]["schema"] == {"type": "object"}
    options = llama.options
    assert (options.n_parallel, options.n_ctx, options.n_gpu_layers) == (1, 1000, 7)
    assert options.cpuparams.n_threads == options.cpuparams_batch.n_threads == 3
    # Its endpoint is a file that only this user reaches, and it is gone with the client.
    [host] = options.hostnames
    assert host.endswith(".sock") and llama.seen["mode"] == 0o700 and not llama.seen["folder"].exists()
    assert options.offline and options.verbosity < 0 and len(options.api_keys[0]) > 30
    assert not (options.ui or options.endpoint_slots or options.endpoint_props)
    ask(weights, temperature=None, structured="none")
    assert "temperature" not in llama.asked[-1] and "response_format" not in llama.asked[-1]


@pytest.mark.parametrize("devices, layers, slots", [
    (["CPU", "ACCEL"], -1, 1), (["CPU", "GPU"], 0, 1), (["CPU", "GPU"], -1, 4), (["CPU", "IGPU"], 9, 4)])
def test_one_question_at_a_time_but_on_a_gpu(llama, weights, devices, layers, slots):
    llama.devices = devices
    ask(weights, gpu_layers=layers, context=1000, concurrency=8)
    assert (llama.options.n_parallel, llama.options.n_ctx) == (slots, 1000 * slots)
    ask(weights, gpu_layers=layers, concurrency=2)
    assert llama.options.n_parallel == min(slots, 2)


def test_a_reply_is_bounded_by_the_length_of_its_report(llama, weights):
    task, report = load_task("evidence"), 20 * "No effusion, oedema or nodule. "

    async def run():
        client = open_client(Endpoint("local", str(weights), route=IN_PROCESS))
        for text in (report, "Normal.", 100 * report):
            await client.ask(Request(task.prompt, text, task.schema, task.name, 4096))
        await client.close()

    asyncio.run(run())
    sent = [asked["response_format"]["json_schema"]["schema"]["properties"]["evidence"] for asked in llama.asked]
    # 160 tokens by the estimate: 5 words, of which "effusion" has two, a comma and a stop, 20 times.
    assert [evidence["maxItems"] for evidence in sent] == [8 + 160 // 4, 8, 200]
    fields = [evidence["items"]["properties"] for evidence in sent]
    assert [(field["quote"]["maxLength"], field["anatomy"]["maxLength"]) for field in fields] == [
        (500, 80), (7, 7), (500, 80)]
    assert all("maxLength" not in field["finding"] for field in fields)  # One of a list.
    # llama.cpp takes a bound of 2,000 or more for none, or refuses it.
    assert "maxLength" not in json.dumps(task.schema) and "maxItems" not in json.dumps(task.schema)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not say which cores are ours")
@pytest.mark.parametrize("ours, all_cores, threads", [(3, 64, 3), (8, 8, -1)])
def test_as_many_threads_as_cores_that_it_may_use(llama, weights, monkeypatch, ours, all_cores, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(ours)))
    monkeypatch.setattr(os, "cpu_count", lambda: all_cores)
    ask(weights)
    assert llama.options.cpuparams.n_threads == llama.options.cpuparams_batch.n_threads == threads


def test_replies_do_not_depend_on_the_questions_before(llama, weights):
    """Before each question the memory holds its prompt alone, as it was computed with nothing before it."""
    def run(**options):
        async def ask_all():
            client = open_client(Endpoint("local", str(weights), route=IN_PROCESS, **options))
            for prompt in ("one", "one", "two", "one"):
                await client.ask(Request(prompt, make_report(0), {"type": "object"}, "evidence@2", 99))
            await client.close()

        asyncio.run(ask_all())

    run()
    assert llama.settled == [(0, "one", "~", False), (1, "one", "~", True), (2, "two", "~", False),
                             (3, "one", "~", False)]
    llama.settled, llama.devices = [], ["GPU"]
    run()  # There others are computed beside it.
    assert not llama.settled


def test_a_dry_run_measures_ten_reports(llama, weights, tmp_path, capsys):
    job = stage.make_job("local", {"model": str(weights)}, tmp_path / "data")
    _, sent = stage.estimate(lambda: [make_report(i) for i in range(30)], job, terms=lambda: (), where="x")
    asked = {question["messages"][1]["content"] for question in llama.asked}
    assert sent == 0 and len(llama.asked) == len(asked) == 10 < sum(make_report(i) not in asked for i in range(30))
    printed = capsys.readouterr().out
    assert "measured on 10 reports: " in printed and "5000 tokens in and 70 out a report" in printed
    assert "10,000 reports: " in printed and sorted(path.name for path in tmp_path.iterdir()) == [weights.name]


def test_one_report_is_done_with_before_the_next(llama, weights, tmp_path):
    """What waits inside the client would be lost at a kill."""
    llama.error = "loop"
    reports = [make_report(i) for i in range(3)]
    job = stage.make_job("local", {"model": str(weights)}, tmp_path / "data")
    summary = extract(lambda: reports, job)
    assert summary.quarantined == 3 and dict(summary.reasons) == {REPEATS: 3}
    asked = [question["messages"][1]["content"] for question in llama.asked]
    assert [report for text in asked for report in reports if text.startswith(report)] == [
        report for report in reports for _ in range(2)]


def test_what_goes_wrong_has_a_kind_and_no_words(llama, weights):
    llama.error = "cut"
    assert ask(weights).cut
    for error, kind in (({"code": 400, "type": "exceed_context_size_error", "message": "secret"}, clients.TOO_LONG),
                        ({"code": 500, "type": "server_error", "message": "secret"}, clients.REFUSED),
                        ("value", clients.REFUSED)):
        llama.error = error
        with pytest.raises(ClientError) as caught:
            ask(weights)
        assert caught.value.kind == kind and "secret" not in str(caught.value) and "words" not in str(caught.value)
    llama.error, llama.parts_taken = "loop", 0
    reply = ask(weights)
    # It is ended long before its 24,000 pieces, and is not asked for again with twice the room.
    assert llama.parts_taken < 40 and not reply.cut and repeats(reply.text)
    llama.error, llama.parts_taken = None, 0
    with pytest.raises(ClientError, match=clients.CONNECTION):
        ask(weights, closed=True)  # An interrupted run ends a reply at once.
    assert llama.parts_taken == 1


def test_files_that_are_no_models_are_refused(llama, tmp_path, weights):
    (tmp_path / "text.gguf").write_text("hello")
    for name, message in (("none.gguf", "No such file"), ("text.gguf", "not a GGUF file"), (".", "Is a directory")):
        with pytest.raises(UserError, match=message):
            ask(tmp_path / name)
    llama.error = "load"
    with pytest.raises(UserError, match="cannot load"):
        ask(weights)
    with pytest.raises(UserError, match="base_url is for servers"):
        Settings(model="m", base_url="http://localhost").endpoint("local")


def test_a_build_of_credentialed_reports_needs_no_network(llama, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("a name is looked up"))
    path = tables.write(tmp_path / "t", [tables.row(f"s{i}", report=make_report(i), terms="credentialed")
                                         for i in range(6)])
    arguments = ["--config=configs/data/table.py", f"--config.table.path={path}", "--config.extractor=local",
                 f"--config.llm.model={weights}", "--config.workers=1"]
    assert build([*arguments, f"--out={tmp_path / 'data'}"]) == cli.OK
    assert len(llama.asked) == 6
    assert "at this process (local)" in capsys.readouterr().out
    assert load_metadata(tmp_path / "data").extractor == "local:small.gguf/evidence@2"  # Without the folder.
    assert all(record.evidence for record in open_records(tmp_path / "data", "train"))
    weights.unlink()  # What is answered needs no model.
    assert build([*arguments, f"--config.llm.cache={tmp_path / 'data.replies.sqlite'}",
                  f"--out={tmp_path / 'again'}"]) == cli.OK
    assert len(llama.asked) == 6


@pytest.mark.slow
def test_real_weights_account_for_every_report_after_a_kill(tmp_path):
    path = real_weights(tmp_path)
    rows = [tables.row(f"s{i}", report=make_report(i)) for i in range(20)]
    (tmp_path / "t").mkdir()
    rows.append(tables.row("picture", image=tables.image(tmp_path / "t", "a.png")))
    table, cache = tables.write(tmp_path / "t", rows), tmp_path / "data.replies.sqlite"
    # The model is far too small: most replies are cut. One thread: llama.cpp's wait for one another by spinning.
    command = run.command("--config=configs/data/table.py", f"--config.table.path={table}", "--config.extractor=local",
                          f"--config.llm.model={path}", "--config.llm.threads=1", "--config.llm.max_tokens=32",
                          "--config.llm.asks=1", "--config.workers=1", f"--out={tmp_path / 'data'}")

    def statuses():
        if not cache.is_file():
            return []
        with sqlite3.connect(cache, timeout=60) as store:
            try:
                return [status for status, in store.execute("SELECT status FROM replies")]
            except sqlite3.OperationalError:  # The table is not made yet.
                return []

    process = subprocess.Popen(command, cwd=run.ROOT, env=run.environment(), stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    end = time.monotonic() + 500
    while len(statuses()) < 5:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = len(statuses())
    assert 5 <= before < 20
    finished = subprocess.run(command, cwd=run.ROOT, env=run.environment(), capture_output=True, text=True,
                              timeout=500, check=False)
    assert finished.returncode == cli.PARTIAL, finished.stderr
    assert f"asked {20 - before}: " in finished.stdout
    counted = statuses()
    assert len(counted) == 20 and FAILED not in counted
    records = [record for record in open_records(tmp_path / "data", "train") if record.has_report]
    lines = (tmp_path / "data/rejected.csv").read_text().splitlines()[1:]
    assert (len(records), len(lines)) == (counted.count(VALID), counted.count(INVALID))
    assert len(records) + len(lines) == 20
