"""Locks of output folders: one command at a time, whatever ends it."""

import csv
import fcntl
import io
import pathlib
import subprocess
import sys

import pytest

from lgdea_jax.errors import UserError
from lgdea_jax.runtime.files import LOCK, TableWriter, lock, own_folder, plain_cell, remove_locked, safe_cell


def test_one_command_at_a_time(tmp_path):
    out = tmp_path / "a" / "out"
    with own_folder(out) as folder:
        assert folder == out and out.is_dir()
        with pytest.raises(UserError, match=f"another command is writing to {out}"), own_folder(out):
            pass
        with open(out / LOCK) as handle, pytest.raises(BlockingIOError):  # The system's own view of it.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with own_folder(out):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--workdir=.*file is a file, not a folder"), own_folder(
            tmp_path / "file", "--workdir"):
        pass


def test_a_killed_command_leaves_no_lock(tmp_path):
    code = f"""
import os, signal
from lgdea_jax.runtime.files import own_folder
with own_folder({str(tmp_path)!r}):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with own_folder(tmp_path):
        pass


def test_a_lock_that_was_removed_is_nobodys(tmp_path, monkeypatch):
    """A build removes its work folder at its end: who has opened the file before must not go on."""
    flock = fcntl.flock

    def removed_meanwhile(handle, flags):
        (tmp_path / "lock").unlink()
        flock(handle, flags)

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with pytest.raises(UserError, match="another command"), lock(tmp_path / "lock"):
        pass


def test_no_text_is_a_formula():
    file = io.StringIO()
    TableWriter(file).writerow(["=cmd|' /C calc'!A0", "@SUM(A1)", "+1+2", "-2+3", "\tx", "-0.25", "+3", "1e-5", -7,
                                "a=b", "", "no -x"])
    [row] = csv.reader(io.StringIO(file.getvalue()))
    assert row == ["'=cmd|' /C calc'!A0", "'@SUM(A1)", "'+1+2", "'-2+3", "'\tx", "-0.25", "+3", "1e-5", "-7", "a=b", "",
                   "no -x"]
    for text in ("=1", "'=1", "''-x", "'", "''", "'x", "-0.25", "'-0.25", "-", "", "\tx", "it's"):
        assert plain_cell(safe_cell(text)) == text
        assert safe_cell(text)[:1] not in tuple("=+@\t\r") and safe_cell(text) != "-"


def test_a_folder_that_is_removed_with_its_lock_excludes_to_the_end(tmp_path, monkeypatch):
    """Who comes while it is removed finds the lock held, or begins anew; no error of the system's."""
    folder = tmp_path / "work"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").touch()
    with lock(folder / LOCK):
        with pytest.raises(UserError, match="busy"), lock(folder / LOCK, "busy"):
            pass
        remove_locked(folder)
        assert not folder.exists()
        with pytest.raises(UserError, match="another command"), lock(folder / LOCK):
            pass
    folder.mkdir()
    unlink = pathlib.Path.unlink

    def then_another_comes(path, missing_ok=False):
        unlink(path, missing_ok)
        path.touch()

    with lock(folder / LOCK), monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "unlink", then_another_comes)
        remove_locked(folder)
    assert (folder / LOCK).exists()
