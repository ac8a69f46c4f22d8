"""Checks whether a data set is what was written: every file, and in a damaged shard every record.

    python -m data_prep.verify DATA
    python -m data_prep.verify data/mimic_cxr

Compares all files with DATA/SHA256SUMS and prints a line for each that is missing or damaged; of a damaged shard it
names the records that cannot be used. Training and evaluation check the small files and every record that they read
anyway; this reads everything, also what they would come to only after hours (as their flag --verify does). Exit status
2: something is damaged.

There is no configuration file; the keys of data sets are in docs/reference/configuration.md.
"""

from __future__ import annotations

import sys

from lgdea_jax import cli
from lgdea_jax.data.sums import AGAIN
from lgdea_jax.data.verify import check
from lgdea_jax.errors import UserError


def main(argv: list[str]) -> int:
    """Parses the flags, checks; returns the exit status."""
    parser = cli.Parser(prog="python -m data_prep.verify", description=__doc__)
    parser.add_argument("data", metavar="DATA", help="folder written by data_prep.build")
    folder = parser.parse_args(argv).data
    found = check(folder)
    for path, fault in found.faults.items():
        print(f"{path}: {fault}")
    if found.faults:
        raise UserError(f"{len(found.faults)} of {found.files} files of {folder} are damaged or missing: {AGAIN}")
    print(f"{found.files} files, {found.size / 1e9:.3f} GB: all as they were written")
    return cli.OK


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
