"""Scores an evidence extractor against a reference.

    python -m data_prep.score --extractor=rules --reports=R.csv --reference=REF.csv --out=score.json
    python -m data_prep.score --extractor=rules --config=configs/data/openi.py --config.openi.path=DIR --out=score.json

`R.csv` has `uid` and text columns. `REF.csv` has `uid` and one column per finding with 1, 0, -1 (uncertain: left out)
or empty (missing: left out). With `--config` both come from a source of `data_prep.build` instead; `--config.KEY=VALUE`
changes a key of that file. `--extractor=openai` (or local, genai, gemini) asks a language model: `--llm.model`,
`--llm.base_url`, `--max_cost`, `--dry_run`, ...; API keys come from the environment. The rules are scored on the same
reports, and AUC, F1, cost and time of both are printed side by side; `--other=labels.csv` adds the labels of another
labeler, such as `lgdea_jax.label` writes. With `--task=labels
--label_set=ct_rate18` it labels instead of extracting, with `--probability` in percent. Without probabilities an AUC is
computed over five levels (absent, not mentioned, possible, likely, present).

Read the numbers with care. If the reference codes only what its readers chose to code, a finding that the report
mentions but the coder skipped counts as a false positive. Macro means hide rare findings (see n). If coders leave out
hedged findings, whether these count as positive matters more than the extractor does: see `--uncertain`.

docs/reference/configuration.md lists the keys of --config and --llm.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_prep.extract.extractors import LLM_EXTRACTORS, NAMES, open_extractor, unread
from data_prep.extract.rules import negex
from data_prep.extract.schema import Extraction
from data_prep.scoring import agreement, llm, measures, ordinal
from data_prep.scoring.inputs import Inputs, fold, from_source, from_tables, read_table
from data_prep.scoring.other import read_other
from data_prep.shards.silver_file import write_labels
from data_prep.study import SPLITS
from lgdea_jax import cli
from lgdea_jax.errors import UserError, choose
from lgdea_jax.findings.label_sets import LABEL_SETS, labels_from_evidence
from lgdea_jax.findings.vocabulary import BY_NAME
from lgdea_jax.records import NEGATIVE
from lgdea_jax.runtime.files import output_file, write_text_atomically

# Findings that reports deny all the time, with a word that shows that the report mentions them.
NEGATED_WORDS = {"Pleural Effusion": "effusion", "Pneumothorax": "pneumothora", "Consolidation": "consolidat"}
# Flags about the columns of tables; a source has none.
_TABLE_FLAGS = ("reports", "reference", "where", "mapping", "leave_out", "attributes")


def _arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, Any]:
    """The flags, and the config of the source or None."""
    config, rest = None, list(argv)
    if any(item == "--config" or item.startswith(("--config=", "--config.")) for item in argv):
        config, rest = cli.load_config(argv)
    parser = cli.Parser(prog="python -m data_prep.score", description=__doc__)
    # Read above; here for --help.
    parser.add_argument("--config", metavar="FILE", help="a source of data_prep.build to score on, in place of tables")
    parser.add_argument("--extractor", default="rules", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("--reports", help="CSV with uid and text columns")
    parser.add_argument("--reference", help="CSV with uid and a 0/1 column per finding")
    parser.add_argument("--split", default="all", choices=("all", *SPLITS),
                        help="of the source that --config names; its --config.KEY=VALUE as for data_prep.build")
    parser.add_argument("--out", required=True, help="score.json")
    parser.add_argument("--labels_out", metavar="FILE", help="CSV for the labels of every scored report (1, 0, -1), "
                        "which data_prep.build takes as silver labels with --config.silver_from")
    parser.add_argument("--label_set", default="reference", help=f"reference, or one of {', '.join(LABEL_SETS)}")
    parser.add_argument("--columns", default="findings,impression", help="text columns of the reports")
    parser.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE",
                        help="only rows of the reference (or of the reports) with this value; may be repeated")
    parser.add_argument("--uncertain", default="likely", choices=tuple(measures.CALLED),
                        help="uncertain findings count as positive where the report calls them likely (default), "
                        "always, never, or are left out")
    parser.add_argument("--mapping", help="JSON {finding: column} or CSV finding,column")
    parser.add_argument("--attributes", help="CSV with uid, findings, laterality, location (';' between several)")
    parser.add_argument("--assertions",
                        help="CSV with sentence, concept and Negated/Affirmed in `negation` or `assertion`")
    parser.add_argument("--leave_out", metavar="COLUMN", help="reference column that names the findings (';' between "
                        "several) not to be scored in that row, for instance because de-identification masked the word")
    parser.add_argument("--fold", metavar="I/K", help="only rows whose SHA-256 of the uid, modulo K, is I (0-based)")
    parser.add_argument("--uids", metavar="FILE", help="only reports whose uid stands in this file, one a line")
    parser.add_argument("--min_positives", type=int, default=20, help="findings with fewer stay out of the macro mean")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples")
    parser.add_argument("--seed", type=cli.seed, default=0, help="of the bootstrap (default: 0)")
    parser.add_argument("--other", metavar="FILE", help="CSV with the labels of another labeler, as of --labels_out, "
                        "or its probabilities: scored beside the extractor")
    llm.add_flags(parser)
    agreement.add_flags(parser, default="none")
    args = parser.parse_args(rest)
    choose("extractor", args.extractor, NAMES)
    llm.check_flags(args)
    for flag in _TABLE_FLAGS:
        if config and getattr(args, flag):
            raise UserError(f"--{flag} is about tables: leave it out, or --config")
        if not config and flag in _TABLE_FLAGS[:2] and not getattr(args, flag):
            raise UserError(f"--{flag}=FILE is needed, or --config=FILE")
    if not config and args.split != "all":
        raise UserError("--split is about the source of --config: leave it out")
    return args, config


def _extract(extract: Callable[[str], Extraction], texts: Sequence[str]) -> tuple[list[Extraction], float]:
    extract("A report.")  # Loads what is loaded once, outside the clock.
    started = time.perf_counter()
    found = [extract(text) for text in tqdm(texts, unit="report", desc="extracting", file=sys.stderr, disable=None)]
    return found, len(texts) / max(time.perf_counter() - started, 1e-9)


def _findings(truth: np.ndarray, levels: np.ndarray, scores: np.ndarray | None, names: Sequence[str],
              args: argparse.Namespace) -> tuple[dict, dict]:
    weights = measures.resample_weights(len(truth), args.resamples, args.seed)
    counts = measures.histograms(truth, levels, weights)
    samples = measures.measures(counts, args.uncertain)
    if scores is not None:
        samples["auc"] = measures.auc_of_scores(truth, scores, weights)
    n, positives = np.isin(truth, (0, 1)).sum(0), (truth == 1).sum(0)
    table = {name: {"n": int(n[i]), "positives": int(positives[i]),
                    **{key: measures.estimate(samples[key][:, i]).as_json() for key in measures.METRICS},
                    "confusion": measures.confusion(counts[0, i])}
             for i, name in enumerate(names)}
    chosen = positives >= args.min_positives
    macro = {"n": len(truth), "findings": int(chosen.sum()), "min_positives": args.min_positives,
             **{key: measures.estimate(measures.mean_over(samples[key], chosen)).as_json() for key in measures.METRICS}}
    return table, macro


def _rules_beside(inputs: Inputs, args: argparse.Namespace) -> list[dict[str, Any]]:
    """What the rules are worth on those of the same reports that they read; none where they read none."""
    readable = [i for i, text in enumerate(inputs.texts) if not unread("rules", "", text)]
    if not readable:
        return []
    part, rules = inputs.only(readable), open_extractor("rules")
    extractions, speed = _extract(rules.extract, part.texts)
    findings, macro = _findings(part.truth, ordinal.of_extractions(extractions, part.names), None, part.names, args)
    return [{"extractor": rules.name, "findings": findings, "macro": macro, "cost": 0.0,
             "seconds": round(len(readable) / speed, 3)}]


def _other_beside(inputs: Inputs, args: argparse.Namespace, rejected: list[dict]) -> list[dict[str, Any]]:
    """What the labels of --other are worth on those of the same reports that it has; what they cost is not known."""
    if not args.other:
        return []
    part, levels, scores = read_other(args.other, inputs, rejected)
    findings, macro = _findings(part.truth, levels, scores, part.names, args)
    return [{"extractor": Path(args.other).name, "findings": findings, "macro": macro, "cost": None, "seconds": None}]


def _print_beside(result: Mapping[str, Any], seconds: float) -> None:
    """AUC, F1, cost and time of all, of the extractor first; seconds: that it took, 0 for what earlier runs did."""
    print(f"{'':34} {'n':>6}  {'auc':^20}  {'f1':^20}  {'cost':>9} {'seconds':>9} {'reports/s':>9}")
    own = {"extractor": result["extractor"], "macro": result["macro"], "seconds": seconds,
           "cost": result["cost"]["total"]["cost"] if result["cost"] else 0.0}
    for row in (own, *result["beside"]):
        n, took = row["macro"]["n"], row["seconds"]
        cost = f"{'-':>9}" if row["cost"] is None else f"{row['cost']:>9.4f}"
        # Answers of earlier runs take no time in this one.
        time_taken = f"{took:>9.2f} {n / took:>9.1f}" if took else f"{'-' if took is None else 'earlier':>9} {'':>9}"
        print(f"{row['extractor']:34} {n:>6}  {_cell(row['macro']['auc'])}  {_cell(row['macro']['f1'])}  "
              f"{cost} {time_taken}".rstrip())


def _negated_words(texts: Sequence[str], truth: np.ndarray, levels: np.ndarray, names: Sequence[str]) -> dict:
    """Of the reference-negative reports that contain the word, the share in which the finding is not called present."""
    table = {}
    for name, word in NEGATED_WORDS.items():
        if name in names:
            i = list(names).index(name)
            rows = [r for r, text in enumerate(texts) if truth[r, i] == 0 and word in text.lower()]
            table[name] = measures.share(int((levels[rows, i] != measures.PRESENT).sum()), len(rows))
            table[name]["not_present_nor_uncertain"] = measures.share(
                int((~np.isin(levels[rows, i], (measures.PRESENT, measures.LIKELY,
                                                           measures.POSSIBLE))).sum()), len(rows))
    return table


# Anatomical sites under the names of references, and ours; None is too general to score.
_SITES = {"ribs": "rib", "thoracic vertebrae": "thoracic spine", "lumbar vertebrae": "lumbar spine",
           "cervical vertebrae": "cervical spine", "aorta, thoracic": "aorta", "lung": None, "thorax": None,
           "interstitial": None, "pleura": None, "heart": None,
           # A frontal radiograph does not tell a zone from a lobe, and coders write the one for the other.
           "upper lung": "upper lobe", "mid lung": "middle lobe", "lingula": "middle lobe", "lower lung": "lower lobe"}
_PARTS = {"hilar lymph nodes": ("hilum", "lymph nodes"), "mediastinal lymph nodes": ("mediastinum", "lymph nodes"),
          "paratracheal lymph nodes": ("paratracheal", "lymph nodes"),
          "thoracolumbar spine": ("thoracic spine", "lumbar spine")}
_SIDES = {"left": {"left"}, "right": {"right"}, "bilateral": {"left", "right"}, "": set(), "midline": set()}


def _attributes(inputs: Inputs, extractions: Sequence[Extraction], args: argparse.Namespace) -> dict:
    """Recall and precision of sides and anatomical sites over the (report, finding) pairs of the reference."""
    known = set(inputs.uids)
    wanted: dict[str, dict[tuple[str, str], set[str]]] = {"laterality": {}, "place": {}}
    for item in inputs.attributes:
        if item.uid in known and item.finding in inputs.names:
            sites = {_SITES.get(site, site) for site in item.sites} - {None}
            for kind, values in (("laterality", _SIDES[item.side]), ("place", sites)):
                if values:
                    wanted[kind].setdefault((item.uid, item.finding), set()).update(values)
    result = {}
    for kind, pairs in wanted.items():
        true, found, by_uid = [], [], {}
        for uid, name in pairs:
            by_uid.setdefault(uid, set()).add(name)
        for uid, extraction in zip(inputs.uids, extractions):
            mine = by_uid.get(uid, set())
            true.append({(name, value) for name in mine for value in pairs[uid, name]})
            found.append({(name, value) for name in mine for value in _stated(extraction, name, kind)})
        result[kind] = measures.retrieved(true, found, resamples=args.resamples, seed=args.seed)
    return result


def _stated(extraction: Extraction, name: str, kind: str) -> set[str]:
    members = {name, *BY_NAME[name].members}
    items = [item for item in extraction.evidence if item.finding in members and item.certainty != "absent"]
    if kind == "laterality":
        return set().union(*(_SIDES[item.laterality] for item in items)) if items else set()
    sites = {part for item in items for part in _PARTS.get(item.anatomy, (item.anatomy,))}
    return {_SITES.get(site, site) for site in sites} - {None, ""}


def _assertions(path: str, assertion: Callable[[str, str], str], args: argparse.Namespace,
                rejected: list[dict]) -> dict:
    """Precision, recall and F1 of "Negated", and the same of plain NegEx on the same sentences."""
    rows, columns = read_table(path, ("sentence", "concept"), rejected)
    answer = next((name for name in ("negation", "assertion") if name in columns), None)
    if answer is None:
        raise UserError(f"{path}: no column 'negation' or 'assertion'")
    inside, chosen = fold(args.fold), []
    for row in rows:
        if row.cells[answer] not in ("Negated", "Affirmed"):
            rejected.append({"file": Path(path).name, "row": row.number,
                             "reason": f"{answer} is not Negated or Affirmed"})
        elif inside(row.cells.get("line") or str(row.number)):
            chosen.append((row.cells["sentence"], row.cells["concept"], row.cells[answer]))
    return {**_negated(chosen, assertion, args), "negex": _negated(chosen, negex.assertion, args)}


def _negated(rows: Sequence[tuple[str, str, str]], assertion: Callable[[str, str], str],
             args: argparse.Namespace) -> dict:
    given = [assertion(sentence, concept) for sentence, concept, _ in rows]
    true = [{1} if wanted == "Negated" else set() for *_, wanted in rows]
    table = measures.retrieved(true, [{1} if value == "Negated" else set() for value in given],
                              resamples=args.resamples,
                              seed=args.seed)
    right = sum(value == wanted for value, (*_, wanted) in zip(given, rows))
    return {"negated": table.pop("n"), **table, "accuracy": measures.share(right, len(rows)), "n": len(rows)}


def _print(result: Mapping, ignored: Sequence[str]) -> None:
    if ignored:
        print(f"columns that are not scored: {', '.join(ignored)}")
    print(f"{'finding':34} {'n':>6} {'pos':>5}  " + "  ".join(f"{key:^20}" for key in measures.METRICS))
    for name, row in [*result["findings"].items(), ("macro", {"positives": "", **result["macro"]})]:
        print(f"{name:34} {row['n']:>6} {row['positives']:>5}  "
              + "  ".join(_cell(row[key]) for key in measures.METRICS))
    for key in ("negated_word_specificity", "attributes"):
        for name, row in result[key].items():
            print(f"{key} {name}: " + (f"{_cell(row)} n {row['n']}" if "value" in row else "  ".join(
                f"{metric} {_cell(row[metric])}" for metric in ("recall", "precision", "f1")) + f" n {row['n']}"))
    if result["assertions"]:
        for who, row in ((result["extractor"], result["assertions"]), ("plain NegEx", result["assertions"]["negex"])):
            print(f"assertions (Negated) by {who}: " + "  ".join(
                f"{metric} {_cell(row[metric])}" for metric in ("recall", "precision", "f1")))
    print(f"{result['reports_per_second']:.0f} reports/s, extractor {result['extractor']}")


def _cell(item: Mapping[str, float | None]) -> str:
    if item["value"] is None:
        return f"{'-':^20}"
    bounds = "[   -  ,   -  ]" if item["low"] is None else f"[{item['low']:.3f}, {item['high']:.3f}]"
    return f"{item['value']:.3f} {bounds}"


def main(argv: list[str]) -> int:
    """Runs the command; returns 0, or 3 when rows were rejected."""
    args, config = _arguments(argv)
    if args.resamples < 1 or args.min_positives < 1:
        raise UserError("--resamples and --min_positives are at least 1")
    asks = args.extractor in LLM_EXTRACTORS
    extractor = None if asks else open_extractor(args.extractor)
    rejected: list[dict] = []
    inputs = from_source(config, args, rejected) if config else from_tables(args, rejected)
    names = inputs.names
    scores, cost, extraction = None, None, {}
    if asks:
        answers = llm.ask(args, inputs.texts, inputs.terms)
        if answers is None:
            print("dry run: nothing was sent")
            return cli.OK
        name, speed, cost, extraction = answers.name, answers.speed, answers.cost, answers.extraction
        rejected += [{"file": inputs.origins[i][0], "row": inputs.origins[i][1], "reason": reason}
                     for i, reason in answers.reasons.items()]
        usable = [i for i in range(len(inputs.uids)) if i not in answers.reasons]
        if not usable:
            raise UserError("no reply of the model can be used: the reasons are in the reply cache")
        inputs = inputs.only(usable)
        extractions = [answers.values[i] for i in usable]
    else:
        name = extractor.name
        unreadable = {i: reason for i, text in enumerate(inputs.texts) if (reason := unread(args.extractor, "", text))}
        rejected += [{"file": inputs.origins[i][0], "row": inputs.origins[i][1], "reason": reason}
                     for i, reason in unreadable.items()]
        if len(unreadable) == len(inputs.uids):
            raise UserError(next(iter(unreadable.values()), "there are no reports"))
        inputs = inputs.only([i for i in range(len(inputs.uids)) if i not in unreadable])
        extractions, speed = _extract(extractor.extract, inputs.texts)
    if asks and args.task == "labels":
        labels = llm.label_values(extractions, names, args.label_set)
        if args.probability:
            scores = llm.probabilities(extractions, names, args.label_set)
        levels = ordinal.of_labels(labels)
    else:
        labels = np.array([labels_from_evidence(item.evidence, item.normal, names, unmentioned=NEGATIVE)
                           for item in extractions], np.int8).reshape(-1, len(names))
        levels = ordinal.of_extractions(extractions, names)
    if args.labels_out:
        write_labels(args.labels_out, inputs.uids, names, labels)
    findings, macro = _findings(inputs.truth, levels, scores, names, args)
    result = {
        "extractor": name, "findings": findings, "macro": macro,
        "auc_from": "levels" if scores is None else "probabilities",
        "negated_word_specificity": _negated_words(inputs.texts, inputs.truth, levels, names),
        "attributes": _attributes(inputs, extractions, args) if inputs.attributes else {},
        "assertions": _assertions(args.assertions, extractor.assertion, args, rejected) if args.assertions else {},
        "beside": [*(_rules_beside(inputs, args) if asks else ()), *_other_beside(inputs, args, rejected)],
        "reports_per_second": round(speed, 1), "cost": cost, "extraction": extraction,
        "agreement": agreement.compare(args, inputs.texts, levels, names), "uncertain": args.uncertain,
        "fold": args.fold, "split": args.split, "where": args.where, "ignored_columns": list(inputs.ignored),
        "without_report": inputs.without_report, "without_reference": inputs.without_reference, "rejected": rejected,
        "command": ["data_prep.score", *argv], "seed": args.seed,
    }
    with output_file(args.out) as file:
        write_text_atomically(file, json.dumps(result, indent=1) + "\n")
    _print(result, inputs.ignored)
    if result["beside"]:
        _print_beside(result, cost["seconds"] if cost else len(inputs.uids) / speed)
    for line in agreement.lines(result["agreement"]):
        print(line)
    for item in rejected[:20]:
        print(f"rejected: {item['file']} row {item['row']}: {item['reason']}", file=sys.stderr)
    for n, what in ((inputs.without_report, "have no report"), (inputs.without_reference, "have no labels")):
        if n:
            print(f"{n} rows of the reference {what}: left out", file=sys.stderr)
    return cli.PARTIAL if rejected else cli.OK


if __name__ == "__main__":
    cli.run(main)
