"""Rules of placement as pure functions; meshes and rows on the devices that there are."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from lgdea_jax import sharding
from lgdea_jax.cli import UserError

RULES = sharding.DEFAULT_RULES


@given(st.lists(st.sampled_from([1, 2, 3, 5, 6, 8, 16, 64, 100, 768]), max_size=4), st.sampled_from([1, 2, 3, 4, 8]))
def test_the_largest_divisible_dimension_is_split(shape, fsdp):
    spec = tuple(sharding.partition_spec("image_tower/dense/kernel", shape, fsdp, RULES))
    divisible = [size for size in shape if size % fsdp == 0]
    if fsdp == 1 or math.prod(shape) < 4096 or not divisible:
        assert not any(spec)
    else:
        assert spec.count("fsdp") == 1 and len(spec) == len(shape)
        axis = spec.index("fsdp")
        assert shape[axis] == max(divisible) and shape.index(shape[axis]) == axis  # The first of equals.


def test_small_and_shared_parameters_stay_whole():
    assert sharding.partition_spec("opt/1/mu/prototypes/mu", (4096, 64), 8, RULES) == PartitionSpec()
    assert sharding.partition_spec("logit_scale", (), 8, RULES) == PartitionSpec()
    assert sharding.partition_spec("x/my_prototypes_too/kernel", (4096, 64), 8, RULES) == PartitionSpec("fsdp", None)


def test_first_match_wins_and_everything_is_covered():
    rules = (("kernel$", "replicate"), ("tower", "largest"))
    assert sharding.partition_spec("tower/kernel", (64, 64), 2, rules) == PartitionSpec()
    assert sharding.partition_spec("tower/embedding", (64, 64), 2, rules) == PartitionSpec("fsdp", None)
    with pytest.raises(UserError, match="no sharding rule matches the parameter head/bias"):
        sharding.partition_spec("head/bias", (64, 64), 2, rules)
    with pytest.raises(UserError, match="did you mean 'largest'"):
        sharding.partition_spec("a", (64, 64), 2, ((".*", "larges"),))


def test_mesh_sizes():
    device = jax.devices()[:1]
    for data, fsdp in ((1, 1), (-1, 1), (1, -1)):
        assert dict(sharding.make_mesh(data=data, fsdp=fsdp, devices=device).shape) == {"data": 1, "fsdp": 1}
    for data, fsdp in ((2, 1), (-1, 3), (-1, -1), (0, 1), (-2, 1)):
        with pytest.raises(UserError, match=r"mesh\.data"):
            sharding.make_mesh(data=data, fsdp=fsdp, devices=device)


class FakeMesh:
    size = 8


@given(st.integers(1, 6), st.integers(1, 5))
def test_processes_share_a_batch_without_overlap(processes, share):
    rows = 8 * processes * share

    class Mesh:
        size = 8 * processes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "process_count", lambda: processes)
        taken = []
        for number in range(processes):
            patch.setattr(jax, "process_index", lambda number=number: number)
            taken += range(rows)[sharding.rows_of_process(rows, Mesh)]
    assert taken == list(range(rows))


def test_rows_must_divide():
    with pytest.raises(UserError, match="a batch of 12 rows does not divide over 8 devices"):
        sharding.rows_of_process(12, FakeMesh)


def test_one_process_needs_no_others():
    sharding.wait_for_all("point")
    assert sharding.from_first(0.25) == 0.25
    tree = {"a": jax.numpy.arange(3)}
    host = sharding.whole_on_host(tree)
    assert isinstance(host["a"], np.ndarray) and host["a"].tolist() == [0, 1, 2]
    sharding.start_hosts(coordinator="", num_processes=1, process_id=-1)


def test_no_scheduler_is_a_users_error(monkeypatch):
    for name in ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri"):
        monkeypatch.delenv(name, raising=False)

    def initialize(**options):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(UserError, match=r"distributed\.coordinator"):
        sharding.start_hosts(coordinator="", num_processes=0, process_id=-1)
