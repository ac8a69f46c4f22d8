"""Builds whose evidence comes from a language model, against the local server."""

import json
import subprocess
import sys

import pytest

from data_prep.build import build, main
from data_prep.extract.llm.data_use import Route
from lgdea_jax.cli import load_config
from lgdea_jax.data.dataset import load_metadata
from lgdea_jax.data.source import open_records
from lgdea_jax.errors import UserError
from tests.data_prep.extract.llm.server import KEY, Server, make_report, truth
from tests.data_prep.shards import run, tables


def write_table(folder, n, terms="", quarantined=None):
    rows = [tables.row(f"s{i}", report=make_report(i // 2 if i < 10 else i), **({"terms": terms} if terms else {}))
            for i in range(n)]
    return tables.write(folder, rows)


def arguments(path, server, *more):
    return ["--config=configs/data/table.py", f"--config.table.path={path}", "--config.extractor=openai",
            "--config.llm.model=m", f"--config.llm.base_url={server.base_url('openai')}", "--config.workers=1", *more]


def test_records_hold_what_the_model_found(tmp_path):
    path = write_table(tmp_path / "t", 30)
    with Server() as server:
        assert main([*arguments(path, server), f"--out={tmp_path / 'data'}"]) == 0
        assert len(server.calls) == sum(server.calls.values()) == 25  # Of 30 reports, 10 are 5 pairs of equal ones.
    records = list(open_records(tmp_path / "data", "train"))
    assert len(records) == 30
    for record in records:
        assert [(e.finding, e.certainty, e.phrase) for e in record.evidence] == sorted(
            truth(record.report), key=lambda item: record.report.index(item[2].rstrip(".")))
        assert record.extractor == "openai:m/evidence@2"
    metadata = load_metadata(tmp_path / "data")
    assert metadata.extractor == "openai:m/evidence@2" and metadata.config["llm"]["model"] == "m"
    assert KEY not in metadata.to_json()


def test_quarantined_reports_are_rejected_and_counted(tmp_path):
    path = write_table(tmp_path / "t", 30)
    bad = make_report(17)
    with Server(lambda report, nth: "garbage" if report == bad else None) as server:
        assert main([*arguments(path, server), f"--out={tmp_path / 'data'}"]) == 3
        assert server.calls[bad] == 2  # Asked again once.
    assert len(list(open_records(tmp_path / "data", "train"))) == 29
    lines = (tmp_path / "data" / "rejected.csv").read_text().splitlines()
    assert lines[1:] == ["s17,,19,quarantined reply of the extractor: no JSON in the reply"]


def test_workers_read_from_the_cache_and_a_second_build_asks_nothing(tmp_path):
    path = write_table(tmp_path / "t", 30)
    with Server() as server:
        more = ("--config.shard_studies=10", f"--config.llm.cache={tmp_path / 'c.sqlite'}")
        assert main([*arguments(path, server, *more), f"--out={tmp_path / 'a'}"]) == 0
        calls = sum(server.calls.values())
        config, _ = load_config([*arguments(path, server, *more), "--config.workers=2"])
        build(config, tmp_path / "b", progress=False)
        assert sum(server.calls.values()) == calls
    for name in ("table-train.array_record-00001-of-00003", "index_train.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_dry_run_sends_and_writes_nothing(tmp_path, capsys):
    path = write_table(tmp_path / "t", 30)
    with Server() as server:
        assert main([*arguments(path, server), f"--out={tmp_path / 'data'}", "--dry_run"]) == 0
        assert not server.calls
    out = capsys.readouterr().out
    assert "reports 30, different 25 (5 duplicates)" in out and "to ask 25" in out and "error about" in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t"]


REMOTE = "https://llm.example.invalid/v1"


@pytest.mark.parametrize("terms, words", [("credentialed", "--attest_data_use"), ("", "config.table.terms")])
def test_remote_endpoints_need_terms(tmp_path, terms, words):
    path = write_table(tmp_path / "t", 3, terms)
    process = run.build("--config=configs/data/table.py", f"--config.table.path={path}", "--config.extractor=openai",
                        "--config.llm.model=m", f"--config.llm.base_url={REMOTE}", f"--out={tmp_path / 'data'}")
    run.assert_refused(process, words)


def test_the_attestation_is_stored(tmp_path, monkeypatch):
    path = write_table(tmp_path / "t", 3, "credentialed")
    said = "Approved by the data protection board of the hospital, 2026-03-01"
    with Server() as server:
        # The server stands for a remote one.
        monkeypatch.setattr("data_prep.extract.llm.data_use.find_route", lambda url: Route(this_host=True))
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name)
        with pytest.raises(UserError, match="credentialed"):
            main([*arguments(path, server), f"--out={tmp_path / 'data'}"])
        assert not server.calls
        main([*arguments(path, server), f"--out={tmp_path / 'data'}", f"--attest_data_use={said}"])
        assert len(server.calls) == 2
    assert load_metadata(tmp_path / "data").config["llm"]["attest_data_use"] == said


def test_a_limit_stops_before_it_is_exceeded(tmp_path):
    path = write_table(tmp_path / "t", 30)
    (tmp_path / "prices.json").write_text(json.dumps({"currency": "USD", "models": {"m": {"input": 1, "output": 2}}}))
    with Server() as server:
        options = arguments(path, server, f"--config.llm.prices={tmp_path / 'prices.json'}",
                            "--config.llm.concurrency=2")
        with pytest.raises(UserError, match="reports are left"):
            main([*options, f"--out={tmp_path / 'data'}", "--max_cost=0.03"])
        first = sum(server.calls.values())
        assert 0 < first < 25
        assert main([*options, f"--out={tmp_path / 'data'}", "--max_cost=1"]) == 0
        assert sum(server.calls.values()) == 25 and max(server.calls.values()) == 1


def test_the_core_needs_no_client_packages():
    code = ("import sys; sys.modules.update(pydantic=None, openai=None); import data_prep.build, data_prep.score; "
            "sys.exit(any(name in sys.modules for name in ('google.generativeai', 'httpx2', 'apache_beam')))")
    process = subprocess.run([sys.executable, "-c", code], env=run.environment(), cwd=run.ROOT, check=False)
    assert process.returncode == 0
