"""Agreement of two extractors on the same reports: Cohen's kappa, and the certainties of one against the other's.

Agreement is not truth: two extractors may share an error, and kappa falls with rare findings. Used by
`data_prep.agreement`, `data_prep.audit` and `data_prep.score` (`--second`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.extract.extractors import EXTRACTORS, LLM_EXTRACTORS, open_extractor
from data_prep.extract.llm.jobs import Job, Quarantined, Replies
from data_prep.extract.llm.settings import Settings
from data_prep.extract.schema import Extraction
from data_prep.scoring import measures, ordinal
from lgdea_jax.errors import UserError

NAMES_HELP = f"{', '.join(EXTRACTORS)}, or a language model by its recorded name, like openai:MODEL/evidence@2"


def add_flags(parser: argparse.ArgumentParser, *, default: str) -> None:
    """`--second` and `--second_replies`."""
    group = parser.add_argument_group("agreement with a second extractor")
    group.add_argument("--second", default=default, metavar="NAME",
                       help=f"none, {NAMES_HELP} (nothing is asked; default: {default})")
    group.add_argument("--second_replies", default="", metavar="FILE", help="the cache of that model's replies")


def open_replies(name: str, cache: str) -> Replies:
    """The reader of a language model's stored replies.

    Args:
      name: as recorded with the data, "openai:MODEL/evidence@2"; cache: the file of the replies.

    Raises:
      UserError: no such name or file, or another prompt than this version's.
    """
    backend, colon, rest = name.partition(":")
    if not colon or backend not in LLM_EXTRACTORS:
        raise UserError(f"{name!r} is not the recorded name of a language model, like openai:MODEL/evidence@2")
    if not Path(cache).is_file():
        raise UserError(f"no reply cache {cache!r}")
    model, _, task = rest.rpartition("/")
    replies = Replies(Job(backend, Settings(model=model), cache))
    if replies.job.task.name != task:
        raise UserError(f"{name} was asked with the prompt {task}, this version has {replies.job.task.name}")
    return replies


def open_reader(name: str, cache: str) -> tuple[str, Callable[[str], Extraction | None]]:
    """(recorded name, report -> its extraction or None without a usable reply) of an extractor. Nothing is asked.

    Raises:
      UserError: unknown, or its replies cannot be read.
    """
    if ":" not in name:
        extractor = open_extractor(name)
        return extractor.name, extractor.extract
    replies = open_replies(name, cache)

    def extract(report: str) -> Extraction | None:
        try:
            return replies.extract(report)
        except Quarantined:
            return None

    return replies.name, extract


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
    name, extract = open_reader(args.second, args.second_replies)
    extractions = [extract(text) for text in texts]
    kept = np.array([extraction is not None for extraction in extractions])
    second = ordinal.of_extractions((extraction for extraction in extractions if extraction is not None), names)
    return {"second": name, "n": int(kept.sum()), "without_reply": int((~kept).sum()),
            "findings": agreement(levels[kept], second, names, resamples=args.resamples, seed=args.seed)}


def lines(result: dict[str, Any]) -> list[str]:
    """`compare`'s result in words."""
    found = []
    for name, row in result.get("findings", {}).items():
        kappa = "   -  " if row["kappa"]["value"] is None else f"{row['kappa']['value']:.3f}"
        found.append(f"agreement with {result['second']} {name}: kappa {kappa}, both {row['both']}, only the first "
                     f"{row['first']}, only the second {row['second']}, n {row['n']}")
    return found
