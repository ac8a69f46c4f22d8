"""The README: short, in its order, and complete."""

import ast
import re

import lgdea_jax
from lgdea_jax import cli
from tests.docs.pages import README, ROOT, read, rows, section

TEXT = read(README)
SECTIONS = ["What do you want to do?", "Install", "Quick start", "Your own images", "Your own data", "Methods",
            "Data sets and benchmarks", "Results in brief", "Repository layout", "What you can rely on",
            "Documentation, citation, licence"]


def test_it_is_short():
    assert len(TEXT.splitlines()) <= 200
    assert len(TEXT.encode()) <= 14 * 1024


def test_its_sections_are_in_order():
    without_code = re.sub(r"(?s)```.*?```", "", TEXT)
    assert re.findall(r"(?m)^## (.*)$", without_code) == SECTIONS


def test_what_and_why_come_first():
    opening = TEXT.split("## What do you want to do?")[0]
    paragraph = opening.split("\n\n")[1]
    assert len(re.findall(r"\w[.] ?(?=[A-Z]|$)", paragraph.replace("\n", " "))) == 3  # Three sentences.
    assert "![" in opening and "**Research use only, not a medical device.**" in opening


def test_two_commands_are_marked_for_ci():
    for letter in "AB":
        block = TEXT.split(f"<!-- command {letter} -->\n")[1].split("```")[1]
        assert block.startswith("bash\n") and "pip install" in block


def test_every_extra_is_listed():
    tree = ast.parse(read(ROOT / "setup.py"))
    extras = {target.slice.value for node in ast.walk(tree) if isinstance(node, ast.Assign) for target in node.targets
              if isinstance(target, ast.Subscript)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "EXTRAS":
            extras |= {key.value for key in node.value.keys}
    for page, title in ((README, "Install"), (ROOT / "docs/getting_started.md", "Install")):
        listed = {extra for cells in rows(section(page, title))[1:] for extra in re.findall(r"`(\w+)`", cells[0])}
        assert listed == extras


def test_every_method_is_listed():
    listed = [cells[0].strip("`") for cells in rows(section(README, "Methods"))[1:]]
    assert sorted(listed) == sorted(cli.read_config("configs/common.py").methods)
    notes = section(ROOT / "docs/method.md", "Methods")
    assert [cells[0].strip("`") for cells in rows(notes)[1:]] == listed


def test_the_matrix_has_every_data_set_and_every_benchmark():
    table = rows(section(README, "Data sets and benchmarks"))[1:]
    data = {name for cells in table for name in re.findall(r"`(\w+)`", cells[1])}
    assert data == {path.stem for path in (ROOT / "configs/data").glob("*.py")} - {"__init__", "common", "llm"}
    scripts = {path.stem for path in (ROOT / "lgdea_jax/eval").glob("*.py")} - {"__init__"}
    named = data | {name for cells in table for name in re.findall(r"`eval\.(\w+)`", cells[3])}
    assert scripts <= named
    full = re.findall(r"lgdea_jax\.eval\.(\w+)", read(ROOT / "docs/reference/benchmarks.md"))
    assert scripts == set(full)
    builds = re.findall(r"--config=configs/data/(\w+)\.py", read(ROOT / "docs/reference/data_sets.md"))
    assert sorted(builds) == sorted(data)


def test_results_are_at_most_six_rows_with_the_open_question():
    text = section(README, "Results in brief")
    assert 1 + 3 <= len(rows(text)) <= 1 + 6
    assert "Whether unpaired images help is an open question" in " ".join(text.split())


def test_the_layout_names_the_folders_that_are_there():
    block = section(README, "Repository layout").split("```")[1]
    named = re.findall(r"(?m)^([\w.]+)/ ", block)
    assert all((ROOT / folder).is_dir() for folder in named)
    here = {path.name for path in ROOT.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert here | {"docs", "colabs"} == set(named)


def test_the_citation_is_that_of_citation_cff():
    citation = read(ROOT / "CITATION.cff")
    for key in ("cff-version", "title", "authors", "license: Apache-2.0"):
        assert key in citation
    version = re.search(r"(?m)^version: (.*)$", citation).group(1)
    assert lgdea_jax.__version__ == version
    assert f"## {version}" in read(ROOT / "CHANGELOG.md") and f"version = {{{version}}}" in TEXT
    title = re.search(r'(?m)^title: "(.*)"$', citation).group(1)
    paper = re.search(r'(?m)^    title: "(LLM-Guided .*)"$', citation).group(1)
    titles = [text.replace("{", "").replace("}", "") for text in re.findall(r"title   = \{(.*)\},", TEXT)]
    assert titles == [title, paper]
    for author in re.findall(r"given-names: (\w+), family-names: (\w+)", citation.split("LLM-Guided")[1])[:4]:
        assert f"{author[1]}, {author[0]}" in TEXT
