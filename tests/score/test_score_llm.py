"""Scoring extractors that ask a language model, against a local server."""

import csv
import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from data_prep import score, scoring
from lgdea_jax.cli import UserError
from tests.extract.conftest import clean_environment  # noqa: F401 (a fixture for every test here)
from tests.extract.server import FINDINGS, Server, make_report, truth


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
    assert result["extractor"] == "openai:m/evidence@1" and result["auc_from"] == "grades"
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
    assert result["auc_from"] == ("probabilities" if probability else "grades")
    assert result["extractor"] == f"openai:m/{label_set}{'_probability' if probability else ''}@1"
    assert result["findings"]["Pleural Effusion"]["auc"]["value"] == 1.0
    assert result["findings"]["Atelectasis"]["sensitivity"]["value"] == 1.0


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


def test_auc_of_scores_is_scikit_learns():
    rng = np.random.default_rng(0)
    truth_ = rng.integers(-1, 2, (60, 3)).astype(np.int8)
    scores = rng.integers(0, 6, (60, 3)) / 5
    weights = scoring.resample_weights(60, 3, seed=1)
    found = scoring.auc_of_scores(truth_, scores, weights)
    for b in range(4):
        for i in range(3):
            kept = truth_[:, i] >= 0
            want = roc_auc_score(truth_[kept, i], scores[kept, i], sample_weight=weights[b, kept])
            assert found[b, i] == pytest.approx(want, abs=1e-9)
