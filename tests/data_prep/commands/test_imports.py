"""What data_prep imports: never JAX, and no optional package before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

from tests.data_prep.shards.run import ROOT, environment

LOADED = """
import sys
import data_prep.build, data_prep.score, data_prep.audit, data_prep.agreement, data_prep.beam, data_prep.datasheet
import data_prep.scan
print(sorted({"jax", "flax", "tensorflow", "tensorflow_datasets", "apache_beam", "pydantic", "openai", "google.genai"}
             & set(sys.modules)))
"""
# Imports inside functions are for packages that are optional, or take seconds to load.
LAZY = {"tensorflow_datasets", "data_prep.extract.llm.clients"}


def test_no_command_loads_jax():
    shown = subprocess.run([sys.executable, "-c", LOADED], env=environment(), cwd=ROOT, capture_output=True, text=True,
                           check=True)
    assert shown.stdout.strip() == "[]"


def test_a_build_does_not_load_jax(tmp_path):
    code = ("import sys; from data_prep import build; build.main(sys.argv[1:]); "
            "print([name for name in ('jax', 'tensorflow') if name in sys.modules])")
    shown = subprocess.run([
        sys.executable, "-c", code, "--config=configs/data/phantom.py", "--config.phantom.train=3",
        "--config.workers=1", "--config.phantom.validation=1", "--config.phantom.test=1",
        "--config.tokenizer.vocab_size=300",
        f"--out={tmp_path / 'data'}"], env=environment(), cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


def test_imports_inside_functions_are_of_optional_packages():
    found = []
    for file in sorted((ROOT / "data_prep").rglob("*.py")):
        for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for node in ast.walk(function):
                    names = ([node.module] if isinstance(node, ast.ImportFrom)
                             else [alias.name for alias in node.names] if isinstance(node, ast.Import) else [])
                    found += [(str(file.relative_to(ROOT)), name) for name in names
                              if not name.startswith(tuple(LAZY))]
    assert found == []


def test_files_are_short():
    tables = {Path("data_prep/extract/rules/lexicon.py")}
    long = {file.relative_to(ROOT) for folder in ("data_prep", "tests/data_prep")
            for file in (ROOT / folder).rglob("*.py") if len(file.read_text(encoding="utf-8").splitlines()) > 400}
    assert long <= tables
