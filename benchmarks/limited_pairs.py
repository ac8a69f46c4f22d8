"""The limited-pair study on the phantom world: methods x shares of pairs x seeds, one table.

    python -m benchmarks.limited_pairs --out=runs/limited_pairs                    # the README's table
    python -m benchmarks.limited_pairs --out=runs/try --split=validation --cells=lgdea@0.01 --seeds=2

Every cell trains with `configs/phantom.py`, the same number of steps, images a batch and augmentation for every method,
and is evaluated on a split that training never saw. Choices were made on the validation world; the table is of the test
world. A run that is finished is never done again: its row is in OUT/runs.jsonl, and rows in
benchmarks/limited_pairs.jsonl (committed) count as finished unless --fresh is given.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lgdea_jax import cli
from lgdea_jax.train_log import read_rows

COMMITTED = Path(__file__).with_suffix(".jsonl")
METRICS = ("zero_shot/auroc", "retrieval/precision@5", "grounding/pointing", "grounding/cnr")

# With few pairs an image is seen hundreds of times: more augmentation than the quick start's, for every method.
COMMON = (
    "--config.augment.crop=(0.7,1.0)", "--config.augment.aspect=1.2", "--config.augment.rotate=8",
    "--config.augment.gamma=0.3", "--config.augment.contrast=0.3", "--config.augment.brightness=0.1",
    "--config.augment.noise=6", "--config.log.tensorboard=false", "--config.eval.every=0",
)
# Methods that read unpaired reports get them; there are none when everything is paired.
READS_REPORTS = ("lgdea", "lgdea_pairs")
REPORTS = "--config.batch.reports=32"
CELLS = ("clip@0.01", "clip_evidence@0.01", "clip_evidence_soft@0.01", "lgdea@0.01", "clip@1.0")


@dataclasses.dataclass(frozen=True)
class Run:
    """One training and its evaluation."""

    method: str
    pairs: float
    seed: int
    split: str
    steps: int

    def overrides(self) -> list[str]:
        """Flags of `lgdea_jax.train` beside --config, --workdir and --config.data.dir."""
        flags = [f"--config.method={self.method}", f"--config.data.pairs={self.pairs}", f"--config.seed={self.seed}",
                 f"--config.total_steps={self.steps}", f"--config.checkpoint.every={self.steps}", *COMMON]
        return [*flags, REPORTS] if self.method in READS_REPORTS and self.pairs < 1 else flags

    def key(self, data: str) -> str:
        """Names the run by everything that decides its numbers, except the code."""
        text = json.dumps([self.overrides(), self.split, data, Path("configs/phantom.py").read_text(),
                           Path("configs/common.py").read_text()])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def execute(run: Run, *, data: Path, out: Path, cores: Sequence[int]) -> dict[str, float]:
    """Trains and evaluates one run in processes of its own, on `cores`; returns its metrics.

    Raises:
      UserError: one of the two commands failed; its last line is named.
    """
    folder = out / f"{run.method}_{run.pairs:g}_{run.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu")}
    commands = (
        ["lgdea_jax.train", "--config=configs/phantom.py", f"--workdir={folder}", f"--config.data.dir={data}",
         *run.overrides()],
        ["lgdea_jax.eval.records", f"--checkpoint={folder}", f"--data_dir={data}", f"--split={run.split}",
         f"--out={folder}/eval", "--mode=clean", "--overlays=0"],
    )
    with open(folder / "log.txt", "a", encoding="utf-8") as log:
        for command in commands:
            # One core a run: two runs side by side finish sooner than two that share both cores one after the other.
            status = subprocess.run([sys.executable, "-m", *command], env=environment, stdout=log, stderr=log,
                                    preexec_fn=lambda: os.sched_setaffinity(0, cores)).returncode
            if status:
                last = (folder / "log.txt").read_text(encoding="utf-8").strip().splitlines()[-1:]
                raise cli.UserError(f"{' '.join(command[:1])} of {folder.name} ended with {status}: {' '.join(last)}")
    result = json.loads((folder / "eval" / "results.json").read_text())["results"][0]["metrics"]
    return {name: result[name]["value"] for name in METRICS}


def table(rows: Sequence[dict]) -> str:
    """Mean and standard deviation over seeds of each cell, as Markdown."""
    cells: dict[tuple[float, str], list[dict]] = {}
    for row in rows:
        cells.setdefault((row["pairs"], row["method"]), []).append(row["metrics"])
    lines = ["| pairs | method | seeds | zero-shot AUROC | precision@5 | pointing | CNR |",
             "|---|---|---|---|---|---|---|"]
    for (pairs, method), metrics in sorted(cells.items()):
        values = np.array([[m[name] for name in METRICS] for m in metrics])
        spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(len(METRICS), np.nan)
        shown = " | ".join(f"{mean:.3f} ± {sd:.3f}" for mean, sd in zip(values.mean(axis=0), spread, strict=True))
        lines.append(f"| {100 * pairs:g}% | `{method}` | {len(values)} | {shown} |")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = cli.Parser(prog="python -m benchmarks.limited_pairs", description=__doc__)
    parser.add_argument("--out", required=True, type=Path, help="folder for runs, runs.jsonl and table.md")
    parser.add_argument("--cells", default=",".join(CELLS), help="METHOD@SHARE, by commas")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 .. N-1 of each cell (default: 3)")
    parser.add_argument("--steps", type=int, default=600, help="training steps of each run (default: 600)")
    parser.add_argument("--split", choices=("validation", "test"), default="test", help="what is evaluated on")
    parser.add_argument("--data", type=Path, default=Path("data/phantom"), help="the phantom data set, made if missing")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="runs side by side, a core each")
    parser.add_argument("--fresh", action="store_true", help="do committed runs again")
    arguments = parser.parse_args(argv)
    try:
        cells = [(method, float(share)) for method, share in (cell.split("@") for cell in arguments.cells.split(","))]
    except ValueError:
        raise cli.UserError(f"--cells={arguments.cells}: METHOD@SHARE, by commas, as lgdea@0.01") from None
    runs = [Run(method, share, seed, arguments.split, arguments.steps)
            for seed in range(arguments.seeds) for method, share in cells]
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = run_all(runs, arguments)
    text = table(rows)
    (arguments.out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return cli.OK


def run_all(runs: Sequence[Run], arguments: argparse.Namespace) -> list[dict]:
    """Rows of all runs: those that are finished as they are, the others done now, `jobs` at a time."""
    from data_prep import build

    if not arguments.data.exists():
        build.build(cli.read_config("configs/data/phantom.py"), arguments.data)
    from lgdea_jax.record_source import load_metadata

    digest = load_metadata(arguments.data).to_json()
    data = hashlib.sha256(json.dumps(json.loads(digest)["config"]["phantom"], sort_keys=True).encode()).hexdigest()[:12]
    journal = arguments.out / "runs.jsonl"
    finished = {row["key"]: row for row in [*([] if arguments.fresh else read_rows(COMMITTED)), *read_rows(journal)]}
    todo = [run for run in runs if run.key(data) not in finished]
    cores = sorted(os.sched_getaffinity(0))
    free = [cores[i::arguments.jobs] or cores for i in range(arguments.jobs)]
    lock = threading.Lock()

    def one(run: Run) -> None:
        with lock:
            mine = free.pop()
        try:
            row = {"key": run.key(data), **dataclasses.asdict(run),
                   "metrics": execute(run, data=arguments.data, out=arguments.out, cores=mine)}
        finally:
            with lock:
                free.append(mine)
        with lock:
            finished[row["key"]] = row
            with open(journal, "a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")
            shown = "  ".join(f"{name} {value:.3f}" for name, value in row["metrics"].items())
            print(f"{run.method} {run.pairs:g} seed {run.seed}  {shown}", file=sys.stderr, flush=True)

    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for future in concurrent.futures.as_completed([pool.submit(one, run) for run in todo]):
            future.result()
    return [finished[run.key(data)] for run in runs]


if __name__ == "__main__":
    cli.run(main)
