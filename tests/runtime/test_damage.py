"""Checkpoints that a disk or a hand has changed: never used, one line, and the newest intact one goes on."""

import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from lgdea_jax.errors import UserError
from lgdea_jax.runtime.checkpoint import Checkpoints, DamagedCheckpoint
from tests.runtime.test_checkpoint import SPEC, state


@pytest.fixture
def store(tmp_path):
    store = Checkpoints(tmp_path, keep=2)
    yield store
    store.close()


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def damage(folder, rng):
    """Flips a bit of a file below `folder`, or cuts it; returns what to write to undo it."""
    files = files_of(folder)
    path = files[rng.integers(len(files))]
    before = path.read_bytes()
    content = bytearray(before)
    place = int(rng.integers(len(content)))
    if rng.random() < 0.75:
        content[place] ^= 1 << int(rng.integers(8))
    else:
        del content[place:]
    path.write_bytes(content)
    return path, before


@pytest.mark.parametrize("times", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_a_damaged_checkpoint_is_never_used(tmp_path, times):
    """Every flip and cut is without effect, or one line that names the intact step."""
    store = Checkpoints(tmp_path)
    for step in (1, 2):
        store.save(state(step), SPEC)
    store.close()
    rng, refused = np.random.default_rng(times), 0
    expected = jax.tree.map(np.asarray, state(2))
    for _ in range(times):
        path, before = damage(tmp_path / "checkpoints" / "2", rng)
        reader = Checkpoints(tmp_path, writable=False)
        try:
            restored = reader.restore_state(2, state(0))
            params = reader.restore_params(2, state(0)["params"])
            assert reader.spec(2)["config"] == SPEC["config"]
        except DamagedCheckpoint as error:
            refused += 1
            assert "the checkpoint at step 2 of" in str(error) and str(error).endswith("intact are the steps 1")
            assert "\n" not in str(error)
        else:
            for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(restored), strict=True):
                assert a.tobytes() == np.asarray(b).tobytes(), path
            assert np.asarray(params["scale"]).tobytes() == expected["ema"]["scale"].tobytes()
        reader.close()
        path.write_bytes(before)
    # Files have random names, so that how many of so few hit something that counts is chance.
    assert refused >= times // 6


def corrupt(folder):
    """Cuts every file of a checkpoint's arrays in half."""
    for path in files_of(folder / "params") + files_of(folder / "train"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_resume_goes_back_to_the_newest_intact_step(store, tmp_path, caplog):
    for step in (1, 2):
        store.save(state(step), SPEC)
    store.wait()
    corrupt(tmp_path / "checkpoints" / "2")
    seen = []
    again = Checkpoints(tmp_path)
    restored = again.resume(state(0), seen.append)
    assert int(restored["step"]) == 1 == seen[-1]["step"] and again.steps() == [1]
    assert [m for m in caplog.messages if "step 2 is damaged" in m and "going back" in m]
    assert [path.name for path in (tmp_path / "checkpoints").glob("aside*")] == ["aside_2_1"]
    again.save(state(2), SPEC)  # The step is made again.
    again.wait()
    assert int(again.restore_state(2, state(0))["step"]) == 2
    for step in (1, 2):
        corrupt(tmp_path / "checkpoints" / str(step))
    with pytest.raises(UserError, match=r"no checkpoint in .* is intact"):
        again.resume(state(0), seen.append)
    assert again.steps() == [1, 2]  # Nothing is moved where nothing is intact.
    with pytest.raises(DamagedCheckpoint, match="no other step is intact"):
        again.restore_params(1, state(0)["params"])
    again.close()


def test_stray_folders_are_passed_over(tmp_path):
    store = Checkpoints(tmp_path)
    assert store.resume(state(0), print) is None
    store.save(state(3), SPEC)
    store.close()
    folder = tmp_path / "checkpoints"
    (folder / "7").mkdir()
    (folder / "8/notes").mkdir(parents=True)
    (folder / "9").write_text("")
    again = Checkpoints(tmp_path)
    assert again.steps() == [3] and again.resolve("latest") == 3
    assert int(again.resume(state(0), print)["step"]) == 3
    again.save(state(8), SPEC)
    again.wait()
    assert again.steps() == [3, 8] and (folder / "aside_8_1/notes").is_dir()
    again.close()


def test_what_cannot_be_read_for_another_reason_is_not_damaged(store, monkeypatch):
    store.save(state(1), SPEC)
    store.wait()

    def denied(*args, **options):
        raise ValueError("PERMISSION_DENIED: reading x [OS error 13: EACCES Permission denied]")

    monkeypatch.setattr(store._manager, "restore", denied)
    with pytest.raises(UserError, match=r"^no permission while reading") as caught:
        store.resume(state(0), print)
    assert not isinstance(caught.value, DamagedCheckpoint) and store.steps() == [1]


def test_damage_is_one_line_of_a_command(tmp_path):
    """Whatever Orbax and TensorStore leave behind: coroutines half done, reads that nobody awaits."""
    rng = np.random.default_rng(0)
    saved = state(1) | {"aux": {f"a{n}": jnp.asarray(rng.normal(size=(40, 30)), jnp.float32) for n in range(40)}}
    store = Checkpoints(tmp_path)
    store.save(saved, SPEC)
    store.close()
    for path in files_of(tmp_path / "checkpoints/1/train"):
        if "/d/" in str(path):
            path.write_bytes(path.read_bytes()[:40] + b"\xff" + path.read_bytes()[41:])
    code = f"""
import logging
import numpy as np
from lgdea_jax import cli
from lgdea_jax.runtime.checkpoint import Checkpoints

logging.getLogger("absl").setLevel(logging.CRITICAL)

def main(argv):
    store = Checkpoints({str(tmp_path)!r}, writable=False)
    ema = {{"tower": {{"kernel": np.zeros((4, 3), np.float32)}}, "scale": np.zeros((), np.float32)}}
    store.restore_state(1, {{"params": {{}}, "ema": ema, "step": np.zeros((), np.int32)}})

cli.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: the checkpoint at step 1 of") and "damaged" in done.stderr


def test_a_checkpoint_that_training_removes_while_it_is_read_is_not_called_damaged(tmp_path, monkeypatch):
    store = Checkpoints(tmp_path)
    for step in (1, 2):
        store.save(state(step), SPEC)
    store.close()
    manager, missed = ocp.CheckpointManager, []

    def removed_meanwhile(*args, **options):  # As Orbax raises it where a folder goes while it lists them.
        if not missed:
            missed.append(True)
            raise FileNotFoundError
        return manager(*args, **options)

    monkeypatch.setattr(ocp, "CheckpointManager", removed_meanwhile)
    reader = Checkpoints(tmp_path, writable=False)
    restore = reader._manager.restore

    def removed(step, args):
        shutil.rmtree(tmp_path / "checkpoints" / str(step) / "params")
        return restore(step, args=args)

    monkeypatch.setattr(reader._manager, "restore", removed)
    with pytest.raises(UserError, match=r"step 1 of .* was removed while it was read") as error:
        reader.restore_params(1, state(0)["params"])
    assert not isinstance(error.value, DamagedCheckpoint)
