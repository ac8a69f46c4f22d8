"""Damaged files give a clear refusal or a valid image: never a crash, a hang or values out of range."""

import json
import subprocess
import sys

import pytest

from tests.data_prep.shards.run import ROOT, environment
from tests.io.fuzz import KINDS, LIMIT

WARN = {"PYTHONWARNINGS": "default::UserWarning"}


def fuzz(files, seed, timeout):
    process = subprocess.run([sys.executable, "-m", "tests.io.fuzz", f"--files={files}", f"--seed={seed}"], cwd=ROOT,
                             env=environment() | WARN, capture_output=True, text=True, timeout=timeout, check=False)
    assert process.returncode == 0, process.stdout[-500:] + process.stderr[-2000:]
    assert process.stderr == ""  # No decoder writes to the terminal.
    found = json.loads(process.stdout.splitlines()[-1])
    for kind in KINDS:
        read, refused = found[f"{kind}_read"], found[f"{kind}_refused"]
        assert read + refused == files
        # A test that refuses everything, or nothing, does not test much.
        assert min(read, refused) > files // 20, found
    assert found["megabytes"] < 600
    return found


def test_some_hundred_mutated_files():
    fuzz(200, seed=1, timeout=120)


@pytest.mark.slow
def test_ten_thousand_mutated_files_of_each_kind():
    assert fuzz(10_000, seed=2, timeout=2400)["slowest"] < LIMIT
