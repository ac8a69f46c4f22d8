"""Runs of the training in processes of their own, and what they leave behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from lgdea_jax import train
from lgdea_jax.runtime.checkpoint import Checkpoints

ROOT = Path(__file__).parents[2]
HARNESS = "tests/training/harness.py"


def environment(*, devices=1):
    """That of a process on the CPU with some fake devices."""
    flags = os.environ["XLA_FLAGS"] + (f" --xla_force_host_platform_device_count={devices}" if devices > 1 else "")
    return {**os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}


def flags_of(workdir, data, *flags, cache="", config="tests/training/tiny.py"):
    """The command line of a run; `flags` are config keys with their values."""
    return [f"--config={config}", f"--workdir={workdir}", f"--config.data.dir={data}",
            f"--config.compile_cache={cache}", *(f"--config.{flag}" for flag in flags)]


def here(workdir, data, *flags, **options):
    """A run in this process; returns the exit status, and raises what the command line would print."""
    return train.main(flags_of(workdir, data, *flags, **options))


def start(workdir, data, *flags, when="never", number=0, signal="SIGKILL", devices=1, **options):
    """Starts a run in its own process."""
    command = [sys.executable, HARNESS, when, str(number), signal, *flags_of(workdir, data, *flags, **options)]
    return subprocess.Popen(command, cwd=ROOT, env=environment(devices=devices), stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def finish(process, status=0):
    """Waits for a run, checks its exit status and returns what it wrote to stderr."""
    _, errors = process.communicate(timeout=300)
    assert process.returncode == status, errors
    return errors


def run(*args, status=0, **options):
    """Starts a run and waits for it."""
    return finish(start(*args, **options), status)


def rows(workdir, name="metrics.jsonl"):
    """The rows of a log without the times."""
    lines = (Path(workdir) / name).read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("time/")} for line in lines]


def batches(workdir, process=0):
    """Digests of the batches that were read, in order, over all processes that ran in `workdir`."""
    lines = (Path(workdir) / "batches.jsonl").read_text().splitlines()
    return [digest for number, digest in map(json.loads, lines) if number == process]


def state(workdir, step):
    """{path: array} of the training state in a checkpoint."""
    store = Checkpoints(workdir, writable=False)
    single = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    targets = {item: {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=single)
                      for name, leaf in leaves.items()} for item, leaves in store.arrays(step).items()}
    items = store._load(step, targets)
    store.close()
    used = "ema" if any(name.startswith("params/") for name in items["train"]) else "params"
    arrays = items["train"] | {f"{used}/{name}": array for name, array in items["params"].items()}
    return {name: np.asarray(array) for name, array in arrays.items()}


def assert_same_state(one, other, step):
    """Bit for bit."""
    first, second = state(one, step), state(other, step)
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype
        assert first[name].tobytes() == second[name].tobytes(), name
