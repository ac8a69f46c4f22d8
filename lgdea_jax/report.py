"""One HTML page from any results: main numbers, heatmaps, retrieval examples, ROC curves, prototypes, training, tables.

    python -m lgdea_jax.report OUT --html=page.html
    python -m lgdea_jax.report OUT_A OUT_B PROTOTYPES RUN --html=page.html --published=numbers.csv

OUT is the output folder of an evaluation script or of lgdea_jax.prototypes, or a run directory of lgdea_jax.train (its
training curves). Several evaluations of one benchmark stand side by side, with their differences to the first, paired
by subject. The page is one file that loads nothing from elsewhere and has no script; it can be printed. Published
numbers (benchmarks/published.csv: benchmark, mode, metric, method, value, source) stand beside ours of the same
benchmark, metric and mode only. Modes have columns of their own. The page holds images of patients: it is under the
terms of the data.
"""

from __future__ import annotations

from pathlib import Path

from lgdea_jax import cli
from lgdea_jax.eval.harness.output import RESULTS
from lgdea_jax.pages.published import PUBLISHED, load_published
from lgdea_jax.pages.results import load_extra, page
from lgdea_jax.pages.runs import load_run
from lgdea_jax.runtime.files import output_file, write_text_atomically


def main(argv: list[str]) -> int:
    """Parses the flags, writes the page; returns the exit status."""
    first, *rest = __doc__.split("\n\n")
    parser = cli.Parser(prog="python -m lgdea_jax.report", description=first, epilog="\n\n".join(rest))
    parser.add_argument("out", nargs="+", metavar="OUT",
                        help="output folder of an evaluation script or of lgdea_jax.prototypes, or a run directory")
    parser.add_argument("--html", required=True, metavar="FILE", help="the page")
    parser.add_argument("--published", default="", metavar="FILE",
                        help="CSV of published numbers (default: ours)")
    args = parser.parse_args(argv)
    folders = [Path(folder) for folder in args.out]
    extras = {folder: load_extra(folder) for folder in folders if not (folder / RESULTS).is_file()}
    runs = [load_run(folder) for folder in folders if extras.get(folder) is None]
    published = load_published(Path(args.published) if args.published else PUBLISHED)
    target = Path(args.html)
    text = page(runs, published, [extra for extra in extras.values() if extra])
    with output_file(target):
        write_text_atomically(target, text)
    print(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB)")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
