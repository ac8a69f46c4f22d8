"""Training: config -> data -> state -> step -> checkpoint -> evaluators. The only loop of the project.

    python -m lgdea_jax.train --config=configs/phantom.py --workdir=RUN [--config.data.dir=DATA] [--config.KEY=VALUE]

Running the same command again goes on from the last checkpoint, bit for bit: batch n is a function of (config, n)
alone. SIGTERM and Ctrl-C save first (exit status 143 and 130). RUN holds config.json, metrics.jsonl, evals.jsonl,
tensorboard/ and checkpoints/.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import sys
from pathlib import Path
from typing import Any

import jax

from lgdea_jax import cli, experiment
from lgdea_jax.cli import UserError
from lgdea_jax.runtime import host_memory, sharding
from lgdea_jax.runtime.checkpoint import Checkpoints
from lgdea_jax.runtime.guards import StopSignals, Watchdog, check_collapse, mean_metrics
from lgdea_jax.runtime.log import MEMORY, Clock, Progress, TrainLog, utilisation
from lgdea_jax.training import dry_run
from lgdea_jax.training.data import Data, device_batches, prepare_data
from lgdea_jax.training.evaluation import Evaluation
from lgdea_jax.training.state import (
    Parts,
    check_resume,
    compile_step,
    initialise_from,
    make_spec,
    prepare_parts,
    pretrained_towers,
)

log = logging.getLogger("lgdea_jax")

# With several processes, asking all of them whether one got a signal costs a round trip: now and then is soon enough.
STOP_CHECK_STEPS = 10


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    # Orbax's threads log every error that they also raise, with tracebacks: a full disk is to be one line.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    log.setLevel(logging.INFO)
    parser = cli.Parser(
        prog="python -m lgdea_jax.train",
        description="Pretrains image and text towers. Research use only, not a medical device.",
        epilog="--config.KEY=VALUE changes a key of the config; configs/common.py lists them all, with their reasons.")
    parser.add_argument("--config", metavar="FILE", required=True, help="the experiment, e.g. configs/phantom.py")
    parser.add_argument("--workdir", required=True, help="folder of the run; an earlier run there goes on")
    if {"-h", "--help"} & set(argv):
        parser.print_help()
        return cli.OK
    config, rest = cli.load_config(argv)
    return train(config, parser.parse_args(["--config=read", *rest]).workdir)


def train(config: Any, workdir: str | Path) -> int:
    """Runs (or goes on with) the training that `config` describes.

    Args:
      config: see configs/common.py for every key.
      workdir: the run's folder.

    Returns:
      An exit status of `cli`: OK, INTERRUPTED or TERMINATED.

    Raises:
      UserError: a fault that the user can mend, NaN losses included.
    """
    check_config(config)
    sharding.start_hosts(**config.distributed)
    if jax.process_index():
        log.setLevel(logging.WARNING)  # Process 0 tells.
    if config.compile_cache:
        jax.config.update("jax_compilation_cache_dir", str(Path(config.compile_cache).expanduser()))
    if config.dry_run:
        for line in dry_run.dry_run(config, sharding.make_mesh(**config.mesh)):
            log.info(line)
        return cli.OK
    workdir = Path(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"--workdir={workdir}: {error.strerror}") from None
    mesh = sharding.make_mesh(**config.mesh)
    data = prepare_data(config, mesh, show=jax.process_index() == 0)
    with contextlib.closing(Checkpoints(workdir, keep=config.checkpoint.keep)) as checkpoints:
        return run(config, workdir, mesh, data, checkpoints)


def check_config(config: Any) -> None:
    """Refuses keys that nobody reads and numbers that no run can have.

    Raises:
      UserError: names the key.
    """
    cli.check_keys(config, like="common.py")
    for key in ("total_steps", "log.every", "checkpoint.every", "checkpoint.keep", "image.size", "text.phrases"):
        value = config
        for part in key.split("."):
            value = value[part]
        if value < 1:
            raise UserError(f"config key {key!r} is {value}: at least 1")


def run(config: Any, workdir: Path, mesh: jax.sharding.Mesh, data: Data, checkpoints: Checkpoints) -> int:
    """The loop, from the last checkpoint or from the beginning to `config.total_steps`; returns an exit status."""
    main_process = jax.process_index() == 0
    clock = Clock()
    with clock.pause("start"):
        spec = make_spec(config, data)
        parts = prepare_parts(config, data, mesh)
        state, resumed = start_state(config, data, parts, spec, checkpoints)
        start = int(state["step"])
        if main_process:
            (workdir / "config.json").write_text(json.dumps(spec["config"], indent=1, sort_keys=True) + "\n")
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopSignals())
        journal = stack.enter_context(contextlib.closing(TrainLog(
            workdir, first_step=start, active=main_process, tensorboard=config.log.tensorboard)))
        watchdog = Watchdog(config.log.watchdog_seconds)
        stack.callback(watchdog.rest)
        evaluation = Evaluation(config, parts.graphdef, data, spec, journal=journal, checkpoints=checkpoints,
                                clock=clock, stop=stop)
        # An evaluation that a preemption cut short is made up for before training goes on.
        if resumed and evaluation.missing(start) and not evaluation.run(start, state):
            return stopped_at(start, stop)
        if start >= config.total_steps:
            log.info("already trained for %d steps: nothing to do", start)
            return cli.OK
        with clock.pause("compile"):
            batches = stack.enter_context(contextlib.closing(device_batches(config, mesh, data, start)))
            first = next(batches)
            step_function = compile_step(config, data, parts, first, mesh)
        report = Report(config, journal, clock, checkpoints, rows=sum(data.sizes.values()), start=start,
                        flops=step_flops(step_function))
        following = itertools.chain([first], batches)
        del first  # The step is to be its only owner.
        for step in range(start + 1, config.total_steps + 1):
            watchdog.restart()
            with clock.data_wait():
                batch = next(following)
            if parts.memory and parts.memory.due(step - 1):
                with clock.pause("refresh"):
                    state["aux"], extra = jax.block_until_ready(parts.memory.refresh(state, step - 1))
                journal.write(step, jax.device_get(extra), file=MEMORY)
            state, metrics = step_function(state, batch)
            report.add(step, metrics)
            stopped = stop.agreed(now=step % STOP_CHECK_STEPS == 0)
            evaluating = evaluation.due(step)
            # Saved before each evaluation, so that the best one can be kept, and one cut short can be made up for.
            saving = stopped or evaluating or step % config.checkpoint.every == 0
            if saving or step % config.log.every == 0:
                report.write()
            if saving:
                watchdog.rest()
                with clock.pause("checkpoint"):
                    checkpoints.save(state, spec)
            if stopped or (evaluating and not evaluation.run(step, state) and stop.agreed()):
                checkpoints.wait()
                return stopped_at(step, stop)
        with clock.pause("checkpoint"):
            checkpoints.wait()
        report.end()
    return cli.OK


def start_state(
    config: Any, data: Data, parts: Parts, spec: dict[str, Any], checkpoints: Checkpoints
) -> tuple[Any, bool]:
    """(state, whether it is that of an earlier run in this workdir).

    Raises:
      UserError: the earlier run is another one, or `init_from` does not fit.
    """
    steps = checkpoints.steps()
    if steps:
        check_resume(spec, checkpoints.spec(steps[-1]))
        state = checkpoints.restore_state(steps[-1], parts.target)
        origin = f"from step {steps[-1]} of this run"
    else:
        state = parts.initial()
        origin = f"fresh, seed {config.seed}"
        state, filled = pretrained_towers(config, parts, state)
        for line in filled:
            log.info(line)
        if filled:
            towers = " and ".join(line.split(":")[0] for line in filled)
            origin = f"{towers} as above, the rest fresh, seed {config.seed}"
        if config.init_from:
            state, loaded = initialise_from(config, data, state)
            origin = f"{loaded:,} from {config.init_from}, the rest fresh"
    log.info("parameters (%s)\n%s", origin, experiment.parameter_table(state["params"], rates=parts.rates))
    return state, bool(steps)


def stopped_at(step: int, stop: StopSignals) -> int:
    """Says so and returns the signal's exit status."""
    log.info("stopped by %s; step %d is saved: the same command goes on from there", stop.name, step)
    return stop.status


def step_flops(compiled: Any) -> float:
    """Floating-point operations of one step on one device, as the compiler counts them; 0 where it does not say."""
    return float((compiled.cost_analysis() or {}).get("flops", 0.0))


class Report:
    """Collects the metrics of the steps, on the device until they are written, and tells how it goes."""

    def __init__(self, config: Any, journal: TrainLog, clock: Clock, checkpoints: Checkpoints, *, rows: int, start: int,
                 flops: float) -> None:
        self._config, self._journal, self._clock, self._checkpoints = config, journal, clock, checkpoints
        self._rows, self._start, self._flops = rows, start, flops
        self._pending: list[tuple[int, Any]] = []
        self._progress = Progress(config.total_steps, "step", active=jax.process_index() == 0)
        clock.reset_mark(start)

    def add(self, step: int, metrics: Any) -> None:
        """Remembers the metrics of a step."""
        self._pending.append((step, metrics))

    def write(self) -> None:
        """Waits for the steps so far and writes the means of their metrics.

        Raises:
          UserError: one of them is not finite, or the evidence has collapsed.
        """
        step = self._pending[-1][0]
        scalars = mean_metrics(jax.device_get(self._pending), saved=self._checkpoints.steps())
        self._pending.clear()
        check_collapse(scalars, step - self._config.optim.warmup_steps, **self._config.alarm)
        rates = self._clock.rates(step, self._rows)
        seconds = rates.get("time/step_seconds", 0.0)
        rates |= utilisation(self._flops, seconds, device_kind=jax.local_devices()[0].device_kind,
                             peak_tflops=self._config.log.peak_tflops)
        self._journal.write(step, scalars | rates)
        total = self._config.total_steps
        self._progress.show(step, seconds_left=(total - step) * seconds, force=step == total,
                            note=f"loss {scalars['loss']:.4f}  {1000 * seconds:.0f} ms/step")

    def end(self) -> None:
        """The last line: how long it took, and what did not count as training."""
        self._progress.end()
        apart = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self._clock.pauses.items())
        log.info("trained %d steps in %.1f s (apart from %s)", self._config.total_steps - self._start,
                 self._clock.training_seconds(), apart)


if __name__ == "__main__":
    host_memory.keep_freed_memory()
    cli.run(main)
