"""Shows what is in a folder before a data set is built from it: every file is read as the build would read it.

    python -m data_prep.scan FOLDER --out=inventory.csv
    python -m data_prep.scan FOLDER --out=inventory.csv --html=page.html --identifiers

Images (PNG, JPEG, DICOM), CT volumes (NIfTI, .npz, folders with the slices of a DICOM series) and other files are
listed in inventory.csv, a row each: studies, series, views, sizes, voxel spacing, and what would be refused, with the
reason. The column `path` can be copied to the column `image` of a table for configs/data/table.py (images) or
configs/data/table_ct.py (volumes). The page shows the counts, the reasons and thumbnails.

Patients, studies and series of DICOM files are numbered. Their identifiers are written only with `--identifiers`, to
both files, and paths are on the page only then; inventory.csv always has the paths. A picture may have a name burnt in:
look at the page before you pass it on. Exit status 3: some images or volumes would be refused.

There is no configuration file; the keys of data sets are in docs/reference/configuration.md.
"""

from __future__ import annotations

import io
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.scanning.find import find_items
from data_prep.scanning.inventory import COLUMNS, IDENTIFIERS, READ, REFUSED, Entry, Summary, read_items
from lgdea_jax import cli
from lgdea_jax.errors import UserError
from lgdea_jax.pages.elements import Table
from lgdea_jax.pages.scan import Picture, Section, page
from lgdea_jax.runtime.files import TableWriter, output_file, write_atomically, write_text_atomically

KINDS = (("image", "images"), ("volume", "volumes"))


def main(argv: list[str]) -> int:
    """Parses the flags, scans; returns the exit status."""
    parser = cli.Parser(prog="python -m data_prep.scan", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", help="searched to the bottom")
    parser.add_argument("--out", required=True, metavar="FILE", help="the inventory, a CSV file")
    parser.add_argument("--html", default="", metavar="FILE", help="a page with counts, reasons and thumbnails")
    parser.add_argument("--identifiers", action="store_true",
                        help="write DICOM's identifiers to both files, and paths to the page")
    parser.add_argument("--thumbnails", type=int, default=200, metavar="N",
                        help="pictures on the page at most, drawn at random (default: 200)")
    args = parser.parse_args(argv)
    folder = Path(args.folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder")
    if args.thumbnails < 0:
        raise UserError("--thumbnails is 0 or more")
    items = find_items(folder)
    if not items:
        raise UserError(f"{folder} holds no file")
    summary = Summary(args.thumbnails if args.html else 0)
    entries = tqdm(read_items(folder, items), total=len(items), unit="item", desc="reading", disable=None)
    with output_file(args.out) as path:
        write_atomically(path, lambda file: _write_inventory(file, entries, summary, identifiers=args.identifiers))
    if args.html:
        with output_file(args.html) as path:
            write_text_atomically(path, _page(summary, folder, identifiers=args.identifiers))
    for line in lines(summary):
        print(line)
    print(f"wrote {args.out}" + (f" and {args.html}" if args.html else ""))
    return cli.PARTIAL if summary.rejected else cli.OK


def _write_inventory(file: Any, entries: Iterable[Entry], summary: Summary, *, identifiers: bool) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
    rows = TableWriter(text)
    rows.writerow((*COLUMNS, *IDENTIFIERS) if identifiers else COLUMNS)
    for entry in entries:
        summary.add(entry)
        rows.writerow(entry.cells(identifiers=identifiers))
    text.detach()


def _totals(summary: Summary) -> list[str]:
    """"images: 3 read, 1 refused", and the same of volumes, where there are any."""
    return [f"{name}: {summary.count(kind, READ):,} read, {summary.count(kind, REFUSED):,} refused"
            for kind, name in KINDS if summary.count(kind, READ) + summary.count(kind, REFUSED)
            ] or ["no image and no volume"]


def lines(summary: Summary) -> list[str]:
    """What is printed."""
    out = _totals(summary)
    out += [f"refused: {count} x {reason}" for (_, reason), count in summary.refused_counts.most_common(10)]
    if summary.converted:
        out.append("converted: " + ", ".join(f"{count} {what}" for what, count in sorted(summary.converted.items())))
    if summary.others:
        out.append("other files: " + ", ".join(f"{count} {what}" for what, count in summary.others.most_common(10)))
    return out


def _page(summary: Summary, folder: Path, *, identifiers: bool) -> str:
    """The HTML document."""
    notes = [*(f"{line[0].upper()}{line[1:]}." for line in _totals(summary)), "Items are numbered as in the inventory."]
    notes += [f"Folder: {folder}. This page has identifiers."] if identifiers else []
    subjects = {subject for subject, *_ in summary.studies.values() if subject}
    notes += [f"Studies that DICOM files state: {len(summary.studies):,}; patients: {len(subjects):,}. Other formats "
              "state neither."] if summary.studies else []
    frequent = ", ".join(f"{size} ({count:,})" for (_, size), count in summary.sizes.most_common(5))
    sections = [
        Section("Images and volumes", "", _counts(("kind", "format", "modality", "view", "read"), summary.groups)),
        Section("Refused", "The build would list these in rejected.csv with the same reasons.", Table(
            ("reason", "kind", "items", "number"), [
                (reason, kind, ", ".join(map(str, summary.refused[kind, reason]))
                 + (", ..." if count > summary.FIRST else ""), f"{count:,}")
                for (kind, reason), count in summary.refused_counts.most_common()], 3, "refused")),
        Section("Sizes", f"Height x width, of volumes depth first. Most frequent: {frequent}.", Table(
            ("kind", "measure", "least", "median", "most"), [
                (kind, name, *(f"{value:.4g}" for value in (min(values), statistics.median(values), max(values))))
                for (kind, name), values in summary.numbers.items()], 2, "sizes")),
        Section("Converted", "What each count stands for: docs/guides/own_data.md, How image files are read.",
                _counts(("what", "number"), summary.converted)),
        Section("Studies", "", Table(("study", "patient", "series", "images and volumes"), [
            (str(study), str(subject or "-"), str(len(series)), ", ".join(
                f"{n} {what}" for what, n in sorted(held.items())))
            for study, (subject, series, held) in sorted(summary.studies.items())], 4, "studies")),
        Section("Other files", "", _counts(("what", "number"), summary.others))]
    sample = sorted(summary.sample, key=lambda entry: entry.number)
    drawn = "" if summary.pictures <= len(sample) else f"{len(sample):,} of {summary.pictures:,}, drawn at random. "
    return page("Contents of a folder", notes, sections, [_picture(entry, identifiers) for entry in sample],
                drawn + ("Of a volume: the axial slice in the middle, and the mean from front to back; image-left is "
                         "patient-right. " if summary.count("volume", READ) else "")
                + "Below each: its item, view and size. Names can be burnt into a picture.")


def _counts(header: Sequence[str], counts: Counter[Any]) -> Table:
    """A table of a counter, the most frequent first; its keys are text, or tuples of text."""
    rows = [(*(cell or "-" for cell in ((key,) if isinstance(key, str) else key)), f"{count:,}")
            for key, count in counts.most_common()]
    return Table(header, rows, len(header) - 1, header[0])


def _picture(entry: Entry, identifiers: bool) -> Picture:
    parts = [str(entry.number), entry.view or entry.modality, entry.size]
    if identifiers:
        parts.append(entry.item.path.encode("utf-8", "backslashreplace").decode())
    return Picture(entry.thumbnail, entry.item.kind == "volume", " · ".join(filter(None, parts)),
                   f"item {entry.number}, {entry.item.kind}")


if __name__ == "__main__":
    cli.run(main)
