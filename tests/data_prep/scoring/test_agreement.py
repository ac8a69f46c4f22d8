"""Agreement of two extractors against scikit-learn and counts by hand."""

import csv
import json

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from data_prep import score
from data_prep.extract.extractors import reads
from data_prep.scoring import agreement, measures
from tests.data_prep.extract.conftest import clean_environment  # noqa: F401 (a fixture for every test here)
from tests.data_prep.extract.llm.server import FINDINGS, Server, make_report


def test_kappa_is_scikit_learns():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 5, (60, 3)).astype(np.int8)
    second = np.where(rng.random((60, 3)) < 0.6, first, rng.integers(0, 5, (60, 3))).astype(np.int8)
    found = agreement.agreement(first, second, ("a", "b", "c"), resamples=20, seed=1)
    weights = measures.resample_weights(60, 20, 1)
    for i, name in enumerate("abc"):
        one, two = (levels[:, i] >= measures.POSSIBLE for levels in (first, second))
        row = found[name]
        assert [row[key] for key in ("n", "both", "first", "second", "neither")] == [
            60, (one & two).sum(), (one & ~two).sum(), (~one & two).sum(), (~one & ~two).sum()]
        for key, a, b in (("kappa", one, two), ("kappa_certainty", first[:, i], second[:, i])):
            again = [cohen_kappa_score(a, b, sample_weight=weight) for weight in weights]
            assert row[key]["value"] == pytest.approx(again[0], abs=1e-5)
            assert [row[key]["low"], row[key]["high"]] == pytest.approx(np.percentile(again[1:], [2.5, 97.5]), abs=1e-5)
        for j, a in enumerate(measures.LEVEL_NAMES):
            for k, b in enumerate(measures.LEVEL_NAMES):
                assert row["certainty"][a][b] == ((first[:, i] == j) & (second[:, i] == k)).sum()


def test_kappa_is_null_where_chance_explains_everything_and_silence_is_left_out():
    levels = np.array([[4, 1], [4, 0]], np.int8)
    found = agreement.agreement(levels, levels, ("a", "b"), resamples=5, seed=0)
    assert list(found) == ["a"] and found["a"]["kappa"]["value"] is None
    assert found["a"]["kappa_certainty"]["value"] is None


def write(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def run(folder, *more):
    score.main([f"--reports={folder / 'r.csv'}", f"--reference={folder / 'ref.csv'}", "--columns=text",
                f"--out={folder / 'score.json'}", "--resamples=20", "--min_positives=1", *more])
    return json.loads((folder / "score.json").read_text())


def test_score_compares_a_model_with_the_rules_and_with_another_model(tmp_path, capsys):
    reports = [make_report(i) for i in range(40)]
    write(tmp_path / "r.csv", ("uid", "text"), enumerate(reports))
    write(tmp_path / "ref.csv", ("uid", *FINDINGS), [(i, *[0] * 6) for i in range(40)])
    # A model that calls what is not seen uncertain, for the first ten reports.
    with Server() as server:
        real = server.text
        server.text = lambda prompt, report, fault: real(prompt, report, fault).replace(
            '"absent"', '"uncertain"' if reports.index(report) < 10 else '"absent"')
        asked = ("--extractor=openai", "--llm.model=m", f"--llm.base_url={server.base_url('openai')}",
                 f"--llm.cache={tmp_path / 'c.sqlite'}")
        result = run(tmp_path, *asked, "--second=rules")["agreement"]
        assert result["second"] == "rules@4" and (result["n"], result["without_reply"]) == (40, 0)
        row = result["findings"]["Pneumothorax"]  # Present in the odd ones.
        assert (row["both"], row["first"], row["second"], row["neither"]) == (20, 5, 0, 15)
        table = row["certainty"]
        assert table["likely"]["absent"] + table["possible"]["absent"] == 5 and table["present"]["present"] == 20
        # The expected share is (25 x 20 + 15 x 20) / 1600, the observed one 35 / 40.
        assert row["kappa"]["value"] == pytest.approx((35 / 40 - 0.5) / 0.5) and row["kappa"]["low"] < 0.75
        assert "agreement with rules@4 Pneumothorax: kappa 0.750, both 20" in capsys.readouterr().out
        calls = sum(server.calls.values())
        again = run(tmp_path, "--extractor=rules", "--second=openai:m/evidence@2",
                    f"--second_replies={tmp_path / 'c.sqlite'}")["agreement"]
        assert sum(server.calls.values()) == calls == 40
    row = again["findings"]["Pneumothorax"]
    assert (row["both"], row["first"], row["second"], row["neither"]) == (20, 0, 5, 15)
    assert run(tmp_path, "--extractor=rules")["agreement"] == {}


@pytest.mark.parametrize("language, read", [("en", True), ("EN", True), ("en-US", True), ("en_GB", True), ("", True),
                                            ("de", False), ("eng", False), ("fr-CA", False)])
def test_languages(language, read):
    assert reads("rules", language) == read and reads("openai", language)
