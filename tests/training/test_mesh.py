"""One device, eight, and two processes with four each: the same losses and gradients; a run moves between meshes."""

import json
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lgdea_jax import cli
from tests.training import runs

# Float32 sums in another order: the losses are of the size of 10.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def losses(data, methods, meshes, devices, *hosts, cache=""):
    """A process that prints the losses and gradients of `mesh_losses`; `hosts` are its further arguments."""
    command = [sys.executable, "tests/training/mesh_losses.py", str(data), ",".join(methods), ",".join(meshes), *hosts]
    environment = {**runs.environment(devices=devices), "JAX_COMPILATION_CACHE_DIR": str(cache)}
    return subprocess.Popen(command, cwd=runs.ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)


def table(process):
    """What it printed."""
    out, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors
    return json.loads(out.strip().splitlines()[-1])


def assert_all_equal(expected, *others):
    for method, meshes in expected.items():
        [reference] = meshes.values()
        assert np.isfinite(reference["losses"]).all() and len(set(reference["losses"])) == len(reference["losses"])
        # The key's bias has no gradient in exact arithmetic: the softmax does not see it.
        moved = {path for path in reference["gradients"] if not path.endswith("key/bias")}
        assert sum(any(reference["gradients"][path]) for path in moved) > 0.5 * len(moved)
        for other in others:
            for mesh, values in other.get(method, {}).items():
                where = f"{method} on {mesh}"
                np.testing.assert_allclose(values["losses"], reference["losses"], err_msg=where, **TOLERANCE)
                assert values["gradients"].keys() == reference["gradients"].keys()
                for path, expected in reference["gradients"].items():
                    # In units of the gradient's global norm.
                    np.testing.assert_allclose(values["gradients"][path], expected, rtol=0, atol=1e-5,
                                               err_msg=f"{where}: {path}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def two_processes(data, methods, meshes, cache, *flags):
    """The same losses from both of two processes with four devices each."""
    hosts = (f"localhost:{free_port()}", "2")
    both = [losses(data, methods, meshes, 4, *hosts, str(number), *flags, cache=cache) for number in range(2)]
    try:
        with ThreadPoolExecutor(2) as readers:  # One that nobody reads from waits, and the other one waits for it.
            first, second = readers.map(table, both)
    finally:
        for process in both:
            process.kill()
    assert first == second
    return first


@pytest.mark.slow
def test_eight_devices(phantom_data, compile_cache):
    flag = "augment.device=True"
    one = table(losses(phantom_data, ["clip"], ["1x1"], 1, flag, cache=compile_cache))
    assert_all_equal(one, table(losses(phantom_data, ["clip"], ["4x2"], 8, flag, cache=compile_cache)))


@pytest.mark.slow
def test_every_method_on_every_mesh(phantom_data, compile_cache):
    # One preset of each objective: presets of one objective compute the same on other texts or targets.
    presets = cli.read_config("configs/common.py").methods
    methods = sorted({presets[name].objective: name for name in sorted(presets, reverse=True)}.values())
    assert methods == ["clip", "clip_evidence_soft", "clip_sigmoid", "clip_supervised", "lgdea", "lgdea_pairs", "local",
                       "supervised", "supervised_text"]
    one = table(losses(phantom_data, methods, ["1x1"], 1, cache=compile_cache))
    eight = table(losses(phantom_data, methods, ["8x1"], 8, cache=compile_cache))
    split = table(losses(phantom_data, ["lgdea", "clip_sigmoid"], ["4x2"], 8, cache=compile_cache))
    two = two_processes(phantom_data, ["lgdea", "clip_evidence_soft", "supervised"], ["8x1"], compile_cache)
    assert_all_equal(one, eight, split, two)


@pytest.mark.slow
def test_chunks_and_parts_change_nothing(phantom_data, compile_cache):
    """Losses in chunks, and towers that go through the batch in parts: one device, eight, and two processes."""
    # Relations between all images and all reports as well: by default that term has no weight.
    flags = ("methods.lgdea.weights.evid_align=0.3",)
    cut = ("loss_chunk=3", "batch.micro=2", "model.remat=true", "model.remat_keep=products", "text.distinct=0.4",
           "model.scan=true")
    one = table(losses(phantom_data, ["lgdea"], ["1x1"], 1, *flags, cache=compile_cache))
    assert_all_equal(one, table(losses(phantom_data, ["lgdea"], ["4x2"], 8, *flags, *cut, cache=compile_cache)))
    rows = "batch.pairs=16"  # Two parts over eight devices, of pairs alone.
    one = table(losses(phantom_data, ["clip_sigmoid"], ["1x1"], 1, rows, cache=compile_cache))
    assert_all_equal(one, two_processes(phantom_data, ["clip_sigmoid"], ["8x1"], compile_cache, rows, *cut))


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("text.distinct=0.5",), ("optim.rates=('^text_tower/embeddings=0',)",)])
def test_no_stream_moves_between_devices(flags):
    """64 pairs, 16 unpaired images and 16 unpaired reports over eight devices; frozen words have no gradient."""
    done = subprocess.run([sys.executable, "tests/runtime/mesh_program.py", *flags], cwd=runs.ROOT,
                          env=runs.environment(devices=8), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert (found["devices"], found["permutes"], found["swaps"]) == (8, 0, 0)
    learn = "text.distinct=0.5" in flags
    assert ("scatter" in found["vocabulary"]) == learn


@pytest.mark.slow
def test_a_run_moves_between_meshes_and_hosts(phantom_data, compile_cache, tmp_path):
    flags = ("batch.images=8", "batch.reports=8", "data.pairs=0.5", "optim.rate=1e-3", "optim.ema=0.9")
    straight, moving = tmp_path / "straight", tmp_path / "moving"
    runs.run(straight, phantom_data, *flags, cache=compile_cache)
    runs.run(moving, phantom_data, *flags, "mesh.data=4", "mesh.fsdp=2", when="step", number=3, signal="SIGTERM",
             status=143, devices=8, cache=compile_cache)
    read = len(runs.batches(moving))
    coordinator = f"distributed.coordinator=localhost:{free_port()}"
    both = [runs.start(moving, phantom_data, *flags, coordinator, "distributed.num_processes=2",
                       f"distributed.process_id={number}", devices=4, cache=compile_cache) for number in range(2)]
    errors = [runs.finish(process) for process in both]
    assert "from step 3 of this run" in errors[0] and "from step" not in errors[1]
    assert [row["step"] for row in runs.rows(moving)] == [1, 2, 3, 4, 5, 6]
    for mine, theirs in zip(runs.rows(moving), runs.rows(straight), strict=True):
        np.testing.assert_allclose(mine["loss"], theirs["loss"], **TOLERANCE)
    [ours], [reference] = runs.rows(moving, "evals.jsonl"), runs.rows(straight, "evals.jsonl")
    assert ours.keys() == reference.keys() and ours["step"] == 6
    # The two halves of each batch are those of the whole: no process reads what the other one does.
    halves = [runs.batches(moving, process)[read if process == 0 else 0:] for process in range(2)]
    assert len(set(halves[0]) & set(halves[1])) == 0 and min(map(len, halves)) >= 3
    expected, got = runs.state(straight, 6), runs.state(moving, 6)
    for name in expected:
        if name.endswith("key/bias"):  # The softmax does not see it: its gradient is noise, which Adam makes large.
            continue
        # The memory: softmaxes at low temperatures of what the parameters make, confidences scaled to their median.
        atol = 5e-2 if name.startswith("aux/") else 2e-4
        np.testing.assert_allclose(got[name], expected[name], rtol=2e-3, atol=atol, err_msg=name)
