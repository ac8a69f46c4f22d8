"""Builds a data set in an Apache Beam pipeline, on any of Beam's runners: `data_prep.build` with `--runner=beam`.

    python -m data_prep.beam --config=configs/data/phantom.py --out=DATA
    python -m data_prep.beam --config=configs/data/table.py --config.table.path=studies.csv --out=DATA \\
        -- --runner=FlinkRunner --flink_master=HOST:8081

Options after `--` are Beam's; without a runner among them the pipeline runs on this machine. The pipeline asks the
language model where `config.extractor` names one, and makes the shards. The source and DATA must lie on disks that all
workers mount. The result equals that of `data_prep.build` byte for byte, and either command continues a build that the
other began. Needs the extra `beam`.

`--config.KEY=VALUE` changes a key of the config file. The file describes its keys; docs/reference/configuration.md
lists all of them.
"""

from __future__ import annotations

import sys

from data_prep import build
from lgdea_jax import cli


def main(argv: list[str]) -> int:
    """Parses the command line and builds; returns the exit status."""
    end = argv.index("--") if "--" in argv else len(argv)
    if {"-h", "--help"} & set(argv[:end]):
        parser = cli.Parser(prog="python -m data_prep.beam", description=__doc__)
        build.add_flags(parser)
        parser.print_help()
        return cli.OK
    return build.main([*argv[:end], "--runner=beam", *argv[end:]])


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
