"""The experiments at the scale of the papers, compiled for devices that are not at hand: a table of bounds.

    python -m benchmarks.aot --out=aot.json
    python -m benchmarks.aot --out=aot.json --configs=lgdea_mimic --targets=h100,v5e:2x2
    python -m benchmarks.aot --out=aot.json --table                   # prints what is there already

Each step is compiled in a process of its own (`--config.dry_run_on`, at full depth: minutes each) and its row is added
to the JSON at once: the same command goes on where it was stopped, and compiles nothing again that the same versions of
the compilers have compiled; after a change of this project give another `--out`. The extra `aot` has the compilers, and
docs/reference/configuration.md the keys of the configs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lgdea_jax import cli
from lgdea_jax.errors import UserError
from lgdea_jax.runtime.files import write_text_atomically
from lgdea_jax.training.aot import topologies
from lgdea_jax.training.aot.report import FOLDER, GB, GIB, MB, versions

CONFIGS = ("lgdea_mimic", "clip_mimic", "clip_mimic:resnet50", "clip_ct", "supervised_ct", "lgdea_ct")
TARGETS = ("h100", "v5e:2x2", "h100x8", "v5e:4x4")
ROOT = Path(__file__).parents[1]
HEAD = ("Config", "Device", "Rows", "Memory, GiB", "TFLOP (needed)", "GB moved", "Bound, ms", "MFU at most",
        "Collectives, MB", "Attention", "Transposes")


def key(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What makes a row another one: config, its changed keys, target, versions."""
    return (row["config"], " ".join(row["flags"]), row["target"], json.dumps(row["versions"], sort_keys=True))


def compile_row(config: str, target: str, flags: Sequence[str]) -> dict[str, Any]:
    """The report of one config on one target; a failure is a row too, with its message under `failed`."""
    name, _, variant = config.partition(":")
    path = f"configs/{name}.py{':' + variant if variant else ''}" if not name.endswith(".py") else config
    row = {"config": config, "flags": list(flags), "target": target, "versions": versions()}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-m", "lgdea_jax.train", f"--config={path}", f"--workdir={folder}",
                               f"--config.dry_run_on={target}", *flags], cwd=ROOT, capture_output=True, text=True,
                              check=False)
        reports = list((Path(folder) / FOLDER).glob("*.json"))
        if done.returncode or not reports:
            return {**row, "failed": (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]}
        return {**row, **json.loads(reports[0].read_text(encoding="utf-8"))}


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The rows as lines of Markdown."""
    yield f"| {' | '.join(HEAD)} |"
    yield "|" + "---|" * len(HEAD)
    for row in rows:
        yield f"| {' | '.join(cells(row))} |"


def cells(row: Mapping[str, Any]) -> list[str]:
    """The cells of one row; of a step that does not fit or fails, the reason."""
    first = [f"`{' '.join([row['config'], *row['flags']])}`", row["target"]]
    if reason := row.get("failed") or row.get("does_not_fit"):
        return [*first, *[""] * (len(HEAD) - 3), ("" if "failed" in row else "does not fit: ") + reason]
    held = row["memory"]
    exchanged = sum(line["bytes"] for lines in row["collectives"].values() for line in lines.values())
    scores = sum(item["bytes"] for item in row["attention"]["scores"].values())
    attention = [f"{row['attention']['fused']} fused"] if row["attention"]["fused"] else []
    attention += [f"{scores / GB:.1f} GB of scores"] if scores else []
    return [*first, str(sum(row["rows"].values())),
            f"{held['peak'] / GIB:.1f}{'' if held['peak'] <= held['device'] else ', more than there is'}",
            f"{sum(row['flops'].values()) / 1e12:.3g} ({row['needed_flops'] / 1e12:.3g})", f"{row['bytes'] / GB:.0f}",
            f"{1000 * row['bound_seconds']:.1f}", f"{row['mfu']:.0%}", f"{exchanged / MB:.0f}" if exchanged else "none",
            ", ".join(attention) or "none", f"{row['transposes']['count']}, {row['transposes']['bytes'] / GB:.1f} GB"]


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = cli.Parser(prog="python -m benchmarks.aot", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON that the rows are added to")
    parser.add_argument("--configs", default=",".join(CONFIGS), help=f"of {', '.join(CONFIGS)}, or files")
    parser.add_argument("--targets", default=",".join(TARGETS), help="as --config.dry_run_on takes them")
    parser.add_argument("--flag", action="append", default=[], help="--config.KEY=VALUE for all; may be repeated")
    parser.add_argument("--table", action="store_true", help="only print the rows that are there")
    arguments = parser.parse_args(argv)
    rows = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else []
    targets = [] if arguments.table else topologies.read_targets(arguments.targets)
    if lines := [line for target in targets if (line := topologies.missing(target))]:
        raise UserError(lines[0])
    done = {key(row) for row in rows if "failed" not in row}
    for target in targets:
        for config in arguments.configs.split(","):
            wanted = {"config": config, "flags": arguments.flag, "target": target.text, "versions": versions()}
            if key(wanted) in done:
                continue
            row = compile_row(config, target.text, arguments.flag)
            rows = [old for old in rows if key(old) != key(row)] + [row]
            write_text_atomically(arguments.out, json.dumps(rows, indent=1) + "\n")
            print(" ".join(cells(row)), file=sys.stderr, flush=True)
    print("\n".join(table(rows)))
    return cli.PARTIAL if any("failed" in row for row in rows) else cli.OK


if __name__ == "__main__":
    cli.run(main)
