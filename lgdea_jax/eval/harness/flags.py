"""The flags of every evaluation script, and the end of its --help: two examples, and where everything is documented."""

from __future__ import annotations

import argparse

from lgdea_jax import cli
from lgdea_jax.eval.harness import selection
from lgdea_jax.eval.harness.benchmark import Benchmark
from lgdea_jax.eval.harness.protocol import OURS
from lgdea_jax.evaluators import tasks
from lgdea_jax.records import LABEL_SETS_OF_RECORDS

MODES = ("clean", "official", "ours", "both")

EPILOG = """examples:
{examples}
All flags are listed in docs/reference/commands.md, benchmarks and metrics in docs/reference/benchmarks.md. The keys of
results.json are in docs/guides/benchmarks.md. `python -m lgdea_jax.report OUT` makes a page of the results."""


def make_parser(benchmark: Benchmark, *, data_dir: str = "required", example: str = "") -> cli.Parser:
    """The flags that all evaluation scripts share.

    Args:
      benchmark: which.
      data_dir: "required", "optional", or "none".
      example: further flags of the second example of --help; by default those of a quick check.
    """
    parser = cli.Parser(prog=f"python -m lgdea_jax.eval.{benchmark.name}", description=benchmark.summary,
                        epilog=EPILOG.format(examples=_examples(benchmark, data_dir == "required", example)))
    parser.add_argument("--checkpoint", required=True, metavar="RUN", help="run directory of lgdea_jax.train")
    if data_dir != "none":
        parser.add_argument("--data_dir", required=data_dir == "required", metavar="DATA",
                            help="folder written by data_prep.build")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder for results.json, samples.npz, overlays/")
    parser.add_argument("--mode", choices=MODES, default="both",
                        help="clean: what a metric's name says; official: what a named public script computes, where "
                             "there is one; ours: public scripts' rules where prompts, list or score are not a "
                             "script's (default: both, clean and the protocol's)")
    names = {p.name: f"{p.name}: {p.mode}" if p.source else p.name for p in (*benchmark.protocols, OURS)}
    parser.add_argument("--protocol", choices=tuple(names), default=None, metavar="NAME",
                        help="whose prompts, score rule and labels the second mode has: a public script's, or ours "
                             f"(default: {benchmark.protocol.name}; {', '.join(names.values())})")
    parser.add_argument("--step", default="latest", help="latest, best or a step number (default: latest)")
    parser.add_argument("--split", default=benchmark.split,
                        help=f"train, validation or test (default: {benchmark.split})")
    parser.add_argument("--seed", type=cli.seed, default=0,
                        help="of resampling, balanced draws and overlays (default: 0)")
    parser.add_argument("--bootstrap", type=_count, default=1000, metavar="N",
                        help="resamples of subjects for the 95%% intervals; 0: none (default: 1000)")
    parser.add_argument("--records", type=_count, default=0, metavar="N",
                        help="evaluate a seeded sample of N records; 0: all (default: 0)")
    parser.add_argument("--tasks", default=",".join(benchmark.tasks),
                        help=f"comma-separated, of {', '.join(tasks.known(benchmark.tasks))} (default: "
                             f"{','.join(benchmark.tasks)})")
    parser.add_argument("--overlays", type=_count, default=12, metavar="N",
                        help="heatmap pictures to draw, a seeded sample (default: 12)")
    parser.add_argument("--examples", type=_count, default=None, metavar="N",
                        help="retrieval examples to write, with report texts (default: 4 where all of the data are "
                             "under open terms, otherwise 0)")
    parser.add_argument("--views", choices=selection.VIEWS, default=benchmark.views,
                        help=f"frontal leaves lateral images out (default: {benchmark.views})")
    parser.add_argument("--labels", choices=[name for name in LABEL_SETS_OF_RECORDS if name != "protocol"], default="",
                        help="which labels of DATA to go by: the reference, or those derived from its reports "
                             "(default: the protocol's or the reference; where DATA has none, silver, and the results "
                             "say so)")
    parser.add_argument("--probe", type=_shares, default=(), metavar="SHARES",
                        help=f"refused here: {benchmark.no_probe}" if benchmark.no_probe else
                             "linear probes on frozen features with these shares of DATA's training subjects, for "
                             "example 0.01,0.1,1; needs the extra `probe` (default: none)")
    parser.add_argument("--verify", action="store_true",
                        help="first compare all files of DATA with their checksums, as python -m data_prep.verify does")
    if benchmark.data_sets:
        parser.add_argument("--as_if", action="store_true",
                            help="evaluate on data that are not the benchmark's, which are otherwise refused "
                                 f"(default: only {' or '.join(benchmark.data_sets)})")
    if benchmark.guard:
        parser.add_argument("--trained_on", type=_folders, default=(), metavar="DIR,...",
                            help="current folders of the checkpoint's training data, if they have moved")
        parser.add_argument("--allow_leaks", action="store_true",
                            help="evaluate although the checkpoint was trained on some of the subjects, or that cannot "
                                 "be checked; recorded in results.json")
    return parser


def _examples(benchmark: Benchmark, needs_data: bool, further: str) -> str:
    """Two command lines."""
    command = f"  python -m lgdea_jax.eval.{benchmark.name} --checkpoint=runs/lgdea"
    data = f" --data_dir=data/{benchmark.name}" if needs_data else ""
    further = further or "--mode=clean --records=200 --bootstrap=100"
    return (f"{command}{data} --out=runs/lgdea/eval/{benchmark.name}\n"
            f"{command} --step=best{data} \\\n      --out=out/{benchmark.name} {further}\n")


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return value


def _shares(text: str) -> tuple[float, ...]:
    values = tuple(float(part) for part in text.split(",") if part)
    if not all(0 < value <= 1 for value in values):
        raise argparse.ArgumentTypeError("shares lie in (0, 1]")
    return values


def _folders(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)
