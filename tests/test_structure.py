"""The rules of docs/architecture.md on sizes of files and folders, on circles, and on what data_prep loads."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("lgdea_jax", "data_prep", "benchmarks", "configs")
# Words and phrases, not code: one long table reads better than two.
DATA_TABLES = {"data_prep/extract/rules/lexicon.py"}
ONE_EACH = ("configs/data", "lgdea_jax/eval", "tests/fixtures")
MOST_LINES, MOST_FILES, MOST_AT_THE_TOP = 400, 17, 16


def tracked():
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [Path(line) for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def module_name(path):
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph(paths):
    """{module: modules of ours that it imports}, wherever in the file the import stands."""
    modules = {module_name(path): path for path in paths if path.parts[0] in PACKAGES}
    graph = {}
    for name, path in modules.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found = set()
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                source = ".".join([*base, *([node.module] if node.module else [])])
                found |= {f"{source}.{alias.name}" if f"{source}.{alias.name}" in modules else source
                          for alias in node.names}
        graph[name] = {other for other in found if other in modules and other != name}
    return graph


def circles(graph):
    """Groups of modules that import one another, directly or not: components of Tarjan's algorithm with two or more."""
    number, low, stack, found = {}, {}, [], []

    def visit(name):
        number[name] = low[name] = len(number)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in number:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], number[other])
        if low[name] == number[name]:
            group = []
            while not group or group[-1] != name:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted(graph):
        if name not in number:
            visit(name)
    return found


def test_no_circles():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    graph = import_graph(tracked())
    assert sum(map(len, graph.values())) > 500  # The graph is not empty.
    assert circles(graph) == []


def test_files_are_short():
    long = {str(path): lines for path in tracked()
            if (lines := len((ROOT / path).read_text(encoding="utf-8").splitlines())) > MOST_LINES}
    assert {path: lines for path, lines in long.items() if path not in DATA_TABLES} == {}
    assert set(long) >= DATA_TABLES


def test_folders_are_small():
    """`__init__.py` is not counted, nor are folders whose rule is a file for each of something: configs/data (a data
    set), lgdea_jax/eval (a benchmark's script, which its command names) and tests/fixtures (a release's layout)."""
    files = Counter(str(path.parent) for path in tracked() if path.name != "__init__.py")
    assert files["lgdea_jax"] <= MOST_AT_THE_TOP
    assert {folder: count for folder, count in files.items()
            if count > MOST_FILES and folder not in ONE_EACH} == {}


def test_configs_import_nothing_of_ours():
    graph = import_graph(tracked())
    assert {name: other for name, others in graph.items() if name.startswith("configs")
            for other in others if not other.startswith("configs")} == {}


def test_building_data_sets_needs_no_jax():
    code = ("import sys; import data_prep.build, data_prep.score, data_prep.audit, data_prep.datasheet; "
            "import data_prep.scan; print(sorted({'jax', 'flax', 'optax', 'torch'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True,
                          check=True)
    assert done.stdout.strip() == "[]"
