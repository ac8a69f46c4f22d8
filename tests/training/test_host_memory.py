"""The memory of a step is kept for the next one: fewer page faults, the same numbers."""

import json
import os
import subprocess
import sys

import pytest

from lgdea_jax.runtime import host_memory

CHILD = """
import json, resource, sys
from lgdea_jax.runtime import host_memory
kept = host_memory.keep_freed_memory() if sys.argv[1] == "keep" else False
import jax, jax.numpy as jnp

@jax.jit
def step(x):
    y = jnp.sin(x[:, None] * x[None, :])
    return (y.T @ (y @ x)).sum()

x = jnp.arange(3000.0)
value = [float(step(x)) for _ in range(5)][0]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    float(step(x))
print(json.dumps([kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, value]))
"""


def child(how: str, **environment: str) -> tuple[bool, int, float]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", CHILD, how], env={**plain, "JAX_PLATFORMS": "cpu", **environment},
                          check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_kept_for_the_next_step():
    kept, faults, value = child("keep")
    plain, more, same = child("leave")
    assert kept and not plain and value == same
    # A temporary of 36 MB is 8,789 pages. Now and then a block is freed only after the next one was asked for.
    assert more > 20 * 8000 and faults < more / 3, (more, faults)


@pytest.mark.parametrize("setting", ["MALLOC_ARENA_MAX", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES"])
def test_the_users_own_allocator_settings_win(setting, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv(setting, "2")
    monkeypatch.setattr(host_memory.ctypes, "CDLL", lambda name: pytest.fail("the allocator was touched"))
    assert not host_memory.keep_freed_memory()


def test_the_training_command_asks_for_it():
    code = ("import runpy, sys; from lgdea_jax.runtime import host_memory\n"
            "host_memory.keep_freed_memory = lambda: print('kept')\n"
            "sys.argv = ['train', '--help']; runpy.run_module('lgdea_jax.train', run_name='__main__')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("kept")


@pytest.mark.parametrize(("platforms", "expected"), [("cpu", True), ("cuda", False), ("cuda,cpu", False)])
def test_only_where_jax_computes_on_the_cpu(platforms, expected):
    assert host_memory.computes_on_cpu({"JAX_PLATFORMS": platforms}) is expected
