"""The reply cache: nothing is lost, nothing is asked twice, money is counted, by several processes."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from data_prep.extract.llm.cache import (
    CLAIMED,
    FAILED,
    INVALID,
    OVER,
    TAKEN,
    VALID,
    Cache,
    Entry,
    Spent,
    key_of,
    scope_of,
)
from data_prep.extract.llm.tasks import load_task
from lgdea_jax.errors import UserError
from tests.data_prep.shards.run import ROOT, environment

SCOPE = b"s" * 16


def key(i):
    return key_of(SCOPE, f"report {i}")


def test_round_trip(tmp_path):
    entry = Entry(VALID, "", 'ünï {"a": 1} \ud800')
    with Cache(tmp_path / "c") as cache:
        assert cache.get(key(0)) is None
        cache.put(key(0), SCOPE, entry, Spent(1, 10, 5, 9, 0.5))
        cache.put(key(1), SCOPE, Entry(INVALID, "why", "raw"))
    with Cache(tmp_path / "c") as cache:
        assert cache.get(key(0)) == entry
        assert cache.statuses([key(i) for i in range(1500)]) == {key(0): VALID, key(1): INVALID}
        assert cache.spent(SCOPE) == Spent(1, 10, 5, 9, 0.5, 0.0) and cache.spent(b"t" * 16) == Spent()
        assert [item for _, item in cache.quarantined(SCOPE)] == [Entry(INVALID, "why", "raw")]
    assert os.stat(tmp_path / "c").st_mode & 0o077 == 0  # Replies quote reports.


def test_another_report_prompt_schema_or_model_is_another_key():
    import dataclasses

    task = load_task("evidence")
    scopes = [scope_of(task, "m"), scope_of(task, "n"), scope_of(dataclasses.replace(task, prompt="p"), "m"),
              scope_of(dataclasses.replace(task, schema={}), "m"), scope_of(load_task("chexpert14"), "m")]
    keys = [key_of(scope, report) for scope in scopes for report in ("a", "b", "a ")]
    assert len(set(keys)) == 15 and key_of(scope_of(load_task("evidence"), "m"), "a") == keys[0]


def test_claims(tmp_path):
    with Cache(tmp_path / "c") as one, Cache(tmp_path / "c") as two:
        assert one.claim(key(0), SCOPE, 1.0) == CLAIMED
        assert two.claim(key(0), SCOPE, 1.0) == TAKEN
        one.release(key(0))
        assert two.claim(key(0), SCOPE, 1.0) == CLAIMED
        two.put(key(0), SCOPE, Entry(FAILED, "timeout", ""))
        assert one.claim(key(0), SCOPE, 1.0) == CLAIMED  # No reply is no answer.
        one.put(key(0), SCOPE, Entry(VALID, "", "x"))
        assert two.claim(key(0), SCOPE, 1.0) == TAKEN


def test_the_limit_holds_over_processes(tmp_path):
    with Cache(tmp_path / "c") as one, Cache(tmp_path / "c") as two:
        assert one.claim(key(0), SCOPE, 0.6, 1.0) == CLAIMED
        assert two.claim(key(1), SCOPE, 0.6, 1.0) == OVER
        one.put(key(0), SCOPE, Entry(VALID, "", "x"), Spent(1, 1, 1, 1, 0.1))
        assert two.claim(key(1), SCOPE, 0.6, 1.0) == CLAIMED
        two.book_lost(SCOPE, 0.6)
        assert not two.affordable(SCOPE, 1.0) and two.affordable(SCOPE, 1.3 + 1e-9)
        assert two.spent(SCOPE).lost == 0.6


KILLED = """
import os, signal, sys
from data_prep.extract.llm.cache import Cache, Entry, Spent, VALID
cache = Cache(sys.argv[1])
for i in range(3):
    assert cache.claim(bytes([i]) * 16, b"s" * 16, 0.25) == "claimed"
cache.put(bytes(16), b"s" * 16, Entry(VALID, "", "kept"), Spent(1, 1, 1, 1, 0.1))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_claims_of_a_killed_process_are_void_and_booked(tmp_path):
    process = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "c"], env=environment(), cwd=ROOT, check=False)
    assert process.returncode == -signal.SIGKILL
    with Cache(tmp_path / "c") as cache, Cache(tmp_path / "c") as living:
        assert cache.get(bytes(16)).reply == "kept"
        assert living.claim(b"l" * 16, SCOPE, 5.0) == CLAIMED
        assert cache.claim(bytes([1]) * 16, SCOPE, 0.0) == TAKEN
        assert cache.reap() == 2
        assert cache.claim(bytes([1]) * 16, SCOPE, 0.0) == CLAIMED
        assert cache.claim(b"l" * 16, SCOPE, 0.0) == TAKEN
        assert cache.spent(SCOPE).cost == pytest.approx(0.6) and cache.spent(SCOPE).lost == pytest.approx(0.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]


def _claim_all(path):
    with Cache(path) as cache:
        mine = [i for i in range(200) if cache.claim(key(i), SCOPE, 0.0) == CLAIMED]
        for i in mine:
            cache.put(key(i), SCOPE, Entry(VALID, "", "x"), Spent(1, 1, 1, 1, 1.0))
    return mine


def test_processes_never_claim_the_same(tmp_path):
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
        mine = list(pool.map(_claim_all, [str(tmp_path / "c")] * 3))
    assert sorted(i for part in mine for i in part) == list(range(200))
    with Cache(tmp_path / "c") as cache:
        assert cache.spent(SCOPE).cost == 200


def _open_all(folder, barrier, problems):
    for number in range(40):
        barrier.wait(60)
        try:
            with Cache(folder / str(number)) as cache:
                assert cache.claim(os.urandom(16), SCOPE, 0.0) == CLAIMED
        except Exception as error:
            problems.put(str(error))


def test_a_file_may_be_made_by_several_processes_at_once(tmp_path, capfd):
    context = multiprocessing.get_context("spawn")
    barrier, problems = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_open_all, args=(tmp_path, barrier, problems)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert problems.empty(), problems.get()
    assert [process.exitcode for process in processes] == [0] * 4
    assert "damaged" not in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, range(40)))


def test_files_that_are_no_cache_are_refused(tmp_path):
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(UserError, match="reply cache"):
        Cache(tmp_path / "text")
    with sqlite3.connect(tmp_path / "old") as db:
        db.execute("PRAGMA user_version=7")
    with pytest.raises(UserError, match="version 7"):
        Cache(tmp_path / "old")
    with pytest.raises(UserError):
        Cache(tmp_path)
