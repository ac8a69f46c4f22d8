"""Runs work in an Apache Beam pipeline, on any of its runners: `data_prep.build ... --runner=beam [-- BEAM OPTIONS]`.

Only names and numbers travel through the pipeline. Work reads and writes files on disks that every worker mounts: so no
report is in what a runner logs, and a pipeline that was killed goes on from the files. Needs the extra "beam".
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import uuid
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lgdea_jax.errors import UserError, environment_fault, require
from lgdea_jax.runtime.files import write_text_atomically

FAULTS = "faults"  # Folder for faults of the whole run: the only way from a worker to the process that started it.
_HERE = "FnApiRunner"  # Beam's direct runner in Python; "DirectRunner" may fetch another one from the network.
_DIRECT = (_HERE, "DirectRunner", "BundleBasedDirectRunner", "SwitchingDirectRunner")


@functools.cache
def load() -> Any:
    """Imports Beam, which is optional and takes seconds.

    Raises:
      UserError: Beam is not installed.
    """
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # Beam logs at every import which clouds' packages are missing.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            beam = require("apache_beam", "beam", "--runner=beam")
            importlib.import_module("apache_beam.options.pipeline_options")
    finally:
        logging.disable(level)
    return beam


class _Do:
    """Applies `work` to each item. After a fault of the whole run (a wrong key, a full disk) the rest is left."""

    def __init__(self, work: Callable[[Any], None], faults: str) -> None:
        self._work, self._faults = work, Path(faults)

    def __call__(self, item: Any) -> list[Any]:
        if any(self._faults.iterdir()):
            return []
        try:
            self._work(item)
        except UserError as error:
            self._record(str(error))
        except OSError as error:
            fault = environment_fault(error)
            if not fault:
                raise
            self._record(fault)
        return []

    def _record(self, message: str) -> None:
        # An exception would make runners try the same again, some of them for ever.
        write_text_atomically(self._faults / uuid.uuid4().hex, message)


def is_direct(options: Sequence[str]) -> bool:
    """Whether these options name a runner whose workers are processes of this machine."""
    runner = _options(options).view_as(load().options.pipeline_options.StandardOptions).runner
    return str(runner).rsplit(".", 1)[-1] in _DIRECT


def _options(options: Sequence[str]) -> Any:
    """`PipelineOptions` of the command line; without a runner among them, the direct runner."""
    named = any(option == "--runner" or option.startswith("--runner=") for option in options)
    try:
        return load().options.pipeline_options.PipelineOptions(
            list(options) if named else [f"--runner={_HERE}", *options])
    except SystemExit:  # argparse has printed the unknown option.
        raise UserError("the options after -- are not Beam's") from None


def run(items: Sequence[Any], work: Callable[[Any], None], folder: Path, options: Sequence[str]) -> None:
    """Applies `work` to every item in a pipeline and waits for its end.

    Args:
      items: small and picklable: names, ranges.
      work: picklable; puts its results into files, and can be called again for an item that it has done.
      folder: on a disk that all workers mount, for messages about faults.
      options: Beam's own, for example `["--runner=FlinkRunner", "--flink_master=HOST:8081"]`; none: on this machine.

    Raises:
      UserError: what `work` raised first, or Beam does not know the runner.
    """
    beam = load()
    # Beam's processes on one machine speak gRPC, which would look for each other through a proxy of the environment.
    os.environ.setdefault("no_grpc_proxy", "localhost,127.0.0.1,::1")
    faults = folder / FAULTS
    faults.mkdir(parents=True, exist_ok=True)
    for old in faults.iterdir():
        old.unlink()
    chosen = _options(options)
    try:
        pipeline = beam.Pipeline(options=chosen)
    except ValueError as error:
        raise UserError(f"Beam: {str(error).splitlines()[0][:300]}") from None
    with pipeline as opened:
        opened | beam.Create(list(items)) | beam.Reshuffle() | beam.FlatMap(_Do(work, str(faults.absolute())))
    for file in sorted(faults.glob("[!.]*")):
        raise UserError(file.read_text(encoding="utf-8"))
