"""The command data_prep.agreement: on a data set and on a table, against counts by hand."""

import csv
import json

import pytest

from data_prep import agreement, build
from lgdea_jax import cli
from lgdea_jax.errors import UserError
from tests.data_prep.extract.llm.server import KEY, Server, make_report
from tests.data_prep.shards import tables


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """(folder of a data set that a model extracted from 8 reports, one of them in German; its reply cache)."""
    folder = tmp_path_factory.mktemp("stored")
    rows = [tables.row(f"s{i}", report=make_report(i), language="de" if i == 3 else "en") for i in range(8)]
    path = tables.write(folder / "t", rows)
    with pytest.MonkeyPatch.context() as patch, Server() as server:
        patch.setenv("OPENAI_API_KEY", KEY)
        real = server.text
        # This model calls absent findings of the first report uncertain.
        server.text = lambda prompt, report, fault: real(prompt, report, fault).replace(
            '"absent"', '"uncertain"' if report == make_report(0) else '"absent"')
        build.main(["--config=configs/data/table.py", f"--config.table.path={path}", "--config.extractor=openai",
                    "--config.llm.model=m", f"--config.llm.base_url={server.base_url('openai')}", "--config.workers=1",
                    f"--out={folder / 'data'}"])
    return folder / "data", folder / "data.replies.sqlite"


def test_a_data_sets_evidence_against_the_rules(stored, tmp_path, capsys):
    out = tmp_path / "agreement.json"
    assert agreement.main([f"--data_dir={stored[0]}", "--resamples=50", f"--out={out}"]) == cli.OK
    result = json.loads(out.read_text())
    assert (result["first"], result["second"]) == ("openai:m/evidence@2", "rules@4")
    assert (result["n"], result["left_out"]) == (7, 1)  # The rules read English only.
    row = result["findings"]["Pneumothorax"]  # Present in reports 1, 5 and 7; report 0 is uncertain to the model only.
    assert [row[key] for key in ("n", "both", "first", "second", "neither")] == [7, 3, 1, 0, 3]
    observed, expected = 6 / 7, (4 * 3 + 3 * 4) / 49
    assert row["kappa"]["value"] == pytest.approx((observed - expected) / (1 - expected), abs=1e-5)
    shown = capsys.readouterr().out
    assert "openai:m/evidence@2 (first) and rules@4 (second) on 7 reports, 1 left out" in shown
    line = next(line for line in shown.splitlines() if line.startswith("Pneumothorax "))
    assert line.split()[1:6] == ["7", "3", "1", "0", "3"]


def test_two_extractors_on_a_table(stored, tmp_path):
    with open(tmp_path / "r.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("uid", "text"), *((i, make_report(i)) for i in range(9)), ("1", "2", "3")])
    status = agreement.main([
        f"--reports={tmp_path / 'r.csv'}", "--columns=text", "--first=rules", "--second=openai:m/evidence@2",
        f"--second_replies={stored[1]}", "--resamples=10", f"--out={tmp_path / 'a.json'}"])
    assert status == cli.PARTIAL  # A row has too many cells.
    result = json.loads((tmp_path / "a.json").read_text())
    assert (result["n"], result["left_out"], len(result["rejected"])) == (8, 1, 1)  # Report 8 was never asked about.
    row = result["findings"]["Pneumothorax"]
    assert [row[key] for key in ("both", "first", "second", "neither")] == [4, 0, 1, 3]


def test_the_limit_and_the_seed(stored, tmp_path):
    def run(*more):
        agreement.main([f"--data_dir={stored[0]}", "--resamples=20", f"--out={tmp_path / 'a.json'}", *more])
        return json.loads((tmp_path / "a.json").read_text())

    assert run("--limit=2")["n"] == 2
    first, again, other = (run(f"--seed={seed}")["findings"] for seed in (0, 0, 1))
    assert first == again and first != other


@pytest.mark.parametrize("arguments, message", [
    ([], "either --data_dir=DATA or --reports=R.csv"), (["--reports=r.csv"], "no recorded evidence"),
    (["--data_dir={data}", "--second=rule"], "did you mean 'rules'"),
    (["--data_dir={data}", "--split=dev"], "unknown split"),
    (["--data_dir={data}", "--second=openai:m/evidence@2"], "no reply cache"),
    (["--data_dir={data}", "--resamples=0"], "at least 1"), (["--data_dir={data}", "--limits=3"], "'--limit'"),
    (["--data_dir={data}", "--out={data}"], "cannot write"),
])
def test_wrong_use(stored, arguments, message):
    with pytest.raises(UserError, match=message):
        agreement.main([argument.format(data=stored[0]) for argument in arguments])


def test_a_data_set_without_an_extractor(tmp_path):
    path = tables.write(tmp_path / "t", tables.good(tmp_path / "t"))
    build.main(["--config=configs/data/table.py", f"--config.table.path={path}", "--config.extractor=none",
                "--config.workers=1", f"--out={tmp_path / 'data'}"])
    with pytest.raises(UserError, match="without an extractor"):
        agreement.main([f"--data_dir={tmp_path / 'data'}"])
