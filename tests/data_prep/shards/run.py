"""Runs the build command as a user does, in a process of its own."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PHANTOM = ("--config=configs/data/phantom.py", "--config.phantom.train=60", "--config.phantom.validation=10",
           "--config.phantom.test=10", "--config.shard_studies=10", "--config.tokenizer.vocab_size=300")


def command(*arguments):
    return [sys.executable, "-m", "data_prep.build", *map(str, arguments)]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}


def build(*arguments, **options):
    """The finished process, with its text output."""
    return subprocess.run(command(*arguments), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300,
                          check=False, **options)


def assert_refused(process, *words):
    """Exit status 2, one line on stderr that holds every word, and no traceback."""
    lines = process.stderr.strip().splitlines()
    assert process.returncode == 2, process.stderr
    assert len(lines) == 1 and lines[0].startswith("error: "), process.stderr
    for word in words:
        assert word in lines[0]


def files(folder):
    """Name -> SHA-256 of everything in the folder."""
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*")
            if p.is_file()}
