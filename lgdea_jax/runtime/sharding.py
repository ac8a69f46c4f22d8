"""Mesh, placement of parameters and batches, and the start of many hosts.

Two axes: `data` splits the batch; `fsdp` splits the batch too and, besides, the parameters and optimiser state. The
compiler places everything between (axis type Auto). A model of sharding by ordered regular expressions, first match
wins, everything covered.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lgdea_jax.arrays import path_string
from lgdea_jax.errors import UserError, choose

BATCH_AXES = ("data", "fsdp")

# First match wins. "rows" splits the first dimension over all devices; "largest" splits the largest dimension that the
# fsdp axis divides; "replicate" splits nothing.
# Scalars and the prototypes are read by every row of the batch, so that gathering them would cost more than it saves.
# The evidence memory has a row an item, split like a batch; its means and landmarks are read by every row.
DEFAULT_RULES = (
    (r"^aux/(images|reports)/", "rows"),
    (r"^aux/", "replicate"),
    (r"(^|/)(logit_scale|logit_bias|prototypes)(/|$)", "replicate"),
    (r".*", "largest"),
)
# What started a process: the variables of the number of processes and of this one's. SLURM's are those of a step: a
# batch script that starts one process has none of them.
LAUNCHERS = (
    ("mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("mpiexec", "PMI_SIZE", "PMI_RANK"),
    ("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    ("torchrun", "WORLD_SIZE", "RANK"),
)
log = logging.getLogger("lgdea_jax")

_SMALLEST_SPLIT = 2**12  # Parameters below this many elements stay whole: splitting them saves nothing.


def start_hosts(*, coordinator: str, num_processes: int, process_id: int) -> None:
    """Joins the other processes of the run; does nothing for a single process.

    Args:
      coordinator: "HOST:PORT" of process 0; empty takes it from the scheduler's environment when `num_processes` is
        not 1: what JAX finds itself (SLURM's srun, Open MPI 4's mpirun, Cloud TPU and GKE, Kubernetes), or MASTER_ADDR
        and MASTER_PORT (torchrun, Kubeflow).
      num_processes: number of processes, 0 to take it from the scheduler, 1 for a run without others.
      process_id: this process, -1 to take it from the scheduler.

    Raises:
      UserError: something is left to the scheduler, and there is none.
    """
    launched, count, rank = launcher(os.environ)
    if num_processes == 1:
        if count > 1:
            log.warning("%s started %d processes, and each of them trains on its own: "
                        "--config.distributed.num_processes=0 makes them one run", launched, count)
        return
    coordinator = coordinator or master(os.environ)
    options: dict[str, Any] = {}
    if coordinator and launched:
        # JAX asks the environment for everything or for nothing: with a coordinator given, the rest is filled in here.
        # Open MPI 5 and MPICH give only how many processes there are, and which one this is.
        num_processes = num_processes or count
        process_id = rank if process_id < 0 else process_id
        if launched == "mpirun":  # From 0.12 on, JAX asks mpi4py about Open MPI 5, also for what is known already.
            options["cluster_detection_method"] = "deactivate"
            if (local := os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK")) is not None:
                options["local_device_ids"] = [int(local)]  # As JAX does: a process has one device.
    if os.environ.get("JAX_PLATFORMS", "") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator_address=coordinator or None,
            num_processes=num_processes or None,
            process_id=None if process_id < 0 else process_id,
            **options,
        )
    except (ValueError, RuntimeError) as error:  # Nothing to take it from, or nobody there.
        reason = str(error).split("\n")[0]
        raise UserError(f"cannot join the other processes ({reason}): give --config.distributed.coordinator=HOST:PORT, "
                        "--config.distributed.num_processes and --config.distributed.process_id") from None


def launcher(environment: Mapping[str, str]) -> tuple[str, int, int]:
    """(what started this process, number of processes, number of this one); ("", 0, -1) if unknown."""
    for name, count, rank in LAUNCHERS:
        if count in environment and rank in environment:
            return name, int(environment[count]), int(environment[rank])
    return "", 0, -1


def master(environment: Mapping[str, str]) -> str:
    """HOST:PORT of MASTER_ADDR and MASTER_PORT, "" without them."""
    address, port = environment.get("MASTER_ADDR", ""), environment.get("MASTER_PORT", "")
    return f"{address}:{port}" if address and port else ""


def make_mesh(*, data: int, fsdp: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A (data, fsdp) mesh over all devices.

    Args:
      data, fsdp: sizes of the axes; -1 (at most one of them) takes what the other leaves.
      devices: the devices to use, all by default.

    Raises:
      UserError: the product is not the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = [data, fsdp]
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
        raise UserError(f"mesh.data={data} and mesh.fsdp={fsdp}: positive sizes, at most one of them -1")
    if -1 in sizes:
        sizes[sizes.index(-1)] = len(devices) // max(1, -math.prod(sizes))
    if math.prod(sizes) != len(devices):
        raise UserError(f"mesh.data={data} x mesh.fsdp={fsdp} does not cover {len(devices)} devices")
    return jax.make_mesh(tuple(sizes), BATCH_AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def describe(mesh: Mesh) -> str:
    """"8 x NVIDIA H100 in 2 processes, mesh data 4, fsdp 2": the devices of a run, for people."""
    processes = jax.process_count()
    spread = f" in {processes} processes" if processes > 1 else ""
    return (f"{mesh.size} x {mesh.devices.flat[0].device_kind}{spread}, mesh "
            f"{', '.join(f'{axis} {size}' for axis, size in mesh.shape.items())}")


def partition_spec(path: str, shape: Sequence[int], fsdp: int, rules: Sequence[tuple[str, str]]) -> PartitionSpec:
    """Where one parameter lives: the first rule that matches its path decides.

    Raises:
      UserError: no rule matches, or a rule's value is unknown.
    """
    for pattern, value in rules:
        if re.search(pattern, path):
            choose("sharding", value, ("largest", "replicate", "rows"))
            if value == "rows":
                return PartitionSpec(BATCH_AXES)
            if value == "replicate" or fsdp == 1 or math.prod(shape) < _SMALLEST_SPLIT:
                return PartitionSpec()
            sizes = [(size, axis) for axis, size in enumerate(shape) if size % fsdp == 0]
            if not sizes:
                return PartitionSpec()
            axis = max(sizes, key=lambda pair: (pair[0], -pair[1]))[1]
            return PartitionSpec(*("fsdp" if i == axis else None for i in range(len(shape))))
    raise UserError(f"no sharding rule matches the parameter {path}")


def tree_shardings(tree: Any, mesh: Mesh, rules: Sequence[tuple[str, str]] = DEFAULT_RULES) -> Any:
    """`NamedSharding`s of all arrays (or shapes) in `tree`, by path; optimiser state follows its parameter's name."""
    fsdp = mesh.shape["fsdp"]
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, partition_spec(path_string(path), leaf.shape, fsdp, rules)), tree)


def rows_of_process(rows: int, mesh: Mesh) -> slice:
    """Which rows of a global batch this process feeds: those that its devices hold.

    Raises:
      UserError: the devices do not divide the rows, or a process's devices do not lie next to each other in the mesh
        (its rows would be no slice, and another process would have to read them too).
    """
    if rows % mesh.size:
        raise UserError(f"a batch of {rows} rows does not divide over {mesh.size} devices")
    share = rows // mesh.size
    owners = [device.process_index for device in mesh.devices.flat]  # In the order of the rows.
    mine = [index for index, owner in enumerate(owners) if owner == jax.process_index()]
    if not mine or mine != list(range(mine[0], mine[0] + len(mine))):
        raise UserError(f"the devices of process {jax.process_index()} are at {mine} in the mesh: they must lie next "
                        "to each other, so that every process reads one slice of the batch")
    return slice(mine[0] * share, (mine[-1] + 1) * share)


def put_batch(batch: Mapping[str, Any], mesh: Mesh) -> Any:
    """Host arrays (this process's rows) to global arrays split over the batch axes."""
    def put(array: np.ndarray) -> jax.Array:
        sharding = NamedSharding(mesh, PartitionSpec(BATCH_AXES))
        if jax.process_count() == 1:
            return jax.device_put(array, sharding)
        return jax.make_array_from_process_local_data(sharding, array)

    return jax.tree.map(put, batch)


def whole_on_host(tree: Any) -> Any:
    """The arrays of `tree` as NumPy arrays, gathered from all processes (all must call it)."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree, tiled=True)


def from_first(value: float) -> float:
    """Process 0's `value`, on all processes (all must call it)."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return float(multihost_utils.broadcast_one_to_all(np.asarray(value, np.float32)))


def wait_for_all(name: str) -> None:
    """Returns when every process has come to the point `name`."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
