"""What the tests of README and docs share: the pages, their headings, and the commands that they name."""

import re
import runpy
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS]
HOW_TOS = sorted((ROOT / "docs/guides").glob("add_*.md"))
REFERENCE = runpy.run_path(str(ROOT / "docs/make_reference.py"))
COMMAND = re.compile(r"python -m ((?:lgdea_jax|data_prep|benchmarks)[\w.]*)([^`|\n]*)")


def read(page):
    return page.read_text(encoding="utf-8")


def name(page):
    return str(page.relative_to(ROOT))


# Files that the how-tos have a reader write.
MADE = set(re.findall(r"(?m)^# ([\w/]+\.py)$", "\n".join(map(read, HOW_TOS))))


def anchors(page):
    """Of the headings, as GitHub and mkdocs make them."""
    text = re.sub(r"(?s)```.*?```", "", read(page))
    return {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-")
            for line in re.findall(r"(?m)^#+ (.*)$", text)}


def commands():
    """Sorted (page, module, words) of every command that a page names; stand-ins for a module are left out."""
    found = set()
    for page in PAGES:
        for module, rest in COMMAND.findall(read(page).replace("\\\n", " ")):
            if module.endswith((".NAME", ".BENCHMARK", ".")) or f"{module.replace('.', '/')}.py" in MADE:
                continue
            words = shlex.split(rest.replace("\\|", "|"))
            # What follows `--` is for another program.
            found.add((name(page), module, tuple(words[:words.index("--")] if "--" in words else words)))
    return sorted(found)


def rows(text):
    """Rows of the tables in a text as lists of cells, without the rules below headers."""
    lines = [line.strip("|") for line in text.splitlines() if line.startswith("|")]
    found = [[cell.strip() for cell in line.split("|")] for line in lines]
    return [cells for cells in found if not set("".join(cells)) <= set("-: ")]


def uneven(text):
    """Rows of tables with another number of cells than the rule below their header."""
    found, width = [], 0
    for line in text.splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        # A bar inside `code` or behind a backslash is text.
        cells = re.sub(r"`[^`]*`|\\.", "", line.strip()).strip("|").count("|") + 1
        width = width or cells
        found += [line] if cells != width else []
    return found


def section(page, title):
    """The text below a heading, up to the next heading of that level or above."""
    level = re.search(rf"(?m)^(#+) {re.escape(title)}$", read(page)).group(1)
    return re.split(rf"(?m)^#{{1,{len(level)}}} ", read(page).split(f"\n{level} {title}\n")[1])[0]
