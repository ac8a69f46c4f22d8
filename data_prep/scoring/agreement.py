"""Agreement of two extractors on the same reports: Cohen's kappa, and the certainties of one against the other's.

Agreement is not truth: two extractors may share an error, and kappa falls with rare findings. Used by
`data_prep.agreement`, `data_prep.audit` and `data_prep.score` (`--second`).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.extract.evidence_table import EvidenceTable, Faulty
from data_prep.extract.extractors import EXTRACTORS, LLM_EXTRACTORS, open_extractor, reads
from data_prep.extract.llm.jobs import Job, Quarantined, Replies
from data_prep.extract.llm.settings import Settings
from data_prep.extract.schema import Extraction
from data_prep.scoring import measures, ordinal
from lgdea_jax.data.dataset import DatasetMetadata
from lgdea_jax.errors import UserError

NAMES_HELP = f"{', '.join(EXTRACTORS)}, or a language model by its recorded name, like openai:MODEL/evidence@2"


TABLE_HELP = "or a corrected table of evidence (FILE.csv)"


def add_flags(parser: argparse.ArgumentParser, *, default: str) -> None:
    """`--second` and `--second_replies`."""
    group = parser.add_argument_group("agreement with a second extractor")
    told = f"default: {default}" if default else "default: rules, unless the evidence is theirs"
    group.add_argument("--second", default=default, metavar="NAME",
                       help=f"none, {NAMES_HELP} (nothing is asked; {told})")
    group.add_argument("--second_replies", default="", metavar="FILE", help="the cache of that model's replies")


def open_replies(name: str, cache: str, settings: Mapping[str, Any] | None = None) -> Replies:
    """The reader of a language model's stored replies.

    Args:
      name: as recorded with the data, "openai:MODEL/evidence@2"; cache: the file of the replies.
      settings: with which it was asked, as recorded with the data; those of one pass with our prompt where there are
        none.

    Raises:
      UserError: no such name or file, or another prompt than this version's.
    """
    backend, colon, rest = name.partition(":")
    if not colon or backend not in LLM_EXTRACTORS:
        raise UserError(f"{name!r} is not the recorded name of a language model, like openai:MODEL/evidence@2")
    if not Path(cache).is_file():
        raise UserError(f"no reply cache {cache!r}")
    model, _, task = rest.rpartition("/")
    replies = Replies(Job(backend, Settings(**{**(settings or {}), "model": model}), cache))
    if replies.job.task.name != task:
        raise UserError(f"{name} was asked with the prompt {task}, this version has {replies.job.task.name}")
    return replies


@dataclasses.dataclass(frozen=True)
class Reader:
    """What is compared: an extractor, the stored replies of a language model, or a table that a person corrected.

    Attributes:
      name: as recorded with data; of a table, the name of its file.
      extract: (report, id of its study) -> its extraction, None without a usable reply or without lines of it.
      reads: (language, report) -> whether it reads such reports.
      table: whether it is a table; faults: why lines of it could not be used, filled by `extract`.
    """

    name: str
    extract: Callable[[str, str], Extraction | None]
    reads: Callable[[str, str], bool] = lambda language, report: True
    table: bool = False
    faults: list[str] = dataclasses.field(default_factory=list)


def open_reader(name: str, cache: str) -> Reader:
    """The reader of that name; nothing is asked of a model.

    Args:
      name: an extractor, the recorded name of a language model, or the file of a table of evidence; cache: of a model's
        replies.

    Raises:
      UserError: unknown, or its file cannot be read.
    """
    if name.endswith(".csv"):
        return _table_reader(EvidenceTable(name))
    if ":" not in name:
        extractor = open_extractor(name)
        return Reader(extractor.name, lambda report, study: extractor.extract(report), functools.partial(reads, name))
    replies = open_replies(name, cache)

    def extract(report: str, study: str) -> Extraction | None:
        try:
            return replies.extract(report)
        except Quarantined:
            return None

    return Reader(replies.name, extract)


def _table_reader(table: EvidenceTable) -> Reader:
    """Of a table in which a person has confirmed lines only those studies count that are confirmed throughout: what was
    merely left as the extractor wrote it is no second opinion."""
    faults: list[str] = []

    def extract(report: str, study: str) -> Extraction | None:
        try:
            reading = table.read(study, report)
        except Faulty as fault:
            faults.append(fault.reason)
            return None
        return reading.extraction if reading and (reading.complete or not table.any_verified) else None

    return Reader(table.path.name, extract, table=True, faults=faults)


def recorded_name(metadata: DatasetMetadata) -> str:
    """What made the evidence of a data set: its extractor, and people where they corrected it."""
    return f"{metadata.extractor}, corrected" if metadata.corrections.get("corrected") else metadata.extractor


def check_different(first: str, second: str) -> None:
    """Refuses to compare something with itself. Raises UserError."""
    if first == second:
        raise UserError(f"the first and the second are both {first}, which agrees with itself: name another extractor, "
                        "or a table that somebody corrected, with --second")


def agreement(first: np.ndarray, second: np.ndarray, names: Sequence[str], *, resamples: int, seed: int
              ) -> dict[str, dict[str, Any]]:
    """Per finding that either extractor calls present or uncertain, most frequent first.

    Args:
      first, second: int8 [reports, names], indices of `measures.LEVELS`.
      names: of the findings.
      resamples: of the reports, for the intervals; seed: of these.

    Returns:
      name -> `{"n", "both", "first", "second", "neither"` (reports in which both, only one, or neither calls it present
      or uncertain)`, "kappa", "kappa_certainty"` (Cohen's, with interval: of these two answers, and of the five
      levels)`, "certainty"` (first's certainty -> second's -> reports)`}`. Kappa is null where it is undefined.
    """
    n = len(first)
    levels = np.arange(len(measures.LEVELS))
    cells = (first[..., None, None] == levels[:, None]) & (second[..., None, None] == levels)
    weights = measures.resample_weights(n, resamples, seed)
    tables = (weights @ cells.reshape(n, -1).astype(np.float32)).reshape(
        -1, len(names), len(levels), len(levels)).astype(np.float64)
    called = np.isin(levels, (measures.POSSIBLE, measures.LIKELY, measures.PRESENT))
    both, one, two, neither = (tables[..., a, :][..., b].sum((-1, -2)) for a, b in
                               ((called, called), (called, ~called), (~called, called), (~called, ~called)))
    kappa = measures.kappa(both, one, two, neither)
    agreed, expected = np.trace(tables, axis1=-2, axis2=-1), (tables.sum(-1) * tables.sum(-2)).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        of_certainty = np.where(expected < n * n, (n * agreed - expected) / (n * n - expected), np.nan)
    found = {}
    for i in np.argsort(-(both + one + two)[0], kind="stable"):
        if (both + one + two)[0, i]:
            found[names[i]] = {
                "n": n, "both": int(both[0, i]), "first": int(one[0, i]), "second": int(two[0, i]),
                "neither": int(neither[0, i]), "kappa": measures.estimate(kappa[:, i]).as_json(),
                "kappa_certainty": measures.estimate(of_certainty[:, i]).as_json(),
                "certainty": {a: {b: int(tables[0, i, j, k]) for k, b in enumerate(measures.LEVEL_NAMES)}
                              for j, a in enumerate(measures.LEVEL_NAMES)}}
    return found


def of_extractions(first: Sequence[Extraction | None], second: Sequence[Extraction | None], names: Sequence[str], *,
                   resamples: int, seed: int) -> tuple[int, dict[str, dict[str, Any]]]:
    """(number of reports that both have an extraction of, `agreement` on these); no findings without a report."""
    pairs = [pair for pair in zip(first, second, strict=True) if None not in pair]
    if not pairs:
        return 0, {}
    levels = [ordinal.of_extractions(extractions, names) for extractions in zip(*pairs)]
    return len(pairs), agreement(*levels, names, resamples=resamples, seed=seed)


def compare(args: argparse.Namespace, texts: Sequence[str], levels: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """What `data_prep.score` writes under "agreement": `{"second", "n", "without_reply", "findings"}`; {} without one.

    Args:
      args: with the flags of `add_flags`, `resamples` and `seed`.
      texts: the scored reports; levels: int8 [reports, names] of the scored extractor.
    """
    if args.second == "none":
        return {}
    reader = open_reader(args.second, args.second_replies)
    if reader.table:
        raise UserError("a table of evidence names studies: compare it with a data set, with data_prep.agreement")
    extractions = [reader.extract(text, "") for text in texts]
    kept = np.array([extraction is not None for extraction in extractions])
    second = ordinal.of_extractions((extraction for extraction in extractions if extraction is not None), names)
    return {"second": reader.name, "n": int(kept.sum()), "without_reply": int((~kept).sum()),
            "findings": agreement(levels[kept], second, names, resamples=args.resamples, seed=args.seed)}


def lines(result: dict[str, Any]) -> list[str]:
    """`compare`'s result in words."""
    found = []
    for name, row in result.get("findings", {}).items():
        kappa = "   -  " if row["kappa"]["value"] is None else f"{row['kappa']['value']:.3f}"
        found.append(f"agreement with {result['second']} {name}: kappa {kappa}, both {row['both']}, only the first "
                     f"{row['first']}, only the second {row['second']}, n {row['n']}")
    return found
