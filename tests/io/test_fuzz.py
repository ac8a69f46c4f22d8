"""Damaged files give a clear refusal or a valid image: never a crash, a hang or values out of range."""

import json
import subprocess
import sys

import pytest

from tests.data_prep.shards.run import ROOT, environment


def fuzz(*flags, files, seed, timeout, module="tests.io.fuzz"):
    process = subprocess.run([sys.executable, "-m", module, *flags, f"--files={files}", f"--seed={seed}"], cwd=ROOT,
                             env=environment(), capture_output=True, text=True, timeout=timeout, check=False)
    assert process.returncode == 0, process.stdout[-500:] + process.stderr[-2000:]
    found = json.loads(process.stdout.splitlines()[-1])
    assert found["read"] + found["refused"] == files
    # A test that refuses everything, or nothing, does not test much.
    assert min(found["read"], found["refused"]) > files // 10
    return found


def test_some_hundred_mutated_files():
    assert fuzz(files=400, seed=1, timeout=120)["megabytes"] < 1500


@pytest.mark.slow
def test_ten_thousand_mutated_files():
    found = fuzz(files=10_000, seed=2, timeout=1200)
    assert found["slowest"] < 5 and found["megabytes"] < 1500


@pytest.mark.parametrize("kind", ["nifti", "npz", "series"])
def test_some_hundred_mutated_volumes(kind):
    found = fuzz(f"--kind={kind}", files=300, seed=1, timeout=120, module="tests.io.fuzz_volumes")
    assert found["megabytes"] < 600


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nifti", "npz", "series"])
def test_ten_thousand_mutated_volumes(kind):
    found = fuzz(f"--kind={kind}", files=10_000, seed=2, timeout=1200, module="tests.io.fuzz_volumes")
    assert found["slowest"] < 10 and found["megabytes"] < 600
