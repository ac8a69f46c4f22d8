"""Scores an evidence extractor against a reference.

    python -m data_prep.score --extractor=rules --reports=R.csv --reference=REF.csv --out=score.json

`R.csv` has `uid` and text columns; `REF.csv` has `uid` and one column per finding with 1, 0, -1 (uncertain: left out)
or empty (missing: left out). `--extractor=openai` (or genai, gemini) asks a language model: `--llm.model`,
`--llm.base_url`, `--max_cost`, `--dry_run`, ...; with `--task=labels --label_set=ct_rate18` it labels instead of
extracting, with `--probability` in percent. Without probabilities an AUC is computed over four grades (denied, not
mentioned, uncertain, present). Read the numbers with care: to a reference that codes only what a reader chose to code,
a finding that the report mentions but the coder skipped is a false alarm, and macro means hide rare findings (see n).
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep import agreement, score_llm, scoring
from data_prep.extract import sections
from data_prep.extract.extractors import LLM_EXTRACTORS, NAMES, open_extractor
from data_prep.extract.schema import Extraction
from lgdea_jax import cli
from lgdea_jax.cli import UserError
from lgdea_jax.findings.label_sets import LABEL_SETS, labels_from_evidence
from lgdea_jax.findings.vocabulary import BY_NAME, canonical, find
from lgdea_jax.records import MISSING, NEGATIVE, POSITIVE, UNCERTAIN

# Findings that reports deny all the time, with the word that shows they speak of it.
NEGATED_WORDS = {"Pleural Effusion": "effusion", "Pneumothorax": "pneumothora", "Consolidation": "consolidat"}
_GRADE = {POSITIVE: scoring.PRESENT, NEGATIVE: scoring.ABSENT, UNCERTAIN: scoring.UNCERTAIN,
          MISSING: scoring.UNMENTIONED}
_VALUES = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1, "": MISSING}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise UserError(message)


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="data_prep.score", description="Scores an evidence extractor against a reference.",
                     allow_abbrev=False)
    parser.add_argument("--extractor", default="rules", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("--reports", required=True, help="CSV with uid and text columns")
    parser.add_argument("--reference", required=True, help="CSV with uid and a 0/1 column per finding")
    parser.add_argument("--out", required=True, help="score.json")
    parser.add_argument("--label_set", default="reference", help=f"reference, or one of {', '.join(LABEL_SETS)}")
    parser.add_argument("--columns", default="findings,impression", help="text columns of the reports")
    parser.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE",
                        help="only rows of the reference (or of the reports) with this value; may be repeated")
    parser.add_argument("--uncertain", default="positive", choices=("positive", "negative", "drop"))
    parser.add_argument("--mapping", help="JSON {finding: column} or CSV finding,column")
    parser.add_argument("--attributes", help="CSV with uid, findings, laterality, location (';' between several)")
    parser.add_argument("--assertions",
                        help="CSV with sentence, concept and Negated/Affirmed in `negation` or `assertion`")
    parser.add_argument("--leave_out", metavar="COLUMN", help="reference column that names the findings (';' between "
                        "several) not to be scored in that row, for instance because de-identification masked the word")
    parser.add_argument("--fold", metavar="I/K", help="only rows whose SHA-256 of the uid, modulo K, is I (0-based)")
    parser.add_argument("--min_positives", type=int, default=20, help="findings with fewer stay out of the macro mean")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples")
    parser.add_argument("--seed", type=int, default=0)
    score_llm.add_flags(parser)
    agreement.add_flags(parser)
    args = parser.parse_args(list(argv))
    cli.choose("extractor", args.extractor, NAMES)
    score_llm.check_flags(args)
    return args


@dataclasses.dataclass(frozen=True)
class _Row:
    number: int  # Of the file, the heading being 1 (as an editor counts, when no cell spans lines).
    cells: Mapping[str, str]


def _read(path: str, needed: Iterable[str], rejected: list[dict]) -> tuple[list[_Row], list[str]]:
    """Rows and column names of a CSV; rows with too many or too few cells are rejected and listed."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            columns = next(reader, [])
            rows = []
            for number, cells in enumerate(reader, 2):
                if len(cells) != len(columns):
                    if cells:
                        rejected.append({"file": Path(path).name, "row": number,
                                         "reason": f"{len(cells)} cells, {len(columns)} columns"})
                    continue
                rows.append(_Row(number, dict(zip(columns, cells))))
    except FileNotFoundError:
        raise UserError(f"no file {path!r}") from None
    except (UnicodeDecodeError, csv.Error, IsADirectoryError, PermissionError) as error:
        raise UserError(f"{path}: not readable as CSV in UTF-8 ({type(error).__name__})") from None
    for name in needed:
        if name not in columns:
            raise UserError(f"{path}: no column {name!r}{cli.nearest(name, columns)}; it has {', '.join(columns[:40])}")
    return rows, columns


def _by_uid(rows: Sequence[_Row], path: str, rejected: list[dict]) -> dict[str, _Row]:
    table: dict[str, _Row] = {}
    for row in rows:
        uid = row.cells["uid"].strip()
        if not uid:
            rejected.append({"file": Path(path).name, "row": row.number, "reason": "no uid"})
        elif uid in table:
            raise UserError(f"{path}: duplicate uid in rows {table[uid].number} and {row.number}")
        else:
            table[uid] = row
    return table


def _fold(text: str | None) -> Callable[[str], bool]:
    if text is None:
        return lambda uid: True
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not int(match[1]) < int(match[2]):
        raise UserError(f"--fold={text}: it is I/K with I < K, for example 0/2")
    index, k = int(match[1]), int(match[2])
    return lambda uid: int(hashlib.sha256(uid.encode()).hexdigest()[:8], 16) % k == index


def _where(filters: Sequence[str], *columns: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for text in filters:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--where={text}: it is COLUMN=VALUE")
        if not any(name in known for known in columns):
            raise UserError(f"--where: no column {name!r}{cli.nearest(name, [c for known in columns for c in known])}")
        pairs.append((name, value))
    return pairs


def _mapping(args: argparse.Namespace, columns: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Finding -> column of the reference, in the label set's order, and the columns that are ignored."""
    if args.mapping:
        wanted = {canonical(name): column for name, column in _read_mapping(args.mapping).items()}
        for column in wanted.values():
            if column not in columns:
                raise UserError(f"{args.mapping}: the reference has no column {column!r}{cli.nearest(column, columns)}")
    else:
        wanted = {}
        for column in columns:
            name = find(column)
            if name is not None:
                if name in wanted:
                    raise UserError(f"columns {wanted[name]!r} and {column!r} both mean {name!r}: choose one with "
                                    "--mapping")
                wanted[name] = column
    if args.label_set != "reference":
        names = LABEL_SETS[cli.choose("label set", args.label_set, [*LABEL_SETS, "reference"])]
        wanted = {name: wanted[name] for name in names if name in wanted}
    if not wanted:
        raise UserError("no column of the reference is a finding of ours: name them with --mapping")
    return wanted, [column for column in columns if column not in wanted.values() and column != "uid"]


def _read_mapping(path: str) -> dict[str, str]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"no readable file {path!r}") from None
    if text.lstrip().startswith("{"):
        try:
            table = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: not JSON (line {error.lineno})") from None
        if not all(isinstance(value, str) for value in table.values()):
            raise UserError(f"{path}: every finding names one column, as text")
        return table
    rows, _ = _read(path, ("finding", "column"), [])
    return {row.cells["finding"]: row.cells["column"] for row in rows}


def _text(cells: Mapping[str, str], columns: Sequence[str]) -> str:
    """The text columns as one report, under their headings where the column is named after a section."""
    parts = [f"{name.upper()}:\n{cells[name]}" if sections.heading_name(name) else cells[name]
             for name in columns if cells[name].strip()]
    return "\n\n".join(parts)


def _truth(reference: Sequence[_Row], mapping: Mapping[str, str], args: argparse.Namespace,
           rejected: list[dict]) -> tuple[np.ndarray, list[int]]:
    """Reference values int8 [n, findings] and the indices of the rows that could be read."""
    truth, kept = [], []
    for i, row in enumerate(reference):
        values = [_VALUES.get(row.cells[column].strip()) for column in mapping.values()]
        if None in values:
            column = list(mapping.values())[values.index(None)]
            rejected.append({"file": Path(args.reference).name, "row": row.number,
                             "reason": f"column {column!r} is not 1, 0, -1 or empty"})
            continue
        if args.leave_out:
            hidden = {find(name) for name in row.cells[args.leave_out].split(";") if name.strip()}
            values = [MISSING if name in hidden else value for name, value in zip(mapping, values)]
        truth.append(values)
        kept.append(i)
    return np.array(truth, np.int8).reshape(-1, len(mapping)), kept


def _extract(extract: Callable[[str], Extraction], texts: Sequence[str]) -> tuple[list[Extraction], float]:
    extract("")  # Loads what is loaded once, outside the clock.
    started = time.perf_counter()
    found = [extract(text) for text in tqdm(texts, unit="report", desc="extracting", file=sys.stderr, disable=None)]
    return found, len(texts) / max(time.perf_counter() - started, 1e-9)


def _findings(truth: np.ndarray, grade: np.ndarray, scores: np.ndarray | None, names: Sequence[str],
              args: argparse.Namespace) -> tuple[dict, dict]:
    weights = scoring.resample_weights(len(truth), args.resamples, args.seed)
    counts = scoring.histograms(truth, grade, weights)
    samples = scoring.measures(counts, args.uncertain)
    if scores is not None:
        samples["auc"] = scoring.auc_of_scores(truth, scores, weights)
    n, positives = np.isin(truth, (0, 1)).sum(0), (truth == 1).sum(0)
    table = {name: {"n": int(n[i]), "positives": int(positives[i]),
                    **{key: scoring.estimate(samples[key][:, i]).as_json() for key in scoring.METRICS},
                    "confusion": scoring.confusion(counts[0, i])}
             for i, name in enumerate(names)}
    chosen = positives >= args.min_positives
    macro = {"n": len(truth), "findings": int(chosen.sum()), "min_positives": args.min_positives,
             **{key: scoring.estimate(scoring.mean_over(samples[key], chosen)).as_json() for key in scoring.METRICS}}
    return table, macro


def _negated_words(texts: Sequence[str], truth: np.ndarray, grade: np.ndarray, names: Sequence[str]) -> dict:
    """Of the reference-negative reports that contain the word, the share in which the finding is not called present."""
    table = {}
    for name, word in NEGATED_WORDS.items():
        if name in names:
            i = list(names).index(name)
            rows = [r for r, text in enumerate(texts) if truth[r, i] == 0 and word in text.lower()]
            table[name] = scoring.share(int((grade[rows, i] != scoring.PRESENT).sum()), len(rows))
            table[name]["not_present_nor_uncertain"] = scoring.share(
                int((~np.isin(grade[rows, i], (scoring.PRESENT, scoring.UNCERTAIN))).sum()), len(rows))
    return table


# How references name places that ours name otherwise; None is too general to score.
_PLACES = {"ribs": "rib", "thoracic vertebrae": "thoracic spine", "lumbar vertebrae": "lumbar spine",
           "cervical vertebrae": "cervical spine", "aorta, thoracic": "aorta", "lung": None, "thorax": None,
           "interstitial": None, "pleura": None, "heart": None,
           # A frontal radiograph does not tell a zone from a lobe, and coders write the one for the other.
           "upper lung": "upper lobe", "mid lung": "middle lobe", "lingula": "middle lobe", "lower lung": "lower lobe"}
_PARTS = {"hilar lymph nodes": ("hilum", "lymph nodes"), "mediastinal lymph nodes": ("mediastinum", "lymph nodes"),
          "paratracheal lymph nodes": ("paratracheal", "lymph nodes"),
          "thoracolumbar spine": ("thoracic spine", "lumbar spine")}
_SIDES = {"left": {"left"}, "right": {"right"}, "bilateral": {"left", "right"}, "": set(), "midline": set()}


def _attributes(path: str, uids: Sequence[str], extractions: Sequence[Extraction], names: Sequence[str],
                args: argparse.Namespace, rejected: list[dict]) -> dict:
    """Recall and precision of sides and places, over the (report, finding) pairs that the reference gives one."""
    rows, _ = _read(path, ("uid", "findings", "laterality", "location"), rejected)
    known = set(uids)
    wanted: dict[str, dict[tuple[str, str], set[str]]] = {"laterality": {}, "place": {}}
    for row in rows:
        uid = row.cells["uid"].strip()
        if uid not in known:
            continue
        side = _SIDES.get(row.cells["laterality"].strip().lower())
        if side is None:
            rejected.append({"file": Path(path).name, "row": row.number, "reason": "laterality is not a side"})
            continue
        places = {_PLACES.get(place.strip().lower(), place.strip().lower())
                  for place in row.cells["location"].split(";") if place.strip()} - {None}
        for name in {find(text) for text in row.cells["findings"].split(";")} & set(names):
            for kind, values in (("laterality", side), ("place", places)):
                if values:
                    wanted[kind].setdefault((uid, name), set()).update(values)
    result = {}
    for kind, pairs in wanted.items():
        true, found, by_uid = [], [], {}
        for uid, name in pairs:
            by_uid.setdefault(uid, set()).add(name)
        for uid, extraction in zip(uids, extractions):
            mine = by_uid.get(uid, set())
            true.append({(name, value) for name in mine for value in pairs[uid, name]})
            found.append({(name, value) for name in mine for value in _said(extraction, name, kind)})
        result[kind] = scoring.retrieved(true, found, resamples=args.resamples, seed=args.seed)
    return result


def _said(extraction: Extraction, name: str, kind: str) -> set[str]:
    members = {name, *BY_NAME[name].members}
    items = [item for item in extraction.evidence if item.finding in members and item.certainty != "absent"]
    if kind == "laterality":
        return set().union(*(_SIDES[item.laterality] for item in items)) if items else set()
    places = {part for item in items for part in _PARTS.get(item.anatomy, (item.anatomy,))}
    return {_PLACES.get(place, place) for place in places} - {None, ""}


def _assertions(path: str, assertion: Callable[[str, str], str], args: argparse.Namespace,
                rejected: list[dict]) -> dict:
    """Precision, recall and F1 of "Negated"."""
    rows, columns = _read(path, ("sentence", "concept"), rejected)
    answer = next((name for name in ("negation", "assertion") if name in columns), None)
    if answer is None:
        raise UserError(f"{path}: no column 'negation' or 'assertion'")
    inside = _fold(args.fold)
    true, found, right = [], [], 0
    for row in rows:
        if row.cells[answer] not in ("Negated", "Affirmed"):
            rejected.append({"file": Path(path).name, "row": row.number,
                             "reason": f"{answer} is not Negated or Affirmed"})
        elif inside(row.cells.get("line") or str(row.number)):
            given = assertion(row.cells["sentence"], row.cells["concept"])
            right += given == row.cells[answer]
            true.append({1} if row.cells[answer] == "Negated" else set())
            found.append({1} if given == "Negated" else set())
    table = scoring.retrieved(true, found, resamples=args.resamples, seed=args.seed)
    return {"negated": table.pop("n"), **table, "accuracy": scoring.share(right, len(true)), "n": len(true)}


def _print(result: Mapping, ignored: Sequence[str]) -> None:
    if ignored:
        print(f"columns that are not scored: {', '.join(ignored)}")
    print(f"{'finding':34} {'n':>6} {'pos':>5}  " + "  ".join(f"{key:^20}" for key in scoring.METRICS))
    for name, row in [*result["findings"].items(), ("macro", {"positives": "", **result["macro"]})]:
        print(f"{name:34} {row['n']:>6} {row['positives']:>5}  "
              + "  ".join(_cell(row[key]) for key in scoring.METRICS))
    for key in ("negated_word_specificity", "attributes"):
        for name, row in result[key].items():
            print(f"{key} {name}: " + (f"{_cell(row)} n {row['n']}" if "value" in row else "  ".join(
                f"{metric} {_cell(row[metric])}" for metric in ("recall", "precision", "f1")) + f" n {row['n']}"))
    if result["assertions"]:
        print("assertions (Negated): " + "  ".join(
            f"{metric} {_cell(result['assertions'][metric])}" for metric in ("recall", "precision", "f1")))
    print(f"{result['reports_per_second']:.0f} reports/s, extractor {result['extractor']}")


def _cell(item: Mapping[str, float | None]) -> str:
    if item["value"] is None:
        return f"{'-':^20}"
    bounds = "[   -  ,   -  ]" if item["low"] is None else f"[{item['low']:.3f}, {item['high']:.3f}]"
    return f"{item['value']:.3f} {bounds}"


def main(argv: list[str]) -> int:
    """Runs the command; returns 0, or 3 when rows were rejected."""
    args = _arguments(argv)
    if args.resamples < 1 or args.min_positives < 1:
        raise UserError("--resamples and --min_positives are at least 1")
    asks = args.extractor in LLM_EXTRACTORS
    extractor = None if asks else open_extractor(args.extractor)
    rejected: list[dict] = []
    columns = [name for name in args.columns.split(",") if name]
    report_rows, report_columns = _read(args.reports, ("uid", *columns), rejected)
    reference_rows, reference_columns = _read(
        args.reference, ("uid", *([args.leave_out] if args.leave_out else ())), rejected)
    mapping, ignored = _mapping(args, reference_columns)
    filters, inside = _where(args.where, reference_columns, report_columns), _fold(args.fold)
    reports = _by_uid(report_rows, args.reports, rejected)
    chosen, unmatched = [], 0
    for uid, row in _by_uid(reference_rows, args.reference, rejected).items():
        cells = {**(reports[uid].cells if uid in reports else {}), **row.cells}
        if inside(uid) and all(cells.get(name) == value for name, value in filters):
            if uid in reports:
                chosen.append((uid, row))
            else:
                unmatched += 1
    truth, kept = _truth([row for _, row in chosen], mapping, args, rejected)
    uids = [chosen[i][0] for i in kept]
    if not uids:
        raise UserError("no report is left to score: the uids of the two tables, --where and --fold leave none")
    texts = [_text(reports[uid].cells, columns) for uid in uids]
    names = list(mapping)
    scores, cost = None, None
    if asks:
        answers = score_llm.ask(args, texts)
        if answers is None:
            print("dry run: nothing was sent")
            return cli.OK
        name, speed, cost = answers.name, answers.speed, answers.cost
        rejected += [{"file": Path(args.reports).name, "row": reports[uids[i]].number, "reason": reason}
                     for i, reason in answers.reasons.items()]
        usable = [i for i in range(len(uids)) if i not in answers.reasons]
        if not usable:
            raise UserError("no reply of the model can be used: the reasons are in the reply cache")
        truth, uids, texts = truth[usable], [uids[i] for i in usable], [texts[i] for i in usable]
        extractions = [answers.values[i] for i in usable]
    else:
        name = extractor.name
        extractions, speed = _extract(extractor.extract, texts)
    if asks and args.task == "labels":
        labels = score_llm.label_values(extractions, names, args.label_set)
        if args.probability:
            scores = score_llm.probabilities(extractions, names, args.label_set)
    else:
        labels = np.stack([labels_from_evidence(e.evidence, e.normal, names) for e in extractions])
    grade = np.vectorize(_GRADE.get, otypes=[np.int8])(labels)
    findings, macro = _findings(truth, grade, scores, names, args)
    result = {
        "extractor": name, "findings": findings, "macro": macro,
        "auc_from": "grades" if scores is None else "probabilities",
        "negated_word_specificity": _negated_words(texts, truth, grade, names),
        "attributes": _attributes(args.attributes, uids, extractions, names, args, rejected) if args.attributes else {},
        "assertions": _assertions(args.assertions, extractor.assertion, args, rejected) if args.assertions else {},
        "reports_per_second": round(speed, 1), "cost": cost,
        "agreement": agreement.compare(args, texts, grade, names), "uncertain": args.uncertain, "fold": args.fold,
        "where": args.where, "ignored_columns": ignored, "without_report": unmatched, "rejected": rejected,
        "command": ["data_prep.score", *argv], "seed": args.seed,
    }
    out = Path(args.out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    except (NotADirectoryError, IsADirectoryError, FileExistsError, PermissionError) as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None
    _print(result, ignored)
    for line in agreement.lines(result["agreement"]):
        print(line)
    for item in rejected[:20]:
        print(f"rejected: {item['file']} row {item['row']}: {item['reason']}", file=sys.stderr)
    if unmatched:
        print(f"{unmatched} rows of the reference have no report", file=sys.stderr)
    return cli.PARTIAL if rejected else cli.OK


if __name__ == "__main__":
    cli.run(main)
