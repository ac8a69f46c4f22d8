"""Scoring extractors that ask a language model, against a local server."""

import csv
import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from data_prep import score
from data_prep.extract.llm.clients.client import NO_KEY
from data_prep.scoring import measures
from lgdea_jax.errors import UserError
from tests.data_prep.extract.conftest import clean_environment  # noqa: F401 (a fixture for every test here)
from tests.data_prep.extract.llm.server import FINDINGS, Server, make_report, truth


def write(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def files(tmp_path):
    """40 reports; the reference is what they say, but for every tenth Edema."""
    reports = [make_report(i) for i in range(40)]
    write(tmp_path / "r.csv", ("uid", "text"), enumerate(reports))
    rows = []
    for i, report in enumerate(reports):
        said = {name: int(certainty == "present") for name, certainty, _ in truth(report)}
        said["Edema"] ^= i % 10 == 0
        rows.append((i, *(said[name] for name in FINDINGS)))
    write(tmp_path / "ref.csv", ("uid", *FINDINGS), rows)
    return tmp_path


def run(files, server, *more):
    status = score.main([f"--reports={files / 'r.csv'}", f"--reference={files / 'ref.csv'}", "--columns=text",
                         f"--out={files / 'score.json'}", "--extractor=openai", "--llm.model=m", "--resamples=20",
                         "--min_positives=1", f"--llm.base_url={server.base_url('openai')}", *more])
    path = files / "score.json"
    return status, json.loads(path.read_text()) if path.exists() else None


def test_evidence(files):
    bad = make_report(7)
    with Server(lambda report, nth: "garbage" if report == bad else None) as server:
        status, result = run(files, server)
        assert status == 3 and len(server.calls) == 40
    assert result["extractor"] == "openai:m/evidence@2" and result["auc_from"] == "levels"
    assert [(item["row"], item["reason"]) for item in result["rejected"]] == [
        (9, "quarantined reply of the extractor: no JSON in the reply")]
    assert result["findings"]["Pneumothorax"]["f1"]["value"] == 1.0 and result["macro"]["n"] == 39
    edema = result["findings"]["Edema"]["confusion"]
    wrong = edema["negative"]["present"] + edema["positive"]["absent"]
    assert wrong == 4 and sum(map(sum, (edema[key].values() for key in edema))) == 39
    assert result["cost"]["total"]["calls"] == 41 and result["cost"]["valid"] == 39


@pytest.mark.parametrize("label_set", ["chexpert14", "ct_rate18"])
@pytest.mark.parametrize("probability", [False, True])
def test_labels(files, label_set, probability):
    with Server() as server:
        status, result = run(files, server, "--task=labels", f"--label_set={label_set}",
                             *(["--probability"] if probability else []))
    assert status == 0
    assert result["auc_from"] == ("probabilities" if probability else "levels")
    assert result["extractor"] == f"openai:m/{label_set}{'_probability' if probability else ''}@2"
    assert result["findings"]["Pleural Effusion"]["auc"]["value"] == 1.0
    assert result["findings"]["Atelectasis"]["sensitivity"]["value"] == 1.0


@pytest.mark.parametrize("task", [(), ("--task=labels", "--label_set=chexpert14")])
def test_the_rules_stand_beside(files, capsys, task):
    (files / "prices.json").write_text(json.dumps({"currency": "EUR", "models": {"m": {"input": 10, "output": 20}}}))
    with Server() as server:
        _, result = run(files, server, f"--llm.prices={files / 'prices.json'}", *task)
        _, again = run(files, server, f"--llm.prices={files / 'prices.json'}", *task)
    assert score.main([f"--reports={files / 'r.csv'}", f"--reference={files / 'ref.csv'}", "--columns=text",
                       f"--out={files / 'rules.json'}", "--resamples=20", "--min_positives=1", *task[1:]]) == 0
    alone = json.loads((files / "rules.json").read_text())
    [beside] = result["beside"]
    assert (beside["extractor"], beside["cost"]) == (alone["extractor"], 0.0) and beside["seconds"] > 0
    assert (beside["findings"], beside["macro"]) == (alone["findings"], alone["macro"])
    spent = result["cost"]["total"]
    assert spent["cost"] == pytest.approx((10 * spent["tokens_in"] + 20 * spent["tokens_out"]) / 1e6)
    # Of the second run, which asks nothing, no time is stated; the costs of the first stay.
    assert result["cost"]["seconds"] > 0 == again["cost"]["seconds"] and again["cost"]["total"] == spent
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    model = next(line for line in lines if line[:2] == [result["extractor"], "40"])
    rules = next(line for line in lines if line[:2] == [beside["extractor"], "40"])
    for line, row, cost in ((model, result, spent["cost"]), (rules, beside, 0)):
        auc, f1 = (f"{row['macro'][key]['value']:.3f}" for key in ("auc", "f1"))
        assert auc in line and f1 in line and f"{cost:.4f}" in line


def test_dry_run(files, capsys):
    with Server() as server:
        status, result = run(files, server, "--dry_run")
        assert (status, result, len(server.calls)) == (0, None, 0)
    assert "to ask 40" in capsys.readouterr().out and sorted(p.name for p in files.iterdir()) == ["r.csv", "ref.csv"]


@pytest.mark.parametrize("flags, message", [
    (["--extractor=rules", "--dry_run"], "are for gemini"),
    (["--probability"], "goes with --task=labels"),
    (["--task=labels"], "label set"),
    (["--llm.base_url="], "state --terms"),
    (["--llm.base_url=", "--terms=credentialed"], "attest_data_use"),
    (["--llm.base_url=http://me:secret@localhost/v1"], "must not hold"),
    (["--llm.concurrency=0"], "llm.concurrency must be"),
    (["--llm.max_cost=1", "--llm.base_url=", "--terms=open"], "needs the price of 'm'"),
    (["--assertions=x.csv"], "does not answer"),
])
def test_wrong_use(files, flags, message):
    with Server() as server:
        with pytest.raises(UserError, match=message):
            run(files, server, *flags)
        assert not server.calls


@pytest.fixture
def proxy(monkeypatch):
    """A server that gets whatever is sent to REMOTE; it takes no key, since none goes there over plain http."""
    with Server(key=NO_KEY) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, server.url)
        yield server


REMOTE = "--llm.base_url=http://192.0.2.1/v1"  # Of the addresses for documentation (RFC 5737): nobody's.


def with_terms(path, terms):
    """Adds a column `terms` to a table, "" in most rows; `terms` is row -> cell."""
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    write(path, [*header, "terms"], [[*row, terms.get(i, "")] for i, row in enumerate(rows)])


def test_what_is_open_is_sent_to_a_remote_endpoint(files, proxy):
    with_terms(files / "r.csv", {3: "own", 5: "open", 6: "free"})
    status, result = run(files, proxy, REMOTE, "--terms=open")
    assert status == 3 and len(proxy.calls) == 39 and make_report(6) not in proxy.calls
    assert result["extraction"]["terms"] == ["open", "own"] and not result["extraction"]["endpoint"]["local"]
    assert result["extraction"]["settings"]["attest_data_use"] == ""
    assert [(item["row"], item["reason"]) for item in result["rejected"]] == [
        (8, "terms are not one of open, credentialed, own, unstated")]


SAID = "The data protection board of the hospital permits it."


def test_an_attestation_is_the_only_way_and_is_recorded(files, proxy):
    with_terms(files / "r.csv", {3: "credentialed"})
    with pytest.raises(UserError, match="credentialed terms"):
        run(files, proxy, REMOTE, "--terms=open")
    assert not proxy.headers
    status, result = run(files, proxy, REMOTE, "--terms=open", f"--attest_data_use={SAID}")
    assert status == 0 and make_report(3) in proxy.calls
    assert result["extraction"]["settings"]["attest_data_use"] == SAID
    assert result["extraction"]["terms"] == ["credentialed", "open"]


@pytest.mark.parametrize("table", ["r.csv", "ref.csv"])
@pytest.mark.parametrize("flag", ["open", "own", "unstated"])
def test_no_flag_makes_the_terms_of_a_row_less_strict(files, proxy, table, flag):
    for name in ("r.csv", "ref.csv"):
        with_terms(files / name, dict.fromkeys(range(40), "open") | ({17: "credentialed"} if name == table else {}))
    with pytest.raises(UserError, match="credentialed terms") as error:
        run(files, proxy, REMOTE, f"--terms={flag}")
    assert not proxy.calls and not proxy.headers and "--terms" not in str(error.value)


@pytest.mark.parametrize("source, row, flag, sent", [
    ("unstated", "open", "unstated", 2), ("open", "", "own", 2), ("unstated", "", "open", 2),
    ("credentialed", "open", "open", 0), ("open", "credentialed", "open", 0), ("open", "open", "credentialed", 0),
    ("unstated", "", "unstated", 0)])
def test_the_strictest_of_source_row_and_flag_counts(tmp_path, proxy, source, row, flag, sent):
    """Of a table that has `row` in the second row of a study of two images; the first says open."""
    folder = tmp_path / "t"
    folder.mkdir()
    write(folder / "studies.csv", ("study_id", "subject_id", "split", "image", "report", "terms", "label:Edema"), [
        ("s1", "p1", "test", "a.png", make_report(1), "open" if row else "", 1),
        ("s1", "p1", "test", "b.png", "", row, ""), ("s2", "p2", "test", "c.png", make_report(2), row, 0)])
    arguments = ["--config=configs/data/table.py", f"--config.table.path={folder}", f"--config.table.terms={source}",
                 "--extractor=openai", "--llm.model=m", REMOTE, f"--terms={flag}", f"--out={tmp_path / 'score.json'}",
                 "--resamples=2"]
    if sent:
        assert score.main(arguments) == 0 and len(proxy.calls) == sent
        return
    with pytest.raises(UserError, match=r"terms of these|credentialed terms"):
        score.main(arguments)
    assert not proxy.calls and not proxy.headers


def test_a_source_with_references_of_its_own_states_its_terms(tmp_path, proxy):
    config = ["--config=configs/data/phantom.py", "--config.phantom.test=2", "--split=test"]
    arguments = [*config, "--extractor=openai", "--llm.model=m", REMOTE, f"--out={tmp_path / 'score.json'}",
                 "--resamples=2"]
    with pytest.raises(UserError, match="credentialed terms"):
        score.main([*arguments, "--terms=credentialed"])
    assert not proxy.headers
    assert score.main(arguments) == 0 and proxy.calls


def test_auc_of_scores_is_scikit_learns():
    rng = np.random.default_rng(0)
    truth_ = rng.integers(-1, 2, (60, 3)).astype(np.int8)
    scores = rng.integers(0, 6, (60, 3)) / 5
    weights = measures.resample_weights(60, 3, seed=1)
    found = measures.auc_of_scores(truth_, scores, weights)
    for b in range(4):
        for i in range(3):
            kept = truth_[:, i] >= 0
            want = roc_auc_score(truth_[kept, i], scores[kept, i], sample_weight=weights[b, kept])
            assert found[b, i] == pytest.approx(want, abs=1e-9)
