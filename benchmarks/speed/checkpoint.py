"""What saving costs a training, and how long the start takes.

    python -m benchmarks.speed.checkpoint --out=checkpoint.json --data=data/phantom
    python -m benchmarks.speed.checkpoint --out=checkpoint.json --only=save --saves=3

- `save`: the steps of `configs/phantom.py` with a checkpoint every `--interval` steps, as the loop saves (the state is
  copied, a thread writes it while training goes on). The cost is the time that the loop spends in `save` and what the
  steps after it take longer than the others while the thread writes, over the time of the interval.
- `start`: `python -m lgdea_jax.train --config=configs/phantom.py` in processes of their own, from the start of the
  process to the end of the first step; the first run fills the compilation cache, the others find it warm. Also the
  seconds that imports take.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lgdea_jax import cli

IMPORTS = "import time; start = time.perf_counter(); import lgdea_jax.train; print(time.perf_counter() - start)"


def save_cost(data: Path, interval: int, saves: int) -> dict[str, float]:
    """Seconds of a step, of a save, and their share at the interval."""
    import jax

    from lgdea_jax import train
    from lgdea_jax.experiment import Experiment
    from lgdea_jax.runtime import host_memory, sharding
    from lgdea_jax.runtime.checkpoint import Checkpoints
    from lgdea_jax.training.data import device_batches, prepare_data
    from lgdea_jax.training.state import compile_step, make_spec, prepare_parts

    host_memory.keep_freed_memory()  # As training does.
    config = cli.read_config("configs/phantom.py")
    config.data.dir = str(data)
    mesh = sharding.make_mesh(**config.mesh)
    train.make_missing(config.data)
    experiment = Experiment.of(config, mesh)
    read = prepare_data(experiment, mesh, show=False)
    parts = prepare_parts(experiment, read, mesh)
    state, batches = parts.initial(), device_batches(experiment, mesh, read, 0)
    batch = next(batches)
    batches.close()
    step = compile_step(experiment, parts, batch, mesh, pad_id=read.tokenizer.pad_id)
    spec = make_spec(experiment, read)

    def timed() -> float:
        nonlocal state
        start = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        return time.perf_counter() - start

    for _ in range(3):
        timed()
    plain, blocked, slowed, written = [], [], [], []
    with tempfile.TemporaryDirectory(prefix="checkpoint_") as folder:
        store = Checkpoints(folder)
        store.save(state, spec)  # The first one makes threads and folders.
        store.wait()
        for _ in range(saves):
            plain += [timed() for _ in range(10)]
            usual = statistics.median(plain)
            start = time.perf_counter()
            store.save(state, spec)
            blocked.append(time.perf_counter() - start)
            extra = 0.0
            while store.busy():  # Steps beside the thread that writes.
                extra += timed() - usual
            slowed.append(extra)
            written.append(time.perf_counter() - start)
        store.close()
    cost = statistics.median(blocked) + max(0.0, statistics.median(slowed))
    seconds = statistics.median(plain)
    return {"step_seconds": seconds, "blocked_seconds": statistics.median(blocked),
            "slowed_seconds": statistics.median(slowed), "written_seconds": statistics.median(written),
            "interval_steps": interval, "share": cost / (interval * seconds),
            "steps_for_one_percent": cost / seconds / 0.01,
            "bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(state))}


def start_seconds(data: Path, cache: Path) -> dict[str, float]:
    """Wall and processor seconds from the start of the process to the end of the first step.

    Raises:
      SystemExit: the run failed.
    """
    with tempfile.TemporaryDirectory(prefix="start_") as folder:
        start, before = time.perf_counter(), os.times()
        done = subprocess.run(
            [sys.executable, "-m", "lgdea_jax.train", "--config=configs/phantom.py", f"--workdir={folder}/run",
             f"--config.data.dir={data}", f"--config.compile_cache={cache}", "--config.total_steps=1",
             "--config.log.every=1", "--config.eval.records=1", "--config.log.tensorboard=false"],
            capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        rows = (Path(folder) / "run" / "metrics.jsonl").stat().st_mtime
        ended, after = time.time(), os.times()
        # The row of the first step is written when the step is done; what comes after it is no start.
        elapsed = time.perf_counter() - start - (ended - rows)
    return {"wall_seconds": elapsed,
            "processor_seconds": after.children_user + after.children_system - before.children_user
            - before.children_system}


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = cli.Parser(prog="python -m benchmarks.speed.checkpoint", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--data", type=Path, default=Path("data/phantom"), help="the phantom data set, made if missing")
    parser.add_argument("--interval", type=int, default=250, help="steps between checkpoints (default: the config's)")
    parser.add_argument("--saves", type=int, default=5, help="checkpoints that are measured (default: 5)")
    parser.add_argument("--starts", type=int, default=3, help="warm starts that are measured (default: 3)")
    parser.add_argument("--only", default="save,start", help="of save, start")
    options = parser.parse_args(argv)
    result: dict[str, Any] = {"command": ["benchmarks.speed.checkpoint", *argv], "load": os.getloadavg()}
    if "save" in options.only:
        result["save"] = found = save_cost(options.data, options.interval, options.saves)
        print(f"step {1000 * found['step_seconds']:.0f} ms; a checkpoint of {found['bytes'] / 1e6:.1f} MB stops the "
              f"loop for {1000 * found['blocked_seconds']:.0f} ms and costs the steps beside it "
              f"{1000 * found['slowed_seconds']:.0f} ms: {100 * found['share']:.2f}% every {found['interval_steps']} "
              "steps", flush=True)
    if "start" in options.only:
        with tempfile.TemporaryDirectory(prefix="cache_") as cache:
            cold, *warm = [start_seconds(options.data, Path(cache)) for _ in range(1 + options.starts)]
        imports = float(subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True,
                                       check=True).stdout)
        result["start"] = {"cold": cold, "warm": warm, "import_seconds": imports}
        print(f"to the end of the first step: {cold['wall_seconds']:.1f} s cold, "
              f"{statistics.median(row['wall_seconds'] for row in warm):.1f} s warm (imports {imports:.1f} s; the "
              f"whole run, warm, {statistics.median(row['processor_seconds'] for row in warm):.1f} s of CPU time)")
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
