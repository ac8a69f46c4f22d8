"""Builds a data set: source -> evidence -> ArrayRecord shards that `tfds.builder_from_directory` opens.

    python -m data_prep.build --config=configs/data/phantom.py --out=DATA
    python -m data_prep.build --config=configs/data/table.py --config.table.path=studies.csv --out=DATA --dry_run

Worker processes make one shard each at a time. The same command continues a build that was stopped: finished shards
stay, incomplete ones are made again. `--dry_run` reads and counts everything and writes nothing. Exit status 3: some
rows were rejected, see DATA/rejected.csv.

With `--config.extractor=openai` (any OpenAI-compatible endpoint), `genai` or `gemini`, or with `local` and a GGUF file
in `--config.llm.model`, a language model extracts the evidence (keys `config.llm`; API keys come from the environment).
`--dry_run` then estimates hours and cost and sends nothing (see `llm.sample`), and `--max_cost` limits it. A remote
endpoint gets data under credentialed terms only with `--attest_data_use="..."`.

The folder also has the evidence as a table, DATA/evidence.csv. `--config.evidence=FILE` takes such a table back,
corrected by hand or on the page of `data_prep.audit`. It goes before the extractor; every quote is checked.

`--runner=beam [-- BEAM OPTIONS]` runs in an Apache Beam pipeline, see `python -m data_prep.beam --help`.

`--config.KEY=VALUE` changes a key of the config file. The file describes its keys; docs/reference/configuration.md
lists all of them.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.extract.extractors import LLM_EXTRACTORS
from data_prep.extract.llm import stage
from data_prep.shards import finish, folder, workers
from data_prep.shards.plan import Plan, make_plan
from data_prep.shards.shard_writer import read_side_file
from data_prep.study import Rejection
from lgdea_jax import cli
from lgdea_jax.data.dataset import BUILD_FOLDER, METADATA_FILE
from lgdea_jax.errors import UserError, choose
from lgdea_jax.runtime import beam

RUNNERS = ("local", "beam")


@dataclasses.dataclass(frozen=True)
class BuildResult:
    """What a build did.

    Attributes:
      out: the data set's folder, None after a dry run.
      counts: split -> COUNTS -> number (rows = read + rejected).
      converted: conversion -> number of images.
      rejections: the first rejected rows (all of them are in rejected.csv).
      corrections: what became of a table of corrected evidence (`finish.count_corrections`), empty without.
      seconds: wall time; 0 when the data set was complete already.
    """

    out: Path | None
    counts: dict[str, dict[str, int]]
    converted: dict[str, int]
    rejections: tuple[Rejection, ...]
    corrections: dict[str, int]
    seconds: float

    @property
    def rejected(self) -> int:
        """Rejected rows over all splits, and lines of evidence of studies that are not there."""
        return sum(counts["rejected"] for counts in self.counts.values()) + self.corrections.get("strangers", 0)


def build(config: Any, out: str | Path | None, *, command: str = "", progress: bool = True,
          pipeline: Sequence[str] | None = None) -> BuildResult:
    """Builds the data set of `config` in the folder `out`, or continues to build it.

    Args:
      config: as `configs/data/*.py` return it.
      out: the folder; None reads and counts without writing.
      command: the command line, for the metadata.
      progress: show a bar on stderr when that is a terminal.
      pipeline: Beam's options, to work in a Beam pipeline; None works in processes of this machine.

    Returns:
      Counts. A complete data set that was built from the same configuration is left as it is.

    Raises:
      UserError: a mistake in configuration or input that concerns the whole run.
      OSError: the disk is full (errno ENOSPC or EDQUOT).
    """
    started = time.monotonic()
    if pipeline is not None:
        beam.load()
    plan = make_plan(config, Path(out) if out is not None else None)
    if plan.spec.out is None:
        results = list(workers.run(plan, plan.tasks, config.workers, progress=progress))
        counts, converted = finish.add_up(plan.tasks, results)
        rejections = tuple(rejection for result in results for rejection in result.rejections)
        corrections = finish.count_corrections(plan.spec.evidence, results)
        return BuildResult(None, counts, converted, rejections, corrections, time.monotonic() - started)
    if (plan.spec.out / METADATA_FILE).is_file():
        return _complete(plan)
    with folder.own(plan.spec.out, plan.fingerprint):
        if (plan.spec.out / METADATA_FILE).is_file():  # Another command has finished it since the look before.
            finish.remove_build_folder(plan.spec.out)
            return _complete(plan)
        todo = [task for task in plan.tasks if read_side_file(plan.spec.out, task) is None]
        if plan.spec.job and todo:
            try:
                _ask(plan, config, progress, pipeline)
            except UserError:
                if len(todo) == len(plan.tasks):  # Nothing is built: the settings of the model may still change.
                    folder.forget_fingerprint(plan.spec.out)
                raise
        if pipeline is not None:
            asked = plan.spec.job is not None
            if asked:
                workers.hand_out(plan, todo)
            beam.run(todo, workers.ShardWork(plan.sources, plan.spec, handed_out=asked), plan.spec.out / BUILD_FOLDER,
                     pipeline)
        else:
            for _ in workers.run(plan, todo, config.workers, progress=progress):
                pass
        metadata, rejections = finish.finish(plan.spec.out, plan.tasks, plan.spec, config, plan.fingerprint, command)
        finish.remove_build_folder(plan.spec.out)
    return BuildResult(plan.spec.out, metadata.counts, metadata.converted, rejections, metadata.corrections,
                       time.monotonic() - started)


def _complete(plan: Plan) -> BuildResult:
    metadata = folder.check_complete(plan.spec.out, plan.fingerprint)
    return BuildResult(plan.spec.out, metadata.counts, metadata.converted, finish.read_rejected(plan.spec.out),
                       metadata.corrections, 0.0)


def _ask(plan: Plan, config: Any, progress: bool, pipeline: Sequence[str] | None) -> None:
    """Asks the language model about every report that has no answer yet."""
    reports = stage.SourceReports(plan.sources)
    stage.ask(reports, plan.spec.job, terms=lambda: reports.terms, where=f"config.{config.source}.terms",
              progress=progress, pipeline=pipeline)


def summary(result: BuildResult) -> str:
    """A table of the counts, a line per split, and what was converted and rejected."""
    names = ("rows", "read", "rejected", "studies", "records", "images", "reports", "normal", "evidence")
    lines = [f"{'split':<12}" + "".join(f"{name:>10}" for name in names)]
    lines += [f"{split:<12}" + "".join(f"{counts[name]:>10}" for name in names)
              for split, counts in result.counts.items()]
    if result.converted:
        lines.append("converted: " + ", ".join(f"{n} {what}" for what, n in sorted(result.converted.items())))
    if result.corrections:
        lines.append("{lines} lines of evidence given: {used} used, {refused} refused, {strangers} of studies that are "
                     "not in the data set; {corrected} of {studies} studies corrected".format(**result.corrections))
    if result.rejected:
        reasons = Counter(rejection.reason for rejection in result.rejections)
        lines.append("rejected: " + ", ".join(f"{n} x {reason}" for reason, n in reasons.most_common(5)))
    return "\n".join(lines)


def add_flags(parser: cli.Parser) -> None:
    """The flags of a build but `--runner`."""
    parser.add_argument("--config", metavar="FILE", help="required; the data set: one of configs/data/*.py")
    parser.add_argument("--out", metavar="DATA", help="folder to write; a build that was stopped there continues")
    parser.add_argument("--dry_run", action="store_true", help="read and count everything, write and send nothing")
    parser.add_argument("--max_cost", metavar="AMOUNT", help="stop before a language model costs more than this")
    parser.add_argument("--attest_data_use", metavar="TEXT",
                        help="who permits that credentialed reports are sent to a remote endpoint; it is recorded")


def main(argv: list[str]) -> int:
    """Parses the command line and builds; returns the exit status."""
    end = argv.index("--") if "--" in argv else len(argv)
    parser = cli.Parser(prog="python -m data_prep.build", description=__doc__)
    add_flags(parser)
    parser.add_argument("--runner", default="local", metavar="|".join(RUNNERS),
                        help="where shards are made or the language model is asked (default: local)")
    if {"-h", "--help"} & set(argv[:end]):
        parser.print_help()
        return cli.OK
    config, rest = cli.load_config(argv[:end])  # The config's keys are flags too, which argparse does not know.
    args = parser.parse_args(rest)
    choose("runner", args.runner, RUNNERS)
    for key in ("attest_data_use", "max_cost"):
        value = getattr(args, key)
        if value is not None:
            if config.extractor not in LLM_EXTRACTORS:
                raise UserError(f"--{key} is for extractors that ask a language model: {', '.join(LLM_EXTRACTORS)}")
            cli.set_override(config, f"llm.{key}", value)
    if not args.out and not args.dry_run:
        raise UserError("--out=DATA is needed (or --dry_run)")
    if end < len(argv) and args.runner != "beam":
        raise UserError("options after -- are Beam's: they need --runner=beam")
    if args.dry_run and config.extractor in LLM_EXTRACTORS:
        plan = make_plan(config, Path(args.out) if args.out else None)
        reports = stage.SourceReports(plan.sources)
        _, sent = stage.estimate(reports, plan.spec.job, terms=lambda: reports.terms,
                                 where=f"config.{config.source}.terms")
        print(f"dry run: {f'{sent} reports were sent' if sent else 'nothing was sent'}, nothing was written")
        return cli.OK
    command = shlex.join(["python", "-m", "data_prep.build", *argv])
    pipeline = argv[end + 1:] if args.runner == "beam" and not args.dry_run else None  # A dry run reads locally.
    result = build(config, None if args.dry_run else args.out, command=command, pipeline=pipeline)
    print(summary(result))
    if args.dry_run:
        print("dry run: nothing was written")
    elif result.seconds == 0:
        print(f"{result.out} was complete already")
    else:
        print(f"wrote {result.out} in {result.seconds:.0f} s")
    return cli.PARTIAL if result.rejected else cli.OK


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
