"""Writes a data sheet for a data set from its dataset.json; what only people know is left for them to write.

    python -m data_prep.datasheet --data_dir=DATA
    python -m data_prep.datasheet --data_dir=DATA --out=datasheet.md

Writes DATA/DATASHEET.md (or --out=FILE) after Gebru et al. (2021): sources with their licences and terms, splits,
rejected rows and conversions, the extractor, the command. Lines that begin with "TODO:" are for people.

There is no configuration file; the keys of data sets are in docs/reference/configuration.md.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from data_prep.study import SPLITS
from lgdea_jax import cli
from lgdea_jax.data.dataset import DatasetMetadata, load_metadata
from lgdea_jax.data.sums import read_checked
from lgdea_jax.pages.markdown import block, plain
from lgdea_jax.runtime.files import output_file, write_text_atomically

FILE = "DATASHEET.md"
_COUNTS = ("rows", "read", "rejected", "studies", "images", "reports", "normal", "evidence")


def main(argv: list[str]) -> int:
    """Parses the flags, writes the sheet; returns the exit status."""
    parser = cli.Parser(prog="python -m data_prep.datasheet", description=__doc__)
    parser.add_argument("--data_dir", required=True, metavar="DATA", help="folder written by data_prep.build")
    parser.add_argument("--out", default="", metavar="FILE", help=f"the sheet (default: DATA/{FILE})")
    args = parser.parse_args(argv)
    folder = Path(args.data_dir)
    text = sheet(load_metadata(folder), rejected_reasons(folder))
    path = Path(args.out) if args.out else folder / FILE
    with output_file(path):
        write_text_atomically(path, text)
    print(f"wrote {path}: {len(re.findall('TODO:', text))} lines begin with TODO and are yours to write")
    return cli.OK


def rejected_reasons(folder: Path) -> Counter[str]:
    """How often each reason stands in DATA/rejected.csv."""
    if not (folder / "rejected.csv").is_file():
        return Counter()
    lines = io.StringIO(read_checked(folder, "rejected.csv").decode("utf-8"), newline="")
    return Counter(row["reason"] for row in csv.DictReader(lines))


def sheet(metadata: DatasetMetadata, rejected: Counter[str]) -> str:
    """The text of a data sheet."""
    terms = sorted({item.terms for item in metadata.sources})
    warning = ["**Under credentialed terms: neither records nor pictures made of them may be passed on to people "
               "without access.**", ""] if "credentialed" in terms else []
    splits = metadata.splits
    return "\n".join([
        f"# Data sheet: {plain(metadata.name)}", "", *warning,
        "## Origin", "", "| source | licence | terms |", "|---|---|---|",
        *(f"| {plain(item.source)} | {plain(item.licence)} | {plain(item.terms)} |" for item in metadata.sources), "",
        "TODO: who collected the data, when, where, why, and with whose consent or approval.", "",
        "## Content", "",
        f"- Modalities: {plain(', '.join(metadata.modalities))}; languages: {plain(', '.join(metadata.languages))}.",
        f"- Images as `{metadata.transform}`, longer side at most {metadata.image_size} px, {metadata.image_encoding}.",
        f"- Labels: {plain(', '.join(metadata.label_names)) or 'none'}.", "",
        f"| | {' | '.join(splits)} |", "|---|" + "---|" * len(splits),
        *(f"| {name} | " + " | ".join(f"{metadata.counts[split].get(name, 0):,}" for split in splits) + " |"
          for name in _COUNTS), "",
        "TODO: ages, sexes, devices; who is missing from the data.", "",
        "## Preparation", "", block(metadata.command), "", *_splits(metadata),
        f"- Evidence by `{metadata.extractor or 'none'}`. Every item quotes its report.", *_corrections(metadata),
        "- Converted images: "
        + (", ".join(f"{count:,} x {plain(name)}" for name, count in sorted(metadata.converted.items()))
           or "none") + ".",
        "- Rejected rows: "
        + ("; ".join(f"{count:,} x {plain(reason)}" for reason, count in rejected.most_common(20)) or "none") + ".",
        "- SHA-256 of every file: SHA256SUMS.", "",
        "## Use", "",
        "- Research use only. A subject lies in one split only; near-duplicate images across splits are looked for "
        "when a training starts.",
        "", "TODO: how good the labels and the evidence are, and who judged them (`python -m data_prep.audit`).", ""])


def _corrections(metadata: DatasetMetadata) -> list[str]:
    """What people corrected; [] where nobody did."""
    counts = metadata.corrections
    return [f"- A table of evidence was given: {counts['used']:,} of its {counts['lines']:,} lines are used; they "
            f"correct {counts['corrected']:,} studies."] if counts else []


def _splits(metadata: DatasetMetadata) -> list[str]:
    """How the splits were made, as far as the configuration says it; [] where it does not."""
    group = metadata.config.get(metadata.config.get("source", ""), {})
    if "split" in group:  # A table's: shares by subject, or () for its own column.
        if not group["split"]:
            return ["- Splits: as the table states."]
        drawn = _shares(dict(zip(SPLITS, map(float, group["split"]), strict=True)))
        return [f"- Splits: drawn by subject, {drawn}, seed {metadata.seed}."]
    drawn = _shares({name: group[name] for name in SPLITS if isinstance(group.get(name), float)})
    return [f"- Splits: {drawn} drawn where the release has no such split, seed {metadata.seed}."] if drawn else []


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{100 * share:g}% {name}" for name, share in shares.items() if share)


if __name__ == "__main__":
    cli.run(main)
