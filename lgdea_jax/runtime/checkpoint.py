"""Checkpoints that describe themselves: enough to predict without the training tree, and to resume bit-exactly.

RUN/checkpoints/STEP/ holds three Orbax items: `params` (what a prediction needs; the EMA when there is one), `train`
(the rest of the state: optimiser, step, the parameters beside an EMA, the method's memory) and `spec` (JSON: config,
transforms, tokeniser, label and finding names, versions, position of the data). No array is in two of them. Both trees
are plain, {path: array} with paths such as "image/blocks/0/kernel": any reader of Orbax opens them. The position of the
data is the step number (see `data.pipeline`), which does not depend on the number of processes or workers.

The spec also has a SHA-256 digest of each item and of itself: what is read is compared with what was saved, bit for
bit. A damaged checkpoint is never used. The best checkpoint is a function of the rows of RUN/evals.jsonl.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from lgdea_jax.arrays import flatten, unflatten
from lgdea_jax.errors import FAULTS, UserError, environment_fault
from lgdea_jax.runtime import sharding
from lgdea_jax.runtime.digests import check_names, layout_digest, values_digest
from lgdea_jax.runtime.files import json_digest
from lgdea_jax.runtime.log import EVALS, step_rows

log = logging.getLogger("lgdea_jax")

SPEC_VERSION = 5  # Of the items and of `spec`'s keys; a checkpoint of another version is refused.
ARRAYS = ("params", "train")
ITEMS = (*ARRAYS, "spec")
OVERHEAD = 2**20  # Bytes of a checkpoint's own files (manifests, metadata, spec) beside the arrays.


class DamagedCheckpoint(UserError):
    """A checkpoint that is not what was saved."""


class Checkpoints:
    """Saves and restores the checkpoints of one run directory; keeps the last few and the best.

    Args:
      workdir: the run's directory.
      keep: how many of the latest to keep, beside the best.
      writable: False for reading only: nothing is created.
      metric: whose highest value in RUN/evals.jsonl makes the best checkpoint; None takes the newest spec's "metric".

    Raises:
      UserError: there is nothing to read.
    """

    def __init__(self, workdir: str | Path, *, keep: int = 2, writable: bool = True, metric: str | None = None) -> None:
        self.directory = (Path(workdir) / "checkpoints").resolve()
        self._workdir, self._keep, self._metric = Path(workdir), keep, metric
        if not writable and not self.directory.is_dir():
            raise UserError(f"no checkpoints in {workdir}: it is not a run of python -m lgdea_jax.train")
        # An unfinished checkpoint has another name until it is whole: it never counts, and is removed here.
        options = ocp.CheckpointManagerOptions(
            create=writable, read_only=not writable, enable_async_checkpointing=writable, max_to_keep=None,
            cleanup_tmp_directories=writable)
        handlers = {**{name: ocp.StandardCheckpointHandler() for name in ARRAYS}, "spec": ocp.JsonCheckpointHandler()}
        for left in reversed(range(5)):
            with contextlib.suppress(*() if writable or not left else (FileNotFoundError,)):
                self._manager = ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)
                break  # Else a training that goes on there has removed a step while they were listed.
        self._scores: dict[int, float] | None = None  # Of steps; None: not read yet.
        if writable:
            self._drop_old()

    def steps(self) -> list[int]:
        """Steps that are complete, ascending. A folder that lacks an item (an empty one, a stray one) is no step."""
        return sorted(step for step in self._manager.all_steps()
                      if all((self.directory / str(step) / item).is_dir() for item in ITEMS))

    def resolve(self, step: str | int) -> int:
        """The step number of "latest", "best" or a number.

        Raises:
          UserError: there is none.
        """
        steps = self.steps()
        if not steps:
            raise UserError(f"no finished checkpoint in {self._workdir}")
        if step == "latest":
            return steps[-1]
        if step == "best":
            best = self.best
            if best is None:
                raise UserError(f"no best checkpoint in {self._workdir}: no evaluation ran while training")
            return best["step"]
        try:
            number = int(step)
        except ValueError:
            raise UserError(f"--step={step}: latest, best or a number") from None
        if number not in steps:
            raise UserError(f"no checkpoint at step {number}; there are: {', '.join(map(str, steps))}")
        return number

    @property
    def best(self) -> dict[str, Any] | None:
        """{"step", "score", "metric"} of the checkpoint with the highest score, the earliest of equal ones."""
        steps = set(self.steps())
        if self._scores is None:
            self._scores = self._read_scores()
        scores = {step: score for step, score in sorted(self._scores.items()) if step in steps}
        if not scores:
            return None
        step = max(scores, key=lambda step: scores[step])
        return {"step": step, "metric": self._metric, "score": scores[step]}

    def _read_scores(self) -> dict[int, float]:
        """{step: score} of the rows of RUN/evals.jsonl; with several processes the best of process 0's rows."""
        if self._metric is None:
            for step in reversed(self.steps()):
                with contextlib.suppress(_Damage):
                    self._metric = self._load_spec(step).get("metric")
                    break
        values = {row["step"]: row.get(self._metric) for row in step_rows(self._workdir / EVALS)}
        scores = {step: float(value) for step, value in values.items()
                  if isinstance(value, (int, float)) and np.isfinite(value) and step in self.steps()}
        if jax.process_count() > 1:  # Another process may not have the rows (yet): all are to keep the same steps.
            step = max(scores, key=lambda step: (scores[step], -step), default=-1)
            step, score = int(sharding.from_first(step)), sharding.from_first(scores.get(step, 0.0))
            scores = {step: score} if step >= 0 else {}
        return scores

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
        items = {"params": flatten(state[used]), "train": flatten(rest)}
        self._check_space(sum(leaf.nbytes for leaves in items.values() for leaf in leaves.values()))
        spec = {**spec, "spec_version": SPEC_VERSION, "step": step, "data_step": step,
                "digests": {item: {"layout": layout_digest(leaves), "values": values_digest(leaves)}
                            for item, leaves in items.items()}}
        self._set_aside([step])
        with self._disk_errors():
            self._manager.save(step, args=ocp.args.Composite(
                **{item: ocp.args.StandardSave(leaves) for item, leaves in items.items()},
                spec=ocp.args.JsonSave({**spec, "digest": json_digest(spec)})))

    def busy(self) -> bool:
        """Whether a checkpoint is still being written in the background."""
        return self._manager.is_saving_in_progress()

    def _check_space(self, size: int) -> None:
        # Before anything is written: a disk that fills half-way leaves an unfinished checkpoint and makes it fuller.
        free = shutil.disk_usage(self.directory).free
        if free < size + OVERHEAD:
            raise UserError(f"no space left on the disk for a checkpoint in {self.directory}: it takes "
                            f"{(size + OVERHEAD) / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free")

    def score(self, step: int, value: float) -> None:
        """Tells the score of the checkpoint at `step`, of which RUN/evals.jsonl has the row; NaN is never the best.

        All processes of a run call it with the same arguments.
        """
        if self._scores is None:
            self._scores = self._read_scores()
        if np.isfinite(value):
            self._scores[step] = float(value)

    def _drop_old(self) -> None:
        steps = self.steps()
        if len(steps) > self._keep:
            best = self.best
            for step in steps[: -self._keep]:
                if best is None or step != best["step"]:
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
            fault = environment_fault(error)
            if not fault:
                raise
            raise UserError(f"{fault} while saving a checkpoint to {self.directory}") from None

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
          DamagedCheckpoint: it is not what was saved; names the steps that are intact.
        """
        with self._damage(step):
            return self._load_spec(step)

    def restore_state(self, step: int, target: Any) -> Any:
        """The state at `step`, with the dtypes and shardings of `target` (arrays or `jax.ShapeDtypeStruct`s).

        Raises:
          UserError: another version, or names or shapes that differ.
          DamagedCheckpoint: it is not what was saved; names the steps that are intact.
        """
        with self._damage(step):
            return self._load_state(step, target)

    def restore_params(self, step: int, target: Any) -> Any:
        """The parameters for predictions at `step`, as `restore_state`."""
        with self._damage(step):
            return self._load(step, {"params": target})["params"]

    def resume(self, target: Any, check: Callable[[dict[str, Any]], None]) -> Any | None:
        """The state of the newest intact checkpoint; damaged ones after it are set aside, which the log says.

        Args:
          target: as of `restore_state`.
          check: gets the spec of the checkpoint; may refuse it with a `UserError`.

        Returns:
          The state, or None where there is no checkpoint.

        Raises:
          UserError: all of them are damaged, or `check` refuses.
        """
        damaged = []
        for step in reversed(self.steps()):
            try:
                check(self._load_spec(step))
                state = self._load_state(step, target)
            except _Damage as error:
                log.warning("the checkpoint at step %d is damaged (%s): going back to the one before", step, error)
                damaged.append(step)
                continue
            self._set_aside(damaged)
            return state
        if damaged:
            raise DamagedCheckpoint(f"no checkpoint in {self.directory} is intact: move the folder away to begin anew")
        return None

    def _set_aside(self, steps: list[int]) -> None:
        """Renames the folders of `steps`, if there are any: they count no more, and nothing of them is lost."""
        for step in steps:
            folder, number = self.directory / str(step), 1
            if jax.process_index() == 0 and folder.exists():
                while (aside := self.directory / f"aside_{step}_{number}").exists():
                    number += 1
                folder.rename(aside)
        if steps and any(step in self._manager.all_steps() for step in steps):
            sharding.wait_for_all("checkpoints set aside")
            self._manager.reload()

    @contextlib.contextmanager
    def _damage(self, step: int) -> Iterator[None]:
        before = self._files(step)
        try:
            yield
        except _Damage as error:
            if self._files(step) != before:
                raise UserError(f"the checkpoint at step {step} of {self._workdir} was removed while it was read: a "
                                "training goes on there. Run the same command again") from None
            intact = [str(other) for other in self.steps() if other != step and self._intact(other)]
            rest = f"intact are the steps {', '.join(intact)}" if intact else "no other step is intact"
            raise DamagedCheckpoint(f"the checkpoint at step {step} of {self._workdir} is damaged ({error}); {rest}"
                                    ) from None

    def _files(self, step: int) -> set[str]:
        return {f"{folder}/{name}" for folder, _, names in os.walk(self.directory / str(step)) for name in names}

    def _intact(self, step: int) -> bool:
        try:
            self._load_spec(step)
            have = self.arrays(step)
            self._load(step, {item: {path: np.empty(leaf.shape, leaf.dtype) for path, leaf in have[item].items()}
                              for item in ARRAYS})
        except (_Damage, UserError):
            return False
        return True

    def arrays(self, step: int) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
        """{item: {path: shape and dtype}} of a checkpoint."""
        def read() -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
            metadata = self._manager.item_metadata(step)
            return {item: {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
                           for path, leaf in dict(metadata[item]).items()} for item in ARRAYS}

        return _read("its list of arrays", read)

    def _load_spec(self, step: int) -> dict[str, Any]:
        spec = _read("its spec", lambda: dict(self._manager.restore(
            step, args=ocp.args.Composite(spec=ocp.args.JsonRestore()))["spec"]))
        digest = spec.pop("digest", None)
        if digest != json_digest(spec) and (digest or spec.get("spec_version") == SPEC_VERSION):
            raise _Damage("its spec")
        if spec.get("spec_version") != SPEC_VERSION:
            raise UserError(f"the checkpoint {self.directory / str(step)} has spec version {spec.get('spec_version')}, "
                            f"this code reads version {SPEC_VERSION}: train again, or use the lgdea-jax that wrote it")
        return spec

    def _load_state(self, step: int, target: Any) -> Any:
        used, rest = split_state(target)
        restored = self._load(step, {"params": target[used], "train": rest})
        return {name: restored["params"] if name == used else restored["train"][name] for name in target}

    def _load(self, step: int, targets: Mapping[str, Any]) -> dict[str, Any]:
        digests = self._load_spec(step)["digests"]  # Refuses another version before anything else of it is read.
        have, wanted = self.arrays(step), {}
        for item, target in targets.items():
            if layout_digest(have[item]) != digests[item]["layout"]:
                raise _Damage(f"the list of arrays of {item}")
            leaves = flatten(target)
            check_names({path: leaf.shape for path, leaf in have[item].items()},
                        {path: tuple(np.shape(leaf)) for path, leaf in leaves.items()}, f"checkpoint {step}")
            # As it was saved, to be compared; a target of another dtype comes after.
            wanted[item] = {path: _like(leaf, have[item][path].dtype) for path, leaf in leaves.items()}
        restored = _read(f"the arrays of {' or '.join(targets)}", lambda: self._manager.restore(
            step, args=ocp.args.Composite(**{item: ocp.args.StandardRestore(leaves)
                                             for item, leaves in wanted.items()})))
        for item in targets:
            if values_digest(restored[item]) != digests[item]["values"]:
                raise _Damage(f"the arrays of {item}")
        return {item: jax.tree.map(lambda leaf, like: leaf.astype(like.dtype) if leaf.dtype != like.dtype else leaf,
                                   unflatten(target, restored[item]), target) for item, target in targets.items()}


class _Damage(Exception):
    """What of a checkpoint is damaged; no error of the user's."""


def _read(what: str, read: Callable[[], Any]) -> Any:
    """`read()`; any error is damage of `what`, but for those of permissions, memory and the like."""
    try:
        if sys.unraisablehook is not _without_late_reads:
            _hooks.append(sys.unraisablehook)
            sys.unraisablehook = _without_late_reads
        return read()
    except Exception as error:  # Orbax and TensorStore have many.
        fault = environment_fault(error)
        if fault and not fault.startswith(FAULTS[errno.EIO]):
            raise UserError(f"{fault} while reading a checkpoint") from None
    # Coroutines that Orbax leaves half done print tracebacks when they are collected: now, and in silence.
    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    gc.collect()
    sys.unraisablehook = hook
    raise _Damage(what)


_hooks: list[Any] = []


def _without_late_reads(unraisable: Any) -> None:
    """A `sys.unraisablehook`: where one read fails, TensorStore's threads tell that nobody awaits the rest."""
    if str(unraisable.exc_value) != "Event loop is closed":
        _hooks[-1](unraisable)


def _like(leaf: Any, dtype: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        return leaf.astype(dtype, copy=False)
    return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=getattr(leaf, "sharding", None))


def split_state(state: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(which part of a state predictions use, "ema" or "params"; the other parts): a checkpoint holds each once."""
    used = "ema" if state["ema"] else "params"
    return used, {name: part for name, part in state.items() if name != used}
