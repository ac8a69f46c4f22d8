"""The measurement of MIMIC-sized tables, on small ones."""

import json
import subprocess
import sys

from benchmarks.speed import mimic_tables
from lgdea_jax import cli


def test_every_study_is_read_and_split():
    # A process of its own: the peak of this one is that of all tests so far.
    done = subprocess.run([sys.executable, "-m", "benchmarks.speed.mimic_tables", "--images=3000", "--studies=1800"],
                          stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["images"] == 3000 and sum(found["studies"].values()) == 1800
    assert found["studies"]["train"] > 1600 and set(found["studies"]) == {"train", "validation", "test"}
    assert found["megabytes"] < 1000 and found["sent_megabytes"] <= 1


def test_too_slow_or_too_large_fails(monkeypatch, capfd):
    monkeypatch.setattr(mimic_tables, "MEGABYTES", 1)
    assert mimic_tables.main(["--images=30", "--studies=20"]) == cli.FAULT
    capfd.readouterr()
