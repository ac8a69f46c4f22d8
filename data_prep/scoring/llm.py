"""What `data_prep.score` does with extractors that ask a language model: its flags, questions and answers."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.extract.extractors import LLM_EXTRACTORS
from data_prep.extract.llm import data_use, quality, stage
from data_prep.extract.llm.cache import Cache
from data_prep.extract.llm.jobs import Quarantined, Replies
from data_prep.extract.llm.settings import Settings
from lgdea_jax.errors import UserError, choose
from lgdea_jax.findings.label_sets import LABEL_SETS
from lgdea_jax.records import TERMS

# Where a report does not mention a label, its probability ranks between denial and doubt, as `scoring.LEVELS` has it.
UNMENTIONED_PROBABILITY = 0.1


def add_flags(parser: argparse.ArgumentParser) -> None:
    """`--llm.KEY=VALUE` for every setting, and what is special to language models."""
    group = parser.add_argument_group("extractors that ask a language model")
    group.add_argument("--task", default="evidence", choices=("evidence", "labels"),
                       help="labels: asks for the --label_set directly (chexpert14, ct_rate18)")
    group.add_argument("--probability", action="store_true", help="with --task=labels: asks for a probability each")
    group.add_argument("--terms", default="unstated",
                       help=f"of the reports: {', '.join(TERMS)}; stricter ones of their rows or source win")
    group.add_argument("--dry_run", action="store_true",
                       help="estimates tokens, hours and cost; sends nothing (but see llm.sample)")
    for field in dataclasses.fields(Settings):
        names = [f"--llm.{field.name}"] + ([f"--{field.name}"] if field.name in ("max_cost", "attest_data_use") else [])
        text = f"see configs/data/llm.py (default: {field.default!r})".replace("%", "%%")
        if isinstance(field.default, bool):
            group.add_argument(*names, dest=f"llm_{field.name}", action="store_true", help=text)
            continue
        group.add_argument(*names, dest=f"llm_{field.name}", type=type(field.default), default=field.default,
                           help=text)


def check_flags(args: argparse.Namespace) -> None:
    """Refuses combinations that mean nothing. Raises UserError."""
    if args.extractor not in LLM_EXTRACTORS:
        given = args.task != "evidence" or args.probability or args.dry_run or any(
            getattr(args, f"llm_{field.name}") != field.default for field in dataclasses.fields(Settings))
        if given:
            raise UserError(f"--task, --probability, --dry_run and --llm.* are for {', '.join(LLM_EXTRACTORS)}")
        return
    choose("terms", args.terms, TERMS)
    if args.probability and args.task != "labels":
        raise UserError("--probability goes with --task=labels")
    if args.task == "labels":
        choose("label set of --task=labels", args.label_set, ("chexpert14", "ct_rate18"))
        if args.attributes:
            raise UserError("--attributes are scored on evidence: leave out --task=labels")
    if args.assertions:
        raise UserError(f"the extractor {args.extractor!r} does not answer --assertions")


@dataclasses.dataclass(frozen=True)
class Answers:
    """Answers about reports.

    Attributes:
      name: of the extractor, with task and version.
      values: `Extraction` or `Labels` per report, None where there is none to use; reasons: index -> why.
      speed: reports per second of this run, 0 when nothing was asked.
      cost: tokens, money and counts for the result file; extraction: how they were got (`extract.llm.quality`), with
        the terms that the reports are under.
    """

    name: str
    values: tuple[Any, ...]
    reasons: dict[int, str]
    speed: float
    cost: dict[str, Any]
    extraction: dict[str, Any]


def ask(args: argparse.Namespace, texts: Sequence[str], terms: Sequence[str]) -> Answers | None:
    """Asks about all texts; None after a dry run.

    Args:
      texts: of the reports; terms: what their source and rows state of each; `args.terms` may only be stricter.

    Raises:
      UserError: see `extract.stage.ask`.
    """
    values = {field.name: getattr(args, f"llm_{field.name}") for field in dataclasses.fields(Settings)}
    kind = "evidence" if args.task == "evidence" else args.label_set
    job = stage.make_job(args.extractor, values, Path(args.out), kind=kind, probability=args.probability)
    strictest = {data_use.strictest((args.terms, stated)) for stated in terms}
    if args.dry_run:
        _, sent = stage.estimate(lambda: texts, job, where="--terms", terms=lambda: strictest)
        print(f"dry run: {f'{sent} reports were sent' if sent else 'nothing was sent'}")
        return None
    started = time.perf_counter()
    summary = stage.ask(lambda: texts, job, where="--terms", terms=lambda: strictest)
    seconds = time.perf_counter() - started
    replies = Replies(job)
    found: list[Any] = []
    reasons: dict[int, str] = {}
    for i, text in enumerate(texts):
        try:
            found.append(replies.extract(text) if kind == "evidence" else replies.labels(text))
        except Quarantined as error:
            found.append(None)
            reasons[i] = error.reason
    with Cache(job.cache) as cache:
        spent = cache.spent(job.scope)
    cost = {"total": dataclasses.asdict(spent), "asked": summary.asked, "valid": summary.valid,
            "quarantined": summary.quarantined, "dropped": dict(summary.dropped), "repaired": dict(summary.repairs),
            "flagged": dict(summary.flags), "currency": job.price.currency if job.price else None,
            "seconds": round(seconds, 3) if summary.asked else 0.0}
    speed = summary.asked / job.settings.votes / seconds if summary.asked else 0.0
    return Answers(job.name, tuple(found), reasons, speed, cost,
                   quality.record(job) | {"terms": sorted(strictest)})


def label_values(answers: Sequence[Any], names: Sequence[str], label_set: str) -> np.ndarray:
    """Labels int8 [reports, names] of `Labels`, in the order of `names`."""
    columns = [LABEL_SETS[label_set].index(name) for name in names]
    return np.array([[answer.values[i] for i in columns] for answer in answers], np.int8).reshape(-1, len(names))


def probabilities(answers: Sequence[Any], names: Sequence[str], label_set: str) -> np.ndarray:
    """Probabilities float64 [reports, names] of `Labels`, UNMENTIONED_PROBABILITY where there is none."""
    columns = [LABEL_SETS[label_set].index(name) for name in names]
    return np.array([[UNMENTIONED_PROBABILITY if answer.probabilities[i] is None else answer.probabilities[i]
                      for i in columns] for answer in answers], np.float64).reshape(-1, len(names))
