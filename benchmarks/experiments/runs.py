"""Runs of an experiment in processes of their own: a core each, an append-only journal; a kill loses nothing.

A job is a list of commands and a function that makes its row from what they left. Killing the experiment ends its
commands too, which save first. The same experiment started again waits for them, finds the rows of finished jobs, and
continues with the others. Also the child's side of that:

    python -m benchmarks.experiments.runs MODULE [ARGUMENT ...]    # runs MODULE; SIGTERM when stdin ends, as when the
                                                             # process at its other end dies
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import json
import os
import queue
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lgdea_jax.cli import TERMINATED
from lgdea_jax.errors import UserError
from lgdea_jax.runtime.log import read_rows

_POLL_SECONDS = 0.1


class Job:
    """One row of an experiment in the making.

    Args:
      name: for messages.
      folder: the job's own; its output is in FOLDER/log.txt.
      commands: module and arguments of each, by what its seconds are called; run one after the other.
      finish: makes the row from the seconds of each command, after the last.
    """

    def __init__(self, name: str, folder: Path, commands: Mapping[str, Sequence[str]],
                 finish: Callable[[dict[str, float]], dict[str, Any]]) -> None:
        self.name, self.folder, self.commands, self.finish = name, folder, commands, finish


class Journal:
    """Rows of finished jobs, a line of JSON each."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[dict[str, Any]]:
        """What is finished; a line that a kill cut short is no row."""
        return read_rows(self.path)

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a row, on a line of its own even after a line that was cut short."""
        with open(self.path, "a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json.dumps(row, separators=(",", ":"), allow_nan=False).encode() + b"\n")


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Holds `folder` for this process.

    Raises:
      UserError: another process holds it.
    """
    with open(folder / "experiment.lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another experiment is running in {folder}: wait for it, or use another --out") from None
        yield


@contextlib.contextmanager
def exits_on_sigterm() -> Iterator[None]:
    """SIGTERM becomes SystemExit(143) in here, so that what is running is ended in order."""
    def leave(number: int, frame: object) -> None:
        raise SystemExit(TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def usable_cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def run_jobs(jobs: Sequence[Job], *, side_by_side: int, done: Callable[[Job, dict[str, Any]], None]) -> list[str]:
    """Runs `jobs` in their order, some at a time, each on cores of its own.

    One core a job: two jobs side by side finish sooner than two that share both cores one after the other.

    Args:
      jobs: what to do.
      side_by_side: how many at a time; they divide the cores of this process among them.
      done: called in this thread with each job and its row, as soon as it is finished.

    Returns:
      A line for each job that failed; the others were done all the same.
    """
    cores = usable_cores()
    shares: queue.Queue[list[int]] = queue.Queue()
    for number in range(side_by_side):
        shares.put(cores[number::side_by_side] or [cores[number % len(cores)]])
    stop, failures = threading.Event(), []

    def pin() -> None:
        # Of this thread alone; the processes that it starts inherit it.
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, shares.get())

    pool = concurrent.futures.ThreadPoolExecutor(side_by_side, initializer=pin)
    try:
        waiting = {pool.submit(_execute, job, stop): job for job in jobs}
        for future in concurrent.futures.as_completed(waiting):
            try:
                row = future.result()
            except UserError as error:
                failures.append(f"{waiting[future].name}: {error}")
                print(failures[-1], file=sys.stderr, flush=True)
            else:
                done(waiting[future], row)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    return failures


def _execute(job: Job, stop: threading.Event) -> dict[str, Any]:
    job.folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu")}
    seconds = {}
    with open(job.folder / "lock", "w", encoding="utf-8") as lock, open(job.folder / "log.txt", "ab") as log:
        _wait_for(lock, job, stop)
        for what, command in job.commands.items():
            begin = time.monotonic()
            # The commands hold the lock too: those of a killed experiment keep it until they have saved. A session of
            # their own keeps Ctrl-C from them: a training that gets a second signal stops without saving.
            with subprocess.Popen([sys.executable, "-m", "benchmarks.experiments.runs", *command], env=environment,
                                  stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=(lock.fileno(),),
                                  start_new_session=True) as process:
                while process.poll() is None and not stop.wait(_POLL_SECONDS):
                    pass
                if process.poll() is None:
                    process.terminate()
                    process.wait()  # Here: leaving the block closes its stdin, which would signal it again.
            if stop.is_set():
                raise UserError("stopped")
            if process.returncode:
                last = (job.folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
                raise UserError(f"{command[0]} ended with {process.returncode}: {' '.join(last)}")
            seconds[what] = round(time.monotonic() - begin, 1)
    return job.finish(seconds)


def _wait_for(lock: Any, job: Job, stop: threading.Event) -> None:
    logged = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not logged:
                print(f"{job.name}: waiting for its last process to end", file=sys.stderr, flush=True)
                logged = True
        if stop.wait(_POLL_SECONDS):
            raise UserError("stopped")


def _child(arguments: list[str]) -> None:
    module, *rest = arguments

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    # Not Linux's signal at the death of a parent: that one may come several times, once for each of its threads.
    threading.Thread(target=watch, daemon=True).start()
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _child(sys.argv[1:])
