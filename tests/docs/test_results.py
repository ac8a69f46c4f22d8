"""Every figure in the tables of results is that of the committed rows of finished runs."""

import re

import pytest

from benchmarks.experiments import limited_pairs, silver_labels
from lgdea_jax import cli
from tests.docs.pages import README, ROOT, read, rows, section

LIMITED = ROOT / "docs/results/limited_pairs.md"
SILVER = ROOT / "docs/results/silver_labels.md"
RULES = ROOT / "docs/results/evidence_extraction.md"
MADE_BY = "--extractor=rules@3"  # The evidence and the silver labels of the committed runs.
INTERVAL = re.compile(r"[-+]?\d+(?:\.\d+)?%? \[[-+]?[\d.]+, [-+]?[\d.]+\]")


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    """{title: its table's rows} of `--only-table`."""
    out = tmp_path_factory.mktemp("limited_pairs")
    assert limited_pairs.main([f"--out={out}", f"--data={out / 'none'}", "--only-table", MADE_BY]) == cli.OK
    return {block.split("\n")[0]: rows(block) for block in (out / "table.md").read_text().split("\n### ")[1:]}


def test_limited_pairs(limited):
    # All of them, in this order: none is left out because it does not please. A table is there as soon as it has rows.
    tables = ("Means over seeds", "Differences", "Share of the gap to the oracle")
    assert "Means over seeds" in limited
    for title in tables:
        on_page = f"\n## {title}\n" in read(LIMITED)
        assert on_page == (title in limited), title
        assert not on_page or rows(section(LIMITED, title)) == limited[title]


def test_silver_labels(tmp_path):
    assert silver_labels.main([f"--out={tmp_path}", f"--data={tmp_path / 'none'}", "--only-table", MADE_BY]) == cli.OK
    made = {block.split("\n")[0]: rows(block) for block in (tmp_path / "table.md").read_text().split("### ")[1:]}
    assert len(made) == 4 and min(map(len, made.values())) > 1
    for title, table in made.items():
        assert rows(section(SILVER, title)) == table, title


@pytest.mark.parametrize("page", [LIMITED, SILVER])
def test_figures_in_sentences_are_in_the_tables(page):
    text, tables = " ".join(section(page, "Findings").split()), "\n".join(map(str, rows(read(page))))
    figures = INTERVAL.findall(text) or re.findall(r"\b0\.\d{3}\b", text)
    assert len(figures) >= 3
    assert [figure for figure in figures if figure not in tables] == []


def test_figures_of_the_readme_are_those_of_the_pages():
    pages = [" ".join(read(page).split()) for page in (LIMITED, SILVER, RULES)]
    for cells in rows(section(README, "Results in brief"))[1:]:
        comparison, figure = cells[0], cells[2]
        assert INTERVAL.fullmatch(figure)
        names = re.findall(r"`\w+`", comparison)
        [line] = [line for page in (LIMITED, SILVER, RULES) for line in read(page).splitlines()
                  if line.startswith("|") and figure in line and all(part in line for part in names)]
        share = re.search(r"\d+%", comparison)
        assert not share or share.group() in line
    assert len(pages) == 3
