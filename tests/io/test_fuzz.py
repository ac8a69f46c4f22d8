"""Damaged files give a clear refusal or a valid image: never a crash, a hang or values out of range."""

import json
import subprocess
import sys

import pytest

from tests.data_prep.shards.run import ROOT, environment


def fuzz(files, seed, timeout):
    process = subprocess.run([sys.executable, "-m", "tests.io.fuzz", f"--files={files}", f"--seed={seed}"], cwd=ROOT,
                             env=environment(), capture_output=True, text=True, timeout=timeout, check=False)
    assert process.returncode == 0, process.stdout[-500:] + process.stderr[-2000:]
    found = json.loads(process.stdout.splitlines()[-1])
    assert found["read"] + found["refused"] == files
    # A test that refuses everything, or nothing, does not test much.
    assert min(found["read"], found["refused"]) > files // 10
    assert found["megabytes"] < 1500
    return found


def test_some_hundred_mutated_files():
    fuzz(400, seed=1, timeout=120)


@pytest.mark.slow
def test_ten_thousand_mutated_files():
    assert fuzz(10_000, seed=2, timeout=1200)["slowest"] < 5
