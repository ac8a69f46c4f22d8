"""Arrays split by rows over eight devices: the same numbers, and with a shard a device no row travels."""

import json
import subprocess
import sys

import pytest

from tests.training import runs


@pytest.mark.slow
def test_eight_devices():
    done = subprocess.run([sys.executable, "tests/relations/mesh_relations.py", "8x1,4x2"], cwd=runs.ROOT,
                          env=runs.environment(devices=8), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout.strip().splitlines()[-1])
    for mesh in ("8x1", "4x2"):
        assert set(table[mesh]) == {"arrays", "sparse"} and max(table[mesh].values()) < 1e-5
        gathered = table["gathered"][mesh]
        assert gathered["8"] == 0
        # One shard for eight devices is right, and slow: this is what the argument is for.
        assert gathered["1"] >= table["elements"]


@pytest.mark.slow
def test_the_memory_stays_where_it_is():
    """A step moves arrays of the batch's size; a rebuild moves a number an item, from which landmarks are drawn."""
    done = subprocess.run([sys.executable, "tests/relations/mesh_memory.py"], cwd=runs.ROOT,
                          env=runs.environment(devices=8), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert max(found["step"].values()) < 0.1 * found["rows"]
    assert max(found["rebuild"].values()) <= found["rows"] < found["elements"] / 4
