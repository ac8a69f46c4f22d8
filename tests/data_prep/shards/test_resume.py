"""Builds that are stopped: killed, out of disk space, or with a shard that is gone."""

import errno
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from data_prep import build as build_command
from data_prep.build import build, main
from data_prep.shards import finish, shard_writer, workers
from data_prep.shards.folder import own
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from tests.data_prep.shards.conftest import config
from tests.data_prep.shards.run import PHANTOM, assert_refused, command, environment, files
from tests.data_prep.shards.run import build as run_build


def test_a_killed_build_goes_on_where_it_was(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main([*PHANTOM, f"--out={whole}", "--config.workers=1"]) == 0
    process = subprocess.Popen(command(*PHANTOM, f"--out={cut}", "--config.workers=2"), env=environment(),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(cut.glob(".build/*.npz"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {p: p.stat().st_mtime_ns for p in cut.glob(".build/*.npz")}
    assert 2 <= len(done) < 8 and not (cut / "dataset.json").exists()
    with pytest.raises(UserError, match="not finished"):
        open_records(cut, "train")
    # What a worker that was killed in the middle leaves behind.
    (cut / ".build" / "phantom-train.array_record-00005-of-00006.99.tmp").write_bytes(b"half")
    shards_before = {p: p.stat().st_mtime_ns for p in cut.glob("*.array_record-*")
                     if (cut / ".build" / f"{p.name.split('.')[0].split('-')[1]}-{p.name[-14:-9]}.npz") in done}
    assert len(shards_before) == len(done)
    # Another configuration is refused, and the work stays.
    with pytest.raises(UserError, match=r"another configuration \(phantom\.seed"):
        main([*PHANTOM, f"--out={cut}", "--config.phantom.seed=1"])
    assert main([*PHANTOM, f"--out={cut}", "--config.workers=1"]) == 0
    assert {p: p.stat().st_mtime_ns for p in shards_before} == shards_before  # Never redone.
    differing = {name for name, digest in files(whole).items() if files(cut).get(name) != digest}
    assert differing <= {"dataset.json", "SHA256SUMS"} and files(whole).keys() == files(cut).keys()
    # Only the command line differs between the two.
    assert json.loads((whole / "dataset.json").read_text()) | {"command": ""} == (
        json.loads((cut / "dataset.json").read_text()) | {"command": ""})


def test_workers_leave_with_a_killed_parent(tmp_path):
    process = subprocess.Popen(command(*PHANTOM, f"--out={tmp_path / 'data'}", "--config.workers=2",
                                       "--config.phantom.train=4000"), env=environment(),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "data").glob(".build/*.npz")):
        assert process.poll() is None
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while any(_alive(pid) for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_shard_that_is_gone_or_short_is_made_again(tmp_path, monkeypatch):
    folder = tmp_path / "data"

    class Stop(Exception):
        pass

    def stop(*_, **__):
        raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(finish, "finish", stop)
        build(config(), folder)
    names = sorted(p.name for p in folder.glob("*.array_record-*"))
    before = {name: (folder / name).read_bytes() for name in names}
    (folder / names[0]).unlink()
    (folder / names[1]).write_bytes(before[names[1]][:1000])
    (folder / ".build" / "validation-00000.npz").write_bytes(b"PK")
    calls = []
    real = workers.make_shard
    monkeypatch.setattr(workers, "make_shard", lambda *arguments: calls.append(1) or real(*arguments))
    build(config(), folder)
    assert len(calls) == 3
    assert {name: (folder / name).read_bytes() for name in names} == before


def test_two_builds_do_not_write_to_one_folder(tmp_path):
    with own(tmp_path / "data", {"a": 1}), pytest.raises(UserError, match="another command is writing"):
        build(config(), tmp_path / "data")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)], capture_output=True,
                             check=False)
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    arguments = (*PHANTOM, "--config.phantom.size=96", "--config.image_encoding=raw")
    try:
        for attempt in ("in this process", "with workers"):
            if attempt == "in this process":
                with pytest.raises(OSError, match="No space left") as full:
                    main([*arguments, f"--out={disk / 'data'}", "--config.workers=1"])
                assert str(disk / "data") in full.value.filename
            else:
                process = run_build(*arguments, f"--out={disk / 'data'}", "--config.workers=2")
                assert_refused(process, "no space left", str(disk / "data"))
            assert not (disk / "data" / "dataset.json").exists()
            assert list((disk / "data").glob("**/*.tmp")) == []
            with pytest.raises(UserError, match="not finished"):
                load_metadata(disk / "data")
        finished = list((disk / "data" / ".build").glob("*.npz"))
        assert 1 <= len(finished) < 8
        # More room, and the same command goes on.
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        assert main([*arguments, f"--out={disk / 'data'}", "--config.workers=1"]) == 0
        assert len(open_records(disk / "data", "train")) == 60
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("where", ["write", "finish"])
def test_full_disk_without_root(tmp_path, monkeypatch, where):
    """The same with a writer that is told so, wherever it happens."""
    real = getattr(shard_writer.ShardWriter, where)
    calls = []

    def full(self, *arguments):
        calls.append(1)
        if len(calls) == 20 if where == "write" else len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(self.path))
        return real(self, *arguments)

    monkeypatch.setattr(shard_writer.ShardWriter, where, full)
    with pytest.raises(OSError) as error:
        build(config(), tmp_path / "data")
    assert error.value.errno == errno.ENOSPC
    assert not (tmp_path / "data" / "dataset.json").exists()
    assert len(list((tmp_path / "data" / ".build").glob("*.npz"))) == 1


def test_a_build_that_another_command_finishes_meanwhile_is_complete(tmp_path, monkeypatch):
    """Two commands at once: one looks before the other has finished, and gets the lock after."""
    real = build_command.folder.own

    def own_later(folder, fingerprint):
        with monkeypatch.context() as patch:
            patch.setattr(build_command.folder, "own", real)
            assert build(config(), tmp_path / "data").seconds > 0
        before.update(files(tmp_path / "data"))
        return real(folder, fingerprint)

    before = {}
    monkeypatch.setattr(build_command.folder, "own", own_later)
    result = build(config(), tmp_path / "data")
    assert result.seconds == 0 and result.counts["train"]["records"] > 0
    assert files(tmp_path / "data") == before
