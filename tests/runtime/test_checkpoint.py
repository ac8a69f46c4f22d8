"""Checkpoints: bit-exact round trips, what is kept, what never counts, names that differ, full disks."""

import errno
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from lgdea_jax.arrays import flatten, unflatten
from lgdea_jax.errors import UserError
from lgdea_jax.runtime import checkpoint
from lgdea_jax.runtime.checkpoint import Checkpoints
from lgdea_jax.runtime.digests import check_names

SPEC = {"config": {"a": 1}, "transform": "t", "metric": "m"}


def state(step, *, ema=True):
    rng = np.random.default_rng(step)
    params = {"tower": {"kernel": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)},
              "scale": jnp.asarray(rng.normal(), jnp.float32)}
    return {"params": params, "opt": (jax.tree.map(jnp.zeros_like, params),), "step": jnp.asarray(step, jnp.int32),
            "ema": jax.tree.map(lambda x: x + 1, params) if ema else {}, "aux": {}}


@pytest.fixture
def store(tmp_path):
    store = Checkpoints(tmp_path, keep=2, metric="m")
    yield store
    store.close()


def names(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())


def evaluated(folder, step, value):
    """A row of evals.jsonl."""
    with open(folder / "evals.jsonl", "a") as file:
        file.write(json.dumps({"step": step, "m": value}) + "\n")


def test_round_trip_in_bits(store, tmp_path):
    saved = state(3)
    store.save(saved, SPEC)
    store.wait()
    reader = Checkpoints(tmp_path, writable=False)
    restored = reader.restore_state(3, jax.tree.map(jnp.zeros_like, saved))
    assert jax.tree.structure(restored) == jax.tree.structure(saved)
    for a, b in zip(jax.tree.leaves(saved), jax.tree.leaves(restored), strict=True):
        assert a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()
    predicts = reader.restore_params(3, saved["params"])
    np.testing.assert_array_equal(predicts["tower"]["kernel"], saved["ema"]["tower"]["kernel"])
    spec = reader.spec(3)
    assert spec["config"] == {"a": 1} and (spec["step"], spec["data_step"], spec["spec_version"]) == (3, 3, 5)
    reader.close()


def test_without_an_average_the_parameters_predict(store):
    saved = state(1, ema=False)
    store.save(saved, SPEC)
    store.wait()
    np.testing.assert_array_equal(store.restore_params(1, saved["params"])["scale"], saved["params"]["scale"])


def test_donated_buffers_do_not_reach_a_checkpoint(store):
    """The next step overwrites the state while the write goes on."""
    step = jax.jit(lambda s: {**s, "params": jax.tree.map(lambda x: x * 0 - 7, s["params"])}, donate_argnums=0)
    saved = state(1)
    expected = np.array(saved["params"]["tower"]["kernel"])
    store.save(saved, SPEC)
    for _ in range(20):
        saved = step(saved)
    jax.block_until_ready(saved)
    store.wait()
    np.testing.assert_array_equal(store.restore_state(1, state(0))["params"]["tower"]["kernel"], expected)


def test_the_last_and_the_best_are_kept(store, tmp_path):
    for step, value in ((1, 0.5), (2, 0.9), (3, 0.6), (4, float("nan")), (5, 0.9)):
        store.save(state(step), SPEC)
        evaluated(tmp_path, step, None if value != value else value)
        store.score(step, value)
    store.wait()
    assert names(tmp_path) == [2, 4, 5] and store.best == {"step": 2, "metric": "m", "score": 0.9}
    assert store.resolve("latest") == 5 and store.resolve("best") == 2 and store.resolve("4") == 4
    again = Checkpoints(tmp_path, writable=False)
    assert again.resolve("best") == 2
    with pytest.raises(UserError, match="no checkpoint at step 3; there are: 2, 4, 5"):
        again.resolve(3)
    with pytest.raises(UserError, match="latest, best or a number"):
        again.resolve("last")
    again.close()


def test_older_ones_go_only_when_newer_ones_are_whole(tmp_path):
    store = Checkpoints(tmp_path, keep=1)
    store.save(state(1), SPEC)
    store.wait()
    store.save(state(2), SPEC)
    assert 1 in names(tmp_path)
    store.save(state(3), SPEC)  # 2 is whole by now.
    assert 2 in names(tmp_path) and 1 not in names(tmp_path)
    store.wait()
    assert names(tmp_path) == [3]
    store.close()


def test_half_a_checkpoint_never_counts(store, tmp_path):
    store.save(state(3), SPEC)
    store.wait()
    half = tmp_path / "checkpoints" / "6.orbax-checkpoint-tmp"
    (half / "train.orbax-checkpoint-tmp").mkdir(parents=True)
    reader = Checkpoints(tmp_path, writable=False)
    assert reader.steps() == [3] and half.exists()
    reader.close()
    writer = Checkpoints(tmp_path)
    assert writer.steps() == [3]
    writer.save(state(6), SPEC)
    writer.wait()
    assert writer.steps() == [3, 6] and not half.exists()
    writer.close()


def test_nothing_to_read(tmp_path):
    with pytest.raises(UserError, match="not a run of"):
        Checkpoints(tmp_path / "none", writable=False)
    assert not (tmp_path / "none").exists()
    empty = Checkpoints(tmp_path)
    with pytest.raises(UserError, match="no finished checkpoint"):
        empty.resolve("latest")
    empty.save(state(1), SPEC)
    empty.wait()
    with pytest.raises(UserError, match="no best checkpoint"):
        empty.resolve("best")
    empty.close()


def test_another_version_is_refused(store, monkeypatch):
    saved = state(1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "SPEC_VERSION", 3)
        store.save(saved, SPEC)
        store.wait()
    for read in (lambda: store.spec(1), lambda: store.restore_state(1, saved),
                 lambda: store.restore_params(1, saved["params"])):
        with pytest.raises(UserError, match="checkpoints/1 has spec version 3, this code reads version 5: train"):
            read()


def test_any_reader_of_orbax_opens_it(store, tmp_path):
    """Plain trees of {path: array}, each array alone, bit for bit: without this package and without a target."""
    saved = state(4)
    saved["aux"] = {"seen": jnp.asarray([True, False]), "rows": jnp.arange(5, dtype=jnp.int32)}
    saved["half"] = jnp.asarray([1.5, -2], jnp.bfloat16)
    store.save(saved, SPEC)
    store.wait()
    folder = tmp_path / "checkpoints" / "4"
    with ocp.StandardCheckpointer() as plain:
        params, train = plain.restore(folder / "params"), plain.restore(folder / "train")
    expected = {"tower/kernel": saved["ema"]["tower"]["kernel"], "scale": saved["ema"]["scale"]}
    assert set(params) == set(expected)
    for path, array in expected.items():
        assert params[path].dtype == array.dtype and np.asarray(params[path]).tobytes() == np.asarray(array).tobytes()
    assert set(train) == {"params/tower/kernel", "params/scale", "opt/0/tower/kernel", "opt/0/scale", "step",
                          "aux/seen", "aux/rows", "half"}
    np.testing.assert_array_equal(train["params/tower/kernel"], saved["params"]["tower"]["kernel"])
    assert int(train["step"]) == 4
    restored = store.restore_state(4, jax.tree.map(jnp.zeros_like, saved))
    for a, b in zip(jax.tree.leaves(saved), jax.tree.leaves(restored), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_the_step_that_is_asked_for_is_restored(store):
    for step in (1, 2):
        store.save(state(step), SPEC)
    store.wait()
    for step in (1, 2):
        restored = store.restore_state(step, state(0))
        assert int(restored["step"]) == step == store.spec(step)["step"]
        np.testing.assert_array_equal(restored["params"]["scale"], state(step)["params"]["scale"])
        np.testing.assert_array_equal(store.restore_params(step, state(0)["params"])["scale"],
                                      state(step)["ema"]["scale"])


@pytest.mark.parametrize("ema", [True, False])
def test_no_array_is_saved_twice(store, ema):
    saved = state(1, ema=ema)
    store.save(saved, SPEC)
    store.wait()
    items = store.arrays(1)
    assert sum(len(items[item]) for item in ("params", "train")) == len(jax.tree.leaves(saved))
    stored = store._manager.item_metadata(1)
    assert sum(int(np.prod(leaf.shape)) for item in ("params", "train") for leaf in dict(stored[item]).values()) == sum(
        leaf.size for leaf in jax.tree.leaves(saved))


def test_names_that_differ_are_named(store):
    store.save(state(1), SPEC)
    store.wait()
    target = state(1)["params"]
    target["tower"]["bias"] = jnp.zeros(3)
    target["scale"] = jnp.zeros(2)
    with pytest.raises(UserError) as error:
        store.restore_params(1, target)
    assert "missing tower/bias" in str(error.value) and "scale is (), not (2,)" in str(error.value)
    check_names({"a": (1,)}, {"a": (1,)}, "x")
    with pytest.raises(UserError, match=r"left over a; left over b; left over c \(\+1 more\)"):
        check_names(dict.fromkeys("abcd", ()), {}, "x")


def test_flat_names_round_trip():
    tree = state(2)
    flat = flatten(tree)
    assert {"params/tower/kernel", "opt/0/scale", "step", "ema/scale"} <= set(flat)
    back = unflatten(tree, flat)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    assert all(a is b for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(tree), strict=True))


def test_a_full_disk_is_one_line(store, tmp_path, monkeypatch):
    """Orbax writes in the background: the error comes when it is waited for."""
    store.save(state(1), SPEC)
    store.wait()

    def full(*args, **options):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("the background thread failed") from error

    for name in ("save", "wait_until_finished"):
        with monkeypatch.context() as patch:
            patch.setattr(store._manager, name, full)
            with pytest.raises(UserError, match="no space left on the disk while saving a checkpoint"):
                store.save(state(2), SPEC)
    assert store.steps() == [1]
    with monkeypatch.context() as patch:
        patch.setattr(store._manager, "wait_until_finished", lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            store.wait()


def test_nothing_is_written_where_it_does_not_fit(store, tmp_path, monkeypatch):
    store.save(state(1), SPEC)
    store.wait()
    need = sum(leaf.nbytes for leaf in jax.tree.leaves(state(2))) + 2**20
    full = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full._replace(free=need - 1))
    with pytest.raises(UserError, match=r"no space left on the disk for a checkpoint in .*takes 1\.0 MB, 1\.0 MB are"):
        store.save(state(2), SPEC)
    assert store.steps() == [1] and not list((tmp_path / "checkpoints").glob("2*"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full._replace(free=need))
    store.save(state(2), SPEC)
    store.wait()
    assert store.steps() == [1, 2]


def test_the_best_is_derived_from_the_rows(tmp_path):
    """A run that was killed between the row of an evaluation and whatever came next has lost nothing."""
    store = Checkpoints(tmp_path, keep=1, metric="m")
    for step in (1, 2, 3):
        store.save(state(step), SPEC)
        store.wait()
        evaluated(tmp_path, step, {1: 0.2, 2: 0.7, 3: 0.7}[step])
        store.score(step, {1: 0.2, 2: 0.7, 3: 0.7}[step])
    store.save(state(4), SPEC)
    store.wait()
    evaluated(tmp_path, 4, 0.9)  # Killed here: nobody told the store.
    with open(tmp_path / "evals.jsonl", "a") as file:
        file.write('{"step": 9, "m": 1.0}\n{"step": 10, "m"')  # A step without a checkpoint, half a row.
    store.close()
    again = Checkpoints(tmp_path, keep=1, metric="m")
    assert again.best == {"step": 4, "metric": "m", "score": 0.9} and again.steps() == [4]
    again.save(state(5), SPEC)
    again.save(state(6), SPEC)
    again.wait()
    assert again.steps() == [4, 6]
    again.close()
    for metric in ("m", None):
        reader = Checkpoints(tmp_path, writable=False, metric=metric)
        assert reader.resolve("best") == 4
        reader.close()
