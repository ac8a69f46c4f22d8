"""Checkpoints that describe themselves: enough to predict without the training tree, and to resume bit-exactly.

RUN/checkpoints/STEP/ holds three Orbax items: `params` (what a prediction needs; the EMA when there is one), `train`
(the rest of the state: optimiser, step, the parameters beside an EMA, the method's memory) and `spec` (JSON: config,
transforms, tokeniser, label and finding names, versions, position of the data). No array is in two of them. Both trees
are plain, {path: array} with paths such as "image/blocks/0/kernel": any reader of Orbax opens them. The position of the
data is the step number (see `data.pipeline`), which does not depend on the number of processes or workers.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from lgdea_jax.arrays import flatten, unflatten
from lgdea_jax.errors import UserError
from lgdea_jax.runtime.files import write_text_atomically

SPEC_VERSION = 4  # Of the items and of `spec`'s keys; a checkpoint of another version is refused.
BEST = "best.json"
OVERHEAD = 2**20  # Bytes of a checkpoint's own files (manifests, metadata, spec) beside the arrays.


class Checkpoints:
    """Saves and restores the checkpoints of one run directory; keeps the last few and the best.

    Args:
      workdir: the run's directory.
      keep: how many of the latest to keep, beside the best.
      writable: False for reading only: nothing is created.

    Raises:
      UserError: there is nothing to read.
    """

    def __init__(self, workdir: str | Path, *, keep: int = 2, writable: bool = True) -> None:
        self.directory = (Path(workdir) / "checkpoints").resolve()
        self._keep = keep
        if not writable and not self.directory.is_dir():
            raise UserError(f"no checkpoints in {workdir}: it is not a run of python -m lgdea_jax.train")
        # An unfinished checkpoint has another name until it is whole: it never counts, and is removed here.
        options = ocp.CheckpointManagerOptions(
            create=writable, read_only=not writable, enable_async_checkpointing=writable, max_to_keep=None,
            cleanup_tmp_directories=writable)
        handlers = {"params": ocp.StandardCheckpointHandler(), "train": ocp.StandardCheckpointHandler(),
                    "spec": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)
        self._best = self._read_best()
        if writable:
            self._drop_old()

    def steps(self) -> list[int]:
        """Steps that are complete, ascending."""
        return sorted(self._manager.all_steps())

    def resolve(self, step: str | int) -> int:
        """The step number of "latest", "best" or a number.

        Raises:
          UserError: there is none.
        """
        steps = self.steps()
        if not steps:
            raise UserError(f"no finished checkpoint in {self.directory.parent}")
        if step == "latest":
            return steps[-1]
        if step == "best":
            if self._best is None:
                raise UserError(f"no best checkpoint in {self.directory.parent}: no evaluation ran while training")
            step = self._best["step"]
        try:
            number = int(step)
        except ValueError:
            raise UserError(f"--step={step}: latest, best or a number") from None
        if number not in steps:
            raise UserError(f"no checkpoint at step {number}; there are: {', '.join(map(str, steps))}")
        return number

    @property
    def best(self) -> dict[str, Any] | None:
        """{"step", "score", "metric"} of the best checkpoint so far."""
        return self._best

    def _read_best(self) -> dict[str, Any] | None:
        path = self.directory / BEST
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def save(self, state: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
        """Starts saving `state`; the write goes on in the background and is complete after `wait`.

        Raises:
          UserError: the disk is full.
        """
        step = int(state["step"])
        self.wait()  # Older checkpoints go only when newer ones are whole.
        if step in self.steps():
            return
        used, rest = split_state(state)
        params, train = flatten(state[used]), flatten(rest)
        spec = {**spec, "spec_version": SPEC_VERSION, "step": step, "data_step": step}
        self._check_space(sum(leaf.nbytes for leaf in [*params.values(), *train.values()]))
        with self._disk_errors():
            self._manager.save(step, args=ocp.args.Composite(
                params=ocp.args.StandardSave(params), train=ocp.args.StandardSave(train), spec=ocp.args.JsonSave(spec)))

    def busy(self) -> bool:
        """Whether a checkpoint is still being written in the background."""
        return self._manager.is_saving_in_progress()

    def _check_space(self, size: int) -> None:
        # Before anything is written: a disk that fills half-way leaves an unfinished checkpoint and makes it fuller.
        free = shutil.disk_usage(self.directory).free
        if free < size + OVERHEAD:
            raise UserError(f"no space left on the disk for a checkpoint in {self.directory}: it takes "
                            f"{(size + OVERHEAD) / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free")

    def score(self, step: int, metric: str, value: float) -> None:
        """Remembers the checkpoint at `step` as the best if its `value` is the highest so far; NaN never is.

        All processes of a run call it with the same arguments.
        """
        if not np.isfinite(value) or (self._best is not None and value <= self._best["score"]):
            return
        self._best = {"step": step, "metric": metric, "score": float(value)}
        if jax.process_index() == 0:
            write_text_atomically(self.directory / BEST, json.dumps(self._best))

    def _drop_old(self) -> None:
        for step in self.steps()[: -self._keep]:
            if self._best is None or step != self._best["step"]:
                self._manager.delete(step)

    def wait(self) -> None:
        """Blocks until everything that was started is on disk, then removes what need not be kept.

        Raises:
          UserError: the disk is full.
        """
        with self._disk_errors():
            self._manager.wait_until_finished()
        self._drop_old()

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax and TensorStore wrap the operating system's error in several of their own.
            if not disk_is_full(error):
                raise
            raise UserError(f"no space left on the disk while saving a checkpoint to {self.directory}") from None

    def close(self) -> None:
        """Waits, then lets go of the directory.

        Raises:
          UserError: the disk is full.
        """
        with self._disk_errors():
            self._manager.close()

    def spec(self, step: int) -> dict[str, Any]:
        """The JSON spec of a checkpoint.

        Raises:
          UserError: it was written by another version of this file.
        """
        spec = self._manager.restore(step, args=ocp.args.Composite(spec=ocp.args.JsonRestore()))["spec"]
        if spec.get("spec_version") != SPEC_VERSION:
            raise UserError(f"the checkpoint {self.directory / str(step)} has spec version {spec.get('spec_version')}, "
                            f"this code reads version {SPEC_VERSION}: train again, or use the version of lgdea-jax "
                            "that wrote it")
        return spec

    def restore_state(self, step: int, target: Any) -> Any:
        """The state at `step`, with the dtypes and shardings of `target` (arrays or `jax.ShapeDtypeStruct`s).

        Raises:
          UserError: another version, or names or shapes that differ.
        """
        used, rest = split_state(target)
        restored = self._restore(step, {"params": target[used], "train": rest})
        return {name: restored["params"] if name == used else restored["train"][name] for name in target}

    def restore_params(self, step: int, target: Any) -> Any:
        """The parameters for predictions at `step`, as `restore_state`."""
        return self._restore(step, {"params": target})["params"]

    def arrays(self, step: int) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
        """{item: {path: shape and dtype}} of a checkpoint."""
        metadata = self._manager.item_metadata(step)
        return {item: {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
                       for path, leaf in dict(metadata[item]).items()} for item in ("params", "train")}

    def _restore(self, step: int, targets: Mapping[str, Any]) -> dict[str, Any]:
        self.spec(step)  # Refuses another version before anything else of it is read.
        have, wanted = self.arrays(step), {}
        for item, target in targets.items():
            wanted[item] = flatten(jax.tree.map(ocp.utils.to_shape_dtype_struct, target))
            check_names({path: leaf.shape for path, leaf in have[item].items()},
                        {path: tuple(leaf.shape) for path, leaf in wanted[item].items()}, f"checkpoint {step}")
        restored = self._manager.restore(step, args=ocp.args.Composite(**{
            item: ocp.args.StandardRestore(leaves) for item, leaves in wanted.items()}))
        return {item: unflatten(target, restored[item]) for item, target in targets.items()}


def split_state(state: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(which part of a state predictions use, "ema" or "params"; the other parts): a checkpoint holds each once."""
    used = "ema" if state["ema"] else "params"
    return used, {name: part for name, part in state.items() if name != used}


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is that of a full disk or quota."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT)):
            return True
        error = error.__cause__ or error.__context__
    return False


def check_names(have: Mapping[str, tuple], want: Mapping[str, tuple], where: str) -> None:
    """Refuses names or shapes that differ, naming the first few.

    Raises:
      UserError: something is missing, left over, or of another shape.
    """
    problems = [f"missing {name}" for name in sorted(set(want) - set(have))]
    problems += [f"left over {name}" for name in sorted(set(have) - set(want))]
    problems += [f"{name} is {have[name]}, not {want[name]}" for name in sorted(set(have) & set(want))
                 if have[name] != want[name]]
    if problems:
        more = f" (+{len(problems) - 3} more)" if len(problems) > 3 else ""
        raise UserError(f"{where} does not fit the model: {'; '.join(problems[:3])}{more}")
