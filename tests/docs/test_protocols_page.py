"""docs/benchmarks.md has a row for every protocol, with its source, and the tests that it names exist."""

import csv
import importlib
import re

import pytest

from tests.docs.pages import ROOT, read, rows

PAGE = read(ROOT / "docs/benchmarks.md")
SCRIPTS = sorted(path.stem for path in (ROOT / "lgdea_jax/eval").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_protocol_has_its_row(name):
    bench = importlib.import_module(f"lgdea_jax.eval.{name}").BENCHMARK
    found = {cells[1].strip("`"): cells for cells in rows(PAGE)[1:] if f"`{name}`" in cells[0] and len(cells) == 6}
    assert set(found) == {protocol.name for protocol in bench.protocols}
    for protocol in bench.protocols:
        assert found[protocol.name][2] == protocol.mode
        assert protocol.source.repository in found[protocol.name][3]
        assert protocol.source.commit[:8] in found[protocol.name][3]
    if not bench.protocols:
        assert f"`{name}`" in PAGE


def test_the_tests_that_are_named_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}(" in read(ROOT / file), (file, test)


def test_published_numbers_are_of_a_protocol():
    with open(ROOT / "benchmarks/published.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            bench = importlib.import_module(f"lgdea_jax.eval.{row['benchmark']}").BENCHMARK
            (protocol,) = [item for item in bench.protocols if item.name == row["protocol"]]
            assert protocol.mode == row["mode"] and row["pool"] and row["labels"] and row["source"]
