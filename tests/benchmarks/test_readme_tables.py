"""The studies' tables in the README are those that the committed rows of finished runs give."""

import re
from pathlib import Path

import pytest

from benchmarks.experiments import limited_pairs, silver_labels
from lgdea_jax import cli

README = Path("README.md").read_text(encoding="utf-8")


def section(title):
    return README.split(f"\n### {title}\n")[1].split("\n### ")[0]


def rows(text):
    """Lines of tables as lists of cells, without the rules below headers."""
    lines = [line.strip("|") for line in text.splitlines() if line.startswith("|")]
    found = [[cell.strip() for cell in line.split("|")] for line in lines]
    return [cells for cells in found if not set("".join(cells)) <= set("-: ")]


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    """{title: its table's rows} of `--only-table`."""
    out = tmp_path_factory.mktemp("limited_pairs")
    assert limited_pairs.main([f"--out={out}", f"--data={out / 'none'}", "--only-table"]) == cli.OK
    return {block.split("\n")[0]: rows(block) for block in (out / "table.md").read_text().split("\n### ")[1:]}


def test_limited_pairs(limited):
    shown = rows(section("Limited pairs, phantom world"))
    means, differences = limited["Means over seeds"], [cells[:-1] for cells in limited["Differences"]]
    assert len(means) > 20 and len(differences) > 10
    assert shown == means + differences  # All of them, in this order: none is left out because it does not please.


def test_limited_pairs_headroom(limited):
    text = " ".join(section("Limited pairs, phantom world").split())
    sentence = text.split("Of the way from `lgdea_pairs` to it at 1%,")[1].split(". ")[0]
    by_method = {cells[1]: cells[3:] for cells in limited["Share of the oracle's headroom that is closed"]
                 if cells[0] == "1%"}
    assert re.findall(r"-?\d+% \[.*?\]", sentence) == by_method["`lgdea`"] + by_method["`mean_teacher`"]


def test_silver_labels(tmp_path):
    assert silver_labels.main([f"--out={tmp_path}", f"--data={tmp_path / 'none'}", "--only-table"]) == cli.OK
    made = rows((tmp_path / "table.md").read_text())
    assert len(made) > 10 and rows(section("Silver labels, phantom CT world")) == made
