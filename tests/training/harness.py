"""Runs lgdea_jax.train in a process of its own, notes every batch, and can make an end to itself.

    python tests/training/harness.py WHEN NUMBER SIGNAL TRAIN_ARGUMENTS...

WHEN is "never", "compile" (before the step is compiled, which then takes a minute), "step" (before the NUMBERth step of
this process, once the checkpoints so far are on disk), "save" (right after the NUMBERth save has begun), "graph" (while
the relations are made for the NUMBERth time), "evaluate" (in the NUMBERth evaluation) or "row" (between the row of the
NUMBERth evaluation and the score of its checkpoint).
WORKDIR/batches.jsonl gets a row [process, SHA-256] for every batch that comes from the input pipeline.
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np

from lgdea_jax import cli, train
from lgdea_jax.data import pipeline
from lgdea_jax.runtime.checkpoint import Checkpoints
from lgdea_jax.training import evaluation, loop


def digest(batch):
    """SHA-256 over names, dtypes, shapes and bytes of a batch."""
    total = hashlib.sha256()
    for stream, arrays in sorted(batch.items()):
        for name, array in sorted(arrays.items()):
            total.update(f"{stream}/{name} {array.dtype} {array.shape}".encode())
            total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def note_batches(workdir):
    """Writes the digest of every batch that is read."""
    iterate = pipeline.iterate

    def noted(*args, **options):
        batches = iterate(*args, **options)
        try:
            for batch in batches:
                with open(workdir / "batches.jsonl", "a") as out:
                    out.write(json.dumps([jax.process_index(), digest(batch)]) + "\n")
                yield batch
        finally:
            if hasattr(batches, "close"):
                batches.close()

    pipeline.iterate = noted


def die(when, number, signum, workdir):
    """Arranges that this process sends itself the signal."""
    seen = dict.fromkeys(("step", "save", "compile", "graph", "evaluate", "row"), 0)

    def count(what):
        seen[what] += 1
        if what == when and seen[what] == number:
            if what == "step":
                stores[-1]._manager.wait_until_finished()
            os.kill(os.getpid(), signum)

    stores = []
    initialise, save, compile_step = Checkpoints.__init__, Checkpoints.save, loop.compile_step
    evaluate, score, compile_rebuild = evaluation.evaluate, Checkpoints.score, loop.compile_rebuild

    def remember(self, *args, **options):
        initialise(self, *args, **options)
        stores.append(self)

    def saving(self, *args):
        save(self, *args)
        count("save")

    def scoring(self, *args):
        count("row")
        score(self, *args)

    def compiling_rebuild(parts):
        rebuild = compile_rebuild(parts)

        def rebuilding(aux):
            made = rebuild(aux)  # It may be under way still.
            count("graph")
            return made

        return rebuild and rebuilding

    def evaluating(predict, examples, **options):
        count("evaluate")
        return evaluate(predict, examples, **options)

    def compiling(*args, **options):
        count("compile")
        if when == "compile":
            time.sleep(60)
        step = compile_step(*args, **options)

        def stepping(*arguments):
            count("step")
            return step(*arguments)

        stepping.cost_analysis = step.cost_analysis
        return stepping

    Checkpoints.__init__, Checkpoints.save = remember, saving
    Checkpoints.score, loop.compile_rebuild = scoring, compiling_rebuild
    loop.compile_step, evaluation.evaluate = compiling, evaluating


if __name__ == "__main__":
    when, number, signum, *arguments = sys.argv[1:]
    # Children inherit it: a test looks for those that outlive this process.
    os.environ["LGDEA_TEST_PARENT"] = str(os.getpid())
    folder = Path(next(a.split("=", 1)[1] for a in arguments if a.startswith("--workdir=")))
    folder.mkdir(parents=True, exist_ok=True)
    note_batches(folder)
    die(when, int(number), signal.Signals[signum], folder)
    cli.run(train.main, arguments)
