"""Damaged volumes give a clear refusal or a valid volume: never a crash, a hang or memory that they do not fill."""

import json
import subprocess
import sys

import pytest

from tests.data_prep.shards.run import ROOT, environment
from tests.io.volumes.fuzz import LIMIT


def fuzz(kind, files, seed, timeout):
    process = subprocess.run(
        [sys.executable, "-m", "tests.io.volumes.fuzz", f"--kind={kind}", f"--files={files}", f"--seed={seed}"],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=timeout, check=False)
    assert process.returncode == 0, process.stdout[-500:] + process.stderr[-2000:]
    assert process.stderr == ""  # No parser writes to the terminal.
    found = json.loads(process.stdout.splitlines()[-1])
    assert found["read"] + found["refused"] == files
    # A test that refuses everything, or nothing, does not test much.
    assert min(found["read"], found["refused"]) > files // 10
    assert found["megabytes"] < 600 and found["slowest"] < LIMIT


@pytest.mark.parametrize("kind", ["nifti", "npz", "series"])
def test_some_hundred_mutated_volumes(kind):
    fuzz(kind, files=300, seed=1, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nifti", "npz", "series"])
def test_ten_thousand_mutated_volumes(kind):
    fuzz(kind, files=10_000, seed=2, timeout=1200)
