"""Commands in processes of their own that are forked from one in which everything is imported: quick to start, so that
a test can kill many."""

import contextlib
import importlib
import multiprocessing
import os
import sys
import time

import numpy as np

# The server that forks takes these over, before it imports JAX.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
CONTEXT = multiprocessing.get_context("forkserver")
PRELOAD = ["tests.commands.killed", "tests.training.harness", "lgdea_jax.predict", "data_prep.build", "data_prep.audit",
           "data_prep.extract.llm.runners.online", "tensorflow_datasets"]


def _run(module, words, log, variables, end):
    """In the child."""
    os.environ.update(variables)
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from lgdea_jax import cli

    if end:
        from pathlib import Path

        from tests.training import harness

        harness.note_batches(Path(words[1].split("=", 1)[1]))
        harness.die(*end, 9, Path(words[1].split("=", 1)[1]))
    cli.run(importlib.import_module(module).main, words)


def start(module, words, log, *, variables=None, end=None):
    """A process that runs a command; `end` is (WHEN, NUMBER) of tests/training/harness.py, of a training."""
    CONTEXT.set_forkserver_preload(PRELOAD)
    process = CONTEXT.Process(target=_run, args=(module, [str(word) for word in words], str(log), variables or {}, end))
    process.start()
    return process


def until_done(module, words, log, *, kills, seed, before, variables=None, status=0):
    """Runs a command again and again, killed at random moments `kills` times, and then to its end.

    Args:
      before: called after each kill, and where it came to its end all the same: then the output must go.
      status: with which the command ends.

    Returns:
      (the number of kills, seconds that the last run took).
    """
    rng, done, longest = np.random.default_rng(seed), 0, None
    while True:
        begun = time.monotonic()
        process = start(module, words, log, variables=variables)
        if done < kills and longest is not None:
            process.join(longest * rng.uniform(0.1, 0.95))
            process.kill()  # Without effect on one that has ended in between.
            process.join()
            if process.exitcode == -9:
                before()
                done += 1
                continue
        process.join()
        seconds = time.monotonic() - begun
        with contextlib.suppress(OSError), open(log) as text:
            last = text.read()[-2000:]
        assert process.exitcode == status, last
        if done >= kills:
            return done, seconds
        longest = seconds if longest is None else longest
        before()


if __name__ == "__main__":
    print(__doc__, file=sys.stderr)
