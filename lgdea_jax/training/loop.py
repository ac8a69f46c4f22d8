"""The only training loop of the project: batches, steps, logs, checkpoints and evaluations."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import time
from pathlib import Path
from typing import Any

import jax

from lgdea_jax import cli
from lgdea_jax.experiment import Experiment
from lgdea_jax.runtime.checkpoint import Checkpoints
from lgdea_jax.runtime.files import write_text_atomically
from lgdea_jax.runtime.guards import StopSignals, Watchdog, check_collapse, mean_metrics
from lgdea_jax.runtime.log import Clock, TrainLog, slow_input, utilisation
from lgdea_jax.runtime.progress import Progress
from lgdea_jax.training.data import Data, device_batches
from lgdea_jax.training.evaluation import Evaluation
from lgdea_jax.training.start import start_state
from lgdea_jax.training.state import compile_rebuild, compile_step, make_spec, prepare_parts

log = logging.getLogger("lgdea_jax")

# With several processes, asking all of them whether one got a signal costs a round trip: now and then is soon enough.
STOP_CHECK_STEPS = 10


def run(experiment: Experiment, workdir: Path, mesh: jax.sharding.Mesh, data: Data, checkpoints: Checkpoints) -> int:
    """The loop, from the last checkpoint or from the beginning to `config.total_steps`; returns an exit status."""
    config, main_process = experiment.config, jax.process_index() == 0
    clock = Clock()
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopSignals())
        with clock.pause("start"), stop.at_once():
            spec = make_spec(experiment, data)
            parts = prepare_parts(experiment, data, mesh)
            state, resumed = start_state(experiment, data, parts, spec, checkpoints)
            start = int(state["step"])
            if main_process:
                write_text_atomically(workdir / "config.json",
                                      json.dumps(spec["config"], indent=1, sort_keys=True) + "\n")
        journal = stack.enter_context(contextlib.closing(TrainLog(
            workdir, first_step=start, active=main_process, tensorboard=config.log.tensorboard,
            wandb=config.log.wandb, config=spec["config"])))
        watchdog = Watchdog(config.log.watchdog_seconds)
        stack.callback(watchdog.rest)
        evaluation = Evaluation(experiment, parts.graphdef, data, spec, journal=journal, checkpoints=checkpoints,
                                clock=clock, stop=stop)
        # An evaluation that a preemption cut short is made up for before training goes on.
        if resumed and evaluation.missing(start) and not evaluation.run(start, state):
            return stopped_at(start, stop)
        if start >= config.total_steps:
            log.info("already trained for %d steps: nothing to do", start)
            return cli.OK
        with clock.pause("compile"), stop.at_once():
            batches = stack.enter_context(contextlib.closing(device_batches(experiment, mesh, data, start)))
            first = next(batches)
            step_function = compile_step(experiment, parts, first, mesh, pad_id=data.tokenizer.pad_id)
            rebuild = compile_rebuild(parts)
        metrics_log = MetricsLog(config, journal, clock, checkpoints, rows=sum(data.sizes.values()), start=start,
                                 flops=step_flops(step_function))
        following = itertools.chain([first], batches)
        del first  # The step is to be its only owner.
        for step in range(start + 1, config.total_steps + 1):
            watchdog.restart()
            with clock.data_wait():
                batch = next(following)
            if rebuild and parts.memory.due(step - 1):
                state["aux"] = rebuild(state["aux"])
            dispatched = time.perf_counter()
            state, metrics = step_function(state, batch)
            metrics_log.add(step, metrics, dispatched)
            stopped = stop.agreed(now=step % STOP_CHECK_STEPS == 0)
            evaluating = evaluation.due(step)
            # Saved before each evaluation, so that the best one can be kept, and one cut short can be made up for.
            saving = stopped or evaluating or step % config.checkpoint.every == 0
            if saving or step % config.log.every == 0:
                metrics_log.write()
            if saving:
                watchdog.rest()
                with clock.pause("checkpoint"):
                    checkpoints.save(state, spec)
            if stopped or (evaluating and not evaluation.run(step, state) and stop.agreed()):
                checkpoints.wait()
                return stopped_at(step, stop)
        with clock.pause("checkpoint"):
            checkpoints.wait()
        metrics_log.end()
    return cli.OK


def stopped_at(step: int, stop: StopSignals) -> int:
    """Logs it and returns the signal's exit status."""
    log.info("stopped by %s; step %d is saved: the same command goes on from there", stop.name, step)
    return stop.status


def step_flops(compiled: Any) -> float:
    """Floating-point operations of one step on one device, as the compiler counts them; 0 where it counts none."""
    return float((compiled.cost_analysis() or {}).get("flops", 0.0))


class MetricsLog:
    """Collects the metrics of the steps, on the device until they are written, and shows the progress."""

    def __init__(self, config: Any, journal: TrainLog, clock: Clock, checkpoints: Checkpoints, *, rows: int, start: int,
                 flops: float) -> None:
        self._config, self._journal, self._clock, self._checkpoints = config, journal, clock, checkpoints
        self._rows, self._start, self._flops = rows, start, flops
        self._pending: list[tuple[int, Any]] = []
        self._step_seconds, self._warned = 0.0, False
        self._progress = Progress(config.total_steps, "step", active=jax.process_index() == 0)
        clock.reset_mark(start)

    def add(self, step: int, metrics: Any, dispatched: float) -> None:
        """Remembers the metrics of a step, and times the second one alone; dispatched: when the step was, `time`'s."""
        self._pending.append((step, metrics))
        if step <= self._start + 2:
            jax.block_until_ready(metrics)
            self._step_seconds = time.perf_counter() - dispatched

    def write(self) -> None:
        """Waits for the steps so far and writes the means of their metrics.

        Raises:
          UserError: one of them is not finite, or the evidence has collapsed.
        """
        step = self._pending[-1][0]
        scalars = mean_metrics(jax.device_get(self._pending), saved=self._saved)
        self._pending.clear()
        check_collapse(scalars, step - self._config.optim.warmup_steps, **self._config.alarm)
        rates = self._clock.rates(step, self._rows)
        seconds = rates.get("time/step_seconds", 0.0)
        slow = slow_input(seconds * rates.get("time/data_wait_share", 0.0), self._step_seconds, rows=self._rows,
                          workers=self._config.data.workers)
        if slow and not self._warned:
            log.warning(slow)
            self._warned = True
        rates |= utilisation(self._flops, seconds, device_kind=jax.local_devices()[0].device_kind,
                             peak_tflops=self._config.log.peak_tflops)
        self._journal.write(step, scalars | rates)
        total = self._config.total_steps
        self._progress.show(step, seconds_left=(total - step) * seconds, force=step == total,
                            note=f"loss {scalars['loss']:.4f}  rate {scalars['learning_rate']:.1e}  "
                                 f"{1000 * seconds:.0f} ms/step  {self._rows / seconds if seconds else 0:.0f} rows/s")

    def _saved(self) -> list[int]:
        self._checkpoints.wait()
        return self._checkpoints.steps()

    def end(self) -> None:
        """The last line: how long it took, and what did not count as training."""
        self._progress.end()
        apart = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self._clock.pauses.items())
        log.info("trained %d steps in %.1f s (apart from %s)", self._config.total_steps - self._start,
                 self._clock.training_seconds(), apart)
