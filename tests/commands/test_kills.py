"""Ten kills (SIGKILL) of each long command: what comes out in the end is what an undisturbed run gives, bit for bit."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import time

import pytest

from lgdea_jax import cli
from lgdea_jax.data.source import open_records
from lgdea_jax.runtime.checkpoint import Checkpoints
from tests.commands import killed
from tests.data_prep.extract.llm.server import KEY, Server, make_report
from tests.data_prep.extract.llm.weights import real_weights
from tests.data_prep.shards import tables
from tests.data_prep.shards.run import PHANTOM, files
from tests.training import runs

pytestmark = pytest.mark.slow
KILLS = 10
TRAIN = ("total_steps=12", "checkpoint.every=2", "eval.every=2", "data.pairs=0.5", "batch.images=4", "batch.reports=4")
# Of the twelve processes of one training: in which of its steps, saves, evaluations ... each ends.
POINTS = [("step", 1), ("step", 3), ("save", 1), ("graph", 1), ("evaluate", 1), ("row", 1), ("graph", 1), ("save", 1),
          ("evaluate", 1), ("row", 1)]


def differing(one, other):
    """Names of files that differ in two data sets, but for the command line in the metadata."""
    first, second = files(one), files(other)
    assert first.keys() == second.keys()
    return {name for name in first if first[name] != second[name]} - {"dataset.json", "SHA256SUMS"}


def finished(out):
    """{side file or shard that counts: when it was written}."""
    sides = sorted(out.glob(".build/*.npz"))
    return {side: side.stat().st_mtime_ns for side in sides}


def test_a_build_by_rules(tmp_path):
    words = [*PHANTOM, "--config.workers=1", "--config.phantom.train=90"]
    killed.start("data_prep.build", [*words, f"--out={tmp_path / 'one'}"], tmp_path / "log").join()
    out, seen = tmp_path / "two", {}

    def before():
        if (out / "dataset.json").is_file():
            shutil.rmtree(out)
            seen.clear()
            return
        for side, written in finished(out).items():
            assert seen.setdefault(side, written) == written  # Never made again.

    kills, _ = killed.until_done("data_prep.build", [*words, f"--out={out}"], tmp_path / "log", kills=KILLS, seed=0,
                                 before=before)
    assert kills == KILLS and not differing(tmp_path / "one", out)
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_build_with_a_language_model(tmp_path):
    """Over a socket; no report is asked about again but those in flight at a kill."""
    reports = [make_report(i) for i in range(200)]
    table = tables.write(tmp_path / "t", [tables.row(f"s{i}", report=report) for i, report in enumerate(reports)])
    with Server(delay=0.02) as server:
        words = ["--config=configs/data/table.py", f"--config.table.path={table}", "--config.workers=1",
                 "--config.extractor=openai", "--config.llm.model=m", "--config.llm.concurrency=4",
                 f"--config.llm.base_url={server.base_url('openai')}"]
        variables = {"OPENAI_API_KEY": KEY}
        killed.start("data_prep.build", [*words, f"--out={tmp_path / 'one'}"], tmp_path / "log",
                     variables=variables).join()
        server.calls.clear()
        out, repeated = tmp_path / "two", 0

        def before():
            nonlocal repeated
            if (out / "dataset.json").is_file():
                shutil.rmtree(out)
                for cache in tmp_path.glob("two.*"):
                    cache.unlink()
                server.calls.clear()

        kills, _ = killed.until_done("data_prep.build", [*words, f"--out={out}"], tmp_path / "log", kills=KILLS, seed=1,
                                     before=before, variables=variables)
        repeated = sum(server.calls.values()) - len(reports)
    assert kills == KILLS and set(server.calls) == set(reports) and 0 <= repeated <= 4 * KILLS
    print(f"\n{repeated} of {len(reports)} reports were asked about twice: 4 in flight at each of {KILLS} kills")
    assert not differing(tmp_path / "one", out)
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_build_with_a_model_in_its_process(tmp_path):
    """Real weights; an answered report is never asked about again."""
    # A short question, with an answer that the smallest of models gives mostly; the other replies are cut.
    (tmp_path / "prompt.txt").write_text("Reply with {\"normal\": true, \"evidence\": []} about every report. "
                                         "Findings: {findings}.")
    reports = [f"Study {i}. The heart is normal in size." for i in range(12)]
    table = tables.write(tmp_path / "t", [tables.row(f"s{i}", report=report) for i, report in enumerate(reports)])
    words = ["--config=configs/data/table.py", f"--config.table.path={table}", "--config.workers=1",
             "--config.extractor=local", f"--config.llm.model={real_weights(tmp_path)}", "--config.llm.threads=1",
             f"--config.llm.prompt={tmp_path / 'prompt.txt'}", "--config.llm.max_tokens=48", "--config.llm.asks=1"]
    killed.start("data_prep.build", [*words, f"--out={tmp_path / 'one'}"], tmp_path / "log").join()
    out, answered = tmp_path / "two", []

    def stored(name, question):
        with contextlib.closing(sqlite3.connect(tmp_path / f"{name}.replies.sqlite", timeout=60)) as store:
            return store.execute(question).fetchall()

    def before():
        if (tmp_path / "two.replies.sqlite").is_file():
            with contextlib.suppress(sqlite3.OperationalError):  # Without tables yet.
                answered.extend(number for number, in stored("two", "SELECT COUNT(*) FROM replies"))
        if (out / "dataset.json").is_file():
            shutil.rmtree(out)
            for cache in tmp_path.glob("two.*"):
                cache.unlink()

    kills, _ = killed.until_done("data_prep.build", [*words, f"--out={out}"], tmp_path / "log", kills=KILLS, seed=4,
                                 before=before, status=cli.PARTIAL)
    assert kills == KILLS and any(0 < number < len(reports) for number in answered)
    replies = [stored(name, "SELECT key, status, reason, reply FROM replies ORDER BY key") for name in ("one", "two")]
    assert replies[0] == replies[1] and len(replies[0]) == len(reports)
    # A call is booked with its reply: what was in flight at a kill is not among them, what is asked twice would be.
    assert stored("two", "SELECT calls FROM spent") == [(len(reports),)]
    assert not differing(tmp_path / "one", out)
    assert 0 < sum(record.has_report for record in open_records(out, "train")) < len(reports)
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_training(phantom_data, compile_cache, tmp_path):
    flags = [runs.flags_of(tmp_path / name, phantom_data, *TRAIN, cache=compile_cache) for name in ("one", "two")]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    killed.start("lgdea_jax.train", flags[0], tmp_path / "log", end=("never", 0)).join()
    for point in POINTS:
        process = killed.start("lgdea_jax.train", flags[1], tmp_path / "log", end=point)
        process.join()
        assert process.exitcode == -9, (point, (tmp_path / "log").read_text()[-3000:])
    process = killed.start("lgdea_jax.train", flags[1], tmp_path / "log", end=("never", 0))
    process.join()
    assert process.exitcode == 0 and "Traceback" not in (tmp_path / "log").read_text()
    for name in ("metrics.jsonl", "evals.jsonl"):
        assert runs.rows(tmp_path / "one", name) == runs.rows(tmp_path / "two", name)
    runs.assert_same_state(tmp_path / "one", tmp_path / "two", 12)
    stores = [Checkpoints(tmp_path / name, writable=False) for name in ("one", "two")]
    assert stores[0].best == stores[1].best and stores[0].steps() == stores[1].steps()
    for store in stores:
        store.close()


@pytest.fixture(scope="module")
def run(phantom_data, compile_cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    runs.here(folder, phantom_data, "total_steps=1", config="tests/training/tiny.py:lgdea", cache=compile_cache)
    return folder


def test_predict(run, tmp_path):
    (tmp_path / "in").mkdir()
    for n in range(40):
        tables.image(tmp_path / "in", f"{n:02d}.png", (300, 200), seed=n)
    out, complete = tmp_path / "two", []

    def words(folder):
        return [f"--checkpoint={run}", tmp_path / "in", "--prompt=edema", "--embeddings", "--heatmaps",
                "--batch_size=8", f"--out={folder}"]

    def before():
        if (out / "about.json").is_file():
            complete.append(json.loads((out / "about.json").read_text())["complete"])
            shutil.rmtree(out) if complete[-1] else None

    killed.start("lgdea_jax.predict", words(tmp_path / "one"), tmp_path / "log").join()
    kills, _ = killed.until_done("lgdea_jax.predict", words(out), tmp_path / "log", kills=KILLS, seed=2, before=before)
    first, second = files(tmp_path / "one"), files(out)
    assert kills == KILLS and first.keys() == second.keys() and len(first) == 45
    assert {name for name in first if first[name] != second[name]} <= {"about.json"}  # The command line.


def test_audit(phantom_data, tmp_path):
    def words(page):
        return [f"--data_dir={phantom_data}", f"--html={page}", "--sample=40"]

    page = tmp_path / "two.html"

    def before():
        if page.is_file():
            assert page.read_text().rstrip().endswith("</html>")
            page.unlink()

    killed.start("data_prep.audit", words(tmp_path / "one.html"), tmp_path / "log").join()
    kills, _ = killed.until_done("data_prep.audit", words(page), tmp_path / "log", kills=KILLS, seed=3, before=before)
    assert kills == KILLS and page.read_bytes() == (tmp_path / "one.html").read_bytes()


def test_stopped_and_continued(tmp_path):
    """SIGSTOP and SIGCONT: a build goes on as if nothing had been."""
    words = [*PHANTOM, "--config.workers=1"]
    killed.start("data_prep.build", [*words, f"--out={tmp_path / 'one'}"], tmp_path / "log").join()
    process = killed.start("data_prep.build", [*words, f"--out={tmp_path / 'two'}"], tmp_path / "log")
    while process.is_alive():
        time.sleep(0.1)
        for number in (signal.SIGSTOP, signal.SIGCONT):
            if process.is_alive():
                os.kill(process.pid, number)
                time.sleep(0.1)
    process.join()
    assert process.exitcode == 0 and not differing(tmp_path / "one", tmp_path / "two")
