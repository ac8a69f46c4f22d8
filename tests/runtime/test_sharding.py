"""Rules of placement as pure functions; meshes and rows on the devices that there are."""

import math
import types

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from lgdea_jax.cli import UserError
from lgdea_jax.runtime import sharding

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
    """As much of a mesh as the rows need: which process each device belongs to."""

    def __init__(self, owners):
        self.size = len(owners)
        self.devices = np.array([types.SimpleNamespace(process_index=owner) for owner in owners])


@given(st.integers(1, 6), st.integers(1, 5))
def test_processes_share_a_batch_without_overlap(processes, share):
    rows = 8 * processes * share

    mesh = FakeMesh([number for number in range(processes) for _ in range(8)])
    with pytest.MonkeyPatch.context() as patch:
        taken = []
        for number in range(processes):
            patch.setattr(jax, "process_index", lambda number=number: number)
            taken += range(rows)[sharding.rows_of_process(rows, mesh)]
    assert taken == list(range(rows))


def test_rows_must_divide():
    with pytest.raises(UserError, match="a batch of 12 rows does not divide over 8 devices"):
        sharding.rows_of_process(12, FakeMesh([0] * 8))


def test_rows_are_those_of_the_devices(monkeypatch):
    # A mesh in another order of processes, as fast links may want it.
    monkeypatch.setattr(jax, "process_index", lambda: 0)
    assert sharding.rows_of_process(16, FakeMesh([1, 1, 0, 0])) == slice(8, 16)
    with pytest.raises(UserError, match=r"process 0 are at \[0, 2\] in the mesh"):
        sharding.rows_of_process(16, FakeMesh([0, 1, 0, 1]))
    mesh = sharding.make_mesh(data=-1, fsdp=1)
    where = jax.sharding.NamedSharding(mesh, PartitionSpec(sharding.BATCH_AXES))
    held = sorted(rows[0].indices(16)[:2] for rows in where.addressable_devices_indices_map((16,)).values())
    assert (held[0][0], held[-1][1]) == (0, 16) and sharding.rows_of_process(16, mesh) == slice(0, 16)


SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[03-05],node9", "SLURM_NTASKS": "6",
         "SLURM_STEP_NUM_TASKS": "6", "SLURM_PROCID": "4", "SLURM_LOCALID": "1"}
OPEN_MPI_4 = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911", "OMPI_COMM_WORLD_SIZE": "3",
              "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
OPEN_MPI_5 = {"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
TORCHRUN = {"MASTER_ADDR": "head", "MASTER_PORT": "29500", "WORLD_SIZE": "5", "RANK": "3"}


@pytest.fixture
def joined(monkeypatch):
    """(sets the environment, what JAX's client of the coordinator would be started with)."""
    for name in {**SLURM, **OPEN_MPI_4, **TORCHRUN, "PMI_SIZE": "", "PMI_RANK": ""}:
        monkeypatch.delenv(name, raising=False)
    seen = {}

    # Below jax.distributed.initialize: JAX's own detection of the schedulers runs as it is.
    from jax._src import distributed

    finish = distributed.State.initialize

    def detect(self, *args, **options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(distributed._jax, "get_distributed_runtime_service", lambda *a, **k: None)
            patch.setattr(distributed._jax, "get_distributed_runtime_client",
                          lambda address, number, **k: (seen.update(coordinator=address, process=number),
                                                        types.SimpleNamespace(connect=lambda: None))[1])
            patch.setattr(distributed.State, "initialize_preemption_sync_manager", lambda self: None)
            state = distributed.State()
            finish(state, *args, **options)
            seen.update(processes=state.num_processes)

    monkeypatch.setattr(distributed.xla_bridge, "backends_are_initialized", lambda: False)
    monkeypatch.setattr(distributed.State, "initialize", detect)
    collectives = jax.config.jax_cpu_collectives_implementation
    yield monkeypatch, seen
    jax.config.update("jax_cpu_collectives_implementation", collectives)
    for name in ("jax_cuda_visible_devices", "jax_rocm_visible_devices"):
        jax.config.update(name, "all")


@pytest.mark.parametrize(("environment", "coordinator", "expected"), [
    (SLURM, "", ("node03:61447", 6, 4)),
    (OPEN_MPI_4, "", ("10.96.0.1:62624", 3, 2)),
    (OPEN_MPI_5, "head:1234", ("head:1234", 3, 2)),
    ({"PMI_SIZE": "4", "PMI_RANK": "1"}, "head:1234", ("head:1234", 4, 1)),
    (TORCHRUN, "", ("head:29500", 5, 3)),
])
def test_schedulers(joined, environment, coordinator, expected):
    monkeypatch, seen = joined
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    sharding.start_hosts(coordinator=coordinator, num_processes=0, process_id=-1)
    assert (seen["coordinator"], seen["processes"], seen["process"]) == expected


def test_processes_that_do_not_know_of_each_other_are_told(joined, caplog):
    monkeypatch, seen = joined
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    sharding.start_hosts(coordinator="", num_processes=1, process_id=-1)
    assert not seen and "srun started 6 processes" in caplog.text and "num_processes=0" in caplog.text


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
