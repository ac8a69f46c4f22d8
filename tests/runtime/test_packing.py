"""Joining small arrays: every bit back, nothing joined that is large or split over devices."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from lgdea_jax.runtime import packing

DTYPES = ("float32", "bfloat16", "int32", "uint8", "bool")
ENTRIES = st.lists(st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3)), min_size=1, max_size=8)


@given(ENTRIES, st.integers(0, 200), st.integers(0, 2**32 - 1))
def test_round_trip(entries, largest, seed):
    rng = np.random.default_rng(seed)
    flat = {f"a/{i}": jax.device_put(rng.integers(0, 251, shape).astype(jnp.dtype(dtype)))
            for i, (dtype, shape) in enumerate(entries)}
    kept, table = packing.pack(flat, largest=largest)
    table = json.loads(json.dumps(table))  # As a checkpoint keeps it.
    assert all(leaf.nbytes > largest for name, leaf in kept.items() if not name.startswith(packing.PREFIX))
    vectors = packing.empty(table)
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in kept.items() if name.startswith(packing.PREFIX)} == {
        name: (leaf.shape, leaf.dtype) for name, leaf in vectors.items()}
    found = packing.unpack(kept, table)
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in found.items()} == {
        name: (leaf.shape, leaf.dtype) for name, leaf in packing.shapes(table).items()}
    back = {name: found[name] if name in found else kept[name] for name in flat}
    for name, leaf in flat.items():
        assert back[name].dtype == leaf.dtype and np.asarray(back[name]).tobytes() == np.asarray(leaf).tobytes()


def test_only_plain_arrays_on_devices_are_joined():
    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    keys = jax.random.split(jax.random.key(0), 2)
    kept, table = packing.pack({"here": jnp.ones(3), "host": np.ones(3), "keys": keys,
                                "mesh": jax.device_put(jnp.ones(2), NamedSharding(mesh, P()))})
    assert set(kept) == {"host", "keys", "packed/float32"}
    assert table == {"float32": [("here", (3,)), ("mesh", (2,))]}


def test_a_table_of_other_arrays_is_refused():
    with pytest.raises(ValueError, match="3 packed values of float32, the table tells of 4"):
        packing.unpack({"packed/float32": np.zeros(3, np.float32)}, {"float32": [["a", [4]]]})
