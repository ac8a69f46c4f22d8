"""What the environment of a program can do to it: another command at the same time, a full disk, a read-only folder, a
clock that jumps back. Each command has a defined answer."""

import errno
import os
import resource
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from data_prep import build
from lgdea_jax import cli
from lgdea_jax.errors import environment_fault
from lgdea_jax.runtime.files import LOCK, lock, own_folder
from tests.commands import environment
from tests.data_prep.shards.run import files
from tests.training import runs


@pytest.fixture(scope="module")
def made(phantom_data, compile_cache, tmp_path_factory):
    return environment.make(tmp_path_factory.mktemp("made"), phantom_data, compile_cache)


@pytest.mark.parametrize("command", environment.FOLDERS)
def test_of_two_on_one_folder_the_second_ends_with_a_line(command, made, tmp_path, capsys):
    out = tmp_path / "out"
    if command == "build":
        (out / ".build").mkdir(parents=True)
    with lock(out / ".build" / LOCK) if command == "build" else own_folder(out):
        before = files(out)
        status, lines = environment.ask(command, made | {"out": out}, capsys)
        assert status == 2 and "another command is writing to" in lines[-1] and lines[-1].startswith("error: ")
        assert files(out) == before


@pytest.mark.parametrize("command", environment.FILES)
def test_of_two_on_one_file_both_are_whole(command, made, tmp_path):
    """Two at once, and a reader that looks at the file all the time: it is not there, or whole."""
    out, both, done, faults = tmp_path / "out", threading.Barrier(2), threading.Event(), []

    def write():
        both.wait()
        return environment.ask(command, made | {"out": out}, None)[0]

    def watch():
        while not done.wait(0.001):
            try:
                if out.is_file():
                    environment.assert_whole(command, out)
            except (AssertionError, ValueError) as error:
                faults.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(2) as pool:
        statuses = [future.result() for future in [pool.submit(write) for _ in range(2)]]
    done.set()
    watcher.join()
    assert statuses == [0, 0] and not faults
    environment.assert_whole(command, out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk(made, tmp_path, capsys):
    """A file system of 32 kB that has 4 left."""
    with environment.mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=32k", "tmpfs") as disk:
        (disk / "filled").write_bytes(bytes(28 * 1024))
        for command in environment.COMMANDS:
            if command in ("scan", "score", "datasheet", "card"):
                continue  # They fit.
            out = disk / "out"
            status, lines = environment.ask(command, made | {"out": out}, capsys)
            assert status == 2 and lines[-1].startswith("error: ") and "no space left on the disk" in lines[-1], command
            assert not [line for line in lines if line.startswith("Traceback")], command
            assert not list(disk.rglob("*.tmp")), command
            if command in environment.FILES:
                assert not out.exists(), command
            subprocess.run(["rm", "-rf", str(out)], check=True)


@pytest.mark.parametrize("command", environment.FILES)
def test_a_file_that_may_not_grow(command, made, tmp_path, capsys):
    """The same without mounting: ulimit -f. What was there before stays."""
    out = tmp_path / "out"
    out.write_text("before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        status, lines = environment.ask(command, made | {"out": out}, capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 2 and "ulimit -f" in lines[-1] and str(out) in lines[-1] and lines[-1].startswith("error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and out.read_text() == "before"


def test_a_read_only_folder(made, tmp_path, capsys):
    (tmp_path / "source").mkdir()
    with environment.mounted(tmp_path / "disk", "--bind", str(tmp_path / "source")) as disk:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(disk)], check=True)
        for command in environment.COMMANDS:
            for out in (disk / "out", disk / "new" / "out"):
                status, lines = environment.ask(command, made | {"out": out}, capsys)
                assert status == 2 and "read-only" in lines[-1] and str(disk) in lines[-1], (command, lines)
                assert lines[-1].startswith("error: ")


def test_libraries_errors_about_a_full_disk_are_told():
    for text in ("Error while serializing: I/O error: No space left on device (os error 28)", "[OS error 28: ENOSPC x]",
                 f"[Errno {errno.ENOSPC}] x"):
        assert environment_fault(RuntimeError(text)) == "no space left on the disk"
    import sqlite3

    assert environment_fault(sqlite3.OperationalError("database or disk is full")) == "no space left on the disk"
    assert "run the same command again" in environment_fault(sqlite3.DatabaseError("database disk image is malformed"))


def test_a_clock_that_jumps_back_changes_nothing(made, phantom_data, compile_cache, tmp_path, monkeypatch):
    flags = ("total_steps=3", "eval.every=2", "log.tensorboard=True")
    assert runs.here(tmp_path / "one", phantom_data, *flags, config="tests/training/tiny.py:clip",
                     cache=compile_cache) == cli.OK
    config = cli.read_config("configs/data/table.py")
    config.table.path, config.workers = str(made["table"]), 1
    build.build(config, tmp_path / "data one", progress=False)
    calls, real = [], time.time

    def backwards():
        calls.append(1)
        return real() - (3600 if len(calls) > 5 else 0)

    monkeypatch.setattr(time, "time", backwards)
    assert runs.here(tmp_path / "two", phantom_data, *flags, config="tests/training/tiny.py:clip",
                     cache=compile_cache) == cli.OK
    build.build(config, tmp_path / "data two", progress=False)
    assert len(calls) > 10
    for name in ("metrics.jsonl", "evals.jsonl"):
        assert runs.rows(tmp_path / "one", name) == runs.rows(tmp_path / "two", name)
    runs.assert_same_state(tmp_path / "one", tmp_path / "two", 3)
    assert files(tmp_path / "data one") == files(tmp_path / "data two")
    assert os.path.getsize(tmp_path / "two/metrics.jsonl")
