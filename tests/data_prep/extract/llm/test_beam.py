"""Builds in Apache Beam pipelines give, byte for byte, what builds on one machine give; and lose and leak nothing."""

import json
import logging
import signal
import subprocess
import sys
import time
import traceback

import pytest

from data_prep.build import main
from data_prep.extract.llm.cache import Cache
from data_prep.extract.llm.data_use import Route
from data_prep.extract.llm.runners import beam as beam_runner
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from lgdea_jax.runtime import beam
from tests.data_prep.extract.llm.server import KEY, Server, make_report
from tests.data_prep.extract.llm.test_runner import make_job, prices
from tests.data_prep.shards import run, tables


def write(folder, n):
    return tables.write(folder, [tables.row(f"s{i}", report=make_report(i // 2 if i < 10 else i)) for i in range(n)])


def arguments(path, server=None, *more):
    llm = () if server is None else ("--config.extractor=openai", "--config.llm.model=m",
                                     f"--config.llm.base_url={server.base_url('openai')}", "--config.llm.asks=1")
    return ["--config=configs/data/table.py", f"--config.table.path={path}", "--config.workers=1", *llm, *more]


def contents(folder):
    """File -> bytes of a data set, but for the command it was built with and the checksum of that."""
    found = {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
    metadata = json.loads(found.pop("dataset.json"))
    assert metadata.pop("command").startswith("python -m data_prep.build")
    sums = [line for line in found.pop("SHA256SUMS").splitlines() if not line.endswith(b"dataset.json")]
    return {**found, "dataset.json": metadata, "SHA256SUMS": sums}


def sometimes(report, nth):
    """What a server says to a report the first time, the same whoever asks."""
    return {3: "prose", 5: "hallucinated", 7: "garbage", 11: "enums"}.get(sum(map(ord, report)) % 13)


@pytest.mark.parametrize("asks", [True, False])
def test_the_direct_runner_gives_the_same_bytes(asks, tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.extract.llm.runners.chunks.SIZE", 40)
    path = write(tmp_path / "t", 200)
    with Server(sometimes) as server:
        options = arguments(path, server if asks else None, "--config.shard_studies=60")
        local = main([*options, f"--out={tmp_path / 'local'}"])
        calls = server.calls.copy()
        with monkeypatch.context() as patch:  # The shards are made by the pipeline's workers, which have no cache.
            patch.setattr("data_prep.build.workers.run", lambda *args, **options: 1 / 0)
            patch.setattr("data_prep.extract.llm.jobs.Cache", lambda path: 1 / 0)
            assert main([*options, f"--out={tmp_path / 'beam'}", "--runner=beam"]) == local == (3 if asks else 0)
        if asks:
            assert len(calls) == 195 and server.calls == calls + calls
    found = contents(tmp_path / "beam")
    assert found == contents(tmp_path / "local") and len([name for name in found if "array_record" in name]) == 4
    records = list(open_records(tmp_path / "beam", "train"))
    assert len(records) == (200 - found["rejected.csv"].count(b"quarantined") if asks else 200)
    assert sum(len(record.evidence) for record in records) > 600
    assert sorted(file.name for file in tmp_path.iterdir() if "beam" in file.name) == [
        "beam", *(["beam.replies.sqlite"] if asks else [])]


@pytest.fixture
def job_server():
    """Beam's own job server, on this machine: a runner that is not the direct one, reached over gRPC."""
    process = subprocess.Popen([sys.executable, "-c", (
        "from apache_beam.runners.portability.local_job_service import LocalJobServicer; import sys, tempfile;"
        "servicer = LocalJobServicer(tempfile.mkdtemp()); print(servicer.start_grpc_server(0), flush=True);"
        "sys.stdin.read()")], cwd=run.ROOT, env={**run.environment(), "no_grpc_proxy": "localhost,127.0.0.1"},
        text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    yield f"localhost:{process.stdout.readline().strip()}"
    process.stdin.close()
    process.wait(20)


@pytest.mark.slow
def test_another_runner_gives_the_same_bytes(tmp_path, job_server):
    path = write(tmp_path / "t", 250)
    more = ["--", "--runner=PortableRunner", f"--job_endpoint={job_server}", "--environment_type=LOOPBACK"]
    assert not beam.is_direct(more[1:])
    for asks in (True, False):
        with Server(sometimes) as server:
            options = arguments(path, server if asks else None, "--config.shard_studies=100")
            status = main([*options, f"--out={tmp_path / f'local{asks}'}"])
            process = run.build(*options, f"--out={tmp_path / f'beam{asks}'}", "--runner=beam", *more)
            assert process.returncode == status, process.stderr
            if asks:
                assert set(server.calls.values()) == {2}
            assert "xamination number" not in process.stderr + process.stdout and KEY not in process.stderr
        assert contents(tmp_path / f"local{asks}") == contents(tmp_path / f"beam{asks}")


@pytest.mark.slow
def test_workers_in_processes_give_the_same_bytes(tmp_path):
    path = write(tmp_path / "t", 250)
    with Server(sometimes) as server:
        options = arguments(path, server)
        assert main([*options, f"--out={tmp_path / 'local'}"]) == 3
        process = run.build(*options, f"--out={tmp_path / 'beam'}", "--runner=beam", "--", "--direct_num_workers=2",
                            "--direct_running_mode=multi_processing")
        assert process.returncode == 3, process.stderr
        assert set(server.calls.values()) == {2}
    assert contents(tmp_path / "local") == contents(tmp_path / "beam")
    assert "xamination number" not in process.stderr + process.stdout and KEY not in process.stderr


def extract(job, n, **options):
    return beam_runner.extract(lambda: (make_report(i) for i in range(n)), job, [], **options)


def test_the_limit_holds_over_all_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.extract.llm.runners.chunks.SIZE", 50)
    with Server() as server:
        job = make_job("openai", server, tmp_path, prices=prices(tmp_path), max_cost=0.12, concurrency=2)
        summary = extract(job, 200)
        assert summary.asked == 200 == summary.valid + summary.left and 50 < summary.valid < 200
        with Cache(job.cache) as cache:
            spent = cache.spent(job.scope)
        assert spent.cost == pytest.approx(summary.cost) and 0.05 < spent.cost <= 0.12
        assert spent.calls == sum(server.calls.values()) == len(server.calls) == summary.calls == summary.valid
    assert {file.name for file in tmp_path.iterdir()} == {"c.sqlite", "p.json"}


def test_kill_9_loses_nothing_and_repeats_nothing(tmp_path):
    path = write(tmp_path / "t", 120)
    with Server(delay=0.02) as server:
        options = [*arguments(path, server), f"--out={tmp_path / 'data'}"]
        for goal in (25, 60):
            process = subprocess.Popen(run.command(*options, "--runner=beam"), cwd=run.ROOT, env=run.environment(),
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while len(server.answered) < goal and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
            time.sleep(0.2)  # What is on its way at the server ends.
        assert len(server.answered) < 110
        # The replies in the chunks' own caches are found without Beam, too.
        assert main(options) == 0
        # 8 were under way at each kill, and may be asked again.
        assert len(server.calls) == 115 and sum(server.calls.values()) <= 115 + 2 * 8
    assert len(list(open_records(tmp_path / "data", "train"))) == 120
    assert not [file for file in tmp_path.iterdir() if file.name.endswith(".beam")]


def test_two_runs_do_not_ask_the_same(tmp_path):
    with Server() as server:
        job = make_job("openai", server, tmp_path)
        with Cache(job.cache) as other:
            other.claim(job.question(make_report(3)).key, job.scope, 0.0)
            with pytest.raises(UserError, match="another process"):
                extract(job, 10)
        assert not server.calls and extract(job, 10).valid == 10


def test_nothing_leaks(tmp_path, capfd, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    texts = []
    with Server(key="another") as server, pytest.raises(UserError, match="refused the key") as error:
        extract(make_job("openai", server, tmp_path, concurrency=2), 250)
    assert sum(server.calls.values()) == 0 and len(str(error.value).splitlines()) == 1
    texts.append("".join(traceback.format_exception(error.value)))

    def broken(self, reply, report):
        raise ZeroDivisionError("internal error")

    with Server() as server, monkeypatch.context() as patch:
        patch.setattr("data_prep.extract.llm.tasks.Task.read", broken)
        with pytest.raises(ExceptionGroup) as fault:
            extract(make_job("openai", server, tmp_path), 5, progress=True)
        texts.append("".join(traceback.format_exception(fault.value)))
        assert "internal error" in texts[-1]
    texts += [*capfd.readouterr(), caplog.text]
    for secret in (KEY, "xamination number", "neumothorax is"):
        assert not [text for text in texts if secret in text]
    assert not list(tmp_path.glob("*.beam/*.json")) and not list(tmp_path.glob("*.beam/*.sqlite"))


def test_a_worker_for_whom_the_name_is_another_host_sends_nothing(tmp_path, monkeypatch):
    with Server() as server:
        job = make_job("openai", server, tmp_path)
        assert job.endpoint.local
        monkeypatch.setattr("data_prep.extract.llm.data_use.find_route", lambda url: Route(this_host=True))
        with pytest.raises(UserError, match="private network of this worker"):
            extract(job, 10)
        assert not server.calls


@pytest.mark.parametrize("more, words", [
    (["--runner=beem"], ["did you mean 'beam'"]), (["--", "--runner=FlinkRunner"], ["--runner=beam"]),
    (["--runner=beam", "--", "--runner=Flonk"], ["Unexpected pipeline runner: Flonk"])])
def test_wrong_use(tmp_path, more, words):
    path = write(tmp_path / "t", 3)
    with pytest.raises(UserError) as refused:
        main([*arguments(path), f"--out={tmp_path / 'data'}", *more])
    assert all(word in str(refused.value) for word in words)


def test_the_missing_extra_is_named(tmp_path):
    path = write(tmp_path / "t", 3)
    code = ("import sys; sys.modules['apache_beam'] = None; from lgdea_jax import cli; from data_prep.build import main"
            "; cli.run(main)")
    command = [sys.executable, "-c", code, *arguments(path), f"--out={tmp_path / 'data'}", "--runner=beam"]
    process = subprocess.run(command, cwd=run.ROOT, env=run.environment(), text=True,
                             capture_output=True, check=False)
    run.assert_refused(process, '--runner=beam needs apache_beam: pip install -e ".[beam]"')
    assert not (tmp_path / "data").exists()


def test_a_dry_run_needs_no_pipeline(tmp_path, capsys):
    path = write(tmp_path / "t", 30)
    with Server() as server:
        assert main([*arguments(path, server), "--dry_run", "--runner=beam"]) == 0
        assert not server.calls and "to ask 25" in capsys.readouterr().out
